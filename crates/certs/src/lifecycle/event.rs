//! What goes into the state machine and what comes out of it.

use super::Millis;

/// What an owner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Waiting for the DNS records.
    Pending,
    /// An order is under way.
    Processing,
    /// The certificate serves.
    Issued,
    /// The old certificate serves, a new one is being got.
    Renewing,
    /// The last try failed.
    Failed,
}

/// How far an order is (RFC 8555 §7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The challenges are to be met.
    Pending,
    /// They are met.
    Ready,
    /// The CA makes the certificate.
    Processing,
    /// It is there.
    Valid,
}

/// What a look at the DNS showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The name leads here, and the CA may issue.
    Here,
    /// Not yet; what is wanted, and what was seen.
    NotYet(String),
    /// Nobody answered.
    Unanswered(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker has taken the certificate up; nothing of it is under way.
    Tick,
    /// The DNS was looked at.
    DnsSeen(Verdict),
    /// The CA has an order open for us.
    OrderPlaced(String),
    /// Every node answers to the challenges.
    ChallengesShown,
    /// The CA knows that it may look.
    ToldReady,
    /// The order was looked at; when to look again, if the CA said so.
    OrderSeen(Progress, Option<Millis>),
    /// The certificate is in the store.
    CertificateStored {
        /// From when on it is valid.
        not_before: Millis,
        /// Until when.
        not_after: Millis,
    },
    /// The CA told when to renew.
    WindowSeen {
        /// The window's start.
        start: Millis,
        /// The window's end.
        end: Millis,
        /// When to ask again.
        look_at: Millis,
    },
    /// The CA did not tell: because it never does, or this time.
    NoWindow {
        /// Whether it never does.
        never: bool,
    },
    /// The CA has ended the order, or refused to open one.
    OrderFailed {
        /// Its reason, in plain words.
        reason: String,
        /// When it may be asked again, if it said so.
        retry_at: Option<Millis>,
    },
    /// The CA does not know the order any more, or the account that placed it.
    OrderLost(String),
    /// The CA cannot be reached, or is in trouble itself: an order stays open.
    CaUnreachable {
        /// What went wrong.
        reason: String,
        /// When it may be asked again, if it said so.
        retry_at: Option<Millis>,
    },
}

/// What is to be done next; its outcome is the next event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look at the name's DNS records.
    CheckDns,
    /// Open an order at the CA, and write its URL down.
    PlaceOrder,
    /// Bring the challenges of this order to every node.
    ShowChallenges(String),
    /// Tell the CA that it may look at them.
    TellReady(String),
    /// Look at this order, at that time.
    LookAtOrder(String, Millis),
    /// Send the request for the certificate, its key being in the store.
    Finalize(String),
    /// Get the certificate and write it down.
    Download(String),
    /// Ask when the certificate is to be renewed.
    AskForWindow,
}
