//! The memory allocator of the server, mimalloc, and how long it keeps what is freed.

#![allow(unsafe_code)]

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
pub use mimalloc::MiMalloc;
use std::{ffi::c_long, time::Duration};

/// `mi_option_purge_delay` of mimalloc 3, in milliseconds: after how long free memory is given back to the system.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps what is freed for so long, for the next who wants memory, unless the environment says how long
/// (`MIMALLOC_PURGE_DELAY`). What was given back has to be found and cleared by the kernel again: after mimalloc's second, that
/// takes 7 % of the time of answers from disk, and 11 % of that of misses.
pub fn keep_freed(time: Duration) {
    let milliseconds = c_long::try_from(time.as_millis()).unwrap_or(c_long::MAX);
    // SAFETY: it sets a number in a table of the library's own, which checks the index. It is not to be called by two threads
    // at a time; whoever reads the number meanwhile reads one or the other.
    unsafe { mi_option_set_default(PURGE_DELAY, milliseconds) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::mi_option_get;

    fn purge_delay() -> c_long {
        // SAFETY: it reads a number of a table of the library's own, which checks the index.
        unsafe { mi_option_get(PURGE_DELAY) }
    }

    #[test]
    fn freed_memory_is_kept_as_long_as_is_said() {
        assert_eq!(
            purge_delay(),
            1000,
            "another option than was meant: mimalloc's own second is not there"
        );
        keep_freed(Duration::from_secs(20));
        assert_eq!(purge_delay(), 20_000);
    }
}
