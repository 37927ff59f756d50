//! Where a token goes in a text, and putting it there.

use crate::Error;
use std::{ops::Range, sync::Arc};

/// How many URIs of one playlist may get a token: far more than a day of segments has.
const MAX_POINTS: usize = 100_000;

/// The hosts that a URI depends on, by where they stand in the text. Shared by all URIs below the same bases.
pub(crate) type Hosts = Arc<[Range<usize>]>;

/// A place for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    at: usize,
    separator: &'static str,
    /// Hosts that must all be the request's own for the token to go here.
    hosts: Hosts,
}

/// The places of one playlist, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Splices(Vec<Point>);

/// How a URI's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Plain,
    Xml,
}

/// Where a URI leads, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authority {
    /// Wherever its base leads.
    Relative,
    /// To the host at these bytes.
    Host(Range<usize>),
    /// Nowhere that a token helps (another scheme), or it cannot be told.
    Other,
}

/// The authority of the URI that stands at `range` of `text` (RFC 3986 §3).
pub(crate) fn authority(text: &str, range: Range<usize>, syntax: Syntax) -> Authority {
    let uri = &text[range.clone()];
    // Browsers read a backslash as a slash, drop tabs and line ends, and trim; what they could read otherwise is not
    // trusted.
    if uri.bytes().any(|b| b == b'\\' || b.is_ascii_control()) || is_trimmed(uri) || hides_its_begin(uri, syntax) {
        return Authority::Other;
    }
    let slashes = match uri.find([':', '/', '?', '#']) {
        Some(colon) if uri.as_bytes()[colon] == b':' => {
            let web = uri[..colon].eq_ignore_ascii_case("http") || uri[..colon].eq_ignore_ascii_case("https");
            if !web || !uri[colon + 1..].starts_with("//") {
                return Authority::Other;
            }
            colon + 1
        }
        _ if uri.starts_with("//") => 0,
        _ => return Authority::Relative,
    };
    let begin = slashes + 2;
    let end = uri[begin..].find(['/', '?', '#']).map_or(uri.len(), |at| begin + at);
    let authority = &uri[begin..end];
    // A template of DASH may put anything between dollars.
    if authority.contains(['@', ' ', '{', '$']) || authority.starts_with('[') {
        return Authority::Other;
    }
    let host = authority.split(':').next().unwrap_or_default();
    Authority::Host(range.start + begin..range.start + begin + host.len())
}

/// Whether a reader may take something off its ends. Empty text counts as that.
fn is_trimmed(uri: &str) -> bool {
    let white = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || c == '\u{feff}');
    white(uri.chars().next()) || white(uri.chars().next_back())
}

/// Whether something that is not known here may stand where a scheme or an authority would.
fn hides_its_begin(uri: &str, syntax: Syntax) -> bool {
    match syntax {
        // A reference is a character (XML 1.0 §4.1), also a colon or a slash; only an ampersand needs one.
        Syntax::Xml => uri.split('&').skip(1).any(|rest| !rest.starts_with("amp;")),
        // A variable is any text (EXT-X-DEFINE, RFC 8216bis §4.3): a host after a slash, or the rest of a scheme.
        Syntax::Plain => uri.find("{$").is_some_and(|at| {
            let before = &uri[..at];
            before == "/" || "https".get(..at).is_some_and(|s| s.eq_ignore_ascii_case(before))
        }),
    }
}

impl Splices {
    /// Adds a place for the URI at `range` of `text`, whose token depends on `hosts`.
    pub(crate) fn add(&mut self, text: &str, range: Range<usize>, syntax: Syntax, hosts: Hosts) -> Result<(), Error> {
        if self.0.len() == MAX_POINTS {
            return Err(Error::TooMany);
        }
        let uri = &text[range.clone()];
        let before_fragment = uri.find('#').unwrap_or(uri.len());
        let separator = match (uri[..before_fragment].contains('?'), syntax) {
            (false, _) => "?",
            (true, Syntax::Plain) => "&",
            (true, Syntax::Xml) => "&amp;",
        };
        self.0.push(Point {
            at: range.start + before_fragment,
            separator,
            hosts,
        });
        Ok(())
    }

    /// Takes away the places of these numbers, which are in order.
    pub(crate) fn remove(&mut self, places: &[usize]) {
        let (mut at, mut next) = (0, places.iter().copied().peekable());
        self.0.retain(|_| {
            let stays = next.next_if_eq(&at).is_none();
            at += 1;
            stays
        });
    }

    /// A copy of the playlist with `auth=<token>` in every URI that leads to `host` (lower-case, without port), which
    /// relative ones do.
    pub fn render(&self, body: &[u8], token: &str, host: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + self.0.len() * (token.len() + 10));
        let mut copied = 0;
        for point in &self.0 {
            let own = |range: &Range<usize>| body[range.clone()].eq_ignore_ascii_case(host.as_bytes());
            if point.hosts.iter().all(own) {
                out.extend_from_slice(&body[copied..point.at]);
                copied = point.at;
                for part in [point.separator, "auth=", token] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
        out.extend_from_slice(&body[copied..]);
        out
    }

    /// What it takes of memory, in bytes.
    pub fn memory_size(&self) -> usize {
        // URIs below the same bases follow one another, and share them.
        let runs = self.0.chunk_by(|a, b| Arc::ptr_eq(&a.hosts, &b.hosts));
        let hosts: usize = runs.map(|run| size_of_val(&*run[0].hosts) + 16).sum();
        self.0.capacity() * size_of::<Point>() + hosts
    }

    /// How many URIs may get a token.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no URI gets one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
