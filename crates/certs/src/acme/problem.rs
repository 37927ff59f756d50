//! What the CA says is wrong (RFC 8555 §6.7), in plain words, and what can be done about it.

use super::AcmeError;
use crate::lifecycle::Millis;
use instant_acme::{Error, Problem};

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// An account was being made.
    Account,
    /// An order was being opened.
    Placing,
    /// Something about an open order.
    Order,
    /// Anything else.
    Other,
}

/// The failure that an error of the library is.
pub(super) fn failure(error: Error, stage: Stage, retry_at: Option<Millis>) -> AcmeError {
    match error {
        Error::Api(problem) => told(&problem, stage, retry_at),
        Error::Unsupported(feature) if stage == Stage::Other => AcmeError::Unsupported(feature),
        Error::Unsupported(feature) => AcmeError::Refused {
            reason: format!("The CA does not support {feature}."),
            retry_at: None,
        },
        // An answer that is no JSON is a proxy's error page.
        other => AcmeError::Unreachable {
            reason: format!("The CA cannot be reached: {}.", causes(&other)),
            retry_at,
        },
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

fn told(problem: &Problem, stage: Stage, retry_at: Option<Millis>) -> AcmeError {
    let reason = in_words(problem);
    match (kind(problem), stage) {
        ("badNonce" | "serverInternal", _) => AcmeError::Unreachable { reason, retry_at },
        // Not "unauthorized", which may be about the order as well (RFC 8555 §6.7).
        ("accountDoesNotExist", Stage::Placing | Stage::Order | Stage::Other) => AcmeError::AccountGone(reason),
        _ if problem.status.is_some_and(|status| status >= 500) => AcmeError::Unreachable { reason, retry_at },
        _ if problem.status == Some(404) && stage == Stage::Order => AcmeError::OrderGone(reason),
        _ => AcmeError::Refused { reason, retry_at },
    }
}

/// Whether the CA says that the account may not do that: all that it says of one that is deactivated (RFC 8555 §7.3.6).
pub(super) fn is_unauthorized(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem) == "unauthorized")
}

fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind)
}

/// What a problem says to the domain's owner.
pub(super) fn in_words(problem: &Problem) -> String {
    let what = match kind(problem) {
        "dns" => "The CA could not look the domain up",
        "connection" => "The CA could not connect to the domain",
        "unauthorized" | "incorrectResponse" => "The CA did not get the right answer from the domain",
        "tls" => "The CA could not make a TLS connection to the domain",
        "caa" => "A CAA record forbids the CA to issue",
        "rateLimited" => "The CA's rate limit is reached",
        "rejectedIdentifier" => "The CA does not issue for this domain",
        "externalAccountRequired" => "The CA wants an external account: set acme.eab_key_id and acme.eab_hmac_key",
        "invalidContact" | "unsupportedContact" => "The CA does not take acme.contact",
        "badNonce" | "serverInternal" => "The CA is in trouble",
        _ => "The CA has refused",
    };
    let subproblems = problem.subproblems.iter().filter_map(|p| p.detail.as_deref());
    let details: Vec<&str> = problem.detail.as_deref().into_iter().chain(subproblems).collect();
    if details.is_empty() {
        return format!("{what}.");
    }
    // It ends in a database row and a log line.
    let details: String = details
        .join("; ")
        .chars()
        .filter(|c| !c.is_control())
        .take(1000)
        .collect();
    format!("{what}: {}.", details.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn problems_are_told_by_what_can_be_done() {
        let acme = |kind: &str, status: u16| {
            problem(&format!(
                r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "Why.", "status": {status}}}"#
            ))
        };
        for (kind, status, stage, expected) in [
            (
                "rateLimited",
                429,
                Stage::Placing,
                "refused at 9: The CA's rate limit is reached: Why.",
            ),
            (
                "caa",
                403,
                Stage::Order,
                "refused at 9: A CAA record forbids the CA to issue: Why.",
            ),
            ("badNonce", 400, Stage::Order, "unreachable: The CA is in trouble: Why."),
            (
                "serverInternal",
                500,
                Stage::Placing,
                "unreachable: The CA is in trouble: Why.",
            ),
            ("other", 503, Stage::Other, "unreachable: The CA has refused: Why."),
            ("accountDoesNotExist", 400, Stage::Placing, "account"),
            (
                "unauthorized",
                403,
                Stage::Order,
                "refused at 9: The CA did not get the right answer from the domain: Why.",
            ),
            (
                "unauthorized",
                403,
                Stage::Placing,
                "refused at 9: The CA did not get the right answer from the domain: Why.",
            ),
            (
                "unauthorized",
                403,
                Stage::Account,
                "refused at 9: The CA did not get the right answer from the domain: Why.",
            ),
            ("malformed", 404, Stage::Order, "order"),
            ("malformed", 400, Stage::Order, "refused at 9: The CA has refused: Why."),
        ] {
            let seen = match failure(Error::Api(acme(kind, status)), stage, Some(9)) {
                AcmeError::Refused { reason, retry_at } => format!("refused at {}: {reason}", retry_at.unwrap()),
                AcmeError::Unreachable { reason, .. } => format!("unreachable: {reason}"),
                AcmeError::AccountGone(_) => "account".to_owned(),
                AcmeError::OrderGone(_) => "order".to_owned(),
                AcmeError::Unsupported(_) => "unsupported".to_owned(),
            };
            assert_eq!(seen, expected, "{kind} {stage:?}");
        }
    }

    #[test]
    fn details_are_gathered_and_bounded() {
        let nested = problem(r#"{"detail": "A\n.", "subproblems": [{"detail": "B"}]}"#);
        assert_eq!(in_words(&nested), "The CA has refused: A.; B.");
        assert_eq!(in_words(&problem("{}")), "The CA has refused.");
        let long = problem(&format!(r#"{{"detail": "{}"}}"#, "x".repeat(5000)));
        assert!(in_words(&long).len() < 1100);
    }
}
