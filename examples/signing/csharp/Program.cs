// A signed token for Edgeweir, with System.IdentityModel.Tokens.Jwt (see Sign.csproj).
// Usage: dotnet run -- KEY_ID KEY.pem URI [EXPIRES_IN=3600, 0 is never] [NOT_BEFORE, Unix time]
//
// RS256 with the RSA key itself. HS256 over the key's text, as some published samples have it, is refused.

using System;
using System.IdentityModel.Tokens.Jwt;
using System.IO;
using System.Security.Cryptography;
using Microsoft.IdentityModel.Tokens;

if (args.Length < 3)
{
    Console.Error.WriteLine("usage: dotnet run -- KEY_ID KEY.pem URI [EXPIRES_IN] [NOT_BEFORE]");
    return 1;
}
using var rsa = RSA.Create();
rsa.ImportFromPem(File.ReadAllText(args[1])); // takes "BEGIN RSA PRIVATE KEY" (PKCS#1) as it is
long exp = args.Length > 3 ? long.Parse(args[3]) : 3600;
long? nbf = args.Length > 4 ? long.Parse(args[4]) : null;
Console.WriteLine(GenerateSignedToken(args[0], rsa, args[2], exp, nbf));
return 0;

static string GenerateSignedToken(string signingKeyId, RSA privateKey, string uri, long exp, long? nbf)
{
    var key = new RsaSecurityKey(privateKey) { KeyId = signingKeyId };
    var header = new JwtHeader(new SigningCredentials(key, SecurityAlgorithms.RsaSha256));
    var payload = new JwtPayload { { "uri", uri } };
    if (exp > 0)
    {
        payload.Add("exp", DateTimeOffset.UtcNow.ToUnixTimeSeconds() + exp);
    }
    if (nbf is long start)
    {
        payload.Add("nbf", start);
    }
    return new JwtSecurityTokenHandler().WriteToken(new JwtSecurityToken(header, payload));
}
