//! What of a DASH manifest a live edge needs (ISO/IEC 23009-1 §5.3): how it changes, and the initialization segments,
//! which are to be kept as long as the stream lasts.

use crate::Error;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use std::{rc::Rc, time::Duration};

/// How deeply elements may be nested; a manifest needs ten or so.
const MAX_DEPTH: usize = 64;

/// How many initialization segments a manifest may name.
const MAX_REPRESENTATIONS: usize = 1000;

/// How long a URL may be, in bytes.
const MAX_URL: usize = 4096;

/// How wide a template may make a number.
const MAX_WIDTH: usize = 32;

/// The longest duration that is believed: a century, in seconds.
const MAX_SECONDS: f64 = 3_155_760_000.0;

/// What of a DASH manifest a live edge needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// `MPD@type` is `dynamic`.
    pub dynamic: bool,
    /// `MPD@minimumUpdatePeriod`.
    pub minimum_update_period: Option<Duration>,
    /// `MPD@timeShiftBufferDepth`.
    pub time_shift_buffer: Option<Duration>,
    /// `MPD@maxSegmentDuration`.
    pub max_segment_duration: Option<Duration>,
    /// `MPD@availabilityStartTime`, as it is written.
    pub availability_start: Option<String>,
    /// URIs of the initialization segments, relative to the manifest: `$RepresentationID$` and `$Bandwidth$` are
    /// filled in, and the first `BaseURL` of each level is put before. Once each.
    pub initializations: Vec<String>,
}

/// An open element, with what it takes over from those around it (ISO/IEC 23009-1 §5.3.9.1, §5.6).
#[derive(Debug, Clone, Default)]
struct Level {
    name: String,
    base: Rc<str>,
    /// A `BaseURL` of this level was seen: others are alternatives to it.
    has_base: bool,
    initialization: Option<Rc<str>>,
    id: String,
    bandwidth: String,
    text: String,
}

impl Manifest {
    /// Whether this is another run of a packager than the one that began at `before`. One that is final, or does not say
    /// when it began, belongs to any.
    pub fn starts_over(&self, before: Option<&str>) -> bool {
        let begun = self.availability_start.as_deref().filter(|_| self.dynamic);
        before.zip(begun).is_some_and(|(before, begun)| before != begun)
    }
}

/// Reads a manifest.
pub fn parse_manifest(body: &[u8]) -> Result<Manifest, Error> {
    let text = std::str::from_utf8(body).map_err(|_| Error::Utf8)?;
    let mut reader = Reader::from_str(text);
    let mut manifest = Manifest::default();
    let mut levels: Vec<Level> = Vec::new();
    let mut seen = false;
    loop {
        match reader.read_event().map_err(|_| Error::Xml)? {
            Event::DocType(_) => return Err(Error::Doctype),
            Event::Start(tag) => {
                open(&tag, &mut levels, &mut manifest, &mut seen)?;
            }
            Event::Empty(tag) => {
                open(&tag, &mut levels, &mut manifest, &mut seen)?;
                close(&mut levels, &mut manifest)?;
            }
            Event::End(_) => close(&mut levels, &mut manifest)?,
            Event::Text(part) => {
                if let Some(level) = levels.last_mut().filter(|level| level.name == "BaseURL") {
                    level.text.push_str(&part);
                }
            }
            Event::GeneralRef(name) => {
                if let Some(level) = levels.last_mut().filter(|level| level.name == "BaseURL") {
                    level.text.push('&');
                    level.text.push_str(&name);
                    level.text.push(';');
                }
            }
            Event::Eof if levels.is_empty() && seen => return Ok(manifest),
            Event::Eof => return Err(Error::Xml),
            _ => {}
        }
    }
}

fn open(tag: &BytesStart<'_>, levels: &mut Vec<Level>, manifest: &mut Manifest, seen: &mut bool) -> Result<(), Error> {
    let name = tag.local_name().into_inner().to_owned();
    let value = |name: &str| -> Result<Option<String>, Error> {
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|_| Error::Xml)?;
            if attribute.key.into_inner() == name {
                let value = attribute
                    .normalized_value(XmlVersion::Implicit1_0)
                    .map_err(|_| Error::Xml)?;
                return Ok(Some(value.into_owned()));
            }
        }
        Ok(None)
    };
    let duration = |attribute, name| match value(attribute)? {
        Some(text) => duration(&text).map(Some).ok_or(Error::Duration(name)),
        None => Ok(None),
    };
    if levels.len() == MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    if levels.is_empty() {
        if *seen || name != "MPD" {
            return Err(Error::Xml);
        }
        *seen = true;
        manifest.dynamic = value("type")?.is_some_and(|kind| kind == "dynamic");
        manifest.minimum_update_period = duration("minimumUpdatePeriod", "MPD@minimumUpdatePeriod")?;
        manifest.time_shift_buffer = duration("timeShiftBufferDepth", "MPD@timeShiftBufferDepth")?;
        manifest.max_segment_duration = duration("maxSegmentDuration", "MPD@maxSegmentDuration")?;
        manifest.availability_start = value("availabilityStartTime")?;
    }
    let initialization = match name.as_str() {
        "SegmentTemplate" => value("initialization")?,
        "Initialization" => value("sourceURL")?,
        _ => None,
    };
    if let Some(initialization) = initialization.map(short).transpose()? {
        let holds_segments =
            |level: &&mut Level| ["Period", "AdaptationSet", "Representation"].contains(&level.name.as_str());
        if let Some(level) = levels.iter_mut().rev().find(holds_segments) {
            level.initialization = Some(initialization.into());
        }
    }
    let mut level = match levels.last() {
        Some(around) => Level {
            base: Rc::clone(&around.base),
            initialization: around.initialization.clone(),
            ..Level::default()
        },
        None => Level::default(),
    };
    if name == "Representation" {
        level.id = short(value("id")?.unwrap_or_default())?;
        level.bandwidth = short(value("bandwidth")?.unwrap_or_default())?;
    }
    level.name = name;
    levels.push(level);
    Ok(())
}

fn close(levels: &mut Vec<Level>, manifest: &mut Manifest) -> Result<(), Error> {
    let level = levels.pop().ok_or(Error::Xml)?;
    match (level.name.as_str(), levels.last_mut()) {
        ("BaseURL", Some(around)) if !around.has_base => {
            let text = quick_xml::escape::unescape(level.text.trim()).map_err(|_| Error::Xml)?;
            around.base = short(join(&around.base, &text))?.into();
            around.has_base = true;
        }
        ("Representation", _) => {
            if let Some(template) = &level.initialization {
                let uri = short(join(&level.base, &expand(template, &level.id, &level.bandwidth)))?;
                if !manifest.initializations.contains(&uri) {
                    if manifest.initializations.len() == MAX_REPRESENTATIONS {
                        return Err(Error::TooLong);
                    }
                    manifest.initializations.push(uri);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Refuses what is longer than a URL is: templates and bases are multiplied.
fn short(url: String) -> Result<String, Error> {
    if url.len() > MAX_URL {
        return Err(Error::LongUrl);
    }
    Ok(url)
}

/// What `uri` is relative to the manifest when it is relative to `base`. Dot segments stay.
fn join(base: &str, uri: &str) -> String {
    let path = &base[..base.find(['?', '#']).unwrap_or(base.len())];
    let has_scheme = uri
        .find([':', '/', '?', '#'])
        .is_some_and(|at| uri.as_bytes()[at] == b':');
    if uri.starts_with('/') || has_scheme {
        return uri.to_owned();
    }
    let folder = path.rfind('/').map_or(0, |slash| slash + 1);
    format!("{}{uri}", &path[..folder])
}

/// Fills a template's identifiers in (ISO/IEC 23009-1 §5.3.9.4.4).
fn expand(template: &str, id: &str, bandwidth: &str) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let Some((identifier, after)) = after.split_once('$') else {
            out.push('$');
            rest = after;
            continue;
        };
        let (name, format) = identifier.split_once("%0").unwrap_or((identifier, ""));
        match name {
            "" => out.push('$'),
            "RepresentationID" => out.push_str(id),
            "Bandwidth" => {
                let width = format.trim_end_matches('d').parse().unwrap_or(0).min(MAX_WIDTH);
                out.extend(std::iter::repeat_n('0', width - bandwidth.len().min(width)));
                out.push_str(bandwidth);
            }
            // Not of an initialization segment.
            _ => {
                out.push('$');
                out.push_str(identifier);
                out.push('$');
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// An `xs:duration` of days and less. Years and months are of no certain length (XML Schema 2 §3.2.6): none is.
fn duration(text: &str) -> Option<Duration> {
    let (days, time) = match text.trim().strip_prefix('P')?.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (text.trim().strip_prefix('P')?, None),
    };
    if time.unwrap_or(days).is_empty() {
        return None;
    }
    let mut total = 0.0;
    for (mut rest, units) in [
        (days, &[('Y', None), ('M', None), ('D', Some(86_400.0))]),
        (
            time.unwrap_or_default(),
            &[('H', Some(3600.0)), ('M', Some(60.0)), ('S', Some(1.0))],
        ),
    ] {
        for (unit, seconds) in units {
            if let Some((number, after)) = rest.split_once(*unit) {
                if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                    return None;
                }
                let number: f64 = number.parse().ok()?;
                total += match seconds {
                    Some(seconds) => number * seconds,
                    None if number == 0.0 => 0.0,
                    None => return None,
                };
                rest = after;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    (total <= MAX_SECONDS).then(|| Duration::from_secs_f64(total))
}
