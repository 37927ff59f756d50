//! Memory that the kernel sends from as it lies there.
//!
//! [`copy`] puts a body that is to be sent often into pages of a file of memory (memfd_create(2)); [`InPages::send`] hands
//! such pages to a socket (sendfile(2)), which copies nothing. To everybody else these are [`Bytes`] as any others. A process has one
//! such file, as it has one heap.
//!
//! New pages are dear: to have the kernel find and clear them takes many times as long as the copy that one sending saves.

mod pool;

use bytes::Bytes;
use pool::Pool;
use rustix::{fs::sendfile, io::Errno, param::page_size};
use std::{
    io,
    ops::RangeInclusive,
    os::fd::AsFd,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Lengths of bodies for which there are pages, in bytes: with shorter ones little is saved, and longer ones would take a
/// while to copy. What is kept in slices is shorter.
pub const LENGTHS: RangeInclusive<usize> = pool::SHORTEST..=pool::LONGEST;
/// Addresses for all that is ever held at once: a terabyte. They are no memory.
const ADDRESSES: usize = 1 << 40;

static POOL: OnceLock<Option<&'static Pool>> = OnceLock::new();

/// Whether the system does not send from the pool.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Copies a body into pages; `None` for other [`LENGTHS`], and where the system has no pages to give.
pub fn copy(body: &[u8]) -> Option<Bytes> {
    if !LENGTHS.contains(&body.len()) || REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    let pool = (*POOL.get_or_init(|| {
        let started = Pool::start(ADDRESSES);
        started
            .inspect_err(
                |error| tracing::warn!(%error, "bodies are copied when they are sent: there are no pages for them"),
            )
            .ok()
    }))?;
    let mut range = pool.range(body.len())?;
    range.as_mut().copy_from_slice(body);
    Some(Bytes::from_owner(range))
}

/// Bytes that lie in pages.
#[derive(Debug, Clone, Copy)]
pub struct InPages<'a> {
    pool: &'static Pool,
    offset: u64,
    bytes: &'a [u8],
}

impl<'a> InPages<'a> {
    /// These bytes, if [`copy`] put them where they are, and the system sends from there.
    pub fn find(bytes: &'a [u8]) -> Option<Self> {
        let pool = (*POOL.get()?)?;
        let offset = pool.offset(bytes)?;
        (!REFUSED.load(Ordering::Relaxed)).then_some(Self { pool, offset, bytes })
    }

    /// The bytes before the first page that begins in them, and the others. Of what begins within a page, sending takes half
    /// as long again.
    #[must_use]
    pub fn split_at_page(self) -> (&'a [u8], Self) {
        let page = page_size();
        let at = (self.bytes.as_ptr().addr().wrapping_neg() % page).min(self.bytes.len());
        let (before, bytes) = self.bytes.split_at(at);
        let offset = self.offset + at as u64;
        (before, Self { offset, bytes, ..self })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends them, or some of them, without a copy: how many the socket took. [`io::ErrorKind::Unsupported`] if the system
    /// does not send so: they are to be written then.
    pub fn send(self, socket: impl AsFd) -> io::Result<usize> {
        let mut offset = self.offset;
        match sendfile(socket, self.pool.file(), Some(&mut offset), self.bytes.len()) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                REFUSED.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::Unsupported.into())
            }
            sent => Ok(sent?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    const LEAST: usize = *LENGTHS.start();

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn some_lengths_have_pages() {
        let longest = *LENGTHS.end();
        for (length, wanted) in [
            (0, false),
            (LEAST - 1, false),
            (LEAST, true),
            (LEAST + 1, true),
            (longest, true),
            (longest + 1, false),
        ] {
            let body: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let copy = copy(&body);
            assert_eq!(copy.is_some(), wanted, "{length}");
            assert!(
                copy.is_none_or(|copy| copy == body && InPages::find(&copy).is_some()),
                "{length}"
            );
            assert!(InPages::find(&body).is_none(), "{length}");
        }
    }

    #[test]
    fn pages_begin_at_multiples_of_their_size() {
        let pages = copy(&vec![7; LEAST]).unwrap();
        let page = page_size();
        for (part, wanted) in [
            (0..LEAST, 0),
            (1..LEAST, page - 1),
            (page - 1..LEAST, 1),
            (page..LEAST, 0),
            (3..7, 4),
            (0..0, 0),
        ] {
            let (before, others) = InPages::find(&pages[part.clone()]).unwrap().split_at_page();
            assert_eq!(
                (before.len(), others.is_empty()),
                (wanted, wanted == part.len()),
                "{part:?}"
            );
        }
    }

    #[test]
    fn any_part_of_it_is_sent() {
        let whole: Vec<u8> = (0..2 * LEAST).map(|i| (i % 253) as u8).collect();
        let pages = copy(&whole).unwrap();
        let (mut client, server) = connected();
        for part in [0..10, 5..5000, 4096..8192, 2 * LEAST - 1..2 * LEAST] {
            let mut left = pages.slice(part.clone());
            while !left.is_empty() {
                let sent = InPages::find(&left).unwrap().send(&server).unwrap();
                let _ = left.split_to(sent);
            }
            let mut read = vec![0; part.len()];
            client.read_exact(&mut read).unwrap();
            assert!(read == whole[part.clone()], "{part:?}");
        }
    }

    /// Nobody gets what is written where his answer lay.
    #[test]
    fn what_a_socket_holds_is_sent_as_it_was() {
        let (mut client, server) = connected();
        let pages = copy(&vec![1; LEAST]).unwrap();
        let address = pages.as_ptr();
        let sent = InPages::find(&pages).unwrap().send(&server).unwrap();
        assert!(sent > 0);
        drop(pages);
        let other = vec![2; LEAST];
        // Others may be given ranges meanwhile: until this one comes again.
        let mut again = Vec::new();
        while again.iter().all(|bytes: &Bytes| bytes.as_ptr() != address) {
            again.push(copy(&other).unwrap());
        }
        let mut read = vec![0; sent];
        client.read_exact(&mut read).unwrap();
        assert!(read.iter().all(|b| *b == 1));
    }

    #[test]
    fn a_socket_that_is_full_takes_no_more() {
        let (_client, server) = connected();
        server.set_nonblocking(true).unwrap();
        let pages = copy(&vec![7; *LENGTHS.end()]).unwrap();
        let error = loop {
            if let Err(e) = InPages::find(&pages).unwrap().send(&server) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
