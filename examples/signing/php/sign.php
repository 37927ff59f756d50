<?php
// A signed token for Edgeweir, with firebase/php-jwt (composer require firebase/php-jwt).
// Usage: php sign.php KEY_ID KEY.pem URI [EXPIRES_IN=3600, 0 is never] [NOT_BEFORE, Unix time]
declare(strict_types=1);

require getenv('JWT_AUTOLOAD') ?: 'vendor/autoload.php';

use Firebase\JWT\JWT;

function generateSignedToken(string $signingKeyId, string $privateKey, string $uri, int $exp = 3600, ?int $nbf = null): string
{
    $payload = ['uri' => $uri];
    if ($exp > 0) {
        $payload['exp'] = time() + $exp;
    }
    if ($nbf !== null) {
        $payload['nbf'] = $nbf;
    }
    return JWT::encode($payload, $privateKey, 'RS256', $signingKeyId);
}

if ($argc < 4) {
    fwrite(STDERR, "usage: php sign.php KEY_ID KEY.pem URI [EXPIRES_IN] [NOT_BEFORE]\n");
    exit(1);
}
$nbf = isset($argv[5]) ? (int) $argv[5] : null;
echo generateSignedToken($argv[1], file_get_contents($argv[2]), $argv[3], (int) ($argv[4] ?? 3600), $nbf), "\n";
