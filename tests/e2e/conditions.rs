//! Conditional requests of what is stored.

use crate::pulled::{Pulled, is_hit};
use edgeweir_harness::Answer;

/// RFC 9110 §13.2.1: of answers that are neither 2xx nor 412 conditions are ignored, and of no others. A range is of a 200
/// alone here, which §14.2 allows.
#[tokio::test]
async fn conditions_are_of_every_answer_that_is_a_success() {
    let pulled = Pulled::start(&[], |seen| {
        let status = match seen.target.as_str() {
            "/base/203" => "203 Non-Authoritative Information",
            "/base/204" => "204 No Content",
            _ => "404 Not Found",
        };
        let body = if status.starts_with("204") {
            ""
        } else {
            "Content-Length: 7\r\n\r\nCONTENT"
        };
        let fields = "Cache-Control: max-age=600\r\nETag: \"a\"\r\nConnection: close";
        let end = if body.is_empty() { "\r\n\r\n" } else { "\r\n" };
        Answer::Raw(format!("HTTP/1.1 {status}\r\n{fields}{end}{body}").into())
    })
    .await;
    for (path, status, conditional) in [("/203", 203, 304), ("/204", 204, 304), ("/404", 404, 404)] {
        assert_eq!(pulled.get(path).await.status, status);
        for (name, value, status) in [
            ("if-none-match", "\"a\"", conditional),
            ("if-none-match", "\"b\"", status),
            ("if-match", "\"a\"", status),
            ("range", "bytes=0-1", status),
        ] {
            let reply = pulled.get_with(path, &[(name, value)]).await;
            assert!(is_hit(&reply), "{path} {name}: {:?}", reply.headers);
            assert_eq!(reply.status, status, "{path} {name}: {value}");
        }
    }
    assert_eq!(pulled.origin.seen().len(), 3);
}
