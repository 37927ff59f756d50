//! A file of memory, mapped as a whole, and ranges of it that belong to somebody. All unsafe code is here.

#![allow(unsafe_code)]

use parking_lot::Mutex;
use rustix::{
    fs::{self, FallocateFlags, MemfdFlags, SealFlags},
    io::{Errno, retry_on_intr},
    mm::{self, Advice, MapFlags, ProtFlags},
    param::page_size,
    process::{Resource, getrlimit},
};
use std::{
    ffi::c_void,
    io,
    os::fd::OwnedFd,
    ptr, slice,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

/// The shortest range, in bytes: each size is twice the one before.
pub(crate) const SHORTEST: usize = 128 << 10;
/// How many sizes there are.
const SIZES: usize = 6;
/// The longest range, in bytes.
pub(crate) const LONGEST: usize = SHORTEST << (SIZES - 1);

/// The file. This process alone writes it, through ranges; its length stays. Only what somebody has takes memory.
#[derive(Debug)]
pub(crate) struct Pool {
    file: OwnedFd,
    base: *mut u8,
    length: usize,
    free: Mutex<Free>,
    /// Ranges whose memory is to be given back.
    dropped: Sender<Place>,
}

// SAFETY: the mapping is there, at the same address in every thread, until the pool is dropped; each byte of it is one
// range's at most, which is borrowed as any value.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// Ranges that nobody has.
#[derive(Debug, Default)]
struct Free {
    /// From here on none was taken yet.
    end: usize,
    /// The begins of those that were given back, by size.
    again: [Vec<usize>; SIZES],
}

/// Where a range is.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: usize,
    /// In bytes, as it was asked for.
    length: usize,
    size: usize,
}

impl Place {
    fn whole_pages(&self) -> usize {
        self.length.next_multiple_of(page_size())
    }
}

impl Pool {
    /// A pool of so many bytes of addresses, for ever; an error where the system has no such files, or sets limits.
    pub(crate) fn start(length: usize) -> io::Result<&'static Self> {
        // To exceed it is a signal, and no error.
        if getrlimit(Resource::Fsize)
            .current
            .is_some_and(|most| most < length as u64)
        {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "files may not be so large"));
        }
        let (dropped, given_back) = mpsc::channel();
        let pool: &'static Self = Box::leak(Box::new(Self::new(length, dropped)?));
        thread::Builder::new()
            .name("pages".into())
            .spawn(move || pool.give_back(&given_back))?;
        Ok(pool)
    }

    fn new(length: usize, dropped: Sender<Place>) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let name = "edgeweir-pages";
        // Linux knows the flag from 6.3 on, and can be set up to ask for it.
        let file =
            fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| fs::memfd_create(name, flags))?;
        fs::ftruncate(&file, length as u64)?;
        fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let (access, flags) = (
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE,
        );
        // SAFETY: a new mapping, at an address that the system chooses, takes no other memory's place.
        let base = unsafe { mm::mmap(ptr::null_mut(), length, access, flags, &file, 0) }?;
        let pool = Self {
            file,
            base: base.cast(),
            length,
            free: Mutex::default(),
            dropped,
        };
        // A huge page would belong to many ranges; and when one of them is given back, its part would be cleared while the
        // kernel still sends it. A kernel that has none knows no such advice.
        match pool.advise(0, length, Advice::LinuxNoHugepage) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
        // A dump of the process would make a page of every hole.
        pool.advise(0, length, Advice::LinuxDontDump)?;
        Ok(pool)
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Where in the file these bytes lie, if they do.
    pub(crate) fn offset(&self, bytes: &[u8]) -> Option<u64> {
        let offset = bytes.as_ptr().addr().checked_sub(self.base.addr())?;
        (offset < self.length).then_some(offset as u64)
    }

    /// A range of so many bytes, all 0; `None` where that is too many, or memory is short.
    pub(crate) fn range(&'static self, length: usize) -> Option<Range> {
        let size = size(length)?;
        let at = self.take(size)?;
        let place = Place { at, length, size };
        let range = Range { pool: self, place };
        // Without it, a lack of memory is not seen before a page is written, and then as SIGBUS.
        match self.advise(at, place.whole_pages(), Advice::LinuxPopulateWrite) {
            // Linux has it from 5.14 on.
            Ok(()) | Err(Errno::INVAL) => Some(range),
            Err(_) => None,
        }
    }

    fn take(&self, size: usize) -> Option<usize> {
        let mut free = self.free.lock();
        if let Some(at) = free.again[size].pop() {
            return Some(at);
        }
        let at = free.end;
        let end = at + (SHORTEST << size);
        (end <= self.length).then(|| {
            free.end = end;
            at
        })
    }

    /// Takes the pages of dropped ranges out of the file: in a thread of its own, since it takes time, and ranges are dropped
    /// where others wait. Nobody writes these pages any more, so that the kernel sends what it still has of them as it was.
    /// Whoever gets the range next, gets other pages.
    fn give_back(&self, dropped: &Receiver<Place>) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for place in dropped {
            let (at, length) = (place.at as u64, place.whole_pages() as u64);
            // Where that fails, nobody is to write them either: the range is lost.
            if retry_on_intr(|| fs::fallocate(&self.file, hole, at, length)).is_ok() {
                self.free.lock().again[place.size].push(place.at);
            }
        }
    }

    fn advise(&self, at: usize, length: usize, advice: Advice) -> rustix::io::Result<()> {
        assert!(at + length <= self.length);
        // SAFETY: within the mapping, whose bytes these advices leave as they are.
        unsafe { mm::madvise(self.base.add(at).cast::<c_void>(), length, advice) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: ranges have a pool that lives for ever, so that there are none.
        let _ = unsafe { mm::munmap(self.base.cast::<c_void>(), self.length) };
    }
}

/// The smallest size that takes so many bytes.
fn size(length: usize) -> Option<usize> {
    (0..SIZES).find(|size| length <= SHORTEST << size)
}

/// Bytes of the file that are this value's alone, until it is dropped.
#[derive(Debug)]
pub(crate) struct Range {
    pool: &'static Pool,
    place: Place,
}

impl AsRef<[u8]> for Range {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: within the mapping; a file has no uninitialised bytes; they are this range's alone, and to write them
        // takes it mutably.
        unsafe { slice::from_raw_parts(self.pool.base.add(self.place.at), self.place.length) }
    }
}

impl AsMut<[u8]> for Range {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`.
        unsafe { slice::from_raw_parts_mut(self.pool.base.add(self.place.at), self.place.length) }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // The thread lives as long as the pool. Were it gone, the range would be lost.
        let _ = self.pool.dropped.send(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(length: usize) -> &'static Pool {
        Pool::start(length).expect("Linux")
    }

    /// Waits until all pages of ranges that were dropped are gone.
    fn until_empty(pool: &Pool) {
        while fs::fstat(&pool.file).expect("open").st_blocks > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_length_has_the_smallest_size_that_takes_it() {
        for (length, wanted) in [
            (0, Some(0)),
            (SHORTEST, Some(0)),
            (SHORTEST + 1, Some(1)),
            (1 << 20, Some(3)),
            (LONGEST, Some(SIZES - 1)),
            (LONGEST + 1, None),
            (usize::MAX, None),
        ] {
            assert_eq!(size(length), wanted, "{length}");
        }
    }

    #[test]
    fn there_is_an_end() {
        let pool = pool(4 * SHORTEST);
        let all: Vec<_> = (0..4).map_while(|_| pool.range(SHORTEST)).collect();
        assert_eq!(all.len(), 4);
        assert!(pool.range(1).is_none());
        drop(all);
        while pool.range(1).is_none() {
            thread::yield_now();
        }
        assert!(pool.range(SHORTEST + 1).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Each range holds what was put there, and begins with zeros, whoever had it before.
        #[test]
        fn ranges_are_apart(steps in prop::collection::vec((1..3 * SHORTEST, any::<u8>(), any::<prop::sample::Index>()), 1..20)) {
            let pool = pool(64 * SHORTEST);
            let mut held: Vec<(Range, u8)> = Vec::new();
            for (length, with, index) in steps {
                match pool.range(length) {
                    Some(mut range) if with > 50 => {
                        prop_assert!(range.as_ref().len() == length && range.as_ref().iter().all(|b| *b == 0));
                        range.as_mut().fill(with);
                        held.push((range, with));
                    }
                    _ if held.is_empty() => {}
                    _ => drop(held.swap_remove(index.index(held.len()))),
                }
                for (range, with) in &held {
                    prop_assert!(range.as_ref().iter().all(|b| b == with));
                }
            }
            drop(held);
            until_empty(pool);
        }
    }
}
