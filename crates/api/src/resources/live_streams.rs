//! The registry of live streams.

use super::{Answer, Done, Policy, PolicyName, done, free_name, origin::pull_url, settled};
use crate::{
    Shared,
    auth::Project,
    extract::{Body, Segment},
    paging::Paging,
};
use axum::{Json, extract::State};
use edgeweir_model::{StreamId, Timestamp};
use edgeweir_store::{Stream, StreamOrigin};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
        .routes(routes!(set_policy))
        .routes(routes!(get_policy))
}

/// Where a stream comes from.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum StreamOriginBody {
    /// An encoder pushes it.
    Ingest {},
    /// It is fetched from a playlist's URL.
    Pull { url: String },
}

/// A new live stream.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewStream {
    /// At most 255 characters.
    name: String,
    /// `{"type": "ingest"}` when left out.
    origin: Option<StreamOriginBody>,
}

/// A live stream.
#[derive(Serialize, ToSchema)]
struct StreamBody {
    #[schema(value_type = String)]
    id: StreamId,
    playback_id: String,
    name: String,
    #[schema(value_type = String)]
    created: Timestamp,
    /// `idle`, `live` or `ended`.
    status: &'static str,
    playback_url: String,
    origin: StreamOriginBody,
    /// The folder that an encoder pushes into; in the answer that makes the stream and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    ingest_url: Option<String>,
    /// The secret part of `ingest_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_key: Option<String>,
}

/// A URL on a host of the service's zone.
fn edge_url(state: &Shared, host: &str, path: &str) -> String {
    let config = &state.config;
    let port = match (config.edge_scheme, config.edge_port) {
        ("https", 443) | ("http", 80) => String::new(),
        (_, port) => format!(":{port}"),
    };
    format!("{}://{host}.{}{port}/{path}", config.edge_scheme, config.zone)
}

impl StreamBody {
    fn new(stream: Stream, state: &Shared) -> Self {
        let playback_host = format!("play-{}", stream.playback_id);
        let entry = match &stream.origin {
            // A player that goes by the name must see that it is a manifest of DASH.
            StreamOrigin::Pull(url) if url.entry.as_str().to_ascii_lowercase().ends_with(".mpd") => {
                url.entry.to_url_path()
            }
            _ => "playlist.m3u8".to_owned(),
        };
        Self {
            playback_url: edge_url(state, &playback_host, &format!("qhls/qlive/{entry}")),
            id: stream.id,
            playback_id: stream.playback_id,
            name: stream.name,
            created: stream.created,
            status: state.arrivals.status(stream.id, Instant::now()).as_str(),
            origin: match stream.origin {
                StreamOrigin::Ingest => StreamOriginBody::Ingest {},
                StreamOrigin::Pull(url) => StreamOriginBody::Pull { url: url.to_string() },
            },
            ingest_url: None,
            stream_key: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    live_stream: StreamBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    live_streams: Vec<StreamBody>,
    /// Goes on after this id, when there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Creates a live stream. The answer is the only place where its stream key is ever seen.
#[utoipa::path(post, path = "/v1/live-streams", tag = "live streams", security(("access_token" = [])),
    request_body = NewStream, responses((status = 200, body = One)))]
async fn create(State(state): State<Shared>, Project(project): Project, Body(body): Body<NewStream>) -> Answer<One> {
    let name = free_name(Some(body.name))?.unwrap_or_default();
    let origin = match body.origin {
        None | Some(StreamOriginBody::Ingest {}) => StreamOrigin::Ingest,
        Some(StreamOriginBody::Pull { url }) => StreamOrigin::Pull(pull_url(&url, &state)?),
    };
    let (stream, key) = state.store.create_stream(project, &name, origin).await?;
    let mut live_stream = StreamBody::new(stream, &state);
    if let Some(key) = key {
        let key = key.expose_secret();
        live_stream.ingest_url = Some(edge_url(&state, "ingest", &format!("{key}/")));
        live_stream.stream_key = Some(key.to_owned());
    }
    settled(&state, One { live_stream }).await
}

/// Lists live streams, newest first.
#[utoipa::path(get, path = "/v1/live-streams", tag = "live streams", security(("access_token" = [])),
    params(("limit" = Option<u32>, Query), ("after" = Option<String>, Query)), responses((status = 200, body = Many)))]
async fn list(State(state): State<Shared>, Project(project): Project, paging: Paging) -> Answer<Many> {
    let (found, more) = state.store.list_streams(project, &paging.page()).await?;
    let next = found.last().filter(|_| more).map(|s| s.id.to_string());
    Ok(Json(Many {
        live_streams: found.into_iter().map(|s| StreamBody::new(s, &state)).collect(),
        next,
    }))
}

/// Gets a live stream.
#[utoipa::path(get, path = "/v1/live-streams/{stream_id}", tag = "live streams", security(("access_token" = [])),
    params(("stream_id" = String, Path)), responses((status = 200, body = One)))]
async fn get(State(state): State<Shared>, Project(project): Project, Segment(id): Segment<StreamId>) -> Answer<One> {
    let live_stream = StreamBody::new(state.store.get_stream(project, id).await?, &state);
    Ok(Json(One { live_stream }))
}

/// Deletes a live stream with its signing keys.
#[utoipa::path(delete, path = "/v1/live-streams/{stream_id}", tag = "live streams", security(("access_token" = [])),
    params(("stream_id" = String, Path)), responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<StreamId>,
) -> Answer<Done> {
    state.store.delete_stream(project, id).await?;
    done(&state).await
}

/// Sets whether a stream asks for a signed token. Making a signing key for it sets `authenticated`.
#[utoipa::path(put, path = "/v1/live-streams/{stream_id}/policy/{policy}", tag = "live streams",
    security(("access_token" = [])), params(("stream_id" = String, Path), ("policy" = String, Path)),
    responses((status = 200, body = Done)))]
async fn set_policy(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<StreamId>,
    PolicyName(policy): PolicyName,
) -> Answer<Done> {
    state.store.set_stream_policy(project, id, policy).await?;
    done(&state).await
}

/// Gets whether a stream asks for a signed token.
#[utoipa::path(get, path = "/v1/live-streams/{stream_id}/policy", tag = "live streams",
    security(("access_token" = [])), params(("stream_id" = String, Path)), responses((status = 200, body = Policy)))]
async fn get_policy(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<StreamId>,
) -> Answer<Policy> {
    Ok(Json(state.store.get_stream(project, id).await?.policy.into()))
}
