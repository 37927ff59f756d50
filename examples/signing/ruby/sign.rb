# A signed token for Edgeweir, with ruby-jwt (gem install jwt).
# Usage: ruby sign.rb KEY_ID KEY.pem URI [EXPIRES_IN=3600, 0 is never] [NOT_BEFORE, Unix time]
require 'jwt'
require 'openssl'

def generate_signed_token(signing_key_id, private_key, uri, exp = 3600, nbf = nil)
  payload = { 'uri' => uri }
  payload['exp'] = Time.now.to_i + exp if exp > 0
  payload['nbf'] = nbf unless nbf.nil?
  JWT.encode(payload, OpenSSL::PKey::RSA.new(private_key), 'RS256', { 'typ' => 'JWT', 'kid' => signing_key_id })
end

if __FILE__ == $PROGRAM_NAME
  abort 'usage: ruby sign.rb KEY_ID KEY.pem URI [EXPIRES_IN] [NOT_BEFORE]' if ARGV.size < 3
  key_id, key_file, uri, exp, nbf = ARGV
  puts generate_signed_token(key_id, File.read(key_file), uri, (exp || 3600).to_i, nbf && nbf.to_i)
end
