//! What `Vary` makes of a request (RFC 9110 §12.5.5, RFC 9111 §4.1). Pure.

use super::split_list;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, REFERER, VARY},
};

/// The most request fields that a response may vary by. By more, it is one for every request.
const MOST_NAMES: usize = 16;

/// The request fields that select a variant (RFC 9110 §12.5.5), each once; `None` for `Vary: *`, which matches nothing,
/// and what comes to the same.
pub fn vary_names(response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in response.get_all(VARY) {
        for name in split_list(value.as_bytes()).filter(|n| !n.is_empty()) {
            if name == b"*" {
                return None;
            }
            let name = HeaderName::from_bytes(name).ok()?;
            if names.contains(&name) {
                continue;
            }
            if names.len() == MOST_NAMES {
                return None;
            }
            names.push(name);
        }
    }
    Some(names)
}

/// What an origin may be told of a request field. The address of the page that a request comes from has no query then: it
/// may hold a token.
pub fn told<'a>(name: &HeaderName, value: &'a HeaderValue) -> &'a [u8] {
    let value = value.as_bytes();
    match value.iter().position(|b| *b == b'?') {
        Some(query) if name == REFERER => &value[..query],
        _ => value,
    }
}

/// A request's value of one selecting field as origins are told it, in the form that two equal ones share (RFC 9111 §4.1): lines made one, and
/// list members without white space around them. Where neither case nor order counts (RFC 9110 §12.5.2 to §12.5.4), in
/// lower case and sorted.
pub fn vary_value(request: &HeaderMap, name: &HeaderName) -> Option<String> {
    let members = request
        .get_all(name)
        .iter()
        .flat_map(|v| split_list(told(name, v)))
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

/// The one language that a request prefers to all others by its weights (RFC 9110 §12.4.2). `None` when two are the same
/// to it, or it would take anything.
pub fn preferred_language(request: &HeaderMap) -> Option<&str> {
    let values = request.get_all(ACCEPT_LANGUAGE).iter();
    let members = values.flat_map(|v| split_list(v.as_bytes())).filter(|m| !m.is_empty());
    let mut best: Option<(&str, u16)> = None;
    let mut tied = false;
    for member in members {
        let mut parts = std::str::from_utf8(member).ok()?.split(';').map(str::trim);
        let language = parts.next()?;
        let weight = match parts.next() {
            None => 1000,
            Some(parameter) => weight(parameter)?,
        };
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((language, weight));
            tied = false;
        } else {
            tied |= best.is_some_and(|(_, most)| most == weight);
        }
    }
    best.map(|(language, _)| language)
        .filter(|language| !tied && *language != "*")
}

/// `q=0.5`, in thousandths.
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction = format!("{fraction:0<3}").parse::<u16>().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_language_that_is_preferred_to_all_others() {
        for (value, expected) in [
            ("de", Some("de")),
            ("fr;q=0.5, de;q=1.0", Some("de")),
            ("fr; q=0.5,de;q=0.625", Some("de")),
            ("en, de", None),
            ("en;q=0.5, de;q=0.50", None),
            ("*", None),
            ("*;q=0.1, de", Some("de")),
            ("de;q=0", None),
            ("de;q=2", None),
            ("de;level=1", None),
            ("", None),
        ] {
            let mut request = HeaderMap::new();
            request.insert(ACCEPT_LANGUAGE, HeaderValue::from_static(value));
            assert_eq!(preferred_language(&request), expected, "{value}");
        }
    }

    #[test]
    fn the_names_that_select() {
        let many = |count| (0..count).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        for (value, expected) in [
            ("accept, Accept ,ACCEPT", Some(1)),
            ("a,b,*", None),
            ("a b", None),
            (&"a,".repeat(10_000), Some(1)),
            (&many(MOST_NAMES), Some(MOST_NAMES)),
            (&many(MOST_NAMES + 1), None),
        ] {
            let response = HeaderMap::from_iter([(VARY, HeaderValue::from_str(value).expect("ASCII"))]);
            assert_eq!(vary_names(&response).map(|names| names.len()), expected, "{value:.40}");
        }
    }

    #[test]
    fn equal_selections() {
        for (name, one, other, same) in [
            ("accept-language", "en, de", "dE ,EN", true),
            ("accept-language", "en;q=0.5, de", "de, en; q=0.5", true),
            ("accept-language", "en", "en-GB", false),
            ("accept-encoding", "gzip, br", "br,GZIP", true),
            ("x-list", "1,2", " 1,  2 ", true),
            ("x-list", "1,2", "2,1", false),
            ("x-list", "a", "A", false),
            ("accept", "a/b, c/d", "c/d, a/b", false),
            ("referer", "https://a/b?auth=1", "https://a/b", true),
            ("referer", "https://a/b", "https://a/c", false),
            ("x-list", "a?1", "a?2", false),
        ] {
            let name: HeaderName = name.parse().expect("a name");
            let value = |text| {
                vary_value(
                    &HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(text))]),
                    &name,
                )
            };
            assert_eq!(value(one) == value(other), same, "{name}: {one:?}, {other:?}");
        }
    }
}
