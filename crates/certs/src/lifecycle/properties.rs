//! What no sequence of events may do.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const NOW: Millis = 1_800_000_000_000;
const DAY: Millis = 86_400_000;

fn events() -> impl Strategy<Value = Event> {
    let text = || Just(String::from("x"));
    let time = || -40 * DAY..40 * DAY;
    prop_oneof![
        4 => Just(Event::Tick),
        2 => Just(Event::DnsSeen(Verdict::Here)),
        1 => text().prop_map(|t| Event::DnsSeen(Verdict::NotYet(t))),
        1 => text().prop_map(|t| Event::DnsSeen(Verdict::Unanswered(t))),
        2 => "[a-c]".prop_map(Event::OrderPlaced),
        1 => Just(Event::ChallengesShown),
        1 => Just(Event::ToldReady),
        2 => (0..4usize, proptest::option::of(time())).prop_map(|(n, retry)| Event::OrderSeen(
            [Progress::Pending, Progress::Ready, Progress::Processing, Progress::Valid][n], retry.map(|r| NOW + r))),
        1 => time().prop_map(|t| Event::CertificateStored { not_before: NOW + t, not_after: NOW + t + 90 * DAY }),
        1 => (time(), time(), time()).prop_map(|(a, b, c)| Event::WindowSeen { start: NOW + a, end: NOW + b, look_at: NOW + c }),
        1 => any::<bool>().prop_map(|never| Event::NoWindow { never }),
        1 => (text(), proptest::option::of(time())).prop_map(|(reason, r)| Event::OrderFailed { reason, retry_at: r.map(|r| NOW + r) }),
        1 => text().prop_map(Event::OrderLost),
        1 => (text(), proptest::option::of(time())).prop_map(|(reason, r)| Event::CaUnreachable { reason, retry_at: r.map(|r| NOW + r) }),
    ]
}

proptest! {
    /// Whatever comes in whatever order, at whatever time: one order is open at most, a certificate goes only for
    /// another, and what is written down reads back.
    #[test]
    fn no_second_order_and_no_certificate_lost(
        steps in proptest::collection::vec((events(), -400 * DAY..400 * DAY, 0.0..1.0f64), 1..60)
    ) {
        let mut state = State::new(NOW);
        for (event, shift, random) in steps {
            let moment = Moment { now: NOW + shift, random };
            let before = state.clone();
            let (after, actions) = step(state, event.clone(), moment);
            let ends = matches!(event, Event::OrderFailed { .. } | Event::OrderLost(_) | Event::CertificateStored { .. });
            if before.order.is_some() && !ends {
                prop_assert!(!actions.contains(&Action::PlaceOrder), "{before:?} {event:?}");
                // Only patience that has run out gives an open order up.
                let gave_up = matches!(after.phase, Phase::Failed { .. });
                prop_assert!(after.order == before.order || gave_up);
            }
            prop_assert!(actions.iter().filter(|a| **a == Action::PlaceOrder).count() <= 1);
            prop_assert!(!(actions.contains(&Action::PlaceOrder) && after.order.is_some()));
            prop_assert!(before.certificate.is_none() || after.certificate.is_some());
            if !matches!(event, Event::CertificateStored { .. }) {
                let until = |s: &State| s.certificate.as_ref().map(|c| c.not_after);
                prop_assert_eq!(until(&before), until(&after));
            }
            prop_assert!(after.phase != Phase::Issued || after.certificate.is_some());
            let json = serde_json::to_string(&after).unwrap();
            prop_assert_eq!(&serde_json::from_str::<State>(&json).unwrap(), &after);
            state = after;
        }
    }
}
