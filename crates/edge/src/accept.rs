//! A request as it came, its host made sure of: the first phase ([`Incoming`] → [`Accepted`]).
//!
//! What two parties could read in two ways is refused: two hosts here (RFC 9112 §3.2), two lengths where messages are
//! read off their connection.

use crate::{
    connection::Connection,
    limits,
    refusal::{Reason, Refusal},
    upload::Upload,
};
use edgeweir_model::{Query, QueryError};
use edgeweir_origin::Interim;
use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{COOKIE, HOST},
    request::Parts,
    uri::Authority,
};
use http_body::Body as _;

/// A request as it comes off a connection, its framing certain.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Upload,
}

impl Incoming {
    /// A request of HTTP/2 or HTTP/3.
    pub(crate) fn new(mut head: Parts, body: Upload) -> Self {
        join_cookie(&mut head.headers);
        Self {
            method: head.method,
            target: head.uri.into(),
            version: head.version,
            headers: head.headers,
            body,
        }
    }
}

/// Makes one field of a cookie that came in crumbs, as everybody else knows it (RFC 9113 §8.2.3, RFC 9114 §4.2.1).
fn join_cookie(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined = crumbs
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    headers.insert(COOKIE, HeaderValue::from_bytes(&joined).expect("made of field values"));
}

/// What a request asks for: path and query as they came, and a host where the target names one.
#[derive(Debug)]
pub(crate) struct Target {
    authority: Option<Authority>,
    path_and_query: Box<str>,
    /// The path's length in bytes.
    path: usize,
}

impl Target {
    /// A path and perhaps a query (RFC 9112 §3.2.1), of which it is known that it has no controls and spaces; `None` for
    /// what `Uri` does not take. A token makes targets long, and each byte of a `Uri` is looked up in a table.
    pub(crate) fn origin_form(text: &str) -> Option<Self> {
        let path = memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        let has = |part: &str, wrong: fn(u8) -> bool| part.bytes().fold(false, |found, b| found | wrong(b));
        let wrong_path = has(&text[..path], |b| matches!(b, b'#' | b'<' | b'>' | b'`'));
        let wrong_query = has(&text[path..], |b| matches!(b, b'#' | b'<' | b'>' | b'"'));
        (text.starts_with('/') && !wrong_path && !wrong_query).then(|| Self {
            authority: None,
            path_and_query: text.into(),
            path,
        })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path_and_query[..self.path]
    }

    fn query(&self) -> Option<&str> {
        self.path_and_query.get(self.path + 1..)
    }
}

impl From<Uri> for Target {
    fn from(uri: Uri) -> Self {
        let parts = uri.into_parts();
        let target = parts.path_and_query.as_ref().map_or("/", |target| target.as_str());
        // An empty path is "/" (RFC 9110 §4.2.3), also before a query.
        let path_and_query: Box<str> = if target.starts_with('?') {
            format!("/{target}").into()
        } else {
            target.into()
        };
        Self {
            path: memchr::memchr(b'?', path_and_query.as_bytes()).unwrap_or(path_and_query.len()),
            path_and_query,
            authority: parts.authority,
        }
    }
}

/// What an answer goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1.1 without TLS: it is sent as it is.
    Plain,
    /// HTTP/1.1 with TLS.
    Tls,
    /// The frames of HTTP/2 or HTTP/3.
    Frames,
}

/// A request with a certain host. The token is not in its query any more.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Upload,
    /// Lower-case, without port and trailing dot.
    pub(crate) host: Box<str>,
    pub(crate) over: Over,
    /// Whom an origin's interim responses go to.
    pub(crate) interim: Option<Interim>,
    target: Target,
}

impl Accepted {
    /// Finds the host.
    pub(crate) fn new(request: Incoming, connection: &Connection) -> Result<Self, Refusal> {
        let path = request.target.path();
        // RFC 9112 §3.2.4, RFC 9113 §8.3.1.
        if !path.starts_with('/') && (&*request.target.path_and_query != "*" || request.method != Method::OPTIONS) {
            return Err(Refusal::closing(Reason::BadRequest("the target is no path")));
        }
        if matches!(request.method, Method::GET | Method::HEAD) && request.body.size_hint().lower() > 0 {
            return Err(Refusal::closing(Reason::BadRequest(
                "a GET or HEAD request has no body",
            )));
        }
        let host = host(request.target.authority.as_ref(), request.version, &request.headers)?;
        Ok(Self {
            method: request.method,
            headers: request.headers,
            body: request.body,
            host: host.into(),
            over: match connection.sni {
                _ if request.version >= Version::HTTP_2 => Over::Frames,
                Some(_) => Over::Tls,
                None => Over::Plain,
            },
            interim: None,
            target: request.target,
        })
    }

    pub(crate) fn path(&self) -> &str {
        self.target.path()
    }

    /// The query in its two parts: token, and what origin and cache may see.
    pub(crate) fn query(&self) -> Result<Query<'_>, QueryError> {
        Query::parse(self.target.query().unwrap_or_default())
    }

    /// Whether the request is for what the server as a whole can do (RFC 9110 §9.3.7).
    pub(crate) fn is_for_the_server(&self) -> bool {
        self.path() == "*"
    }

    /// Whether path and query, or the header fields, are over their limit.
    pub(crate) fn too_long(&self) -> Option<Reason> {
        let fields: usize = self.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
        if fields > limits::HEADER_BYTES || self.headers.len() > limits::HEADER_COUNT {
            return Some(Reason::HeadersTooLong);
        }
        (self.path_and_query().len() > limits::TARGET_BYTES).then_some(Reason::TargetTooLong)
    }

    /// Path and query as they came: for a redirect to the same client only.
    pub(crate) fn path_and_query(&self) -> &str {
        &self.target.path_and_query
    }
}

/// The one host that a request names (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host(target: Option<&Authority>, version: Version, headers: &HeaderMap) -> Result<String, Refusal> {
    let bad = |what| Refusal::closing(Reason::BadRequest(what));
    let mut fields = headers.get_all(HOST).iter();
    let (field, further) = (fields.next(), fields.next().is_some());
    // Nearly every request of HTTP/1.1: a path, and one field that is a name and perhaps a port.
    if target.is_none()
        && !further
        && let Some(host) = field.and_then(|v| plain_host(v.as_bytes()))
    {
        return Ok(host.to_owned());
    }
    let field = match field {
        None => None,
        Some(value) => {
            let text = value.to_str().map_err(|_| bad("Host is malformed"))?;
            Some(text.parse::<Authority>().map_err(|_| bad("Host is malformed"))?)
        }
    };
    if further {
        return Err(bad("Host is given twice"));
    }
    let authority = match (target, &field) {
        (Some(target), Some(field))
            if version >= Version::HTTP_2 && !target.as_str().eq_ignore_ascii_case(field.as_str()) =>
        {
            return Err(bad(":authority and Host differ"));
        }
        // It must be there all the same (RFC 9112 §3.2).
        (Some(_), None) if version == Version::HTTP_11 => return Err(bad("Host is missing")),
        // An absolute-form target wins over the field (RFC 9112 §3.2.2).
        (Some(target), _) => target,
        (None, Some(field)) => field,
        (None, None) => return Err(bad("Host is missing")),
    };
    let host = authority.host();
    // `Authority` also takes user information, and anything for a port.
    let port = authority.as_str().strip_prefix(host);
    if port.is_none_or(|port| !is_port(port.as_bytes())) {
        return Err(bad("Host is malformed"));
    }
    Ok(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())
}

/// The name of `name` or `name:port`, when it is in lower case already and has nothing else in it.
fn plain_host(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == b':').unwrap_or(field.len());
    let (host, port) = field.split_at(end);
    let name = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let plain = !host.is_empty() && !host.ends_with(b".") && host.iter().all(name) && is_port(port);
    plain.then(|| std::str::from_utf8(host).ok())?
}

/// What may stand behind a host: nothing, or `":" port`, the port's digits none at all perhaps (RFC 3986 §3.2.3).
fn is_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn targets_are_taken_as_the_library_takes_them() {
        for text in [
            "/",
            "/a/b.mp4",
            "/a?",
            "/a?b=c&d",
            "/a?b?c",
            "/?",
            "//a",
            "/a%20b?%3f",
            "/é?é",
            "/a|b{c}\"[d]\\^~",
            "/a?b`c{d}|^[]\\~",
            "/a`",
            "/a<b",
            "/a>b",
            "/a?<",
            "/a?>",
            "/a?\"",
        ] {
            let uri = text.parse::<Uri>().ok();
            let target = Target::origin_form(text);
            let parts = target.as_ref().map(|target| (target.path(), target.query()));
            assert_eq!(parts, uri.as_ref().map(|uri| (uri.path(), uri.query())), "{text}");
        }
        // The library leaves a fragment out, which is not sent (RFC 9110 §7.1).
        assert!(Target::origin_form("/a#b").is_none() && Target::origin_form("/a?b#c").is_none());
        assert!(Target::origin_form("*").is_none() && Target::origin_form("").is_none());
        for (uri, path, query) in [
            ("http://a", "/", None),
            ("http://a?auth=T", "/", Some("auth=T")),
            ("http://a/?auth=T", "/", Some("auth=T")),
            ("http://a/b?c", "/b", Some("c")),
            ("*", "*", None),
        ] {
            let whole = Target::from(Uri::from_static(uri));
            assert_eq!((whole.path(), whole.query()), (path, query), "{uri}");
        }
    }

    #[test]
    fn a_cookie_that_comes_in_crumbs_is_one_field() {
        for (crumbs, wanted) in [
            (&[][..], &[][..]),
            (&["a=b; c=d"], &["a=b; c=d"]),
            (&["a=b", "c=d; e=f", "g=h"], &["a=b; c=d; e=f; g=h"]),
        ] {
            let mut request = http::Request::new(());
            for crumb in crumbs {
                request.headers_mut().append(COOKIE, HeaderValue::from_static(crumb));
            }
            let incoming = Incoming::new(request.into_parts().0, Upload::Empty);
            let cookies: Vec<_> = incoming.headers.get_all(COOKIE).iter().collect();
            assert_eq!(cookies, wanted);
        }
    }

    fn accepted(method: Method, uri: &'static str, headers: HeaderMap) -> Result<Accepted, Refusal> {
        let incoming = Incoming {
            method,
            target: Uri::from_static(uri).into(),
            version: Version::HTTP_2,
            headers,
            body: Upload::Empty,
        };
        Accepted::new(incoming, &Connection::new(None))
    }

    #[test]
    fn a_server_as_a_whole_is_what_options_alone_can_ask_for() {
        for (method, wanted) in [(Method::OPTIONS, true), (Method::GET, false), (Method::DELETE, false)] {
            let request = accepted(method.clone(), "*", fields(&[("host", "a.example.com")]));
            assert_eq!(request.is_ok(), wanted, "{method}");
        }
    }

    #[test]
    fn header_fields_have_a_limit_in_number() {
        for (count, wanted) in [
            (limits::HEADER_COUNT, None),
            (limits::HEADER_COUNT + 1, Some(Reason::HeadersTooLong)),
        ] {
            let headers = fields(&vec![("x", "y"); count]);
            let request = accepted(Method::GET, "http://a.example.com/", headers);
            assert_eq!(request.expect("a host").too_long(), wanted, "{count}");
        }
    }

    #[test]
    fn one_host_or_none() {
        let of = |uri: &'static str, version, list: &[(&'static str, &'static str)]| {
            host(Uri::from_static(uri).authority(), version, &fields(list)).ok()
        };
        let h11 = Version::HTTP_11;
        assert_eq!(
            of("/", h11, &[("host", "A.Example.com.:8080")]).as_deref(),
            Some("a.example.com")
        );
        assert_eq!(
            of("http://b.example.com/", h11, &[("host", "a.example.com")]).as_deref(),
            Some("b.example.com")
        );
        for (field, wanted) in [
            ("a.example.com", Some("a.example.com")),
            ("a.example.com:80", Some("a.example.com")),
            ("a.example.com:", Some("a.example.com")),
            ("a.example.com.:80", Some("a.example.com")),
            ("A.example.com", Some("a.example.com")),
            ("[::1]:80", Some("[::1]")),
            ("a.example.com:x", None),
            ("a.example.com:80:80", None),
            ("a/b", None),
            ("", None),
        ] {
            assert_eq!(of("/", h11, &[("host", field)]).as_deref(), wanted, "{field:?}");
        }
        assert_eq!(of("/", h11, &[]), None);
        assert_eq!(of("http://a.example.com/", h11, &[]), None);
        assert!(of("http://a.example.com/", Version::HTTP_10, &[]).is_some());
        assert!(of("http://a.example.com/", Version::HTTP_2, &[]).is_some());
        assert_eq!(of("/", h11, &[("host", "a"), ("host", "a")]), None);
        assert_eq!(of("/", h11, &[("host", "a b")]), None);
        assert_eq!(of("/", h11, &[("host", "u@a.example.com")]), None);
        assert_eq!(
            of("https://a.example.com/", Version::HTTP_2, &[("host", "b.example.com")]),
            None
        );
    }
}
