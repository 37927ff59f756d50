//! Entity tags, and the lists of them that conditions hold (RFC 9110 §8.8.3, §13.1.1, §13.1.2). Pure, and over bytes: a tag
//! may have some that are no ASCII.

/// Strong comparison (RFC 9110 §8.8.3.2).
pub fn strong(a: &[u8], b: &[u8]) -> bool {
    a == b && !a.starts_with(b"W/")
}

/// Weak comparison.
pub fn weak(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

/// Whether a list names what there is: by its tag, if it has one, or as `*`.
pub fn is_listed(list: &[u8], tag: Option<&[u8]>, same: fn(&[u8], &[u8]) -> bool) -> bool {
    list.trim_ascii() == b"*" || tag.is_some_and(|tag| tags(list).any(|listed| same(tag, listed)))
}

/// The tags of a list; one may hold commas.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let begin = list.iter().position(|b| !b" \t,".contains(b))?;
        list = &list[begin..];
        let quote = |text: &[u8]| text.iter().position(|b| *b == b'"');
        let open = quote(list).filter(|at| matches!(&list[..*at], b"" | b"W/"))?;
        let close = open + 1 + quote(&list[open + 1..])?;
        let (tag, rest) = list.split_at(close + 1);
        list = rest;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (list, tag, by_strong, by_weak) in [
            ("\"a\"", Some("\"a\""), true, true),
            ("\"b\", \"x,y\" ,\"a\"", Some("\"a\""), true, true),
            ("\"x,y\"", Some("\"x,y\""), true, true),
            ("W/\"a\"", Some("\"a\""), false, true),
            ("W/\"a\"", Some("W/\"a\""), false, true),
            ("\"ü\", \"a\"", Some("\"a\""), true, true),
            ("\"a\"", Some("\"b\""), false, false),
            ("a", Some("\"a\""), false, false),
            ("\"a", Some("\"a\""), false, false),
            ("", Some("\"a\""), false, false),
            ("\"a\"", None, false, false),
            (" * ", None, true, true),
        ] {
            let listed = |same| is_listed(list.as_bytes(), tag.map(str::as_bytes), same);
            assert_eq!((listed(strong), listed(weak)), (by_strong, by_weak), "{list}");
        }
    }
}
