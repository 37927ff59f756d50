//! Header fields that are kept. A [`HeaderValue`] is a part of what it was read from, often of a buffer of many KiB, which
//! lives as long as it does: what is kept longer than its message is a copy.

use http::{HeaderMap, HeaderValue};

/// Fields whose values share no memory with these, in a map that has room for `more`.
pub fn unshared(headers: &HeaderMap, more: usize) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(headers.len() + more);
    for (name, value) in headers {
        copy.append(name.clone(), unshared_value(value));
    }
    copy
}

/// A value that shares no memory with this one.
pub fn unshared_value(value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).expect("it is one already");
    copy.set_sensitive(value.is_sensitive());
    copy
}
