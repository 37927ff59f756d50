//! `edgeweir quickstart`: a server with a demo project in it, made through the control API as a user would.

use crate::{
    Failure, assets,
    bind::Ports,
    cli::Role,
    config::{Config, ConfigError, Setting},
    print,
    serve::{self, Running},
    sign, tell,
};
use axum::{Router, body::Body};
use edgeweir_model::{ProjectId, SigningKeyId, Timestamp};
use edgeweir_store::StoreError;
use http::{Method, Request, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tower::ServiceExt;

const PUBLIC: &str = "demo";
const PRIVATE: &str = "demo-private";
/// For how long the printed URLs are valid, in seconds.
const VALID: i64 = 24 * 3600;

/// Where that is kept, in the data folder.
const SAVED: &str = "quickstart.json";

/// What a later run goes on with.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    project_id: i64,
    api_key: String,
    signing_key_id: Option<SigningKeyId>,
}

/// The embedded defaults, over which only `EDGEWEIR_*` variables go, and `--dir`.
pub(crate) fn config(dir: Option<&Path>) -> Result<Config, ConfigError> {
    let mut base = Config {
        data_dir: "edgeweir-quickstart".into(),
        ..Config::default()
    };
    base.origins.allow_private = true;
    base.log.filter = "warn".to_owned();
    let dir = dir.map(|dir| Setting::data_dir(dir, "--dir")).transpose()?;
    Config::load(base, None, std::env::vars_os(), dir.into_iter().collect())
}

pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    let running = serve::start(&config, Role::All, Ports::OrFree).await?;
    let demo = Demo::make(&config, &running).await?;
    print(&demo.text(&config, &running))?;
    running.until_stopped().await
}

/// Calls the control API as a client does, without a socket.
struct Client {
    api: Router,
    access_token: String,
}

impl Client {
    async fn call(&self, method: Method, path: &str, body: Body) -> Result<(StatusCode, Value), Failure> {
        let failed = |e: &dyn std::error::Error| Failure::because(&format!("{method} {path}"), e);
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {}", self.access_token))
            .body(body)
            .map_err(|e| failed(&e))?;
        let response = self
            .api
            .clone()
            .oneshot(request)
            .await
            .unwrap_or_else(|never| match never {});
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| failed(&e))?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// A call that must succeed, or find that it was done before.
    async fn make(&self, method: Method, path: &str, body: Body) -> Result<Value, Failure> {
        let (status, answer) = self.call(method.clone(), path, body).await?;
        if status.is_success() || status == StatusCode::CONFLICT {
            return Ok(answer);
        }
        Err(refusal(&method, path, status, &answer))
    }
}

fn refusal(method: &Method, path: &str, status: StatusCode, answer: &Value) -> Failure {
    let message = answer["message"].as_str().unwrap_or_default();
    Failure::Failed(format!("{method} {path}: {status} {message}"))
}

fn json_body(value: &Value) -> Body {
    value.to_string().into()
}

/// The demo project.
struct Demo {
    api_key: String,
    signing_key_id: SigningKeyId,
    key_file: PathBuf,
}

impl Demo {
    async fn make(config: &Config, running: &Running) -> Result<Self, Failure> {
        let Some(api) = running.api.clone() else {
            return Err(ConfigError::value("listen.api", "must not be empty for the quickstart").into());
        };
        let mut saved = project(config, &api).await?;
        let save = |saved: &Saved| {
            let text = serde_json::to_vec_pretty(saved).expect("plain data");
            running
                .data_dir
                .write(SAVED, &text)
                .map_err(|e| Failure::because(SAVED, &e))
        };
        save(&saved)?;
        let access_token = token(&api, &saved.api_key)
            .await?
            .ok_or_else(|| Failure::Failed("the demo project's API key is not taken".to_owned()))?;
        let client = Client { api, access_token };
        for (bucket, policy) in [(PUBLIC, "public"), (PRIVATE, "authenticated")] {
            let new = json_body(&json!({ "name": bucket }));
            client.make(Method::POST, "/v1/buckets", new).await?;
            let path = format!("/v1/buckets/{bucket}");
            client
                .make(Method::PUT, &format!("{path}/policy/{policy}"), Body::empty())
                .await?;
            let cors = json_body(&json!({ "Access-Control-Allow-Origin": "*", "Access-Control-Max-Age": 600 }));
            client.make(Method::POST, &format!("{path}/cors"), cors).await?;
            fill(&client, &path).await?;
        }
        let key_file = config.data_dir.join("demo-signing-key.pem");
        let signing_key_id = match saved.signing_key_id {
            Some(id) if key_file.exists() && exists(&client, id).await? => id,
            _ => {
                tell(&"making an RSA key pair, which takes a second or two");
                let body = json_body(&json!({ "bucket_name": PRIVATE, "name": "quickstart" }));
                let made = client.make(Method::POST, "/v1/signing-keys", body).await?;
                let (id, pem) = (&made["signing_key"]["id"], &made["signing_key"]["private_key"]);
                let id = id.as_str().and_then(|id| id.parse().ok());
                let (Some(id), Some(pem)) = (id, pem.as_str()) else {
                    return Err(Failure::Failed("no signing key was made".to_owned()));
                };
                running
                    .data_dir
                    .write("demo-signing-key.pem", pem.as_bytes())
                    .map_err(|e| Failure::because("demo-signing-key.pem", &e))?;
                saved.signing_key_id = Some(id);
                save(&saved)?;
                id
            }
        };
        Ok(Self {
            api_key: saved.api_key,
            signing_key_id,
            key_file,
        })
    }

    fn signed(&self, base: &str, path: &str, uri: &str) -> String {
        let exp = Some(Timestamp::now().0 + VALID);
        let token = fs::read(&self.key_file)
            .ok()
            .and_then(|pem| sign::token(self.signing_key_id, &pem, uri, exp, None).ok())
            .unwrap_or_default();
        format!("{base}/{path}?auth={token}")
    }

    /// What the user is told.
    fn text(&self, config: &Config, running: &Running) -> String {
        let addresses = &running.addresses;
        let port = addresses.http.map_or(0, |a| a.port());
        let host = |bucket: &str| {
            format!(
                "http://{bucket}.media-storage.{}.{}:{port}",
                config.regions[0], config.zone
            )
        };
        let (public, private) = (host(PUBLIC), host(PRIVATE));
        let hls = self.signed(&private, "hls/master.m3u8", "hls/");
        let mp4 = self.signed(&private, "video.mp4", "video.mp4");
        let api = addresses.api.map_or(String::new(), |a| a.to_string());
        format!(
            "Edgeweir runs. Ctrl-C stops it; its data is in {dir}.\n\n\
             control API     http://{api}\n\
             API key         {key}\n\n\
             public HLS      {public}/hls/master.m3u8\n\
             public MP4      {public}/video.mp4\n\
             player          {public}/player.html\n\n\
             private HLS     {hls}\n\
             private MP4     {mp4}\n\
             player          {public}/player.html#{hls}\n\n\
             Without its token the private video is refused:\n  \
             curl {private}/hls/master.m3u8\n\n\
             Browsers and curl find *.localhost by themselves. A player that does not takes the server as its proxy:\n  \
             ffmpeg -http_proxy http://{http} -i '{hls}' -f null -\n\n\
             The private half of the signing key is in {pem}, for `edgeweir sign`. A customer would keep it; the server does not.",
            http = addresses.http.map_or(String::new(), |a| a.to_string()),
            dir = config.data_dir.display(),
            key = self.api_key,
            pem = self.key_file.display(),
        )
    }
}

/// The demo project, with an API key that is taken: the one of the run before, or a new one.
async fn project(config: &Config, api: &Router) -> Result<Saved, Failure> {
    let before = match fs::read(config.data_dir.join(SAVED)) {
        Ok(text) => Some(serde_json::from_slice::<Saved>(&text).map_err(|e| Failure::because(SAVED, &e))?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::because(SAVED, &e)),
    };
    let before = match before {
        Some(saved) if token(api, &saved.api_key).await?.is_some() => return Ok(saved),
        before => before,
    };
    let failed = |e| Failure::because("the demo project", &e);
    let store = serve::open_store(config).await?;
    if let Some(mut saved) = before {
        // Its key was revoked. The demo's buckets are that project's, and would be out of another one's reach.
        match store.create_api_key(ProjectId(saved.project_id)).await {
            Ok((_, key)) => {
                key.expose_secret().clone_into(&mut saved.api_key);
                return Ok(saved);
            }
            // Of a database that is not there any more.
            Err(StoreError::NotFound) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    let project = store.create_project("quickstart").await.map_err(failed)?;
    Ok(Saved {
        project_id: project.project_id.0,
        api_key: project.api_key.expose_secret().to_owned(),
        signing_key_id: None,
    })
}

/// An access token for the API key; `None` when the key is unknown or was revoked.
async fn token(api: &Router, api_key: &str) -> Result<Option<String>, Failure> {
    const PATH: &str = "/v1/access_token";
    let client = Client {
        api: api.clone(),
        access_token: api_key.to_owned(),
    };
    let (status, body) = client.call(Method::POST, PATH, Body::empty()).await?;
    match (status, body["access_token"].as_str()) {
        (StatusCode::UNAUTHORIZED, _) => Ok(None),
        (StatusCode::OK, Some(token)) => Ok(Some(token.to_owned())),
        _ => Err(refusal(&Method::POST, PATH, status, &body)),
    }
}

async fn exists(client: &Client, key: SigningKeyId) -> Result<bool, Failure> {
    let (status, _) = client
        .call(Method::GET, &format!("/v1/signing-keys/{key}"), Body::empty())
        .await?;
    Ok(status.is_success())
}

/// Puts the sample's files that a bucket lacks, or has in another size.
async fn fill(client: &Client, bucket: &str) -> Result<(), Failure> {
    let list = client
        .make(Method::GET, &format!("{bucket}/objects?limit=1000"), Body::empty())
        .await?;
    let there = |key: &str, size: usize| {
        let objects = list["objects"].as_array();
        objects.is_some_and(|all| all.iter().any(|o| o["key"] == key && o["size"] == size))
    };
    for (key, content) in assets::all().filter(|(key, content)| !there(key, content.len())) {
        client
            .make(Method::PUT, &format!("{bucket}/objects/{key}"), Body::from(content))
            .await?;
    }
    Ok(())
}
