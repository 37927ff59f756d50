//! DASH manifests (ISO/IEC 23009-1): the attributes and elements that hold a URL.
//!
//! A relative URL leads where the nearest `BaseURL` elements lead, so the token goes to it only when all of these lead
//! to the request's own host; and one that is a template, only when no text that players fill in leads it elsewhere.

use crate::{
    Error,
    splice::{Authority, Hosts, Places, Splices, Syntax, authority},
};
use quick_xml::{Reader, escape::unescape, events::Event};
use std::ops::Range;

/// Elements and their attributes that hold a URL or a template of one.
const ATTRIBUTES: [(&str, &[&str]); 6] = [
    (
        "SegmentTemplate",
        &["media", "initialization", "index", "bitstreamSwitching"],
    ),
    ("SegmentURL", &["media", "index"]),
    ("Initialization", &["sourceURL"]),
    ("RepresentationIndex", &["sourceURL"]),
    ("BitstreamSwitching", &["sourceURL"]),
    ("InitializationSet", &["initialization"]),
];

/// Elements whose text is a URL.
const TEXTS: [&str; 4] = ["BaseURL", "Location", "PatchLocation", "ContentSteering"];

/// How deeply elements may be nested; a manifest needs ten or so.
const MAX_DEPTH: usize = 64;

/// How many hosts the bases of one URL may name; past that nobody is known to be ours.
const MAX_HOSTS: usize = 8;

/// An open element.
#[derive(Default)]
struct Level {
    /// Where its content begins.
    content: usize,
    /// What its text is, when that is a URL.
    url: Option<Url>,
    /// Whether there is more than text in it.
    mixed: bool,
    /// The hosts of the absolute bases of its children, those of the elements around it among them.
    hosts: Hosts,
    /// One of these bases leads where it cannot be told.
    unknown: bool,
    /// A URL inside has been given these bases.
    used: bool,
}

/// What a URL that is an element's text is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Url {
    Base,
    Leaf,
}

impl Level {
    fn inside(parent: &Self, name: &str, content: usize) -> Self {
        Self {
            content,
            url: match name {
                "BaseURL" => Some(Url::Base),
                _ => TEXTS.contains(&name).then_some(Url::Leaf),
            },
            hosts: parent.hosts.clone(),
            unknown: parent.unknown,
            ..Self::default()
        }
    }

    /// Takes in a base of this element's children.
    fn base(&mut self, text: &str, authority: Authority) -> Result<(), Error> {
        if authority != Authority::Relative && self.used {
            return Err(Error::LateBase);
        }
        match authority {
            Authority::Relative => {}
            Authority::Other => self.unknown = true,
            Authority::Host(host) => {
                let known = |h: &Range<usize>| text[h.clone()].eq_ignore_ascii_case(&text[host.clone()]);
                if self.hosts.iter().any(known) {
                    return Ok(());
                }
                if self.hosts.len() == MAX_HOSTS {
                    self.unknown = true;
                } else {
                    self.hosts = self.hosts.iter().cloned().chain([host]).collect();
                }
            }
        }
        Ok(())
    }
}

/// What has been found so far.
struct Found {
    places: Places,
    /// The templates among them whose host hangs on what is filled in: their place in the list, and whether that is the
    /// identifier of a representation, too, beside numbers.
    doubtful: Vec<(usize, bool)>,
    /// An identifier may lead a template to another host, or what should be a number. They may stand after the templates.
    ids_lead_away: bool,
    numbers_lead_away: bool,
}

impl Found {
    fn new() -> Self {
        Self {
            places: Places::new(Syntax::Xml),
            doubtful: Vec::new(),
            ids_lead_away: false,
            numbers_lead_away: false,
        }
    }

    fn finish(self) -> Splices {
        let doubtful = self.doubtful.iter();
        let leads_away = |(_, has_id): &&(usize, bool)| self.numbers_lead_away || *has_id && self.ids_lead_away;
        let away: Vec<_> = doubtful.filter(leads_away).map(|(place, _)| *place).collect();
        self.places.finish_without(&away)
    }
}

pub(crate) fn scan(text: &str) -> Result<Splices, Error> {
    let mut reader = Reader::from_str(text);
    let mut found = Found::new();
    let mut levels = vec![Level::default()];
    loop {
        let begin = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|_| Error::Xml)?;
        let end = reader.buffer_position() as usize;
        let own = levels.last_mut().ok_or(Error::Xml)?;
        match event {
            Event::DocType(_) => return Err(Error::Doctype),
            Event::Start(tag) => {
                own.mixed = true;
                let name = tag.name().into_inner();
                let level = Level::inside(own, local(name), end);
                add_attributes(&mut found, text, begin..end, local(name), &mut levels)?;
                levels.push(level);
                if levels.len() > MAX_DEPTH {
                    return Err(Error::TooDeep);
                }
            }
            Event::Empty(tag) => {
                own.mixed = true;
                let name = tag.name().into_inner();
                add_attributes(&mut found, text, begin..end, local(name), &mut levels)?;
            }
            Event::End(_) => {
                let level = levels.pop().ok_or(Error::Xml)?;
                if let Some(url) = level.url {
                    add_text(&mut found, text, level.content..begin, url, level.mixed, &mut levels)?;
                }
            }
            Event::CData(_) | Event::Comment(_) | Event::PI(_) => own.mixed = true,
            Event::Eof => {
                return if levels.len() == 1 {
                    Ok(found.finish())
                } else {
                    Err(Error::Xml)
                };
            }
            _ => {}
        }
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// A URL inside these elements depends on the bases seen so far.
fn use_bases(levels: &mut [Level]) {
    for level in levels {
        level.used = true;
    }
}

/// Adds a URL, relative to the bases of the innermost of `levels`.
fn add(found: &mut Found, text: &str, range: Range<usize>, levels: &[Level]) -> Result<(), Error> {
    match (authority(text, range.clone(), Syntax::Xml), levels.last()) {
        (Authority::Host(host), _) => found.places.add(text, range, &[host]),
        (Authority::Relative, Some(level)) if !level.unknown => {
            let template = &text[range.clone()];
            if begins_with_identifier(template) {
                let has_id = template.contains("$RepresentationID");
                found.doubtful.push((found.places.len(), has_id));
            }
            found.places.add(text, range, &level.hosts)
        }
        _ => Ok(()),
    }
}

/// Whether what is filled in may come to stand where a scheme or a host would: in the first segment of a relative path,
/// or after the only slash of an absolute one.
fn begins_with_identifier(template: &str) -> bool {
    let Some(at) = template.find('$') else { return false };
    &template[..at] == "/" || !template[..at].contains(['/', '?', '#'])
}

/// Whether a URL that begins with this value, or with a slash and it, may lead to another host: the value as it is
/// written in the manifest. Nothing at all lets what follows lead there.
fn may_lead_away(value: &str) -> bool {
    let Ok(value) = unescape(value) else { return true };
    let first = value.find([':', '/', '?', '#']).map(|at| value.as_bytes()[at]);
    value.is_empty()
        || value.starts_with(|c: char| c == '/' || c.is_whitespace())
        || value.contains(|c: char| c == '\\' || c.is_control())
        || first == Some(b':')
}

/// Adds the URL that is the text of an element inside `levels`.
fn add_text(
    found: &mut Found,
    text: &str,
    content: Range<usize>,
    url: Url,
    mixed: bool,
    levels: &mut [Level],
) -> Result<(), Error> {
    let raw = &text[content.clone()];
    let begin = content.start + (raw.len() - raw.trim_ascii_start().len());
    let trimmed = begin..begin + raw.trim_ascii().len();
    if trimmed.is_empty() {
        return Ok(());
    }
    let (parent, above) = levels.split_last_mut().ok_or(Error::Xml)?;
    // Beside comments, or in a CDATA section, it is in a form that is not read: nothing is known of it.
    let authority = if mixed {
        Authority::Other
    } else {
        authority(text, trimmed.clone(), Syntax::Xml)
    };
    let known = authority != Authority::Other;
    if url == Url::Base {
        // Its siblings are alternatives to it; it is relative to what is around its parent.
        use_bases(above);
        parent.base(text, authority)?;
    } else if authority == Authority::Relative {
        use_bases(levels);
    }
    if known {
        add(found, text, trimmed, levels)
    } else {
        Ok(())
    }
}

/// Takes in a tag's attributes: those that hold URLs, and what templates are filled with.
fn add_attributes(
    found: &mut Found,
    text: &str,
    tag: Range<usize>,
    name: &str,
    levels: &mut [Level],
) -> Result<(), Error> {
    let wanted = ATTRIBUTES
        .iter()
        .find(|(n, _)| *n == name)
        .map_or(&[][..], |(_, names)| names);
    let mut has_id = name != "Representation";
    for (attribute, value) in quoted(&text[tag.clone()]) {
        let value = tag.start + value.start..tag.start + value.end;
        // What templates are filled with (ISO/IEC 23009-1 §5.3.9.4.4). Players take what should be a number as it is.
        match (name, attribute) {
            ("Representation", "id") => {
                has_id = true;
                found.ids_lead_away |= may_lead_away(&text[value.clone()]);
            }
            ("Representation", "bandwidth") | (_, "startNumber") => {
                found.numbers_lead_away |= may_lead_away(&text[value.clone()]);
            }
            _ => {}
        }
        if wanted.contains(&attribute) || attribute == "xlink:href" {
            use_bases(levels);
            add(found, text, value, levels)?;
        }
    }
    found.ids_lead_away |= !has_id;
    Ok(())
}

/// The attributes of a tag's text, and where their values stand in it.
fn quoted(tag: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let mut at = tag.find(|c: char| c.is_ascii_whitespace()).unwrap_or(tag.len());
    std::iter::from_fn(move || {
        let equals = at + tag[at..].find('=')?;
        let attribute = tag[at..equals].trim();
        let after = &tag[equals + 1..];
        let open = equals + 1 + (after.len() - after.trim_start().len());
        let quote = tag[open..].chars().next().filter(|q| ['"', '\''].contains(q))?;
        let close = open + 1 + tag[open + 1..].find(quote)?;
        at = close + 1;
        Some((attribute, open + 1..close))
    })
}

/// Where the URLs of a manifest stand, in the order of the text. Text of an element beside comments or elements is
/// left out.
pub(crate) fn uris(text: &str) -> Result<Vec<Range<usize>>, Error> {
    let mut reader = Reader::from_str(text);
    let mut uris = Vec::new();
    let mut depth = 0_usize;
    // Where the text of the innermost element begins, if that is a URL and nothing else was in it yet.
    let mut content = None;
    loop {
        let begin = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|_| Error::Xml)?;
        let end = reader.buffer_position() as usize;
        match event {
            Event::DocType(_) => return Err(Error::Doctype),
            Event::Start(tag) => {
                depth += 1;
                if depth >= MAX_DEPTH {
                    return Err(Error::TooDeep);
                }
                content = TEXTS.contains(&local(tag.name().into_inner())).then_some(end);
                of_tag(&mut uris, &text[begin..end], begin, local(tag.name().into_inner()));
            }
            Event::Empty(tag) => {
                content = None;
                of_tag(&mut uris, &text[begin..end], begin, local(tag.name().into_inner()));
            }
            Event::End(_) => {
                depth = depth.checked_sub(1).ok_or(Error::Xml)?;
                if let Some(from) = content.take() {
                    let raw = &text[from..begin];
                    let start = from + (raw.len() - raw.trim_ascii_start().len());
                    uris.extend(Some(start..start + raw.trim_ascii().len()).filter(|range| !range.is_empty()));
                }
            }
            Event::CData(_) | Event::Comment(_) | Event::PI(_) => content = None,
            Event::Eof => return if depth == 0 { Ok(uris) } else { Err(Error::Xml) },
            _ => {}
        }
    }
}

fn of_tag(uris: &mut Vec<Range<usize>>, tag: &str, begin: usize, name: &str) {
    let wanted = ATTRIBUTES.iter().find(|(n, _)| *n == name).map_or(&[][..], |(_, n)| n);
    let values = quoted(tag).filter(|(attribute, _)| wanted.contains(attribute) || *attribute == "xlink:href");
    uris.extend(values.map(|(_, value)| begin + value.start..begin + value.end));
}

#[cfg(test)]
mod tests {
    use crate::{Error, Kind, scan};
    use proptest::prelude::*;

    fn render(text: &str) -> String {
        let splices = scan(Kind::Dash, text.as_bytes()).expect(text);
        String::from_utf8(splices.render(text.as_bytes(), "T", "v.example.com")).expect("UTF-8")
    }

    #[test]
    fn templates_urls_and_bases() {
        for (body, expected) in [
            (
                r#"<SegmentTemplate media="c-$Number$.m4s" initialization='i.mp4' timescale="1"/>"#,
                r#"<SegmentTemplate media="c-$Number$.m4s?auth=T" initialization='i.mp4?auth=T' timescale="1"/>"#,
            ),
            (
                r#"<SegmentTemplate media="c.m4s?a=1&amp;b=2"/>"#,
                r#"<SegmentTemplate media="c.m4s?a=1&amp;b=2&amp;auth=T"/>"#,
            ),
            (
                r#"<x:SegmentURL media="1.m4s" mediaRange="0-1"/>"#,
                r#"<x:SegmentURL media="1.m4s?auth=T" mediaRange="0-1"/>"#,
            ),
            (
                r#"<Initialization sourceURL="i.mp4"/>"#,
                r#"<Initialization sourceURL="i.mp4?auth=T"/>"#,
            ),
            ("<BaseURL>video.mp4</BaseURL>", "<BaseURL>video.mp4?auth=T</BaseURL>"),
            ("<BaseURL>\n  a/ \n</BaseURL>", "<BaseURL>\n  a/?auth=T \n</BaseURL>"),
            ("<Location>m.mpd</Location>", "<Location>m.mpd?auth=T</Location>"),
            (
                r#"<Period xlink:href="p.xml"/>"#,
                r#"<Period xlink:href="p.xml?auth=T"/>"#,
            ),
            (
                r#"<UTCTiming value="https://time.example.com"/>"#,
                r#"<UTCTiming value="https://time.example.com"/>"#,
            ),
            (
                r#"<BaseURL>https://v.example.com/a/</BaseURL><SegmentURL media="1"/>"#,
                r#"<BaseURL>https://v.example.com/a/?auth=T</BaseURL><SegmentURL media="1?auth=T"/>"#,
            ),
            (
                r#"<BaseURL>https://o.example.com/a/</BaseURL><SegmentURL media="1"/>"#,
                r#"<BaseURL>https://o.example.com/a/</BaseURL><SegmentURL media="1"/>"#,
            ),
            (
                r#"<BaseURL>https://o.example.com/</BaseURL><BaseURL>b/</BaseURL><SegmentURL media="1"/>"#,
                r#"<BaseURL>https://o.example.com/</BaseURL><BaseURL>b/</BaseURL><SegmentURL media="1"/>"#,
            ),
            (
                r#"<Period><BaseURL>//o.example.com/</BaseURL></Period><Period><SegmentURL media="1"/></Period>"#,
                r#"<Period><BaseURL>//o.example.com/</BaseURL></Period><Period><SegmentURL media="1?auth=T"/></Period>"#,
            ),
            (
                r#"<BaseURL><![CDATA[//o.example.com/]]></BaseURL><SegmentURL media="1"/>"#,
                r#"<BaseURL><![CDATA[//o.example.com/]]></BaseURL><SegmentURL media="1"/>"#,
            ),
            (
                "<BaseURL>https&#58;//o.example.com/</BaseURL><SegmentURL media=\"1\"/>",
                "<BaseURL>https&#58;//o.example.com/</BaseURL><SegmentURL media=\"1\"/>",
            ),
            (
                "<BaseURL>&#47;&#x2f;o.example.com/</BaseURL><SegmentURL media=\"1\"/>",
                "<BaseURL>&#47;&#x2f;o.example.com/</BaseURL><SegmentURL media=\"1\"/>",
            ),
            (
                "<BaseURL>/<!-- -->/o.example.com/</BaseURL><SegmentURL media=\"1\"/>",
                "<BaseURL>/<!-- -->/o.example.com/</BaseURL><SegmentURL media=\"1\"/>",
            ),
            (
                r#"<SegmentURL media="&#47;&#47;o.example.com/1" index='https&#58;//o.example.com/'/>"#,
                r#"<SegmentURL media="&#47;&#47;o.example.com/1" index='https&#58;//o.example.com/'/>"#,
            ),
            (
                r#"<SegmentURL media="&#9;//o.example.com/1"/>"#,
                r#"<SegmentURL media="&#9;//o.example.com/1"/>"#,
            ),
            (
                r#"<SegmentURL media="my film.m4s" index=" a"/>"#,
                r#"<SegmentURL media="my film.m4s?auth=T" index=" a"/>"#,
            ),
            (
                "<Location>a?x=1&amp;b=2&amp;c=3</Location>",
                "<Location>a?x=1&amp;b=2&amp;c=3&amp;auth=T</Location>",
            ),
            (
                "<Location>a&amp;b#c&amp;d</Location>",
                "<Location>a&amp;b?auth=T#c&amp;d</Location>",
            ),
            (
                "<BaseURL>a?x=1&amp;b=2</BaseURL><SegmentURL media=\"1\"/>",
                "<BaseURL>a?x=1&amp;b=2&amp;auth=T</BaseURL><SegmentURL media=\"1?auth=T\"/>",
            ),
            (
                "<ContentSteering>steer?x=1</ContentSteering>",
                "<ContentSteering>steer?x=1&amp;auth=T</ContentSteering>",
            ),
            (
                "<ContentSteering>https://s.example.com/</ContentSteering><BaseURL>https://o.example.com/</BaseURL>",
                "<ContentSteering>https://s.example.com/</ContentSteering><BaseURL>https://o.example.com/</BaseURL>",
            ),
            (
                r#"<InitializationSet id="1" initialization="i.mp4"/>"#,
                r#"<InitializationSet id="1" initialization="i.mp4?auth=T"/>"#,
            ),
            (
                r#"<!-- <SegmentURL media="1"/> -->"#,
                r#"<!-- <SegmentURL media="1"/> -->"#,
            ),
        ] {
            assert_eq!(
                render(&format!("<?xml version=\"1.0\"?><MPD>{body}</MPD>")),
                format!("<?xml version=\"1.0\"?><MPD>{expected}</MPD>")
            );
        }
    }

    #[test]
    fn no_token_where_an_identifier_may_lead_elsewhere() {
        let evil = [
            "https://evil.example/x",
            "//evil.example",
            "/evil.example",
            r"\evil.example",
            "&#47;evil.example",
            " //evil.example",
            "&#9;//evil.example",
            "s:x",
            "",
        ];
        // Of the last but one kind Bento4 makes them.
        let own = ["v", "stream.1-a", "a&amp;b", "video/avc1/1", "a/b:c"];
        for (template, hides) in [
            ("$RepresentationID$/s.m4s", true),
            ("$RepresentationID$", true),
            ("/$RepresentationID$/s.m4s", true),
            ("/$RepresentationID$/evil.example/s.m4s", true),
            ("http$RepresentationID$/s.m4s", true),
            ("a$$b$RepresentationID%05d$/s.m4s", true),
            ("$Number$-$RepresentationID$.m4s", true),
            ("a/$RepresentationID$/s.m4s", false),
            ("/a/$RepresentationID$.m4s", false),
            ("./$RepresentationID$.m4s", false),
            ("s.m4s?r=$RepresentationID$", false),
            ("$Number$.m4s", false),
        ] {
            for (id, is_evil) in evil.iter().map(|id| (id, true)).chain(own.iter().map(|id| (id, false))) {
                let text = format!(
                    "<MPD><SegmentTemplate media=\"{template}\"/><Representation id='v'/><Representation id=\"{id}\"/></MPD>"
                );
                let expected = usize::from(!(hides && is_evil));
                assert_eq!(render(&text).matches("auth=T").count(), expected, "{text}");
            }
        }
        // A port or a user is more than a host.
        for media in [
            "https://v.example.com:$RepresentationID$/s.m4s",
            "https://v.example.com$RepresentationID$/s.m4s",
            "//v.example.com:80$RepresentationID$",
            "https:$RepresentationID$",
            "//$RepresentationID$/s.m4s",
        ] {
            let text = format!("<MPD><Representation id='@evil.example'/><SegmentURL media=\"{media}\"/></MPD>");
            assert_eq!(render(&text), text);
        }
        // What is to be a number may be none.
        for (attribute, tokens) in [("bandwidth=\"7\"", 1), ("bandwidth=\"//evil.example/\"", 0)] {
            let text =
                format!("<MPD><SegmentTemplate media=\"$Bandwidth$/s\"/><Representation id=\"v\" {attribute}/></MPD>");
            assert_eq!(render(&text).matches("auth=T").count(), tokens, "{text}");
        }
        for (attribute, tokens) in [
            ("", 1),
            ("startNumber=\"7\"", 1),
            ("startNumber=\"//evil.example/\"", 0),
        ] {
            let text = format!("<MPD><SegmentTemplate media=\"$Number$\" {attribute}/></MPD>");
            assert_eq!(render(&text).matches("auth=T").count(), tokens, "{text}");
        }
        let nameless = "<MPD><SegmentTemplate media=\"$RepresentationID$/s\"/><Representation/></MPD>";
        assert_eq!(render(nameless), nameless);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        assert_eq!(
            scan(Kind::Dash, b"<!DOCTYPE MPD [<!ENTITY a \"b\">]><MPD/>"),
            Err(Error::Doctype)
        );
        for page in [&b"<!DOCTYPE html><p>"[..], b"down", b"Caf\xe9", b""] {
            assert_eq!(scan(Kind::Dash, page), Err(Error::NoManifest));
            assert_eq!(scan(Kind::Hls, page), Err(Error::NoHeader));
        }
        assert_eq!(scan(Kind::Dash, b"<MPD>"), Err(Error::Xml));
        assert_eq!(scan(Kind::Dash, b"<MPD></Period>"), Err(Error::Xml));
        assert_eq!(scan(Kind::Dash, b"</MPD>"), Err(Error::Xml));
        let late = b"<MPD><Period><SegmentURL media=\"1\"/><BaseURL>//o.example.com</BaseURL></Period></MPD>";
        assert_eq!(scan(Kind::Dash, late), Err(Error::LateBase));
        let deep = |n| format!("<MPD>{}{}</MPD>", "<a>".repeat(n), "</a>".repeat(n));
        assert!(scan(Kind::Dash, deep(60).as_bytes()).is_ok());
        assert_eq!(scan(Kind::Dash, deep(70).as_bytes()), Err(Error::TooDeep));
        let many = format!("<MPD>{}</MPD>", "<SegmentURL media=\"a\"/>".repeat(100_001));
        assert_eq!(scan(Kind::Dash, many.as_bytes()), Err(Error::TooMany));
    }

    #[test]
    fn many_bases_cost_no_more_than_their_text() {
        let urls = "<SegmentURL media=\"1\"/>".repeat(20_000);
        let same = "<BaseURL>https://v.example.com/a/</BaseURL>".repeat(10_000);
        let splices = scan(Kind::Dash, format!("<MPD>{same}{urls}</MPD>").as_bytes()).expect("it is well-formed");
        assert_eq!(splices.len(), 30_000);
        assert!(splices.memory_size() < 256 << 10, "{}", splices.memory_size());
        let bases = |n| {
            let all: Vec<_> = (0..n)
                .map(|i| format!("<BaseURL>https://h{i}.example.com/</BaseURL>"))
                .collect();
            all.concat()
        };
        // Eight hosts can be told apart from ours at every request; with more no relative URL is trusted.
        for (hosts, points) in [(8, 8 + 20_000), (9, 9), (20_000, 20_000)] {
            let text = format!("<MPD>{}{urls}</MPD>", bases(hosts));
            let splices = scan(Kind::Dash, text.as_bytes()).expect("it is well-formed");
            assert_eq!(splices.len(), points, "{hosts}");
            assert!(splices.memory_size() < 256 << 10, "{}", splices.memory_size());
        }
    }

    proptest! {
        #[test]
        fn nothing_but_the_token_is_added(
            body in "(<BaseURL>|</BaseURL>|<SegmentURL media=\"|\"/>|//|[a-z/:?&#. ]|é){0,30}",
            parts in "(<BaseURL>[a-z/]{0,3}</BaseURL>|<BaseURL>//[a-z]/?</BaseURL>|<a xlink:href=\"[a-z?#/]{0,3}\"/>|<Location xlink:href=\"//[a-z]\">[a-z#/]{0,3}</Location>|<Period>(<BaseURL>//[a-z]</BaseURL>|<a xlink:href=\"[a-z?#]{0,3}\" media=\"x\"/>|<Location>a<!-- --></Location>){0,4}</Period>|<SegmentTemplate media=\"[$a]b?\"/>|<Representation id=\"[:a]\"/>){0,20}",
        ) {
            for body in [format!("{parts}{body}"), parts] {
                let text = format!("<MPD>{body}</MPD>");
                if let Ok(splices) = scan(Kind::Dash, text.as_bytes()) {
                    let rendered = splices.render(text.as_bytes(), "T0KEN", "v");
                    let rendered = String::from_utf8(rendered).expect("UTF-8");
                    let bare = rendered.replace("?auth=T0KEN", "").replace("&amp;auth=T0KEN", "");
                    prop_assert_eq!(bare, text);
                }
            }
        }
    }
}
