//! Points in time as the control API writes them.

use serde::{Serialize, Serializer};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use time::{OffsetDateTime, macros::format_description};

/// Whole seconds since 1970-01-01 UTC; written `YYYY-MM-DD HH:MM:SS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The system clock's time; 1970 when the clock stands before it.
    pub fn now() -> Self {
        Self(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs() as i64),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp(self.0).map_err(|_| fmt::Error)?;
        let text = at
            .format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]"))
            .map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_in_utc_without_a_zone() {
        assert_eq!(Timestamp(1_686_147_445).to_string(), "2023-06-07 14:17:25");
    }
}
