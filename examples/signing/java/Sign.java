// A signed token for Edgeweir, with the JDK alone (17 or newer).
// Usage: java Sign.java KEY_ID KEY.pem URI [EXPIRES_IN=3600, 0 is never] [NOT_BEFORE, Unix time]
//
// With a library such as jjwt, hand generateSignedToken's key to it as an RSA PrivateKey and choose RS256. HS256 over
// the key's text, as some published samples have it, is refused.

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;

public class Sign {
    public static void main(String[] args) throws Exception {
        if (args.length < 3) {
            System.err.println("usage: java Sign.java KEY_ID KEY.pem URI [EXPIRES_IN] [NOT_BEFORE]");
            System.exit(1);
        }
        long exp = args.length > 3 ? Long.parseLong(args[3]) : 3600;
        Long nbf = args.length > 4 ? Long.valueOf(args[4]) : null;
        PrivateKey key = privateKey(Files.readString(Path.of(args[1])));
        System.out.println(generateSignedToken(args[0], key, args[2], exp, nbf));
    }

    static String generateSignedToken(String signingKeyId, PrivateKey key, String uri, long exp, Long nbf)
            throws GeneralSecurityException {
        StringBuilder payload = new StringBuilder("{\"uri\":").append(quoted(uri));
        if (exp > 0) {
            payload.append(",\"exp\":").append(System.currentTimeMillis() / 1000 + exp);
        }
        if (nbf != null) {
            payload.append(",\"nbf\":").append(nbf);
        }
        payload.append('}');
        String header = "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":" + quoted(signingKeyId) + "}";
        String input = base64(header.getBytes(StandardCharsets.UTF_8)) + "."
                + base64(payload.toString().getBytes(StandardCharsets.UTF_8));
        Signature signature = Signature.getInstance("SHA256withRSA");
        signature.initSign(key);
        signature.update(input.getBytes(StandardCharsets.US_ASCII));
        return input + "." + base64(signature.sign());
    }

    /** Reads "BEGIN RSA PRIVATE KEY" (PKCS#1), which Java knows only inside PKCS#8. */
    static PrivateKey privateKey(String pem) throws GeneralSecurityException {
        String text = pem.replaceAll("-----[A-Z ]+-----|\\s", "");
        byte[] pkcs1 = Base64.getDecoder().decode(text);
        // version 0, rsaEncryption with NULL parameters, then the key as an octet string (RFC 5208).
        byte[] head = {2, 1, 0, 0x30, 13, 6, 9, 0x2a, (byte) 0x86, 0x48, (byte) 0x86, (byte) 0xf7, 13, 1, 1, 1, 5, 0};
        byte[] octets = element(4, pkcs1);
        byte[] content = new byte[head.length + octets.length];
        System.arraycopy(head, 0, content, 0, head.length);
        System.arraycopy(octets, 0, content, head.length, octets.length);
        return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(element(0x30, content)));
    }

    /** A DER element. */
    private static byte[] element(int tag, byte[] content) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(tag);
        int length = content.length;
        if (length < 128) {
            out.write(length);
        } else {
            out.write(0x82);
            out.write(length >> 8);
            out.write(length);
        }
        out.writeBytes(content);
        return out.toByteArray();
    }

    private static String base64(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }
}
