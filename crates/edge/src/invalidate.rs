//! What a request that changed something invalidates beside its own target: the objects that its answer's `Location` and
//! `Content-Location` name, as far as they are of the same site (RFC 9111 §4.4). Pure.

use edgeweir_model::{ObjectKey, OriginUrl};
use http::{
    HeaderMap,
    header::{CONTENT_LOCATION, LOCATION},
};

/// The objects that an answer to a request for `key` names: as clients write their URLs, or as the origin does.
pub(crate) fn named(answer: &HeaderMap, host: &str, key: &ObjectKey, origin: &OriginUrl) -> Vec<ObjectKey> {
    let fields = [LOCATION, CONTENT_LOCATION];
    let values = fields.iter().flat_map(|name| answer.get_all(name));
    let mut keys: Vec<_> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|reference| targets(reference, host, key, origin))
        .collect();
    keys.dedup();
    keys
}

/// Whether the answer says that it is what a GET of the same URL would get (RFC 9110 §8.7).
pub(crate) fn is_of_target(answer: &HeaderMap, host: &str, key: &ObjectKey, query: &str, origin: &OriginUrl) -> bool {
    let mut values = answer.get_all(CONTENT_LOCATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    value.to_str().is_ok_and(|reference| {
        let own = reference.split('#').next().unwrap_or_default();
        let named = own.split_once('?').map_or("", |(_, query)| query);
        (own.is_empty() || named == query) && targets(reference, host, key, origin).contains(key)
    })
}

/// The objects that a reference may name (RFC 3986 §5.2): its path may be the client's or, with a prefix, the origin's.
fn targets(reference: &str, host: &str, key: &ObjectKey, origin: &OriginUrl) -> Vec<ObjectKey> {
    let reference = reference.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = match reference.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || is_http(scheme) => {
            let end = rest.find('/').unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        _ => (None, reference),
    };
    let (clients, origins) = match authority {
        None => (true, true),
        Some(authority) => (
            without_port(authority).eq_ignore_ascii_case(host),
            authority.eq_ignore_ascii_case(&origin.authority()),
        ),
    };
    let own = format!("/{}", key.to_url_path());
    let path = match path {
        "" if authority.is_none() => own,
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{path}", own.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let path = without_dots(&path);
    let as_clients = clients.then_some(path.as_str());
    let as_origins = origins.then(|| path.strip_prefix(origin.prefix())).flatten();
    [as_clients, as_origins]
        .into_iter()
        .flatten()
        .filter_map(|path| ObjectKey::from_path(path).ok())
        .collect()
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http:") || scheme.eq_ignore_ascii_case("https:")
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A path without `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_the_same_site_alone() {
        let key = ObjectKey::new("a/b c").expect("a key");
        let origin = "http://o.example:8080/base".parse().expect("a URL");
        for (reference, expected) in [
            ("", &["a/b c"][..]),
            ("d", &["a/d"]),
            ("../d?x=1#y", &["d"]),
            ("../../d", &["d"]),
            ("./", &["a/"]),
            ("/d/%41", &["d/A"]),
            ("/base/d", &["base/d", "d"]),
            ("http://Site.example/d", &["d"]),
            ("https://site.example:8443/d", &["d"]),
            ("//site.example/d", &["d"]),
            ("http://o.example:8080/base/d", &["d"]),
            ("http://o.example:8080/d", &[]),
            ("http://o.example/base/d", &[]),
            ("http://other.example/d", &[]),
            ("//other.example/d", &[]),
            ("ftp://site.example/d", &[]),
            ("/d//e", &[]),
        ] {
            let found = targets(reference, "site.example", &key, &origin);
            let found: Vec<_> = found.iter().map(ObjectKey::as_str).collect();
            assert_eq!(found, expected, "{reference:?}");
        }
    }

    #[test]
    fn an_answer_that_is_the_targets() {
        let key = ObjectKey::new("a/b").expect("a key");
        let origin = "http://o.example/base".parse().expect("a URL");
        for (reference, query, expected) in [
            ("", "x=1", true),
            ("b?x=1", "x=1", true),
            ("b", "x=1", false),
            ("/a/b", "", true),
            ("/base/a/b", "", true),
            ("/a/c", "", false),
            ("http://other.example/a/b", "", false),
        ] {
            let mut answer = HeaderMap::new();
            answer.insert(CONTENT_LOCATION, reference.parse().expect("a value"));
            assert_eq!(
                is_of_target(&answer, "site.example", &key, query, &origin),
                expected,
                "{reference:?}"
            );
        }
        assert!(!is_of_target(&HeaderMap::new(), "site.example", &key, "", &origin));
    }
}
