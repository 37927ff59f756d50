//! Live streams.

use super::*;

#[tokio::test]
async fn live_streams_are_registered() {
    let service = Service::start().await;
    let client = service.project("a").await;
    let made = client
        .ok(
            "POST",
            "/v1/live-streams",
            json!({"name": "cam", "origin": {"type": "ingest"}}),
        )
        .await;
    let made = made["live_stream"].clone();
    assert_eq!(
        keys(&made),
        [
            "created",
            "id",
            "ingest_url",
            "name",
            "origin",
            "playback_id",
            "playback_url",
            "status",
            "stream_key"
        ]
    );
    let playback = made["playback_id"].as_str().unwrap();
    assert!(playback.len() >= 22 && playback.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    assert_eq!(
        made["playback_url"],
        format!("https://play-{playback}.edgeweir.localhost:8443/qhls/qlive/playlist.m3u8")
    );
    let key = made["stream_key"].as_str().unwrap();
    assert_eq!(
        made["ingest_url"],
        format!("https://ingest.edgeweir.localhost:8443/{key}/")
    );
    let path = format!("/v1/live-streams/{}", id(&made));
    let read = client.ok("GET", &path, Value::Null).await["live_stream"].clone();
    assert_eq!(
        keys(&read),
        [
            "created",
            "id",
            "name",
            "origin",
            "playback_id",
            "playback_url",
            "status"
        ]
    );
    assert_eq!(read["status"], "idle");
    let url = "https://origin.example.com/live/master.m3u8";
    let pulled = client
        .ok(
            "POST",
            "/v1/live-streams",
            json!({"name": "p", "origin": {"type": "pull", "url": url}}),
        )
        .await;
    assert_eq!(pulled["live_stream"]["origin"]["url"], url);
    assert!(pulled["live_stream"].get("stream_key").is_none());
    assert_eq!(
        client.ok("GET", "/v1/live-streams", Value::Null).await["live_streams"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    client.ok("DELETE", &path, Value::Null).await;
    assert_eq!(client.fails("GET", &path, Body::empty()).await.0, 404);
}
