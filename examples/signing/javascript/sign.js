// A signed token for Edgeweir, with jsonwebtoken (npm install jsonwebtoken).
// Usage: node sign.js KEY_ID KEY.pem URI [EXPIRES_IN=3600, 0 is never] [NOT_BEFORE, Unix time]
"use strict";
const fs = require("fs");
const jwt = require("jsonwebtoken");

function generateSignedToken(signingKeyId, privateKey, uri, exp = 3600, nbf = null) {
  const payload = { uri };
  if (exp > 0) payload.exp = Math.floor(Date.now() / 1000) + exp;
  if (nbf !== null) payload.nbf = nbf;
  return jwt.sign(payload, privateKey, { algorithm: "RS256", keyid: signingKeyId, noTimestamp: true });
}

if (require.main === module) {
  const [keyId, keyFile, uri, exp = "3600", nbf] = process.argv.slice(2);
  if (uri === undefined) {
    console.error("usage: node sign.js KEY_ID KEY.pem URI [EXPIRES_IN] [NOT_BEFORE]");
    process.exit(1);
  }
  const key = fs.readFileSync(keyFile, "utf8");
  console.log(generateSignedToken(keyId, key, uri, Number(exp), nbf === undefined ? null : Number(nbf)));
}

module.exports = { generateSignedToken };
