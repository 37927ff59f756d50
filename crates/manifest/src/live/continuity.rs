//! How the playlists of one encoder run after another become one that goes on.

use super::MediaPlaylist;
use serde::{Deserialize, Serialize};

/// How a version of a media playlist follows what was published last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Nothing was published yet.
    First,
    /// The same bytes as the last one.
    Same,
    /// A later version of the same run; the position does not go back.
    Continues,
    /// An earlier version of the same run, as a replica that lags has it. It is not to be published.
    Behind,
    /// Of another run of the encoder.
    Restarts,
}

/// What was published of one media playlist, so far as the next version depends on it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Continuity {}

/// A version as viewers get it.
#[derive(Debug, Clone)]
pub struct Published {
    /// The playlist.
    pub text: String,
    /// The playlist of `text`: numbers are the published ones.
    pub media: MediaPlaylist,
    /// What `text` lists, once each: URIs as the encoder wrote them, with their labels. Segments, `EXT-X-MAP`,
    /// `EXT-X-PART`; of earlier runs too.
    pub listed: Vec<(String, u32)>,
}

impl Continuity {
    /// How `next`, as the encoder or origin wrote it, follows what was published last.
    pub fn follow(&self, _next: &MediaPlaylist) -> Follow {
        todo!()
    }

    /// Makes the version to publish of `next`, and remembers it. `label` tells a URI's label: with 1 it is left alone,
    /// with n it gets [`LABEL`](super::LABEL)`=n` as a query parameter.
    ///
    /// What [`follow`](Self::follow) calls `Behind` or `Same` may be given too, and changes nothing but the text that
    /// is returned.
    pub fn publish(&mut self, _next: &MediaPlaylist, _label: &mut dyn FnMut(&str) -> u32) -> Published {
        todo!()
    }
}
