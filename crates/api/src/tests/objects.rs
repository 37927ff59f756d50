//! Objects of local buckets.

use super::*;

#[tokio::test]
async fn objects_are_put_read_listed_and_deleted() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let objects = "/v1/buckets/videos/objects";
    for (key, content) in [("a%20b.mp4", "one"), ("hls/x.m3u8", "#EXTM3U\n"), ("hls/y.ts", "three")] {
        let (status, body) = client.call("PUT", &format!("{objects}/{key}"), content).await;
        assert_eq!(
            (status, keys(&body["object"])),
            (StatusCode::OK, vec!["etag", "key", "modified", "size"])
        );
        assert_eq!(body["object"]["size"], content.len());
    }
    let (parts, body) = client.raw("GET", &format!("{objects}/a%20b.mp4"), Body::empty()).await;
    assert_eq!(
        (parts.status, &body[..], parts.headers["content-type"].as_bytes()),
        (StatusCode::OK, &b"one"[..], &b"video/mp4"[..])
    );
    let (parts, body) = client
        .raw("HEAD", &format!("{objects}/hls/x.m3u8"), Body::empty())
        .await;
    assert_eq!((parts.headers["content-length"].as_bytes(), body.len()), (&b"8"[..], 0));
    let listed = |list: &Value| -> Vec<String> {
        let all = list["objects"].as_array().unwrap();
        all.iter().map(|o| o["key"].as_str().unwrap().to_owned()).collect()
    };
    let list = client.ok("GET", objects, Value::Null).await;
    assert_eq!(
        (listed(&list), keys(&list)),
        (
            vec!["a b.mp4".into(), "hls/x.m3u8".into(), "hls/y.ts".into()],
            vec!["objects"]
        )
    );
    let list = client
        .ok("GET", &format!("{objects}?prefix=hls%2F&limit=1"), Value::Null)
        .await;
    assert_eq!(
        (listed(&list), &list["next"]),
        (vec!["hls/x.m3u8".into()], &json!("hls/x.m3u8"))
    );
    let list = client
        .ok("GET", &format!("{objects}?prefix=hls/&after=hls/x.m3u8"), Value::Null)
        .await;
    assert_eq!(listed(&list), ["hls/y.ts"]);

    let large = vec![0_u8; (4 << 20) + 1];
    assert_eq!(
        client.fails("PUT", &format!("{objects}/large"), large).await.1,
        "object_too_large"
    );
    assert_eq!(
        client.fails("PUT", &format!("{objects}/hls"), "x").await.1,
        "key_conflict"
    );
    // No file has a longer name.
    for key in ["n".repeat(256), format!("a/{}/b", "n".repeat(256)), "n".repeat(1024)] {
        let refused = client.fails("PUT", &format!("{objects}/{key}"), "x").await;
        assert_eq!(
            (refused.0, refused.1.as_str(), refused.2.as_deref()),
            (422, "invalid_key", Some("key")),
            "{key}"
        );
    }
    let longest = format!("{objects}/{}", "n".repeat(255));
    client.call("PUT", &longest, "x").await;
    client.ok("DELETE", &longest, Value::Null).await;
    assert_eq!(
        client.fails("GET", &format!("{objects}/none"), Body::empty()).await.0,
        404
    );
    assert_eq!(
        client.fails("DELETE", "/v1/buckets/videos", Body::empty()).await.1,
        "bucket_not_empty"
    );
    for key in ["a%20b.mp4", "hls/x.m3u8", "hls/y.ts"] {
        client.ok("DELETE", &format!("{objects}/{key}"), Value::Null).await;
        assert_eq!(
            client
                .fails("DELETE", &format!("{objects}/{key}"), Body::empty())
                .await
                .0,
            404
        );
    }
    client
        .ok(
            "POST",
            "/v1/domains",
            json!({"name": "v.example.com", "type": "vod", "bucket_name": "videos"}),
        )
        .await;
    assert_eq!(
        client.fails("DELETE", "/v1/buckets/videos", Body::empty()).await.1,
        "bucket_in_use"
    );
    // What was refused is whole: it still takes objects.
    client.call("PUT", &format!("{objects}/again"), "x").await;
    assert_eq!(
        client.ok("GET", objects, Value::Null).await["objects"][0]["key"],
        "again"
    );
}

/// The body of an upload that has begun: more comes when it is sent, and the end when the sender is dropped.
fn held_open() -> (tokio::sync::mpsc::Sender<Result<bytes::Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let content = futures_util::stream::unfold(receiver, async |mut r| Some((r.recv().await?, r)));
    (sender, Body::from_stream(content))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_held_open_does_not_reach_the_next_owner_of_the_name() {
    let service = Service::start().await;
    let (a, b) = (Arc::new(service.project("a").await), service.project("b").await);
    let new = json!({"name": "videos"});
    let path = "/v1/buckets/videos/objects/a.mp4";
    for recreated in [false, true] {
        a.ok("POST", "/v1/buckets", new.clone()).await;
        let (sender, body) = held_open();
        let upload = {
            let a = a.clone();
            tokio::spawn(async move { a.fails("PUT", path, body).await })
        };
        sender.send(Ok("from a".into())).await.unwrap();
        // Taken once the upload has its place on the disk.
        sender.send(Ok("from a".into())).await.unwrap();
        a.ok("DELETE", "/v1/buckets/videos", Value::Null).await;
        if recreated {
            b.ok("POST", "/v1/buckets", new.clone()).await;
            b.call("PUT", path, "from b").await;
        }
        drop(sender);
        assert_eq!(upload.await.unwrap().0, 404);
    }
    assert_eq!(b.raw("GET", path, Body::empty()).await.1, "from b");
    let folders = std::fs::read_dir(service.dir.path().join("buckets")).unwrap();
    assert_eq!(folders.count(), 1, "nothing of a's buckets is left");
}

#[tokio::test]
async fn a_bucket_that_holds_objects_keeps_its_origin() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let (bucket, object) = ("/v1/buckets/videos", "/v1/buckets/videos/objects/a");
    client.call("PUT", object, "x").await;
    let pulled = json!({"origin": {"type": "http", "url": "https://origin.example.com"}});
    let refused = client.fails("PUT", bucket, pulled.to_string()).await;
    assert_eq!((refused.0, refused.1.as_str()), (409, "bucket_not_empty"));
    assert_eq!(client.raw("GET", object, Body::empty()).await.1, "x");
    client.ok("PUT", bucket, json!({"origin": {"type": "local"}})).await;
    client.ok("DELETE", object, Value::Null).await;
    client.ok("PUT", bucket, pulled).await;
    client.ok("DELETE", bucket, Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_purged_also_when_the_client_has_gone_or_the_file_was_gone() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let path = "/v1/buckets/videos/objects/a";
    // The client goes when everything is sent, and the handler with it.
    let (sender, body) = held_open();
    let request = Request::put(path)
        .header(AUTHORIZATION, format!("Bearer {}", client.token))
        .body(body)
        .unwrap();
    let upload = tokio::spawn(service.router.clone().oneshot(request));
    for _ in 0..3 {
        sender.send(Ok("x".into())).await.unwrap();
    }
    let mut commits = service.store.commits();
    let before = *commits.borrow_and_update();
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());
    drop(sender);
    commits.changed().await.unwrap();
    let changes = service.store.changes_since(before).await.unwrap().unwrap();
    let purged = match &changes[..] {
        [(_, Change::Purge { purge, .. })] => purge,
        other => panic!("{other:?}"),
    };
    assert_eq!(*purged, Purge::hard(Purged::Object(ObjectKey::new("a").unwrap())));
    // An earlier DELETE came as far as the file, and not to the purge.
    let folder = std::fs::read_dir(service.dir.path().join("buckets")).unwrap().next();
    std::fs::remove_file(folder.unwrap().unwrap().path().join("a")).unwrap();
    let before = *service.store.commits().borrow();
    assert_eq!(client.fails("DELETE", path, Body::empty()).await.0, 404);
    assert_eq!(*service.store.commits().borrow(), before + 1);
}

#[tokio::test]
async fn an_object_whose_change_may_not_last_is_purged_and_the_answer_says_so() {
    let failing = |storage: LocalStorage| storage.syncing(|_| Err(rustix::io::Errno::IO));
    let service = Service::start_over(|_| {}, failing).await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let path = "/v1/buckets/videos/objects/a";
    for (method, there) in [("PUT", StatusCode::OK), ("DELETE", StatusCode::NOT_FOUND)] {
        let before = *service.store.commits().borrow();
        let failure = client.fails(method, path, "x").await;
        assert_eq!((failure.0, failure.1.as_str()), (503, "unavailable"), "{method}");
        assert_eq!(client.raw("GET", path, Body::empty()).await.0.status, there, "{method}");
        let changes = service.store.changes_since(before).await.unwrap().unwrap();
        let purged = matches!(&changes[..], [(_, Change::Purge { .. })]);
        assert!(purged, "{method}: {changes:?}");
    }
}

#[tokio::test]
async fn a_change_on_a_condition_is_made_only_where_it_holds() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let object = "/v1/buckets/videos/objects/a.mp4";
    let send = async |method: &str, fields: &[(&str, &str)], content: &'static str| {
        let mut request = Request::builder().method(method).uri(object);
        request = request.header(AUTHORIZATION, format!("Bearer {}", client.token));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, body) = super::send(&client.router, request.body(content.into()).unwrap()).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        (
            parts.status.as_u16(),
            body["error"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let done = (200, String::new());
    let failed = (412, "precondition_failed".to_owned());
    let etag = async || {
        let (parts, _) = client.raw("HEAD", object, Body::empty()).await;
        parts.headers["etag"].to_str().unwrap().to_owned()
    };
    // Of an object that is not there.
    assert_eq!(send("PUT", &[("if-match", "*")], "none").await, failed);
    assert_eq!(send("PUT", &[("if-none-match", "*")], "first").await, done);
    let first = etag().await;
    for (name, value) in [
        ("if-none-match", "*"),
        ("if-none-match", &*format!("\"x\", W/{first}")),
        ("if-match", "\"x\""),
        ("if-match", &*format!("W/{first}")),
        ("if-unmodified-since", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ] {
        assert_eq!(send("PUT", &[(name, value)], "other").await, failed, "{name}: {value}");
        assert_eq!(send("DELETE", &[(name, value)], "").await, failed, "{name}: {value}");
    }
    let (_, content) = client.raw("GET", object, Body::empty()).await;
    assert_eq!((&content[..], etag().await), (&b"first"[..], first.clone()));
    let both = [
        ("if-match", &*first),
        ("if-unmodified-since", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ];
    assert_eq!(send("PUT", &both, "second").await, done, "If-Match outranks the date");
    assert_eq!(send("DELETE", &[("if-match", &*first)], "").await, failed);
    assert_eq!(send("DELETE", &[("if-match", &*etag().await)], "").await, done);
}

#[tokio::test]
async fn what_is_put_is_the_whole_object_as_it_is() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    for (name, value, status) in [
        ("content-range", "bytes 0-1/12", 400),
        ("content-encoding", "gzip", 415),
        ("content-encoding", "identity", 200),
    ] {
        let request = Request::put("/v1/buckets/videos/objects/a.mp4")
            .header(AUTHORIZATION, format!("Bearer {}", client.token))
            .header(name, value)
            .body(Body::from("xy"))
            .unwrap();
        let (parts, _) = send(&client.router, request).await;
        assert_eq!(parts.status, status, "{name}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_create_an_object_at_once_one_does() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (router, token) = (client.router.clone(), client.token.clone());
            tokio::spawn(async move {
                let request = Request::put("/v1/buckets/videos/objects/a.mp4")
                    .header(AUTHORIZATION, format!("Bearer {token}"))
                    .header("if-none-match", "*")
                    .body(Body::from("x"))
                    .unwrap();
                send(&router, request).await.0.status.as_u16()
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        let status = task.await.unwrap();
        assert!(matches!(status, 200 | 412), "{status}");
        made += u32::from(status == 200);
    }
    assert_eq!(made, 1);
}
