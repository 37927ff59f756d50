//! How long it takes from the encoder or origin to a viewer.

use crate::{
    connection::Connection,
    playlist::{self, Media},
    viewers::{Show, Spread},
};
use edgeweir_harness::{LowLatencySource, Stamp};
use http::StatusCode;
use serde::Serialize;
use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant, SystemTime},
};

/// From a part's last byte at the source to its last byte at a viewer.
#[derive(Debug, Serialize)]
pub(crate) struct PartDelay {
    parts: usize,
    /// To a viewer that waits for the playlist, and then fetches the part.
    listed_ms: Spread,
    /// To one that has asked for the part when it was announced.
    hinted_ms: Spread,
}

/// Watches so many parts of a stream with low latency, both ways.
pub(crate) async fn of_parts(source: &LowLatencySource, show: &Show, parts: usize) -> PartDelay {
    let (mut listed, mut hinted) = tokio::join!(listed(source, show, parts), hinted(source, show, parts));
    PartDelay {
        parts: listed.len() + hinted.len(),
        listed_ms: Spread::of(&mut listed),
        hinted_ms: Spread::of(&mut hinted),
    }
}

async fn target(connection: &mut Connection, show: &Show) -> String {
    let (_, entry) = connection.get(&show.entry).await.expect("an entry");
    let text = String::from_utf8(entry.into()).expect("UTF-8");
    playlist::join(&show.entry, playlist::variants(&text).first().expect("a variant"))
}

async fn media(connection: &mut Connection, target: &str) -> Media {
    let (status, body) = connection.get(target).await.expect("a playlist");
    let text = String::from_utf8(body.into()).expect("UTF-8");
    Media::parse(&text).unwrap_or_else(|| panic!("{status} {text}"))
}

/// Since the source finished the part that this is, in ms.
fn since(source: &LowLatencySource, content: &[u8]) -> Option<f32> {
    let stamp = Stamp::read(content)?;
    let finished = source.finished(stamp.part)?;
    Some(finished.elapsed().as_secs_f32() * 1000.0)
}

async fn listed(source: &LowLatencySource, show: &Show, parts: usize) -> Vec<f32> {
    let mut connection = Connection::new(show.address, &show.host);
    let target = target(&mut connection, show).await;
    let mut list = media(&mut connection, &target).await;
    let mut known: HashSet<String> = list.parts.iter().cloned().collect();
    let mut delays = Vec::new();
    let join = if target.contains('?') { '&' } else { '?' };
    while delays.len() < parts {
        // The part after the last: its segment is the one that comes.
        let msn = list.segments.last().map_or(0, |segment| segment.msn + 1);
        let whole = list.segments.last().map(|segment| base(&segment.uri));
        let part = list
            .parts
            .iter()
            .rev()
            .take_while(|uri| whole.as_deref() != Some(&base(uri)))
            .count();
        list = media(
            &mut connection,
            &format!("{target}{join}_HLS_msn={msn}&_HLS_part={part}"),
        )
        .await;
        for uri in &list.parts {
            if known.insert(uri.clone()) {
                let (status, content) = connection.get(&playlist::join(&target, uri)).await.expect("a part");
                assert_eq!(status, StatusCode::OK, "{uri}");
                delays.extend(since(source, &content));
            }
        }
    }
    delays
}

/// The name of the segment that a part or segment is of.
fn base(uri: &str) -> String {
    let name = uri.split('?').next().unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

async fn hinted(source: &LowLatencySource, show: &Show, parts: usize) -> Vec<f32> {
    let mut connection = Connection::new(show.address, &show.host);
    let target = target(&mut connection, show).await;
    let mut delays = Vec::new();
    let mut asked = HashSet::new();
    while delays.len() < parts {
        let list = media(&mut connection, &target).await;
        let Some(hint) = list.hint.filter(|hint| asked.insert(hint.clone())) else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let (status, content) = connection.get(&playlist::join(&target, &hint)).await.expect("a part");
        assert_eq!(status, StatusCode::OK, "{hint}");
        delays.extend(since(source, &content));
    }
    delays
}

/// From a segment's being whole in the folder of a pulled origin to a playlist that lists it, in ms: seen by a viewer that
/// asks every few milliseconds, which costs the origin nothing.
pub(crate) async fn of_playlist(show: &Show, folder: &std::path::Path, segments: usize) -> Spread {
    let mut connection = Connection::new(show.address, &show.host);
    let target = target(&mut connection, show).await;
    let list = media(&mut connection, &target).await;
    let mut last = list.segments.last().map_or(0, |segment| segment.msn);
    let mut delays = Vec::new();
    while delays.len() < segments {
        let list = media(&mut connection, &target).await;
        let newest = list.segments.last().expect("it has segments");
        if newest.msn > last {
            let seen = SystemTime::now();
            last = newest.msn;
            let name = newest.uri.split('?').next().unwrap_or_default();
            if let Ok(written) = std::fs::metadata(folder.join(name)).and_then(|m| m.modified()) {
                let delay = seen.duration_since(written).unwrap_or_default();
                delays.push(delay.as_secs_f32() * 1000.0);
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    // The first ones find out the origin's beat.
    Spread::of(&mut delays[segments / 3..])
}

/// The same of a stream that is pushed: from the last byte of a segment's being sent.
pub(crate) async fn of_pushed_playlist(show: &Show, ingest: &Show, segments: u64) -> Spread {
    let mut encoder = Connection::new(ingest.address, &ingest.host);
    let mut viewer = Connection::new(show.address, &show.host);
    let mut delays = Vec::new();
    for msn in 0..segments {
        let (first, mut text) = (msn.saturating_sub(5), String::new());
        text.push_str("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:");
        text.push_str(&first.to_string());
        for number in first..=msn {
            let _ = write!(text, "\n#EXTINF:2.0,\ns{number}.ts");
        }
        text.push('\n');
        encoder
            .put(&format!("{}s{msn}.ts", ingest.entry), vec![0; 500_000].into())
            .await;
        let sent = Instant::now();
        // It asks before the playlist is there, and is answered when it is.
        let separator = if show.entry.contains('?') { '&' } else { '?' };
        let wanted = format!("{}{separator}_HLS_msn={msn}", show.entry);
        let playlist = format!("{}playlist.m3u8", ingest.entry);
        let pushed = encoder.put(&playlist, text.into());
        if msn == 0 {
            pushed.await;
            continue;
        }
        let ((), list) = tokio::join!(pushed, media(&mut viewer, &wanted));
        assert_eq!(list.segments.last().map(|segment| segment.msn), Some(msn));
        delays.push(sent.elapsed().as_secs_f32() * 1000.0);
    }
    Spread::of(&mut delays)
}
