//! The date of an answer (RFC 9110 §6.6.1), made once a second and thread.

use http::HeaderValue;
use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

/// Gives the present date to `then`.
pub(crate) fn with<T>(then: impl FnOnce(&HeaderValue) -> T) -> T {
    thread_local! {
        static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    DATE.with_borrow_mut(|(of, value)| {
        if *of != second {
            *value = HeaderValue::from_str(&httpdate::fmt_http_date(now)).expect("ASCII");
            *of = second;
        }
        then(value)
    })
}
