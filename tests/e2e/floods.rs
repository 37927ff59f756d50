//! Requests that are made and taken back, which cost their client less than the server (CVE-2023-44487).

use crate::{
    protocol::{BOUND, SOON, get, impatient, served},
    pulled::Pulled,
};
use edgeweir_harness::{
    Answer,
    h2::{Frame, H2, kind},
};
use tokio::time::timeout;

/// ENHANCE_YOUR_CALM (RFC 9113 §7).
const CALM: u32 = 0xb;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_costs_the_others_nothing() {
    let (edge, _project, host) = impatient().await;
    served(&edge, &host).await;
    let before = edge.resident();
    let mut connection = H2::plain(edge.address("http"), &[]).await;
    let fields = get(&host, "/a.mp4");
    let mut taken = true;
    for batch in 0..100 {
        let pairs = (0..50).map(|n| 2 * (batch * 50 + n) + 1);
        let frames: Vec<u8> = pairs
            .flat_map(|stream| [Frame::request(stream, &fields).bytes(), Frame::cancel(stream).bytes()].concat())
            .collect();
        taken = taken && connection.write(&frames).await;
        if batch % 25 == 0 {
            served(&edge, &host).await;
        }
    }
    // GOAWAY and the end, or the end.
    timeout(SOON, connection.end()).await.expect("the connection ends");
    served(&edge, &host).await;
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
}

/// The code of the GOAWAY that ends a connection.
async fn goaway(connection: &mut H2) -> u32 {
    loop {
        let frame = connection.next().await.expect("a word before the end");
        if frame.kind == kind::GOAWAY {
            return u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_while_they_are_answered_end_their_connection() {
    const BATCH: u32 = 50;
    let pulled = Pulled::start(&[], |_| Answer::ok("", "CONTENT").held()).await;
    let mut connection = H2::plain(pulled.address(), &[]).await;
    let ended = async {
        for batch in 0..20 {
            let streams = || (batch * BATCH..(batch + 1) * BATCH).map(|n| 2 * n + 1);
            for stream in streams() {
                let path = format!("/{stream}");
                connection
                    .send(&Frame::request(stream, &get(&pulled.host, &path)))
                    .await;
            }
            // They are being answered.
            tokio::select! {
                () = pulled.origin.asked((BATCH * (batch + 1)) as usize) => {}
                code = goaway(&mut connection) => return (batch, code),
            }
            for stream in streams() {
                connection.send(&Frame::cancel(stream)).await;
            }
        }
        panic!("it goes on");
    };
    let (batch, code) = timeout(SOON, ended).await.expect("an end");
    assert_eq!(code, CALM);
    assert!((5..8).contains(&batch), "after {batch} batches");
    // Nobody else's does.
    pulled.origin.release();
    assert_eq!(pulled.get("/a").await.text(), "CONTENT");
}
