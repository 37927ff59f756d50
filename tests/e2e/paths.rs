//! No path leads out of a bucket, and each object has one name.

use crate::{BINARY, sign};
use edgeweir_harness::Edge;
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// The folder of a local bucket.
fn folder_of(edge: &Edge, bucket: &str) -> PathBuf {
    let folders = fs::read_dir(edge.data_dir().join("buckets")).unwrap();
    let mut paths = folders.map(|f| f.unwrap().path());
    let of_bucket = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(&format!("{bucket}@"))
    };
    paths.find(of_bucket).unwrap()
}

#[tokio::test]
async fn no_path_leads_out_of_a_bucket() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.bucket("other").await;
    project.put("other", "secret", "SECRET").await;
    project.put("videos", "a/b", "content").await;
    let folder = folder_of(&edge, "videos");
    std::fs::write(edge.data_dir().join("outside"), "SECRET").unwrap();
    symlink(edge.data_dir().join("outside"), folder.join("link")).unwrap();
    let other = folder_of(&edge, "other").file_name().unwrap().to_owned();
    symlink(PathBuf::from("..").join(other), folder.join("folder-link")).unwrap();
    symlink("a/b", folder.join("inner-link")).unwrap();
    symlink("/etc", folder.join("etc")).unwrap();
    for path in [
        "/../other/secret",
        "/..%2fother%2fsecret",
        "/%2e%2e/other/secret",
        "/%2e%2e%2fother%2fsecret",
        "/a/../../other/secret",
        "/a/..",
        "/a/./b",
        "/a/%2e/b",
        "/a//b",
        "//a/b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a/b%00",
        "/a/b%00.mp4",
        "/a%0ab",
        "/%ff",
        "/a/b%",
        "/a/b%zz",
        "/link",
        "/folder-link/secret",
        "/inner-link",
        "/etc/passwd",
        "/a",
        "/a/",
        "/",
        "/A/B",
        "/a/b/",
        "/a/b/c",
        "/%252e%252e/other/secret",
    ] {
        for client in [edge.http(), edge.https(edgeweir_harness::Protocol::H2)] {
            let reply = client.get(&host, path).await;
            assert!(matches!(reply.status.as_u16(), 400 | 404), "{path}: {}", reply.status);
            let text = reply.text();
            assert!(!text.contains("SECRET") && text != "content", "{path}: {text}");
        }
    }
    // A client that sends what no library would.
    for target in [
        "/a/b\0",
        "/a/../../other/secret",
        "/a\\..\\..\\other\\secret",
        "../other/secret",
        "/a b",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = edge.http().raw(request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 404"),
            "{target:?}: {answer}"
        );
    }
    assert_eq!(edge.http().get(&host, "/a/b").await.text(), "content");
    assert_eq!(edge.http().get(&host, "/%61/%62").await.text(), "content");
}

#[tokio::test]
async fn one_spelling_of_a_key_is_authorized_cached_and_fetched() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    // Composed and decomposed "é" are two keys, and so are upper and lower case.
    for key in [
        "caf%C3%A9.mp4",
        "cafe%CC%81.mp4",
        "Caf%C3%A9.mp4",
        "a%20b%2Bc.mp4",
        "%25.mp4",
    ] {
        project.put("videos", key, key.to_owned()).await;
    }
    project.policy("videos", "authenticated").await;
    let key = project.signing_key("bucket_name", "videos").await;
    let token = sign(&edge, &key, "café.mp4");
    let get = async |path: &str, token: &str| edge.http().get(&host, &format!("/{path}?auth={token}")).await;
    assert_eq!(get("caf%C3%A9.mp4", &token).await.text(), "caf%C3%A9.mp4");
    assert_eq!(get("caf%c3%a9.mp4", &token).await.text(), "caf%C3%A9.mp4");
    for other in ["cafe%CC%81.mp4", "Caf%C3%A9.mp4", "caf%25C3%25A9.mp4"] {
        assert_eq!(get(other, &token).await.error(), "token_uri_mismatch", "{other}");
    }
    let all = sign(&edge, &key, "");
    assert_eq!(get("a%20b+c.mp4", &all).await.text(), "a%20b%2Bc.mp4");
    assert_eq!(get("%25.mp4", &all).await.text(), "%25.mp4");
    assert_eq!(get("%2525.mp4", &all).await.status, 404);
}

/// Whoever can write into a bucket's folder wins no race between a check and an open (CVE-2021-41773 and its kind).
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_becomes_a_link_while_it_is_read_leads_nowhere() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "sub/0", "inside").await;
    let outside = edge.data_dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let folder = folder_of(&edge, "videos");
    // An object for each request, so that none is in the cache.
    for n in 0..1500 {
        fs::write(folder.join(format!("sub/{n}")), "inside").unwrap();
        fs::write(outside.join(n.to_string()), "SECRET").unwrap();
    }
    let (sub, link, spare) = (folder.join("sub"), folder.join("link"), folder.join("spare"));
    symlink(&outside, &link).unwrap();

    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                for (from, to) in [(&sub, &spare), (&link, &sub), (&sub, &link), (&spare, &sub)] {
                    fs::rename(from, to).unwrap();
                }
                swaps += 1;
            }
            swaps
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for n in 0..1500 {
                    let reply = edge.http().get(&host, &format!("/sub/{n}")).await;
                    match (reply.status.as_u16(), reply.text()) {
                        (200, "inside") => inside += 1,
                        (404, _) => refused += 1,
                        (status, text) => {
                            stop.store(true, Ordering::Relaxed);
                            panic!("{status}: {text}");
                        }
                    }
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
        let swaps = swapping.join().unwrap();
        assert!(
            swaps > 100 && inside > 0 && refused > 0,
            "{swaps} swaps: {inside} inside, {refused} refused"
        );
    });
    // One that was not asked for before: that there was nothing may be remembered, too.
    fs::write(sub.join("last"), "inside").unwrap();
    assert_eq!(edge.http().get(&host, "/sub/last").await.text(), "inside");
}
