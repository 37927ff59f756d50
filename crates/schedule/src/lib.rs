//! How the system schedules threads (sched(7)): one system call, which no library here has in a safe form.

#![allow(unsafe_code)]

use std::io;

/// Has the calling thread scheduled by `SCHED_BATCH`; an error where the system does not let it. Its share of time stays
/// what it is, and so does its niceness; but when it is woken, it does not push aside what runs. Threads that wake each
/// other for the work of microseconds then find more of it at a time, and whoever gave it to them can go on with it.
pub fn as_batch() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the thread is the calling one, and `priority` lives longer than the call, which only reads it.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_BATCH, &raw const priority) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    /// The scheduling policy of the calling thread: the 41st field (proc_pid_stat(5)), counted from behind the name.
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        let behind_name = stat.rsplit(") ").next().expect("a name");
        let policy = behind_name.split(' ').nth(38).expect("a policy");
        policy.parse().expect("a number")
    }

    #[test]
    fn a_thread_becomes_a_batch_thread_alone() {
        let before = policy();
        std::thread::spawn(move || {
            let expected = super::as_batch().map_or(before, |()| libc::SCHED_BATCH);
            assert_eq!(policy(), expected);
        })
        .join()
        .expect("as said");
        assert_eq!(policy(), before);
    }
}
