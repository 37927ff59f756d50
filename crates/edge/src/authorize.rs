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
use quick_cache::{
    Weighter,
    sync::{Cache, DefaultLifecycle},
};
use std::sync::Arc;

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
    pub(crate) fn authorize(&self, resolved: Resolved, now: f64) -> Result<Authorized, Refusal> {
        let refuse = |reason| Refusal::at(reason, &resolved.site);
        let query = resolved.request.query().map_err(|_| refuse(Reason::DuplicateToken))?;
        let signed = resolved.needs_token();
        if signed {
            let token = query.token.ok_or_else(|| refuse(Reason::Token(TokenError::Missing)))?;
            self.check(token, &resolved, now)
                .map_err(|e| refuse(Reason::Token(e)))?;
        }
        let query = Box::from(&*query.rest);
        Ok(Authorized {
            resolved,
            signed,
            query,
        })
    }

    fn check(&self, token: &str, resolved: &Resolved, now: f64) -> Result<(), TokenError> {
        let resource = match &resolved.target {
            Target::Object(_, key) => Resource::Object(key.as_str()),
            Target::Live(stream) => Resource::Stream(&stream.playback_id),
        };
        if let Some(verdict) = self.verdicts.get(token) {
            resolved.key(verdict.key_id).ok_or(TokenError::KeyUnknown)?;
            return verdict.claims.check(resource, now);
        }
        let signed = token::parse(token)?;
        // The scope before the signature: another resource's key is never tried.
        let key = resolved.key(signed.key_id).ok_or(TokenError::KeyUnknown)?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &key.0)
            .verify(signed.signing_input, &signed.signature)
            .map_err(|_| TokenError::Signature)?;
        let verdict = Verdict {
            key_id: signed.key_id,
            claims: signed.claims,
        };
        let checked = verdict.claims.check(resource, now);
        self.verdicts.insert(token.into(), Arc::new(verdict));
        checked
    }
}
