//! A site's CORS headers, made ready when the snapshot is taken (Fetch Standard, "CORS protocol").

use edgeweir_model::{CorsHeader, CorsOrigin, CorsPolicy};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

/// What a player may read of an answer beside the safelisted headers.
const EXPOSED: &str = "Accept-Ranges, Age, Cache-Status, Content-Length, Content-Range, Date, ETag";

/// The headers of one site's answers; none when the bucket has no policy.
#[derive(Debug, Default)]
pub(crate) struct Cors {
    headers: Vec<(HeaderName, HeaderValue)>,
    vary: bool,
}

impl Cors {
    pub(crate) fn new(policy: &CorsPolicy) -> Self {
        let mut headers: Vec<_> = policy
            .iter()
            .map(|(header, value)| {
                let name = match header {
                    CorsHeader::AllowOrigin => ACCESS_CONTROL_ALLOW_ORIGIN,
                    CorsHeader::AllowCredentials => ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    CorsHeader::AllowMethods => ACCESS_CONTROL_ALLOW_METHODS,
                    CorsHeader::MaxAge => ACCESS_CONTROL_MAX_AGE,
                };
                (
                    name,
                    HeaderValue::from_str(value).expect("a policy's values are fit for headers"),
                )
            })
            .collect();
        if policy.allow_origin().is_some() {
            headers.push((ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED)));
        }
        Self {
            headers,
            vary: matches!(policy.allow_origin(), Some(CorsOrigin::One(_))),
        }
    }

    /// Sets the policy's headers on any answer, in place of what an origin may have said.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if self.headers.is_empty() {
            return;
        }
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_MAX_AGE,
        ] {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if self.vary {
            headers.append(VARY, HeaderValue::from_name(ORIGIN));
        }
    }

    /// What a preflight's answer has beside [`Cors::apply`]: the request headers that it asks for are granted, and the
    /// reading methods where the policy names none. Nothing without a policy, which makes the browser refuse.
    pub(crate) fn apply_preflight(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        self.apply(headers);
        if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        if !headers.contains_key(ACCESS_CONTROL_ALLOW_METHODS) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        }
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|v| is_token_list(v)) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
}

/// Whether a request with method OPTIONS is a CORS preflight.
pub(crate) fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// `#field-name` (RFC 9110 §5.6.1, §5.1).
fn is_token_list(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, \t".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(headers: &[(&str, &str)]) -> Cors {
        Cors::new(&CorsPolicy::new(headers.iter().copied()).expect("valid"))
    }

    #[test]
    fn one_origin_varies_and_replaces_the_origins_own() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        cors(&[("Access-Control-Allow-Origin", "https://a.example.com")]).apply(&mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example.com");
        assert_eq!(headers[VARY], "origin");
    }

    #[test]
    fn a_preflight_gets_what_it_asks_for_only_under_a_policy() {
        let mut request = HeaderMap::new();
        request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("range, x-a"));
        let mut headers = HeaderMap::new();
        Cors::default().apply_preflight(&request, &mut headers);
        assert!(headers.is_empty());
        cors(&[("Access-Control-Allow-Origin", "*")]).apply_preflight(&request, &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "range, x-a");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD");
    }
}
