//! The clock of a player: what is downloaded against what is played. Pure.

use std::time::{Duration, Instant};

/// A player's playback.
#[derive(Debug, Default)]
pub(crate) struct Playback {
    /// When the first segment was there.
    begun: Option<Instant>,
    /// Media that is there, from the first segment on.
    downloaded: Duration,
    /// How long it stood still.
    stalled: Duration,
    /// How often.
    pub(crate) rebuffers: u32,
}

impl Playback {
    /// A segment is there. When what was there before it had been played to its end, the player stood still until now.
    pub(crate) fn downloaded(&mut self, duration: Duration, now: Instant) {
        self.played(now);
        self.begun.get_or_insert(now);
        self.downloaded += duration;
    }

    /// The time has come to now: when what is there had been played to its end before, the player stood still since. Called
    /// when a viewer goes, too: one that waits for a segment at the end has rebuffered like any other.
    pub(crate) fn played(&mut self, now: Instant) {
        let Some(begun) = self.begun else { return };
        let played = now.duration_since(begun).saturating_sub(self.stalled);
        if let Some(lacked) = played.checked_sub(self.downloaded).filter(|lacked| !lacked.is_zero()) {
            self.rebuffers += 1;
            self.stalled += lacked;
        }
    }

    /// What is there and not yet played.
    pub(crate) fn buffered(&self, now: Instant) -> Duration {
        let played = self.begun.map_or(Duration::ZERO, |begun| now.duration_since(begun));
        self.downloaded.saturating_sub(played.saturating_sub(self.stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_stands_still_when_nothing_is_left() {
        let (mut playback, start) = (Playback::default(), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let two = Duration::from_secs(2);
        playback.downloaded(two, at(0.0));
        playback.downloaded(two, at(0.1));
        playback.downloaded(two, at(3.9));
        assert_eq!((playback.rebuffers, playback.buffered(at(4.0))), (0, two));
        playback.downloaded(two, at(7.0));
        assert_eq!((playback.rebuffers, playback.buffered(at(7.0))), (1, two));
        playback.downloaded(two, at(8.5));
        assert_eq!(playback.rebuffers, 1);
    }

    #[test]
    fn a_player_that_waits_when_it_goes_has_stood_still() {
        let (mut playback, start) = (Playback::default(), Instant::now());
        playback.played(start);
        playback.downloaded(Duration::from_secs(2), start);
        playback.played(start + Duration::from_secs(2));
        assert_eq!(playback.rebuffers, 0);
        playback.played(start + Duration::from_secs(3));
        assert_eq!(playback.rebuffers, 1);
    }
}
