//! What of a DASH manifest a live edge needs (ISO/IEC 23009-1).

use crate::Error;
use std::time::Duration;

/// What of a DASH manifest a live edge needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// `MPD@type` is `dynamic`.
    pub dynamic: bool,
    /// `MPD@minimumUpdatePeriod`.
    pub minimum_update_period: Option<Duration>,
    /// `MPD@timeShiftBufferDepth`.
    pub time_shift_buffer: Option<Duration>,
    /// `MPD@maxSegmentDuration`.
    pub max_segment_duration: Option<Duration>,
    /// `MPD@availabilityStartTime`, as it is written.
    pub availability_start: Option<String>,
    /// URIs of the initialization segments, relative to the manifest: `$RepresentationID$` and `$Bandwidth$` are
    /// filled in, and the first `BaseURL` of each level is resolved. Once each.
    pub initializations: Vec<String>,
}

/// Reads a manifest.
pub fn parse_manifest(_body: &[u8]) -> Result<Manifest, Error> {
    todo!()
}
