//! Whether a request may have what it asks for: the third phase (`Resolved` → [`Authorized`]).
//!
//! Nothing downstream takes anything but an [`Authorized`], and only this module makes one: code that skips the check
//! does not compile. It runs on every request, before the cache is looked at. A check that cannot decide, refuses.

use crate::{
    limits,
    refusal::{Reason, Refusal},
    site::{Resolved, Target},
};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use edgeweir_model::{
    SigningKeyId,
    token::{self, Resource, TokenClaims, TokenError},
};
use edgeweir_origin::Interim;
use parking_lot::Mutex;
use quick_cache::{
    Weighter,
    sync::{Cache, DefaultLifecycle},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// A request that may have its target.
#[derive(Debug)]
pub(crate) struct Authorized {
    resolved: Resolved,
    signed: bool,
    query: Box<str>,
}

impl Authorized {
    /// The request, its site and target.
    pub(crate) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// Has an origin's interim responses told to whoever asked.
    pub(crate) fn tell_interims(&mut self, interim: Interim) {
        self.resolved.request.interim = Some(interim);
    }

    /// Gives the request up, to pass its body on.
    pub(crate) fn into_resolved(self) -> Resolved {
        self.resolved
    }

    /// Whether a token opened the target.
    pub(crate) fn is_signed(&self) -> bool {
        self.signed
    }

    /// The token that opened the target; `None` where none is asked for.
    pub(crate) fn token(&self) -> Option<&str> {
        let query = self.resolved.request.query().ok().filter(|_| self.signed)?;
        query.token
    }

    /// The query without any token: what cache and origin may see.
    pub(crate) fn query(&self) -> &str {
        &self.query
    }
}

/// Checks tokens, and remembers whose signature was found good.
///
/// An RSA-4096 verification takes some 75 µs; a player sends the same token with every segment. What is remembered is
/// only that a key signed these very bytes: times, the resource and the key's being there are checked on each request.
#[derive(Debug)]
pub(crate) struct Verifier {
    verdicts: Cache<Box<str>, Arc<Verdict>, ByBytes, foldhash::fast::RandomState>,
}

/// What tokens one connection has shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The last one that a key had signed: a player sends it with each request, and need not be looked up again.
    last: Mutex<Option<(Box<str>, Arc<Verdict>)>>,
    /// How many had a signature that did not hold.
    forged: AtomicU32,
}

impl Shown {
    /// Whether so many were forged that no more are verified: the connection is to end, which bounds what a guess costs.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.forged.load(Ordering::Relaxed) >= limits::FORGED_TOKENS
    }
}

#[derive(Debug)]
struct Verdict {
    key_id: SigningKeyId,
    claims: TokenClaims,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Box<str>, Arc<Verdict>> for ByBytes {
    fn weight(&self, token: &Box<str>, verdict: &Arc<Verdict>) -> u64 {
        // The two allocations, and the cache's own bookkeeping, in round figures.
        (token.len() + verdict.claims.uri.len() + 160) as u64
    }
}

impl Verifier {
    pub(crate) fn new() -> Self {
        let entries = (limits::VERDICT_BYTES / 1024) as usize;
        let verdicts = Cache::with(
            entries,
            limits::VERDICT_BYTES,
            ByBytes,
            foldhash::fast::RandomState::default(),
            DefaultLifecycle::default(),
        );
        Self { verdicts }
    }

    /// Lets the request through or says why not; `now` is in seconds since 1970.
    pub(crate) fn authorize(&self, resolved: Resolved, shown: &Shown, now: f64) -> Result<Authorized, Refusal> {
        let refuse = |reason| Refusal::at(reason, &resolved.site);
        let query = resolved.request.query().map_err(|_| refuse(Reason::DuplicateToken))?;
        let signed = resolved.needs_token();
        if signed {
            let token = query.token.ok_or_else(|| refuse(Reason::Token(TokenError::Missing)))?;
            self.check(token, &resolved, shown, now).map_err(|e| Refusal {
                close: shown.is_exhausted(),
                ..refuse(Reason::Token(e))
            })?;
        }
        let query = Box::from(&*query.rest);
        Ok(Authorized {
            resolved,
            signed,
            query,
        })
    }

    fn check(&self, token: &str, resolved: &Resolved, shown: &Shown, now: f64) -> Result<(), TokenError> {
        let resource = match &resolved.target {
            Target::Object(_, key) => Resource::Object(key.as_str()),
            Target::Live(stream, _) => Resource::Stream(&stream.playback_id),
        };
        let opens = |verdict: &Verdict| {
            resolved.key(verdict.key_id).ok_or(TokenError::KeyUnknown)?;
            verdict.claims.check(resource, now)
        };
        if let Some((_, verdict)) = shown.last.lock().as_ref().filter(|(last, _)| **last == *token) {
            return opens(verdict);
        }
        let verdict = match self.verdicts.get(token) {
            Some(verdict) => verdict,
            None => self.verify(token, resolved, shown)?,
        };
        let opened = opens(&verdict);
        *shown.last.lock() = Some((token.into(), verdict));
        opened
    }

    /// Verifies a signature, and remembers that it holds.
    fn verify(&self, token: &str, resolved: &Resolved, shown: &Shown) -> Result<Arc<Verdict>, TokenError> {
        let signed = token::parse(token)?;
        // The scope before the signature: another resource's key is never tried.
        let key = resolved.key(signed.key_id).ok_or(TokenError::KeyUnknown)?;
        if shown.is_exhausted() {
            return Err(TokenError::Signature);
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &key.0)
            .verify(signed.signing_input, &signed.signature)
            .map_err(|_| {
                shown.forged.fetch_add(1, Ordering::Relaxed);
                TokenError::Signature
            })?;
        let verdict = Arc::new(Verdict {
            key_id: signed.key_id,
            claims: signed.claims,
        });
        self.verdicts.insert(token.into(), verdict.clone());
        Ok(verdict)
    }
}
