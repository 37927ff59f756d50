"""Certificates without a CA: puts names with certificates of their own into the database of a server that does not run.

Everything but the certificate is copied from a name that has been through the whole life cycle; each name gets its own key
and leaf (ECDSA P-256), sealed as the server seals them. Through pebble, ten thousand would take most of an hour.
"""
import datetime
import os
import pathlib
import sqlite3
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID


def copy(db, table, where, value, **changes):
    """Inserts a copy of a row with other values; the row's number is not copied."""
    cursor = db.execute(f"SELECT * FROM {table} WHERE {where} = ?", (value,))
    row = dict(zip((column[0] for column in cursor.description), cursor.fetchone()))
    row = {name: content for name, content in row.items() if not (name == "pos" or table == "certificates" and name == "id")}
    row.update(changes)
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


def seed(data_dir, template, names):
    data_dir = pathlib.Path(data_dir)
    secret = (data_dir / "node.secret").read_bytes()
    key = HKDF(hashes.SHA256(), 32, salt=b"edgeweir", info=b"certificates at rest").derive(secret)
    issuer_key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.timezone.utc)
    database = data_dir / "edgeweir.db"
    with sqlite3.connect(database) as db:
        domain, subscription = db.execute(
            "SELECT d.id, s.id FROM domains d JOIN subscriptions s ON s.domain_id = d.id WHERE d.name = ?", (template,)
        ).fetchone()
        (chain,) = db.execute("SELECT chain FROM certificates WHERE subscription_id = ?", (subscription,)).fetchone()
        intermediate = "-----BEGIN CERTIFICATE-----" + chain.split("-----BEGIN CERTIFICATE-----")[2]
        for name in names:
            own = ec.generate_private_key(ec.SECP256R1())
            leaf = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([]))
                .issuer_name(issuer)
                .public_key(own.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now)
                .not_valid_after(now + datetime.timedelta(days=90))
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
                .sign(issuer_key, hashes.SHA256())
            )
            der = own.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            nonce = os.urandom(12)
            sealed = b"\x01" + nonce + AESGCM(key).encrypt(nonce, der, f"private key of {name}".encode())
            new_domain, new_subscription = str(uuid.uuid4()), str(uuid.uuid4())
            copy(db, "domains", "id", domain, id=new_domain, name=name)
            copy(db, "subscriptions", "id", subscription, id=new_subscription, domain_id=new_domain)
            copy(db, "certificate_states", "subscription_id", subscription, subscription_id=new_subscription)
            text = leaf.public_bytes(serialization.Encoding.PEM).decode() + intermediate
            copy(db, "certificates", "subscription_id", subscription, subscription_id=new_subscription, chain=text,
                 private_key=sealed)
