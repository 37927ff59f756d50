//! What of a viewer's request is the edge's own: delivery directives, labels, and what codings it takes. Pure.

use crate::refusal::Reason;
use edgeweir_manifest::live::{LABEL, Position};
use http::{HeaderMap, header::ACCEPT_ENCODING};

/// A query's parts: what is the edge's own, and what an origin may see.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveQuery {
    /// What a blocking reload waits for (RFC 8216bis §6.2.5.2).
    pub(super) position: Option<Position>,
    /// Which run of the encoder the file is of.
    pub(crate) label: Option<u32>,
    pub(crate) rest: String,
}

impl LiveQuery {
    pub(crate) fn parse(query: &str) -> Result<Self, Reason> {
        let mut parsed = Self::default();
        let (mut msn, mut part) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = |what| value.parse::<u64>().map_err(|_| Reason::BadRequest(what));
            let twice = match name {
                "_HLS_msn" => msn.replace(number("_HLS_msn must be a number")?).is_some(),
                "_HLS_part" => part.replace(number("_HLS_part must be a number")?).is_some(),
                // Deltas are not made: the whole playlist is an answer, too.
                "_HLS_skip" => false,
                LABEL => {
                    let label = value.parse().map_err(|_| Reason::NotFound)?;
                    parsed.label.replace(label).is_some()
                }
                _ => {
                    if !parsed.rest.is_empty() {
                        parsed.rest.push('&');
                    }
                    parsed.rest.push_str(pair);
                    false
                }
            };
            if twice {
                return Err(Reason::BadRequest("a delivery directive is given twice"));
            }
        }
        parsed.position = match (msn, part) {
            (Some(msn), part) => Some(Position { msn, part }),
            (None, None) => None,
            (None, Some(_)) => return Err(Reason::BadRequest("_HLS_part needs _HLS_msn")),
        };
        Ok(parsed)
    }
}

/// The query without what is the edge's own.
pub(crate) fn origin_query(query: &str) -> String {
    LiveQuery::parse(query).map(|query| query.rest).unwrap_or_default()
}

/// Whether a client takes gzip (RFC 9110 §12.5.3): it, or everything, is named with a weight above zero.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any) = (None, None);
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters
                .trim()
                .strip_prefix("q=")
                .map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            let coding = coding.trim();
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(weight > 0.0);
            } else if coding == "*" {
                any = Some(weight > 0.0);
            }
        }
    }
    gzip.or(any).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn gzip_only_for_who_takes_it() {
        for (value, expected) in [
            (None, false),
            (Some("gzip"), true),
            (Some("gzip, deflate, br, zstd"), true),
            (Some("br;q=1.0, GZIP;q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("gzip;q=0.000, *"), false),
            (Some("*"), true),
            (Some("*;q=0"), false),
            (Some("identity"), false),
            (Some("gzip;q=x"), false),
        ] {
            let headers = value.map(|v| (ACCEPT_ENCODING, HeaderValue::from_static(v)));
            assert_eq!(accepts_gzip(&headers.into_iter().collect()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_query_is_parted() {
        let parse = |query| LiveQuery::parse(query).map_err(|e| e.status().0.as_u16());
        let of = |position: Option<(u64, Option<u64>)>, label, rest: &str| {
            let position = position.map(|(msn, part)| Position { msn, part });
            Ok(LiveQuery {
                position,
                label,
                rest: rest.to_owned(),
            })
        };
        for (query, expected) in [
            ("", of(None, None, "")),
            ("a=b&c", of(None, None, "a=b&c")),
            ("_HLS_msn=7", of(Some((7, None)), None, "")),
            (
                "x=1&_HLS_msn=7&_HLS_part=2&_ew_v=3&y",
                of(Some((7, Some(2))), Some(3), "x=1&y"),
            ),
            ("_HLS_skip=YES&_HLS_msn=0", of(Some((0, None)), None, "")),
            ("_HLS_part=2", Err(400)),
            ("_HLS_msn=-1", Err(400)),
            ("_HLS_msn=", Err(400)),
            ("_HLS_msn=1&_HLS_msn=1", Err(400)),
            ("_HLS_msn=99999999999999999999", Err(400)),
            ("_ew_v=x", Err(404)),
        ] {
            assert_eq!(parse(query), expected, "{query}");
        }
    }
}
