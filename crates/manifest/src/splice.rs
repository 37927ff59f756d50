//! Where a token goes in a text, and putting it there.

use crate::Error;
use std::{ops::Range, sync::Arc};

/// How many URIs of one playlist may get a token: far more than a day of segments has.
const MAX_POINTS: usize = 100_000;

/// Where the hosts that a URI depends on stand in the text.
pub(crate) type Hosts = Arc<[Range<usize>]>;

/// The bits of a place's first number: its URI has a query; it depends on other hosts than the place before.
const HAS_QUERY: usize = 1;
const OTHER_HOSTS: usize = 2;

/// The places of one playlist, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splices {
    /// Numbers, seven bits a byte: how far a place is behind the one before, and the bits above; with [`OTHER_HOSTS`] how
    /// many these are, and of each how far it begins before the place, and its length. So they take less than their text.
    code: Box<[u8]>,
    count: usize,
    syntax: Syntax,
}

/// Places as they are found.
#[derive(Debug)]
pub(crate) struct Places {
    code: Vec<u8>,
    count: usize,
    syntax: Syntax,
    /// The last one, and its hosts.
    at: usize,
    hosts: Vec<Range<usize>>,
}

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

impl Places {
    pub(crate) fn new(syntax: Syntax) -> Self {
        Self {
            code: Vec::new(),
            count: 0,
            syntax,
            at: 0,
            hosts: Vec::new(),
        }
    }

    /// Adds a place for the URI at `range` of `text`, behind all others. Its token depends on `hosts`, which stand before it.
    pub(crate) fn add(&mut self, text: &str, range: Range<usize>, hosts: &[Range<usize>]) -> Result<(), Error> {
        if self.count == MAX_POINTS {
            return Err(Error::TooMany);
        }
        let uri = &text[range.clone()];
        let before_fragment = uri.find('#').unwrap_or(uri.len());
        let has_query = uri[..before_fragment].contains('?');
        self.push(range.start + before_fragment, has_query, hosts);
        Ok(())
    }

    fn push(&mut self, at: usize, has_query: bool, hosts: &[Range<usize>]) {
        let others = self.hosts != hosts;
        let bits = if has_query { HAS_QUERY } else { 0 } | if others { OTHER_HOSTS } else { 0 };
        self.number((at - self.at) << 2 | bits);
        if others {
            self.number(hosts.len());
            for host in hosts {
                self.number(at - host.start);
                self.number(host.len());
            }
            self.hosts = hosts.to_vec();
        }
        self.at = at;
        self.count += 1;
    }

    fn number(&mut self, mut number: usize) {
        while number > 0x7f {
            self.code.push(0x80 | (number & 0x7f) as u8);
            number >>= 7;
        }
        self.code.push(number as u8);
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn finish(self) -> Splices {
        Splices {
            code: self.code.into(),
            count: self.count,
            syntax: self.syntax,
        }
    }

    /// All but those of these numbers, which are in order.
    pub(crate) fn finish_without(self, places: &[usize]) -> Splices {
        if places.is_empty() {
            return self.finish();
        }
        let mut kept = Self::new(self.syntax);
        let all = self.finish();
        let mut next = places.iter().copied().peekable();
        let mut place = Place::before(&all);
        for number in 0..all.count {
            place.advance();
            if next.next_if_eq(&number).is_none() {
                kept.push(place.at, place.has_query, &place.hosts);
            }
        }
        kept.finish()
    }
}

/// One place after the other.
struct Place<'a> {
    code: &'a [u8],
    at: usize,
    has_query: bool,
    /// Hosts that must all be the request's own for the token to go here.
    hosts: Vec<Range<usize>>,
}

impl<'a> Place<'a> {
    /// Before the first one.
    fn before(splices: &'a Splices) -> Self {
        Self {
            code: &splices.code,
            at: 0,
            has_query: false,
            hosts: Vec::new(),
        }
    }

    /// Goes on to the next one; whether it depends on other hosts.
    fn advance(&mut self) -> bool {
        let first = self.number();
        self.at += first >> 2;
        self.has_query = first & HAS_QUERY != 0;
        let others = first & OTHER_HOSTS != 0;
        if others {
            self.hosts.clear();
            for _ in 0..self.number() {
                let begin = self.at - self.number();
                let end = begin + self.number();
                self.hosts.push(begin..end);
            }
        }
        others
    }

    fn number(&mut self) -> usize {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = self.code.split_first() {
            self.code = rest;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        number
    }
}

impl Splices {
    /// A copy of the playlist with `auth=<token>` in every URI that leads to `host` (lower-case, without port), which
    /// relative ones do.
    pub fn render(&self, body: &[u8], token: &str, host: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + self.count * (token.len() + 10));
        let more = match self.syntax {
            Syntax::Plain => "&",
            Syntax::Xml => "&amp;",
        };
        let (mut copied, mut is_own) = (0, true);
        let mut place = Place::before(self);
        for _ in 0..self.count {
            if place.advance() {
                let own = |range: &Range<usize>| body[range.clone()].eq_ignore_ascii_case(host.as_bytes());
                is_own = place.hosts.iter().all(own);
            }
            if is_own {
                out.extend_from_slice(&body[copied..place.at]);
                copied = place.at;
                for part in [if place.has_query { more } else { "?" }, "auth=", token] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
        out.extend_from_slice(&body[copied..]);
        out
    }

    /// What it takes of memory, in bytes.
    pub fn memory_size(&self) -> usize {
        size_of::<Self>() + self.code.len()
    }

    /// How many URIs may get a token.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no URI gets one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    type Found = (usize, bool, Vec<Range<usize>>);

    fn all(splices: &Splices) -> Vec<Found> {
        let mut place = Place::before(splices);
        let next = |_| {
            place.advance();
            (place.at, place.has_query, place.hosts.clone())
        };
        (0..splices.len()).map(next).collect()
    }

    proptest! {
        #[test]
        fn places_are_read_as_they_were_added(
            steps in vec((0..100_000_usize, any::<bool>(), vec((0..1_usize << 30, 0..300_usize), 0..4), any::<bool>()), 0..50),
        ) {
            let (mut places, mut expected, mut at) = (Places::new(Syntax::Xml), Vec::<Found>::new(), 0);
            for (step, has_query, hosts, same) in &steps {
                at += step;
                let known = expected.last().filter(|_| *same).map(|(_, _, hosts)| hosts.clone());
                let begin = |(from, length): &(usize, usize)| (from % (at + 1), *length);
                let hosts = known.unwrap_or_else(|| hosts.iter().map(begin).map(|(b, l)| b..b + l).collect());
                places.push(at, *has_query, &hosts);
                expected.push((at, *has_query, hosts));
            }
            let left_out: Vec<_> = (0..expected.len()).filter(|number| steps[*number].3).collect();
            let some: Vec<_> = (0..expected.len()).filter(|number| !steps[*number].3).map(|n| expected[n].clone()).collect();
            let mut again = Places::new(Syntax::Xml);
            for (at, has_query, hosts) in &expected {
                again.push(*at, *has_query, hosts);
            }
            prop_assert_eq!(all(&again.finish_without(&left_out)), some);
            prop_assert_eq!(all(&places.finish()), expected);
        }
    }
}
