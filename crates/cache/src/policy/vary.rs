//! What `Vary` makes of a request (RFC 9110 §12.5.5, RFC 9111 §4.1). Pure.

use super::split_list;
use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY},
};

/// The request fields that select a variant (RFC 9110 §12.5.5); `None` for `Vary: *`, which matches nothing.
pub fn vary_names(response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in response.get_all(VARY) {
        for name in split_list(value.as_bytes()).filter(|n| !n.is_empty()) {
            if name == b"*" {
                return None;
            }
            names.push(HeaderName::from_bytes(name).ok()?);
        }
    }
    Some(names)
}

/// A request's value of one selecting field, in the form that two equal ones share (RFC 9111 §4.1): lines made one, and
/// list members without white space around them. Where neither case nor order counts (RFC 9110 §12.5.2 to §12.5.4), in
/// lower case and sorted.
pub fn vary_value(request: &HeaderMap, name: &HeaderName) -> Option<String> {
    let members = request
        .get_all(name)
        .iter()
        .flat_map(|v| split_list(v.as_bytes()))
        .filter(|m| !m.is_empty());
    let mut members: Vec<String> = members.map(|m| String::from_utf8_lossy(m).into_owned()).collect();
    if members.is_empty() {
        return None;
    }
    if [ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name) {
        for member in &mut members {
            member.make_ascii_lowercase();
            member.retain(|c| !matches!(c, ' ' | '\t'));
        }
        members.sort_unstable();
    }
    Some(members.join(","))
}
