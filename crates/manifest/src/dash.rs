//! DASH manifests (ISO/IEC 23009-1): the attributes and elements that hold a URL.
//!
//! A relative URL leads where the nearest `BaseURL` elements lead, so the token goes to it only when all of these lead
//! to the request's own host.

use crate::{
    Error,
    splice::{Authority, Splices, Syntax, authority},
};
use quick_xml::{Reader, events::Event};
use std::ops::Range;

/// Elements and their attributes that hold a URL or a template of one.
const ATTRIBUTES: [(&str, &[&str]); 5] = [
    (
        "SegmentTemplate",
        &["media", "initialization", "index", "bitstreamSwitching"],
    ),
    ("SegmentURL", &["media", "index"]),
    ("Initialization", &["sourceURL"]),
    ("RepresentationIndex", &["sourceURL"]),
    ("BitstreamSwitching", &["sourceURL"]),
];

/// Elements whose text is a URL.
const TEXTS: [&str; 3] = ["BaseURL", "Location", "PatchLocation"];

/// An open element.
#[derive(Default)]
struct Level {
    text_is_url: bool,
    is_base: bool,
    /// The hosts of the absolute `BaseURL` children seen so far.
    hosts: Vec<Range<usize>>,
    /// A `BaseURL` whose host cannot be told.
    unknown: bool,
}

pub(crate) fn scan(text: &str) -> Result<Splices, Error> {
    let mut reader = Reader::from_str(text);
    let mut splices = Splices::default();
    let mut levels = vec![Level::default()];
    loop {
        let begin = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|_| Error::Xml)?;
        let end = reader.buffer_position() as usize;
        match event {
            Event::DocType(_) => return Err(Error::Doctype),
            Event::Start(tag) => {
                let name = local(tag.name().into_inner()).to_owned();
                add_attributes(&mut splices, text, begin..end, &name, &levels);
                let text_is_url = TEXTS.contains(&&*name);
                levels.push(Level {
                    text_is_url,
                    is_base: name == "BaseURL",
                    ..Level::default()
                });
            }
            Event::Empty(tag) => {
                let name = local(tag.name().into_inner()).to_owned();
                add_attributes(&mut splices, text, begin..end, &name, &levels);
            }
            Event::End(_) => {
                levels.pop();
                if levels.is_empty() {
                    return Err(Error::Xml);
                }
            }
            Event::Text(_) if levels.last().is_some_and(|l| l.text_is_url) => {
                add_text(&mut splices, text, begin..end, &mut levels);
            }
            Event::CData(_) | Event::GeneralRef(_) if levels.last().is_some_and(|l| l.is_base) => {
                // A base in a form that is not read: nothing below it is known to be ours.
                let parent = levels.len().saturating_sub(2);
                levels[parent].unknown = true;
            }
            Event::Eof => {
                return if levels.len() == 1 {
                    Ok(splices)
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

/// Adds a URL, relative to the bases of `levels`.
fn add(splices: &mut Splices, text: &str, range: Range<usize>, levels: &[Level]) {
    let hosts = match authority(text, range.clone()) {
        Authority::Other => return,
        Authority::Host(host) => vec![host],
        Authority::Relative => {
            if levels.iter().any(|l| l.unknown) {
                return;
            }
            levels.iter().flat_map(|l| l.hosts.iter().cloned()).collect()
        }
    };
    splices.add(text, range, Syntax::Xml, hosts);
}

fn add_text(splices: &mut Splices, text: &str, range: Range<usize>, levels: &mut [Level]) {
    let raw = &text[range.clone()];
    let begin = range.start + (raw.len() - raw.trim_start().len());
    let trimmed = begin..begin + raw.trim().len();
    if trimmed.is_empty() {
        return;
    }
    let (own, above) = levels.split_last_mut().expect("the text is inside an element");
    if own.is_base
        && let Some(parent) = above.last_mut()
    {
        match authority(text, trimmed.clone()) {
            Authority::Relative => {}
            Authority::Host(host) => parent.hosts.push(host),
            Authority::Other => parent.unknown = true,
        }
    }
    add(splices, text, trimmed, above);
}

/// The raw bytes of a tag's attributes that hold URLs.
fn add_attributes(splices: &mut Splices, text: &str, tag: Range<usize>, name: &str, levels: &[Level]) {
    let wanted = ATTRIBUTES
        .iter()
        .find(|(n, _)| *n == name)
        .map_or(&[][..], |(_, names)| names);
    let raw = &text[tag.clone()];
    let mut at = raw.find(|c: char| c.is_ascii_whitespace()).unwrap_or(raw.len());
    while let Some(equals) = raw[at..].find('=').map(|e| at + e) {
        let attribute = raw[at..equals].trim();
        let after = &raw[equals + 1..];
        let open = equals + 1 + (after.len() - after.trim_start().len());
        let Some(quote) = raw[open..].chars().next().filter(|q| ['"', '\''].contains(q)) else {
            return;
        };
        let Some(close) = raw[open + 1..].find(quote).map(|c| open + 1 + c) else {
            return;
        };
        if wanted.contains(&attribute) || attribute == "xlink:href" {
            add(splices, text, tag.start + open + 1..tag.start + close, levels);
        }
        at = close + 1;
    }
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
    fn what_is_no_manifest_is_refused() {
        assert_eq!(
            scan(Kind::Dash, b"<!DOCTYPE MPD [<!ENTITY a \"b\">]><MPD/>"),
            Err(Error::Doctype)
        );
        assert_eq!(scan(Kind::Dash, b"<MPD>"), Err(Error::Xml));
        assert_eq!(scan(Kind::Dash, b"<MPD></Period>"), Err(Error::Xml));
    }

    proptest! {
        #[test]
        fn nothing_but_the_token_is_added(body in "(<BaseURL>|</BaseURL>|<SegmentURL media=\"|\"/>|//|[a-z/:?&#. ]|é){0,30}") {
            let text = format!("<MPD>{body}</MPD>");
            if let Ok(splices) = scan(Kind::Dash, text.as_bytes()) {
                let rendered = String::from_utf8(splices.render(text.as_bytes(), "T0KEN", "v.example.com")).expect("UTF-8");
                let bare = rendered.replace("?auth=T0KEN", "").replace("&amp;auth=T0KEN", "");
                prop_assert_eq!(bare, text);
            }
        }
    }
}
