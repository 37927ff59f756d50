//! What messages of HTTP/2 and HTTP/3 have in common (RFC 9113 §8, RFC 9114 §4).

use crate::{body::Body, date};
use http::{
    HeaderName, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use http_body::Body as _;
use std::time::Duration;
use tokio::time::timeout;

/// Fields that concern a connection of HTTP/1.1 only (RFC 9113 §8.2.2, RFC 9114 §4.2).
pub(crate) static OF_CONNECTIONS: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether the client waits for a word before it sends content (RFC 9110 §10.1.1).
pub(crate) fn expects_continue(head: &Parts) -> bool {
    let expects = head.headers.get(EXPECT);
    expects.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        && !matches!(head.method, Method::GET | Method::HEAD)
}

/// The word that it waits for.
pub(crate) fn go_on() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    response
}

/// Why an answer is not all sent.
pub(crate) enum Cut {
    /// The client has taken its request back, or is gone.
    Gone,
    /// It takes too little of it.
    Stalled,
    /// The content breaks off, which the client sees by the stream's reset.
    Broken,
}

/// What must be done before the client has been waited for too long.
pub(crate) async fn within<E>(patience: Duration, sending: impl Future<Output = Result<(), E>>) -> Result<(), Cut>
where
    Cut: From<E>,
{
    Ok(timeout(patience, sending).await.map_err(|_| Cut::Stalled)??)
}

/// An answer's head, complete, and its content; none of it where only the head is asked for.
pub(crate) fn answer(response: Response<Body>, head_only: bool) -> (Response<()>, Body) {
    let (mut head, body) = response.into_parts();
    debug_assert!(!matches!(body, Body::Rendered(..)), "that head is HTTP/1.1's");
    for name in &OF_CONNECTIONS {
        head.headers.remove(name);
    }
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6.
        head.headers.remove(CONTENT_LENGTH);
    }
    let has_content = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = body.size_hint().exact().filter(|_| has_content && !head_only) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    head.headers.entry(DATE).or_insert_with(|| date::with(Clone::clone));
    let body = if head_only { Body::Empty } else { body };
    (Response::from_parts(head, ()), body)
}
