"""A signed token for Edgeweir, with PyJWT (pip install "PyJWT[crypto]").

Usage: sign.py KEY_ID KEY.pem URI [EXPIRES_IN=3600, 0 is never] [NOT_BEFORE, Unix time]
"""

import sys
import time

import jwt


def generate_signed_token(signing_key_id, private_key, uri, exp=3600, nbf=None):
    payload = {"uri": uri}
    if exp > 0:
        payload["exp"] = int(time.time()) + exp
    if nbf is not None:
        payload["nbf"] = nbf
    return jwt.encode(payload, private_key, algorithm="RS256", headers={"kid": signing_key_id})


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    key_id, key_file, uri, *rest = sys.argv[1:]
    exp = int(rest[0]) if rest else 3600
    nbf = int(rest[1]) if len(rest) > 1 else None
    with open(key_file, encoding="ascii") as file:
        print(generate_signed_token(key_id, file.read(), uri, exp, nbf))
