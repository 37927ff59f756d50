//! Objects that are too large to be kept in one piece: the cache has them in slices of 1 MiB.

use crate::{
    pulled::{Pulled, is_hit},
    sign,
};
use bytes::Bytes;
use edgeweir_harness::{Answer, Large, Protocol, Reply, Seen};
use http::Method;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

const SLICE: u64 = 1 << 20;
const GB: u64 = 1_000_000_000;

async fn with(object: &Large) -> Pulled {
    let object = object.clone();
    Pulled::start(&[], move |seen| object.answer(seen)).await
}

/// The slices that the origin was asked for in ranges, each as often as it was; every range begins with a slice, and ends
/// with one.
fn slices(asked: &[Seen], length: u64) -> Vec<u64> {
    let ranges = asked.iter().filter_map(Seen::range);
    let slices = ranges.flat_map(|range| {
        assert!(
            range.start % SLICE == 0 && (range.end % SLICE == 0 || range.end >= length),
            "{range:?}"
        );
        range.start / SLICE..range.end.min(length).div_ceil(SLICE)
    });
    let mut slices: Vec<_> = slices.collect();
    slices.sort_unstable();
    slices
}

/// Which bytes each part of a multipart answer has, and the bytes.
fn parts(reply: &Reply) -> Vec<(Range<u64>, Bytes)> {
    let boundary = reply
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=");
    let delimiter = format!("\r\n--{}", boundary.unwrap());
    let (mut rest, mut parts) = (reply.body.clone(), Vec::new());
    loop {
        assert!(rest.starts_with(delimiter.as_bytes()));
        rest = rest.split_off(delimiter.len());
        if &rest[..] == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(rest.split_to(end).to_vec()).unwrap().to_lowercase();
        let range = head.split("content-range: bytes ").nth(1).unwrap();
        let (first, last) = range.split('/').next().unwrap().split_once('-').unwrap();
        let range: Range<u64> = first.parse().unwrap()..last.parse::<u64>().unwrap() + 1;
        let bytes = rest.split_to((range.end - range.start) as usize);
        parts.push((range, bytes));
    }
}

#[tokio::test]
async fn a_seek_costs_its_slices_and_a_second_one_nothing() {
    let film = Large::new(20 * GB);
    let pulled = with(&film).await;
    let seek = 10 * GB..10 * GB + 100_000;
    let reply = pulled.range("/film.mp4", seek.clone()).await;
    assert_eq!(reply.body, film.bytes(seek.clone()));
    assert_eq!(
        reply.header("content-range"),
        "bytes 10000000000-10000099999/20000000000"
    );
    assert_eq!(slices(&pulled.origin.seen(), film.length), [seek.start / SLICE]);
    // Who seeks is answered before the slice is there.
    pulled.stored(2).await;
    assert_eq!((pulled.origin.seen().len(), pulled.origin.sent()), (1, SLICE));

    // Once more, and elsewhere in what came along.
    for range in [
        seek.clone(),
        seek.start / SLICE * SLICE..seek.start,
        seek.start - 1..seek.end + 1,
    ] {
        let reply = pulled.range("/film.mp4", range.clone()).await;
        assert!(is_hit(&reply), "{:?}", reply.headers);
        assert_eq!(reply.body, film.bytes(range));
    }
    assert_eq!(pulled.origin.seen().len(), 1);

    // One that needs three slices.
    let first = 5_000 * SLICE;
    let range = first - 10..first + SLICE + 10;
    let reply = pulled.range("/film.mp4", range.clone()).await;
    assert_eq!(reply.header("cache-status"), "edgeweir; fwd=partial; stored");
    assert_eq!(reply.body, film.bytes(range));
    let asked = slices(&pulled.origin.seen()[1..], film.length);
    assert_eq!(asked, [4_999, 5_000, 5_001]);
    pulled.stored(5).await;
    assert_eq!(pulled.origin.sent(), 4 * SLICE);

    // The end, which is no whole slice.
    let end = film.length - 1_000..film.length;
    assert_eq!(
        pulled.range("/film.mp4", end.clone()).await.body,
        film.bytes(end.clone())
    );
    pulled.stored(6).await;
    let suffix = pulled.get_with("/film.mp4", &[("range", "bytes=-1000")]).await;
    assert_eq!(
        (suffix.status.as_u16(), is_hit(&suffix)),
        (206, true),
        "{:?}",
        suffix.headers
    );
    assert_eq!(suffix.body, film.bytes(end));
    assert_eq!(pulled.origin.sent(), 4 * SLICE + film.length % SLICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_whole_and_asks_for_each_slice_once() {
    const LENGTH: u64 = 24 * SLICE + 12_345;
    let file = Large::new(LENGTH);
    // A memory that no slice fits into.
    let of = file.clone();
    let small = Pulled::start(&[("cache.memory", "1MiB"), ("cache.disk", "0")], move |seen| {
        of.answer(seen)
    })
    .await;
    for n in 1..3 {
        let reply = small.get("/file.bin").await;
        assert!(reply.complete && reply.body == file.whole());
        small.origin.quiet().await;
        // What is in the buffers of a connection that is given up is no slice.
        let sent = small.origin.sent();
        assert!(sent < n * (LENGTH + 16 * SLICE), "{sent} bytes");
    }

    let pulled = with(&file).await;
    let reply = pulled.get("/file.bin").await;
    assert_eq!((reply.status.as_u16(), reply.complete), (200, true));
    assert_eq!(reply.header("content-length"), LENGTH.to_string());
    assert!(reply.body == file.whole());
    let asked = pulled.origin.seen();
    // The first request was for the whole, of which what was read ahead was taken.
    assert_eq!((asked[0].range(), asked[0].field("if-match")), (None, None));
    assert!(asked[1..].iter().all(|seen| seen.field("if-match") == Some("\"v1\"")));
    let ranges = slices(&asked, LENGTH);
    let first = ranges[0];
    assert!((1..=8).contains(&first), "{first}");
    assert!(ranges.iter().copied().eq(first..25), "{ranges:?}");
    assert!(asked.len() <= 5, "{} requests", asked.len());

    pulled.stored(26).await;
    let again = pulled.get("/file.bin").await;
    assert!(is_hit(&again) && again.body == file.whole());
    assert_eq!(pulled.origin.seen().len(), asked.len());

    // One that begins in the middle, with slices here and there in the cache.
    let path = "/other.bin";
    for slice in [3, 9, 10, 20] {
        pulled.range(path, slice * SLICE..slice * SLICE + 1).await;
    }
    let range = 2 * SLICE + 1..LENGTH;
    let reply = pulled.range(path, range.clone()).await;
    assert!(reply.body == file.bytes(range));
    let asked: Vec<_> = pulled
        .origin
        .seen()
        .into_iter()
        .filter(|s| s.target.ends_with(path))
        .collect();
    assert!(slices(&asked, LENGTH).into_iter().eq(2..25));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_leaves_is_not_fetched_for() {
    let film = Large::new(20 * GB);
    let pulled = with(&film).await;
    for (n, range) in [None, Some("bytes=10000000000-")].into_iter().enumerate() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let before = pulled.origin.sent();
        let mut viewer = tokio::net::TcpStream::connect(pulled.address()).await.unwrap();
        let range = range.map_or(String::new(), |range| format!("Range: {range}\r\n"));
        let request = format!("GET /film-{n}.mp4 HTTP/1.1\r\nHost: {}\r\n{range}\r\n", pulled.host);
        viewer.write_all(request.as_bytes()).await.unwrap();
        let mut some = vec![0; 3_000_000];
        viewer.read_exact(&mut some).await.unwrap();
        drop(viewer);
        pulled.origin.quiet().await;
        let sent = pulled.origin.sent() - before;
        assert!(sent < 64 * SLICE, "{sent} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_leaves_breaks_nobody_who_joined() {
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    let film = Large {
        at_once: 1_000,
        ..Large::new(20 * GB)
    };
    let pulled = with(&film).await;
    let range = 10 * GB..10 * GB + 2 * SLICE;
    let asked = format!("bytes={}-{}", range.start, range.end - 1);
    let request = format!(
        "GET /film.mp4 HTTP/1.1\r\nHost: {}\r\nRange: {asked}\r\n\r\n",
        pulled.host
    );
    let mut first = TcpStream::connect(pulled.address()).await.unwrap();
    first.write_all(request.as_bytes()).await.unwrap();
    pulled.origin.asked(1).await;
    let second = {
        let (client, host) = (pulled.edge.http(), pulled.host.clone());
        tokio::spawn(async move { client.get_with(&host, "/film.mp4", &[("range", &asked)]).await })
    };
    drop(first);
    pulled.origin.release();
    let second = second.await.unwrap();
    assert!(second.complete && second.body == film.bytes(range));
}

#[tokio::test]
async fn several_ranges_come_in_parts() {
    let film = Large {
        headers: "Cache-Control: max-age=600\r\nAccept-Ranges: bytes\r\nContent-Type: video/mp4\r\n".to_owned(),
        ..Large::new(20 * GB)
    };
    let pulled = with(&film).await;
    let ranges = [5..15, 10 * GB - 7..10 * GB + 2_000_000, 20 * GB - 3..20 * GB];
    let asked: Vec<_> = ranges.iter().map(|r| format!("{}-{}", r.start, r.end - 1)).collect();
    let asked = format!("bytes={}", asked.join(", "));
    for from in ["the origin", "the cache"] {
        let reply = pulled.get_with("/film.mp4", &[("range", &asked)]).await;
        assert_eq!((reply.status.as_u16(), reply.complete), (206, true), "{from}");
        assert_eq!(reply.header("content-length"), reply.body.len().to_string());
        let found = parts(&reply);
        assert!(found.iter().map(|(range, _)| range).eq(&ranges), "{from}");
        for (range, bytes) in found {
            assert!(bytes == film.bytes(range), "{from}");
        }
    }
    let seen = pulled.origin.seen();
    let mid = 10 * GB / SLICE;
    assert_eq!(slices(&seen, film.length), [0, mid, mid + 1, mid + 2, 20 * GB / SLICE]);
}

#[tokio::test]
async fn heads_conditions_and_what_is_past_the_end() {
    let film = Large::new(20 * GB);
    let pulled = with(&film).await;
    // Of an object that nobody knows yet: what is past the end, the length, whether it has changed.
    for known in [false, true] {
        let reply = pulled.get_with("/film.mp4", &[("range", "bytes=20000000000-")]).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-range")),
            (416, "bytes */20000000000"),
            "{known}"
        );
        if !known {
            let head = pulled.head("/film.mp4").await;
            assert_eq!(
                (head.status.as_u16(), head.header("content-length")),
                (200, "20000000000")
            );
            assert_eq!((head.header("etag"), head.header("accept-ranges")), ("\"v1\"", "bytes"));
        }
    }
    // The slice in which it ends has told all of it.
    assert_eq!(slices(&pulled.origin.seen(), film.length), [film.length / SLICE]);
    pulled.stored(2).await;
    assert!(is_hit(&pulled.head("/film.mp4").await));
    for (name, value, status) in [
        ("if-none-match", "\"v1\"", 304),
        ("if-none-match", "\"v0\", W/\"v1\"", 304),
        // The origin's answer.
        ("if-match", "\"v0\"", 412),
    ] {
        let reply = pulled.get_with("/film.mp4", &[(name, value)]).await;
        assert_eq!(
            (reply.status.as_u16(), is_hit(&reply)),
            (status, status == 304),
            "{name}: {value}"
        );
    }
    assert_eq!(pulled.origin.seen().len(), 2);
    let tail = [("range", "bytes=-5"), ("if-match", "\"v1\"")];
    let reply = pulled.get_with("/film.mp4", &tail).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body),
        (206, &film.bytes(20 * GB - 5..20 * GB))
    );
    assert_eq!(pulled.origin.seen().len(), 2);

    // Far past the end, of one that nobody knows; and a HEAD of one that nobody knows costs little.
    let reply = pulled.get_with("/far.mp4", &[("range", "bytes=30000000000-")]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-range")),
        (416, "bytes */20000000000")
    );
    // That is what this range gets, and nobody else.
    assert_eq!(pulled.head("/far.mp4").await.status, 200);
    let before = pulled.origin.sent();
    let head = pulled.head("/head.mp4").await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, "20000000000")
    );
    pulled.origin.quiet().await;
    let sent = pulled.origin.sent() - before;
    assert!(sent < 16 * SLICE, "{sent} bytes");
}

/// RFC 9111 §5.2.1.7.
#[tokio::test]
async fn who_wants_what_is_cached_alone_gets_the_slices_that_are() {
    let film = Large::new(8 * SLICE);
    let pulled = with(&film).await;
    pulled.range("/film.mp4", SLICE..SLICE + 5).await;
    pulled.stored(2).await;
    for (range, status) in [
        ("bytes=1048576-2097151", 206),
        ("bytes=1048580-1048584", 206),
        ("bytes=1048580-2097152", 504),
        ("bytes=0-1", 504),
        ("bytes=1048580-1048584, 1048590-1048599", 206),
        ("bytes=1048580-1048584, 0-1", 504),
        ("bytes=99999999-", 416),
        ("none", 504),
    ] {
        let headers = [("cache-control", "only-if-cached"), ("range", range)];
        let reply = pulled.get_with("/film.mp4", &headers).await;
        assert_eq!(reply.status, status, "{range}");
        assert!(status != 206 || is_hit(&reply) && reply.complete, "{range}");
    }
    let client = pulled.edge.http();
    let cached = [("cache-control", "only-if-cached")];
    let head = client
        .send(Method::HEAD, &pulled.host, "/film.mp4", &cached, Bytes::new())
        .await;
    assert_eq!(head.status, 200);
    pulled.origin.quiet().await;
    assert_eq!(pulled.origin.seen().len(), 1);
}

#[tokio::test]
async fn if_range_gets_the_range_of_what_the_client_has_and_else_the_whole() {
    let file = Large::new(3 * SLICE + 5);
    let pulled = with(&file).await;
    let cases = [
        ("\"v1\"", 206, SLICE..SLICE + 3),
        ("\"v0\"", 200, 0..file.length),
        ("W/\"v1\"", 200, 0..file.length),
    ];
    // Of an object that nobody knows yet, and of one that is stored.
    for path in ["/0", "/1", "/2", "/0", "/1", "/2"] {
        let (tag, status, range) = &cases[path[1..].parse::<usize>().unwrap()];
        let asked = format!("bytes={}-{}", SLICE, SLICE + 2);
        let reply = pulled.get_with(path, &[("range", &asked), ("if-range", tag)]).await;
        assert_eq!((reply.status.as_u16(), reply.complete), (*status, true), "{path} {tag}");
        assert!(reply.body == file.bytes(range.clone()), "{path} {tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_under_a_download_is_never_mixed() {
    let (old, length) = (Large::new(24 * SLICE), 24 * SLICE);
    let new = old.version(2);
    // After how many requests it changes, and whether the origin minds the condition.
    for (after, minds, protocol) in [
        (1, true, Protocol::H1),
        (2, true, Protocol::H2),
        (1, false, Protocol::H2),
        (2, false, Protocol::H1),
    ] {
        let asked = AtomicUsize::new(0);
        let [a, b] = [&old, &new].map(|object| Large {
            conditions: minds,
            ..object.clone()
        });
        let pulled = Pulled::start(&[], move |seen| match asked.fetch_add(1, Ordering::SeqCst) {
            n if n < after => a.answer(seen),
            _ => b.answer(seen),
        })
        .await;
        let broken = match protocol {
            Protocol::H1 => pulled.get("/file.bin").await,
            Protocol::H2 => pulled.edge.https(protocol).get(&pulled.host, "/file.bin").await,
        };
        assert_eq!(
            (broken.status.as_u16(), broken.complete),
            (200, false),
            "{after} {minds}"
        );
        let came = broken.body.len() as u64;
        assert!(
            (1..length).contains(&came) && broken.body == old.bytes(0..came),
            "{after} {minds}"
        );
        let next = pulled.get("/file.bin").await;
        assert!(next.complete && next.header("etag") == "\"v2\"", "{after} {minds}");
        assert!(next.body == new.whole(), "{after} {minds}");
        let asked = pulled.origin.seen().len();
        assert!(pulled.get("/file.bin").await.body == new.whole());
        assert_eq!(pulled.origin.seen().len(), asked, "{after} {minds}");
    }
}

#[tokio::test]
async fn a_seek_in_an_object_that_has_changed_gets_the_new_one() {
    let object = Large::new(20 * GB);
    let version = Arc::new(AtomicU8::new(1));
    let (at, of) = (version.clone(), object.clone());
    let pulled = Pulled::start(&[], move |seen| of.version(at.load(Ordering::SeqCst)).answer(seen)).await;
    let (first, second) = (0..10, GB..GB + 10);
    assert_eq!(
        pulled.range("/film.mp4", first.clone()).await.body,
        object.bytes(first.clone())
    );
    version.store(2, Ordering::SeqCst);
    // What is stored is fresh, so it is still what is served; the first miss tells.
    assert_eq!(
        pulled.range("/film.mp4", first.clone()).await.body,
        object.bytes(first.clone())
    );
    for range in [second.clone(), first, second] {
        let reply = pulled.range("/film.mp4", range.clone()).await;
        assert_eq!(
            (reply.header("etag"), &reply.body),
            ("\"v2\"", &object.version(2).bytes(range))
        );
    }
}

#[tokio::test]
async fn a_stale_object_that_the_origin_confirms_keeps_its_slices() {
    let object = Large {
        headers: "Cache-Control: max-age=0\r\nAccept-Ranges: bytes\r\n".to_owned(),
        ..Large::new(20 * GB)
    };
    let version = Arc::new(AtomicU8::new(1));
    let (at, of) = (version.clone(), object.clone());
    let pulled = Pulled::start(&[], move |seen| of.version(at.load(Ordering::SeqCst)).answer(seen)).await;
    let seek = 10 * GB..10 * GB + 10;
    assert_eq!(
        pulled.range("/film.mp4", seek.clone()).await.body,
        object.bytes(seek.clone())
    );
    pulled.stored(2).await;
    for n in 1..4 {
        let reply = pulled.range("/film.mp4", seek.clone()).await;
        assert_eq!(reply.body, object.bytes(seek.clone()));
        assert!(
            reply.header("cache-status").contains("fwd-status=304"),
            "{:?}",
            reply.headers
        );
        let seen = pulled.origin.seen();
        assert_eq!((seen.len(), seen[n].field("if-none-match")), (n + 1, Some("\"v1\"")));
    }
    assert_eq!(pulled.origin.sent(), SLICE);
    version.store(2, Ordering::SeqCst);
    let reply = pulled.range("/film.mp4", seek.clone()).await;
    assert_eq!(reply.body, object.version(2).bytes(seek));
    pulled.origin.quiet().await;
    let sent = pulled.origin.sent();
    assert!(sent < 16 * SLICE, "{sent} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_all_the_time_is_never_mixed() {
    const LENGTH: u64 = 12 * SLICE;
    let object = Large::new(LENGTH);
    let (asked, of) = (AtomicUsize::new(0), object.clone());
    // Another one with every fourth request, of an origin that minds conditions every other time.
    let pulled = Pulled::start(&[], move |seen| {
        let n = asked.fetch_add(1, Ordering::SeqCst);
        let object = of.version((n / 4 % 250 + 1) as u8);
        let conditions = n % 2 == 0;
        Large { conditions, ..object }.answer(seen)
    })
    .await;
    let pulled = Arc::new(pulled);
    let viewers: Vec<_> = (0..4_u64)
        .map(|viewer| {
            let (pulled, object) = (pulled.clone(), object.clone());
            tokio::spawn(async move {
                let mut whole = 0;
                for n in 0..25 {
                    let start = (n * 7 + viewer * 3) % 10 * SLICE + n * 1_000;
                    let end = start + (n % 3) * SLICE + 500_000;
                    let asked = format!("bytes={start}-{}", end - 1);
                    let reply = pulled.get_with("/film.mp4", &[("range", &asked)]).await;
                    if reply.status.as_u16() == 502 {
                        continue;
                    }
                    assert_eq!(reply.status.as_u16(), 206, "{:?}", reply.headers);
                    let version = reply.header("etag").trim_matches('"')[1..].parse().unwrap();
                    let came = start..start + reply.body.len() as u64;
                    assert!(reply.body == object.version(version).bytes(came), "{version} {asked}");
                    whole += usize::from(reply.complete);
                }
                whole
            })
        })
        .collect();
    for viewer in viewers {
        assert!(viewer.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_that_do_not_serve_ranges_of_one_representation_are_served_all_the_same() {
    let claims = "Cache-Control: max-age=600\r\nAccept-Ranges: bytes\r\n";
    let silent = "Cache-Control: max-age=600\r\n";
    for (name, length, weak, ranges, headers) in [
        ("no ranges, small enough", 3 * SLICE, false, false, silent),
        ("no ranges, large", 24 * SLICE, false, false, silent),
        ("a weak tag, small enough", 3 * SLICE, true, true, claims),
        ("a weak tag, large", 24 * SLICE, true, true, claims),
        (
            "ranges that it says it has, and has not",
            24 * SLICE,
            false,
            false,
            claims,
        ),
        ("the same, small enough", 3 * SLICE, false, false, claims),
    ] {
        let object = Large {
            weak,
            ranges,
            headers: headers.to_owned(),
            ..Large::new(length)
        };
        let pulled = with(&object).await;
        let range = SLICE + 5..2 * SLICE + 7;
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        for n in 0..3 {
            let reply = pulled.get_with("/part", &[("range", &asked)]).await;
            assert!(reply.complete, "{name} {n}");
            match reply.status.as_u16() {
                206 => assert!(reply.body == object.bytes(range.clone()), "{name} {n}"),
                200 => assert!(reply.body == object.whole(), "{name} {n}"),
                status => panic!("{name} {n}: {status}"),
            }
        }
        for path in ["/whole", "/part", "/whole"] {
            let reply = pulled.get(path).await;
            assert_eq!((reply.status.as_u16(), reply.complete), (200, true), "{name} {path}");
            assert!(reply.body == object.whole(), "{name} {path}");
        }
    }
}

/// What has no strong validator is in no slices: kept whole for who wants all of it, and else asked for as each client wants it.
#[tokio::test]
async fn ranges_of_what_is_in_no_slices_cost_the_origin_no_more_than_need_be() {
    for length in [3 * SLICE, 24 * SLICE] {
        let object = Large {
            weak: true,
            ..Large::new(length)
        };
        let pulled = with(&object).await;
        let range = SLICE + 5..SLICE + 7;
        // The first finds out.
        for asked in [2, 3, 4] {
            let reply = pulled.range("/film.mp4", range.clone()).await;
            assert!(reply.body == object.bytes(range.clone()));
            assert_eq!(pulled.origin.seen().len(), asked, "{length}");
        }
    }
    // Players begin with all of it, and a crowd of them is one.
    let object = Large {
        weak: true,
        ..Large::new(3 * SLICE)
    };
    let pulled = std::sync::Arc::new(with(&object).await);
    let whole = object.whole();
    let viewers: Vec<_> = (0..20)
        .map(|_| {
            let (pulled, whole) = (pulled.clone(), whole.clone());
            tokio::spawn(async move {
                let reply = pulled.get_with("/film.mp4", &[("range", "bytes=0-")]).await;
                assert!(reply.status == 206 && reply.body == whole, "{:?}", reply.headers);
            })
        })
        .collect();
    for viewer in viewers {
        viewer.await.unwrap();
    }
    assert_eq!(pulled.origin.seen().len(), 2);
    let seek = pulled.range("/film.mp4", SLICE..SLICE + 5).await;
    assert!(is_hit(&seek), "{:?}", seek.headers);
}

#[tokio::test]
async fn no_slice_without_a_token() {
    let film = Large::new(20 * GB);
    let pulled = with(&film).await;
    pulled.project.policy("pulled", "authenticated").await;
    let key = pulled.project.signing_key("bucket_name", "pulled").await;
    let signed = format!("/film.mp4?auth={}", sign(&pulled.edge, &key, "film"));
    let range = GB..GB + 10;
    assert_eq!(
        pulled.range(&signed, range.clone()).await.body,
        film.bytes(range.clone())
    );
    pulled.stored(2).await;
    let hit = pulled.range(&signed, range.clone()).await;
    assert!(
        is_hit(&hit) && hit.header("cache-control").starts_with("private"),
        "{:?}",
        hit.headers
    );
    let asked = pulled.origin.seen().len();
    for fields in [
        vec![],
        vec![("range", "bytes=1000000000-1000000009")],
        vec![("range", "bytes=0-1, 1000000000-1000000009")],
        vec![("range", "bytes=-5")],
        vec![("range", "bytes=1000000000-"), ("if-range", "\"v1\"")],
        vec![("if-none-match", "\"v1\"")],
        vec![("range", "bytes=20000000000-")],
    ] {
        for path in ["/film.mp4", &format!("{signed}x")] {
            let reply = pulled.get_with(path, &fields).await;
            assert_eq!(reply.status, 403, "{fields:?}");
            assert!(reply.header("etag").is_empty() && reply.header("content-range").is_empty());
        }
        assert_eq!(pulled.head("/film.mp4").await.status, 403);
    }
    assert_eq!(pulled.origin.seen().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_breaks_is_fetched_once_more_unseen() {
    let file = Large::new(6 * SLICE);
    let broken = AtomicBool::new(false);
    let of = file.clone();
    let pulled = Pulled::start(&[], move |seen| {
        // The second slice ends early, once.
        let begins = seen.range().is_some_and(|range| range.start == SLICE);
        match of.answer(seen) {
            Answer::Large { head, object, range } if begins && !broken.swap(true, Ordering::SeqCst) => Answer::Large {
                head,
                object,
                range: range.start..range.start + 1_000,
            },
            answer => answer,
        }
    })
    .await;
    let reply = pulled.range("/file.bin", 10..file.length).await;
    assert!(reply.body == file.bytes(10..file.length));
    pulled.stored(7).await;
    let again = pulled.range("/file.bin", 0..file.length).await;
    assert!(is_hit(&again) && again.body == file.whole());
}
