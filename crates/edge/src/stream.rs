//! What connections go over: streams that may send content from where it lies, and are watched.

use crate::connection::Connection;
use bytes::Bytes;
use edgeweir_pages::InPages;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A stream of bytes that a connection goes over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Sends a head and content without copying that, or some of the two: how many bytes were taken. `None` where they are
    /// to be written as anything else.
    fn poll_send(&mut self, _head: &[u8], _content: &[u8], _: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        None
    }

    /// Has the connection end in a reset, so that its end cannot be taken for that of the content. Of what is encrypted,
    /// the end is said by itself.
    fn reset(&mut self) {}
}

impl Stream for TcpStream {
    fn poll_send(&mut self, head: &[u8], content: &[u8], cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let (copied, in_pages) = InPages::find(content)?.split_at_page();
        let sent = poll_write_with(self, cx, |stream| {
            if head.is_empty() && copied.is_empty() {
                return in_pages.send(stream);
            }
            let parts = [head, copied].map(IoSlice::new);
            Ok(sendmsg(
                stream,
                &parts,
                &mut SendAncillaryBuffer::default(),
                flags(!in_pages.is_empty()),
            )?)
        });
        match sent {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::Unsupported => None,
            sent => Some(sent),
        }
    }

    fn reset(&mut self) {
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

/// What is sent is encrypted first.
impl Stream for TlsStream<TcpStream> {}

/// How bytes are sent: where more comes at once, in the same packet with that. If nothing came, the packet would wait for
/// 200 ms (tcp(7), `TCP_CORK`).
fn flags(has_more: bool) -> SendFlags {
    if has_more {
        SendFlags::NOSIGNAL | SendFlags::MORE
    } else {
        SendFlags::NOSIGNAL
    }
}

/// Writes in a way of its own, as soon as there is room.
fn poll_write_with(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_io(Interest::WRITABLE, || write(stream)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// A stream that notes what is read from its connection and written to it.
pub(crate) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    /// What was read, and is to be read again.
    read: Bytes,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, connection: &Arc<Connection>) -> Self {
        Self {
            stream,
            connection: connection.clone(),
            read: Bytes::new(),
        }
    }

    /// Gives back what was read.
    pub(crate) fn reread(&mut self, read: Bytes) {
        self.read = read;
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.connection.wrote(*bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let length = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.connection.read(buf.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }
}

impl<S: Stream> Stream for Watched<S> {
    fn poll_send(&mut self, head: &[u8], content: &[u8], cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let sent = self.stream.poll_send(head, content, cx)?;
        self.note(&sent);
        Some(sent)
    }

    fn reset(&mut self) {
        self.stream.reset();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[test]
    fn a_packet_waits_for_what_comes_behind_alone() {
        assert!(flags(true).contains(SendFlags::MORE));
        assert!(!flags(false).contains(SendFlags::MORE));
    }

    /// The end of content, within a page, is with the client before anything else is sent.
    #[tokio::test]
    async fn the_end_of_content_is_sent_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = listener.accept().await.unwrap().0;
        server.set_nodelay(true).unwrap();
        let in_pages = edgeweir_pages::copy(&vec![7; 200_000]).unwrap();
        for end in [in_pages.slice(199_990..), in_pages.slice(199_000..199_001)] {
            let sent = poll_fn(|cx| server.poll_send(b"head", &end, cx).expect("in pages")).await;
            assert_eq!(sent.unwrap(), 4 + end.len());
            assert!(unsent(&server) == 0, "it waits for more");
            let mut read = vec![0; 4 + end.len()];
            client.read_exact(&mut read).await.unwrap();
        }
    }

    /// Bytes that the system keeps back.
    fn unsent(stream: &TcpStream) -> u32 {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!("0100007F:{:04X}", stream.local_addr().unwrap().port());
        let peer = format!("0100007F:{:04X}", stream.peer_addr().unwrap().port());
        let line = sockets
            .lines()
            .find(|line| line.contains(&format!("{port} {peer}")))
            .unwrap();
        let queue = line.split_whitespace().nth(4).unwrap();
        u32::from_str_radix(queue.split(':').next().unwrap(), 16).unwrap()
    }

    #[tokio::test]
    async fn content_in_pages_follows_its_head_however_slowly_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = listener.accept().await.unwrap().0;
        SockRef::from(&server).set_send_buffer_size(16 << 10).unwrap();
        let content: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
        let in_pages = edgeweir_pages::copy(&content).unwrap();
        assert!(
            poll_fn(|cx| Poll::Ready(server.poll_send(b"head", &content, cx).is_none())).await,
            "on the heap"
        );
        let sending = async {
            let (mut head, mut left, mut waited) = (&b"head"[..], in_pages, false);
            while !left.is_empty() {
                let sent = poll_fn(|cx| {
                    let sent = server.poll_send(head, &left, cx).expect("in pages");
                    waited |= sent.is_pending();
                    sent
                });
                let sent = sent.await.unwrap();
                let of_head = sent.min(head.len());
                head = &head[of_head..];
                let _ = left.split_to(sent - of_head);
            }
            drop(server);
            waited
        };
        let mut read = Vec::new();
        let (waited, _) = tokio::join!(sending, client.read_to_end(&mut read));
        assert!(waited && read.starts_with(b"head") && read[4..] == content);
    }
}
