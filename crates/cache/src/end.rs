//! The end of an object that is stored as a part (RFC 9111 §3.3), completed to the whole by fetching what comes before it
//! (§3.4): only under a strong validator, and only if the origin still has that representation.

use crate::{
    cache::Cache,
    entry::{Content, Entry, Now},
    fill::{BodyError, BoxBody, FetchedResponse},
    key::KeyRef,
    range,
    slices::{Validator, whole_length},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE},
};
use http_body::Frame;
use std::{
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// A stored end of an object.
#[derive(Debug, Clone)]
pub struct End {
    entry: Arc<Entry>,
    bytes: Bytes,
    /// Of the whole, in bytes.
    length: u64,
    validator: Validator,
}

impl Cache {
    /// The stored end of an object that is no larger than a slice, if what comes before it can be put before it.
    pub fn end(&self, key: KeyRef<'_>, request: &HeaderMap, now: Now) -> Option<End> {
        let (entry, held, length) = self.part(key, request, now)?;
        let length = length.filter(|length| held.end == *length && *length <= self.slice_bytes())?;
        let Content::Whole(stored) = entry.content() else {
            return None;
        };
        let bytes = stored.bytes();
        let is_end = held.start > 0 && bytes.len() as u64 == length - held.start;
        let validator = Validator::strong(entry.headers()).filter(|_| is_end)?;
        Some(End {
            entry,
            bytes,
            length,
            validator,
        })
    }
}

impl End {
    /// The bytes before it.
    pub fn missing(&self) -> Range<u64> {
        0..self.length - self.bytes.len() as u64
    }

    /// All bytes of the object.
    pub fn whole(&self) -> Range<u64> {
        0..self.length
    }

    /// What tells the representation that it is of: with it in `If-Range` the missing bytes are asked for.
    pub fn validator(&self) -> &HeaderValue {
        match &self.validator {
            Validator::ETag(value) | Validator::Modified(value) => value,
        }
    }

    /// Puts what was missing before it, which makes a 206 of all bytes. Any other answer is given back.
    pub fn join(self, answer: FetchedResponse) -> Result<FetchedResponse, Box<FetchedResponse>> {
        let missing = self.missing();
        let headers = &answer.head.headers;
        let is_it = answer.head.status == StatusCode::PARTIAL_CONTENT
            && self.validator.is_of(headers)
            && whole_length(headers, &missing) == Some(self.length)
            && answer.length.is_none_or(|length| length == missing.end);
        if !is_it {
            return Err(Box::new(answer));
        }
        // A server need not repeat what it knows that we have (RFC 9110 §15.3.7).
        let mut head = self.entry.updated(headers, &answer.settings);
        let range = HeaderValue::from_str(&range::content_range(&self.whole(), self.length)).expect("ASCII");
        head.headers.insert(CONTENT_RANGE, range);
        head.headers.insert(CONTENT_LENGTH, self.length.into());
        Ok(FetchedResponse {
            head,
            body: Box::pin(Joined {
                first: answer.body,
                missing: missing.end,
                end: self.bytes,
            }),
            length: Some(self.length),
            settings: answer.settings,
        })
    }
}

/// A body that goes on with other bytes where it must end.
struct Joined {
    first: BoxBody,
    /// Bytes of `first` that are still to come.
    missing: u64,
    end: Bytes,
}

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while this.missing > 0 {
            let Some(frame) = std::task::ready!(this.first.as_mut().poll_frame(cx)) else {
                return Poll::Ready(Some(Err(BodyError::Short { missing: this.missing })));
            };
            let Ok(chunk) = frame?.into_data() else { continue };
            let Some(left) = this.missing.checked_sub(chunk.len() as u64) else {
                return Poll::Ready(Some(Err(BodyError::Broken(
                    "a range is longer than was asked for".into(),
                ))));
            };
            this.missing = left;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let end = std::mem::take(&mut this.end);
        Poll::Ready((!end.is_empty()).then(|| Ok(Frame::data(end))))
    }

    fn is_end_stream(&self) -> bool {
        self.missing == 0 && self.end.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ResponseHead, entry::Came, policy::Settings};
    use http_body_util::{BodyExt, Collected};
    use std::time::Duration;

    fn head(list: &[(&'static str, &'static str)]) -> ResponseHead {
        ResponseHead {
            status: StatusCode::PARTIAL_CONTENT,
            headers: list
                .iter()
                .map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v)))
                .collect(),
        }
    }

    fn end() -> End {
        let head = head(&[
            ("etag", "\"1\""),
            ("content-range", "bytes 2-3/4"),
            ("x", "1"),
            ("y", "1"),
        ]);
        let came = Came {
            now: Now::now(),
            delay: Duration::ZERO,
            born: 0,
        };
        let bytes = Bytes::from("cd");
        let content = Content::Whole(bytes.clone().into());
        let entry = Entry::new(head, content, &HeaderMap::new(), came, &Settings::http()).expect("no Vary");
        End {
            validator: Validator::strong(entry.headers()).expect("a strong one"),
            entry: Arc::new(entry),
            bytes,
            length: 4,
        }
    }

    fn begin(list: &[(&'static str, &'static str)], body: &'static str) -> FetchedResponse {
        let mut answer = FetchedResponse::whole(head(list), Bytes::from(body), Settings::http());
        // As in chunks.
        answer.length = None;
        answer
    }

    #[tokio::test]
    async fn an_end_goes_behind_the_begin_of_its_own_representation() {
        for (body, expected) in [
            ("ab", Ok("abcd")),
            ("a", Err(BodyError::Short { missing: 1 })),
            ("", Err(BodyError::Short { missing: 2 })),
            (
                "abc",
                Err(BodyError::Broken("a range is longer than was asked for".into())),
            ),
        ] {
            let fields = [("etag", "\"1\""), ("content-range", "bytes 0-1/4"), ("x", "2")];
            let whole = end().join(begin(&fields, body)).expect("it fits");
            let of = |name| whole.head.headers[name].to_str().expect("ASCII").to_owned();
            assert_eq!(
                [of("x"), of("y"), of("content-range"), of("content-length")],
                ["2", "1", "bytes 0-3/4", "4"]
            );
            assert_eq!(whole.length, Some(4));
            let got = whole.body.collect().await.map(Collected::to_bytes);
            assert_eq!(got, expected.map(|text: &str| Bytes::from_static(text.as_bytes())));
        }
    }

    #[test]
    fn no_other_answer_is_joined() {
        for fields in [
            &[("etag", "\"2\""), ("content-range", "bytes 0-1/4")][..],
            &[("etag", "W/\"1\""), ("content-range", "bytes 0-1/4")],
            &[("content-range", "bytes 0-1/4")],
            &[("etag", "\"1\""), ("content-range", "bytes 0-1/5")],
            &[("etag", "\"1\""), ("content-range", "bytes 0-2/4")],
            &[("etag", "\"1\""), ("content-range", "bytes 1-2/4")],
            &[("etag", "\"1\""), ("content-range", "bytes 0-1/*")],
            &[("etag", "\"1\"")],
        ] {
            assert!(end().join(begin(fields, "ab")).is_err(), "{fields:?}");
        }
        let fields = [("etag", "\"1\""), ("content-range", "bytes 0-1/4")];
        let mut answer = begin(&fields, "ab");
        answer.head.status = StatusCode::OK;
        assert!(end().join(answer).is_err());
        let mut answer = begin(&fields, "ab");
        answer.length = Some(3);
        assert!(end().join(answer).is_err());
    }
}
