//! Every transition by name.

use super::*;

const NOW: Millis = 1_800_000_000_000;
const DAY: Millis = 86_400_000;

fn at(now: Millis) -> Moment {
    Moment { now, random: 0.5 }
}

fn certificate() -> Certificate {
    Certificate {
        not_before: NOW - 60 * DAY,
        not_after: NOW + 30 * DAY,
        renew_at: NOW + DAY,
        window: None,
        look_at: None,
    }
}

fn ordering(told: bool) -> Phase {
    Phase::Ordering {
        began: NOW,
        told,
        polls: 0,
    }
}

fn pending() -> Phase {
    Phase::Pending {
        message: None,
        next: NOW,
    }
}

fn failed() -> Phase {
    Phase::Failed {
        reason: "No.".to_owned(),
        next: NOW,
    }
}

fn state(phase: Phase, order: Option<&str>, certificate: Option<Certificate>) -> State {
    State {
        certificate,
        order: order.map(str::to_owned),
        phase,
        since: NOW,
        failures: 0,
    }
}

const STORED: Event = Event::CertificateStored {
    not_before: NOW,
    not_after: NOW + 90 * DAY,
};

fn refused() -> Event {
    Event::OrderFailed {
        reason: "No.".to_owned(),
        retry_at: None,
    }
}

fn away() -> Event {
    Event::CaUnreachable {
        reason: "Away.".to_owned(),
        retry_at: None,
    }
}

#[test]
fn every_transition() {
    let url = || "o".to_owned();
    let look = |after| vec![Action::LookAtOrder(url(), NOW + after)];
    let cert = || Some(certificate());
    let due = || {
        Some(Certificate {
            renew_at: NOW,
            ..certificate()
        })
    };
    let not_yet = || Event::DnsSeen(Verdict::NotYet("Elsewhere.".to_owned()));
    let silence = || Event::DnsSeen(Verdict::Unanswered("Silence.".to_owned()));
    let seen = |progress| Event::OrderSeen(progress, None);
    for (name, from, event, status, actions) in [
        (
            "new",
            State::new(NOW),
            Event::Tick,
            Status::Pending,
            vec![Action::CheckDns],
        ),
        (
            "not there",
            state(pending(), None, None),
            not_yet(),
            Status::Pending,
            vec![],
        ),
        (
            "no answer",
            state(pending(), None, None),
            silence(),
            Status::Pending,
            vec![],
        ),
        (
            "there",
            state(pending(), None, None),
            Event::DnsSeen(Verdict::Here),
            Status::Processing,
            vec![Action::PlaceOrder],
        ),
        (
            "placing, crashed",
            state(ordering(false), None, None),
            Event::Tick,
            Status::Processing,
            vec![Action::PlaceOrder],
        ),
        (
            "placed",
            state(ordering(false), None, None),
            Event::OrderPlaced(url()),
            Status::Processing,
            look(0),
        ),
        (
            "open, crashed",
            state(ordering(true), Some("o"), None),
            Event::Tick,
            Status::Processing,
            look(0),
        ),
        (
            "to be shown",
            state(ordering(false), Some("o"), None),
            seen(Progress::Pending),
            Status::Processing,
            vec![Action::ShowChallenges(url())],
        ),
        (
            "shown",
            state(ordering(false), Some("o"), None),
            Event::ChallengesShown,
            Status::Processing,
            vec![Action::TellReady(url())],
        ),
        (
            "told",
            state(ordering(false), Some("o"), None),
            Event::ToldReady,
            Status::Processing,
            look(50),
        ),
        (
            "being checked",
            state(ordering(true), Some("o"), None),
            seen(Progress::Pending),
            Status::Processing,
            look(100),
        ),
        (
            "being checked, told when",
            state(ordering(true), Some("o"), None),
            Event::OrderSeen(Progress::Pending, Some(NOW + 3000)),
            Status::Processing,
            look(3000),
        ),
        (
            "checked",
            state(ordering(true), Some("o"), None),
            seen(Progress::Ready),
            Status::Processing,
            vec![Action::Finalize(url())],
        ),
        (
            "being made",
            state(ordering(true), Some("o"), None),
            seen(Progress::Processing),
            Status::Processing,
            look(100),
        ),
        (
            "made",
            state(ordering(true), Some("o"), None),
            seen(Progress::Valid),
            Status::Processing,
            vec![Action::Download(url())],
        ),
        (
            "stored",
            state(ordering(true), Some("o"), None),
            STORED,
            Status::Issued,
            vec![Action::AskForWindow],
        ),
        (
            "refused",
            state(ordering(true), Some("o"), None),
            refused(),
            Status::Failed,
            vec![],
        ),
        (
            "not placed",
            state(ordering(false), None, None),
            refused(),
            Status::Failed,
            vec![],
        ),
        (
            "CA away",
            state(ordering(true), Some("o"), None),
            away(),
            Status::Failed,
            vec![],
        ),
        (
            "order lost",
            state(ordering(true), Some("o"), None),
            Event::OrderLost(String::new()),
            Status::Processing,
            vec![Action::PlaceOrder],
        ),
        (
            "again, order gone",
            state(failed(), None, None),
            Event::Tick,
            Status::Pending,
            vec![Action::CheckDns],
        ),
        (
            "again, order open",
            state(failed(), Some("o"), None),
            Event::Tick,
            Status::Processing,
            look(0),
        ),
        (
            "resting",
            state(Phase::Issued, None, cert()),
            Event::Tick,
            Status::Issued,
            vec![],
        ),
        (
            "renewal due",
            state(Phase::Issued, None, due()),
            Event::Tick,
            Status::Renewing,
            vec![Action::CheckDns],
        ),
        (
            "renewal, moved away",
            state(pending(), None, due()),
            not_yet(),
            Status::Renewing,
            vec![],
        ),
        (
            "renewal, no answer",
            state(pending(), None, due()),
            silence(),
            Status::Renewing,
            vec![Action::PlaceOrder],
        ),
        (
            "renewal, placed",
            state(ordering(false), None, due()),
            Event::OrderPlaced(url()),
            Status::Renewing,
            look(0),
        ),
        (
            "renewal refused",
            state(ordering(true), Some("o"), due()),
            refused(),
            Status::Failed,
            vec![],
        ),
        (
            "renewed",
            state(ordering(true), Some("o"), due()),
            STORED,
            Status::Issued,
            vec![Action::AskForWindow],
        ),
        (
            "late event",
            state(Phase::Issued, None, cert()),
            seen(Progress::Ready),
            Status::Issued,
            vec![],
        ),
        (
            "late DNS",
            state(ordering(true), Some("o"), None),
            Event::DnsSeen(Verdict::Here),
            Status::Processing,
            vec![],
        ),
        (
            "second order",
            state(ordering(true), Some("o"), None),
            Event::OrderPlaced("p".to_owned()),
            Status::Processing,
            vec![],
        ),
    ] {
        let before = from.certificate.clone();
        let order = from.order.clone();
        let (after, done) = step(from, event.clone(), at(NOW));
        assert_eq!(after.status(NOW), status, "{name}");
        assert_eq!(done, actions, "{name}");
        if event != STORED {
            assert_eq!(after.certificate, before, "{name}: the certificate");
        }
        let ends = matches!(event, Event::OrderFailed { .. } | Event::OrderLost(_)) || event == STORED;
        if order.is_some() && !ends {
            assert_eq!(after.order, order, "{name}: the order");
        }
    }
}

#[test]
fn nothing_is_done_before_its_time() {
    let later = NOW + 1000;
    for phase in [
        Phase::Pending {
            message: None,
            next: later,
        },
        Phase::Failed {
            reason: String::new(),
            next: later,
        },
    ] {
        let from = state(phase, None, None);
        assert_eq!(from.due(), later);
        assert_eq!(step(from.clone(), Event::Tick, at(NOW)), (from.clone(), vec![]));
        assert_eq!(step(from.clone(), Event::Tick, at(later)).1, [Action::CheckDns]);
        // The clock was a year ahead, and is right again.
        assert_eq!(step(from, Event::Tick, at(NOW - 365 * DAY)).1, [Action::CheckDns]);
    }
}

#[test]
fn waits_grow_and_the_ca_is_obeyed() {
    let wait = |failures, age, certificate, retry_at, gentle: bool| {
        let from = State {
            failures,
            since: NOW - age,
            ..state(ordering(true), Some("o"), certificate)
        };
        let event = match (refused(), away()) {
            (Event::OrderFailed { reason, .. }, _) if !gentle => Event::OrderFailed { reason, retry_at },
            (_, Event::CaUnreachable { reason, .. }) => Event::CaUnreachable { reason, retry_at },
            _ => unreachable!(),
        };
        step(from, event, at(NOW)).0.due() - NOW
    };
    for (name, waited, expected) in [
        ("first", wait(0, 0, None, None, false), 60_000),
        ("second", wait(1, 0, None, None, false), 120_000),
        ("tenth", wait(10, DAY, None, None, false), 6 * 3_600_000),
        ("after a month", wait(90, 31 * DAY, None, None, false), DAY),
        ("CA away", wait(0, 0, None, None, true), 5_000),
        (
            "CA says an hour",
            wait(0, 0, None, Some(NOW + 3_600_000), false),
            3_600_000,
        ),
        ("CA says less", wait(3, 0, None, Some(NOW + 1000), false), 480_000),
        (
            "CA says a year",
            wait(0, 0, None, Some(NOW + 365 * DAY), false),
            7 * DAY,
        ),
        (
            "short life",
            wait(
                5,
                0,
                Some(Certificate {
                    not_after: NOW + 32_000,
                    ..certificate()
                }),
                None,
                false,
            ),
            2_000,
        ),
    ] {
        assert_eq!(waited, expected, "{name}");
    }
    let look = |waited| {
        let from = State {
            since: NOW - waited,
            ..state(pending(), None, None)
        };
        step(from, Event::DnsSeen(Verdict::NotYet(String::new())), at(NOW))
            .0
            .due()
            - NOW
    };
    for (waited, next) in [
        (0, 1000),
        (80_000, 10_000),
        (3_600_000, 450_000),
        (9 * DAY, 6 * 3_600_000),
    ] {
        assert_eq!(look(waited), next, "{waited}");
    }
}

#[test]
fn renewal_is_at_two_thirds_or_when_the_ca_wants_it() {
    let (issued, _) = step(state(ordering(true), Some("o"), None), STORED, at(NOW));
    let due = |s: &State| s.certificate.as_ref().map(|c| c.renew_at - NOW);
    assert_eq!(due(&issued), Some(60 * DAY + 3 * DAY / 2));
    assert_eq!(issued.due(), NOW);
    let seen = |start, end| Event::WindowSeen {
        start: NOW + start,
        end: NOW + end,
        look_at: NOW + DAY,
    };
    let (told, _) = step(issued.clone(), seen(10 * DAY, 12 * DAY), at(NOW));
    assert_eq!(due(&told), Some(11 * DAY));
    assert_eq!(told.due(), NOW + DAY);
    assert_eq!(step(told.clone(), Event::Tick, at(NOW + DAY)).1, [Action::AskForWindow]);
    // The same window does not draw anew; another one does.
    let again = Moment { now: NOW, random: 0.9 };
    assert_eq!(
        due(&step(told.clone(), seen(10 * DAY, 12 * DAY), again).0),
        Some(11 * DAY)
    );
    let (moved, _) = step(told, seen(-2 * DAY, DAY), at(NOW));
    assert_eq!(step(moved, Event::Tick, at(NOW)).1, [Action::CheckDns]);
    let old = state(Phase::Issued, None, Some(certificate()));
    let (over, _) = step(old, seen(-2 * DAY, -DAY), at(NOW));
    assert_eq!(step(over, Event::Tick, at(NOW)).1, [Action::CheckDns]);
    // No window (RFC 9773 §4.2), or one of a certificate before this one: each successor would be given up as soon as it is
    // there.
    for (start, end) in [(12 * DAY, 10 * DAY), (-DAY, -DAY), (-2 * DAY, -DAY)] {
        let (kept, _) = step(issued.clone(), seen(start, end), at(NOW));
        assert_eq!(due(&kept), due(&issued), "{start} {end}");
        assert_eq!(kept.due() - NOW, 6 * 3_600_000, "it is asked for again");
    }
    // A CA without windows is not asked again.
    let (never, _) = step(issued, Event::NoWindow { never: true }, at(NOW));
    assert_eq!(never.due() - NOW, 60 * DAY + 3 * DAY / 2);
}

#[test]
fn owners_are_told() {
    let told = |s: &State| s.message("x.example.com", "edge.example.net").unwrap_or_default();
    let new = State::new(NOW);
    assert_eq!(
        told(&new),
        "Create a CNAME for 'x.example.com' and point it to 'edge.example.net'."
    );
    let (seen, _) = step(new, Event::DnsSeen(Verdict::NotYet("Seen.".to_owned())), at(NOW));
    assert_eq!(told(&seen), "Seen.");
    assert_eq!(
        told(&state(failed(), None, None)),
        "No. The next try is at 2027-01-15 08:00:00 UTC."
    );
    assert_eq!(told(&state(Phase::Issued, None, Some(certificate()))), "");
}
