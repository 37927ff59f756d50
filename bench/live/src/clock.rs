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
        match self.begun {
            None => self.begun = Some(now),
            Some(begun) => {
                let played = now.duration_since(begun).saturating_sub(self.stalled);
                if played > self.downloaded {
                    self.rebuffers += 1;
                    self.stalled += played - self.downloaded;
                }
            }
        }
        self.downloaded += duration;
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
}
