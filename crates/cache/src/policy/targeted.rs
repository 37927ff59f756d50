//! Cache directives for caches like this one alone: `CDN-Cache-Control` (RFC 9213), and before there was a standard,
//! `Surrogate-Control` (W3C Note "Edge Architecture Specification"). Pure.

use super::{Directives, delta_seconds, split_list};
use http::{HeaderMap, HeaderName, HeaderValue};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// What `Surrogate-Control` calls this cache.
const DEVICE: &[u8] = b"edgeweir";

/// The request field, and its value, by which an origin learns the name that its `Surrogate-Control` may speak to.
pub const SURROGATE_CAPABILITY: (HeaderName, HeaderValue) = (
    HeaderName::from_static("surrogate-capability"),
    HeaderValue::from_static("edgeweir=\"Surrogate/1.0\""),
);

/// The directives of `CDN-Cache-Control`. `None` when it is not there, empty, or not the dictionary that it should be
/// (RFC 9213 §2.1).
pub(super) fn cdn(headers: &HeaderMap) -> Option<Directives> {
    let mut directives = Directives {
        targeted: true,
        ..Directives::default()
    };
    let mut text = Vec::new();
    for value in headers.get_all(CDN_CACHE_CONTROL) {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(value.as_bytes());
    }
    for item in dictionary(&text)? {
        directives.read_item(item);
    }
    Some(directives)
}

/// A member of a dictionary.
#[derive(Debug, PartialEq, Eq)]
struct Member<'a> {
    key: &'a [u8],
    value: Value,
}

/// A member's value, as far as directives have use for it.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    True,
    /// Not negative; a larger one is the largest that counts.
    Seconds(u64),
    Other,
}

impl Directives {
    fn read_item(&mut self, item: Member<'_>) {
        let number = match item.value {
            Value::Seconds(seconds) => Some(seconds),
            Value::True | Value::Other => None,
        };
        // Of a member that comes twice the last one counts (RFC 8941 §4.2.2); one of a wrong type has no meaning.
        match (item.key, &item.value) {
            (b"no-store", Value::True) => self.no_store = true,
            (b"private", Value::True | Value::Other) => self.private = true,
            (b"no-cache", Value::True | Value::Other) => self.no_cache = true,
            (b"public", Value::True) => self.public = true,
            (b"must-revalidate", Value::True) => self.must_revalidate = true,
            (b"proxy-revalidate", Value::True) => self.proxy_revalidate = true,
            (b"must-understand", Value::True) => self.must_understand = true,
            (b"s-maxage", Value::Seconds(_)) => {
                self.lifetime = number;
                self.s_maxage = true;
            }
            (b"max-age", Value::Seconds(_)) if !self.s_maxage => self.lifetime = number,
            (b"stale-while-revalidate", Value::Seconds(seconds)) => self.stale_while_revalidate = *seconds,
            (b"stale-if-error", Value::Seconds(seconds)) => self.stale_if_error = *seconds,
            _ => {}
        }
    }
}

/// Reads a dictionary (RFC 8941 §4.2.2); `None` when it is empty or is none. Parameters are checked for their form and
/// left out; members whose value is an inner list, too.
fn dictionary(text: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut rest = Rest(text);
    let mut members = Vec::new();
    rest.skip(b" ");
    loop {
        let key = rest.key()?;
        let value = if rest.eat(b'=') { rest.value()? } else { Value::True };
        rest.parameters()?;
        members.push(Member { key, value });
        rest.skip(b" \t");
        if rest.0.is_empty() {
            return Some(members);
        }
        if !rest.eat(b',') {
            return None;
        }
        // No comma at the end.
        rest.skip(b" \t");
    }
}

/// What of a structured field is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip(&mut self, any: &[u8]) {
        while self.0.first().is_some_and(|b| any.contains(b)) {
            self.0 = &self.0[1..];
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.0.first() == Some(&byte);
        if eaten {
            self.0 = &self.0[1..];
        }
        eaten
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn take_while(&mut self, of: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|b| !of(*b)).unwrap_or(self.0.len());
        self.take(end)
    }

    /// A key (RFC 8941 §4.2.3.3).
    fn key(&mut self) -> Option<&'a [u8]> {
        let begins = self.0.first().is_some_and(|b| b.is_ascii_lowercase() || *b == b'*');
        begins.then(|| {
            self.take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*'))
        })
    }

    /// An item or an inner list, the parameters of the whole left (RFC 8941 §4.2.1.1, §4.2.3.1).
    fn value(&mut self) -> Option<Value> {
        if !self.eat(b'(') {
            return self.item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Value> {
        match self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b);
                self.take_while(token);
                Some(Value::Other)
            }
            b':' => {
                self.eat(b':');
                self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Value::Other)
            }
            b'?' => {
                self.eat(b'?');
                match self.take(usize::from(!self.0.is_empty())) {
                    b"1" => Some(Value::True),
                    b"0" => Some(Value::Other),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// An integer of 15 digits at most, or a decimal (RFC 8941 §4.2.4).
    fn number(&mut self) -> Option<Value> {
        let negative = self.eat(b'-');
        let whole = self.take_while(|b| b.is_ascii_digit());
        if self.eat(b'.') {
            let fraction = self.take_while(|b| b.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Value::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        match delta_seconds(whole) {
            Some(seconds) if !negative => Some(Value::Seconds(seconds)),
            _ => Some(Value::Other),
        }
    }

    fn string(&mut self) -> Option<Value> {
        self.eat(b'"');
        loop {
            match *self.take(usize::from(!self.0.is_empty())).first()? {
                b'"' => return Some(Value::Other),
                b'\\' if !self.eat(b'"') && !self.eat(b'\\') => return None,
                b'\\' | b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    /// Parameters, which no directive has (RFC 9213 §2.1).
    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.item()?;
            }
        }
        Some(())
    }
}

/// The directives of `Surrogate-Control` that speak to every cache or to this one by name. `None` when none does.
pub(super) fn surrogate(headers: &HeaderMap) -> Option<Directives> {
    let mut directives = Directives {
        targeted: true,
        ..Directives::default()
    };
    let mut speaks = false;
    for value in headers.get_all(SURROGATE_CONTROL) {
        for item in split_list(value.as_bytes()).filter(|item| !item.is_empty()) {
            let mut parts = item.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let directive = parts.next().unwrap_or_default();
            if parts.next().is_some_and(|device| !device.eq_ignore_ascii_case(DEVICE)) {
                continue;
            }
            // `max-age=60+600` may be served stale for the second while it is revalidated.
            let fresh = directive.split(|b| *b == b'+').next().unwrap_or_default();
            directives.read(fresh);
            speaks = true;
        }
    }
    speaks.then_some(directives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dictionaries() {
        let one = |key, value| Some(vec![(key, value)]);
        for (text, expected) in [
            ("max-age=60", one("max-age", Value::Seconds(60))),
            ("  max-age=0060;a;b=\"c\";d=?0 ", one("max-age", Value::Seconds(60))),
            ("max-age=999999999999999", one("max-age", Value::Seconds(1 << 31))),
            ("max-age=-1", one("max-age", Value::Other)),
            ("max-age=1.5", one("max-age", Value::Other)),
            ("max-age=\"6\\\"0\"", one("max-age", Value::Other)),
            ("a=(1 b \"c\";d);e", one("a", Value::Other)),
            ("a=:YQ==:", one("a", Value::Other)),
            ("*a=?1", one("*a", Value::True)),
            ("a , b", Some(vec![("a", Value::True), ("b", Value::True)])),
            ("", None),
            ("a,", None),
            ("a b", None),
            ("A=1", None),
            ("a =1", None),
            ("a= 1", None),
            ("a=", None),
            ("a=-", None),
            ("a=1.", None),
            ("a=1.2345", None),
            ("a=1234567890123456", None),
            ("a=\"b", None),
            ("a=\"\\b\"", None),
            ("a=?2", None),
            ("a=(1", None),
            ("a=(1)b", None),
            ("a;B", None),
            ("&", None),
        ] {
            let found = dictionary(text.as_bytes());
            let found = found.map(|members| members.into_iter().map(|m| (m.key, m.value)).collect::<Vec<_>>());
            let expected = expected.map(|list| list.into_iter().map(|(k, v)| (k.as_bytes(), v)).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn surrogates_that_are_spoken_to() {
        for (text, lifetime) in [
            ("max-age=60", Some(Some(60))),
            ("MaX-aGe=60", Some(Some(60))),
            ("max-age=60+600", Some(Some(60))),
            ("max-age=60;edgeweir", Some(Some(60))),
            ("max-age=60;other", None),
            ("max-age=60;other, max-age=7", Some(Some(7))),
            ("content=\"ESI/1.0\"", Some(None)),
            ("", None),
        ] {
            let map = HeaderMap::from_iter([(SURROGATE_CONTROL, HeaderValue::from_static(text))]);
            assert_eq!(surrogate(&map).map(|d| d.lifetime), lifetime, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(text in "[ -~\t]{0,40}", value in "[a-c=;,\"\\\\()?:1-3. -]{0,20}") {
            for text in [text, value] {
                let value = HeaderValue::from_str(&text).expect("visible ASCII");
                let _ = cdn(&HeaderMap::from_iter([(CDN_CACHE_CONTROL, value.clone())]));
                let _ = surrogate(&HeaderMap::from_iter([(SURROGATE_CONTROL, value)]));
            }
        }
    }
}
