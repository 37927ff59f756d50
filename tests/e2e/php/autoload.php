<?php
// Stands in for firebase/php-jwt, which no package source that the tests may use has: the one call that the sample
// makes, with the signature by PHP's own OpenSSL.
declare(strict_types=1);

namespace Firebase\JWT;

final class JWT
{
    /** @param array<string, mixed> $payload */
    public static function encode(array $payload, string $key, string $alg, ?string $keyId = null): string
    {
        $part = fn (array $value): string => self::base64Url(json_encode($value, JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR));
        $input = $part(['typ' => 'JWT', 'alg' => $alg, 'kid' => $keyId]) . '.' . $part($payload);
        if ($alg !== 'RS256' || !openssl_sign($input, $signature, $key, OPENSSL_ALGO_SHA256)) {
            throw new \DomainException('cannot sign');
        }
        return $input . '.' . self::base64Url($signature);
    }

    private static function base64Url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
