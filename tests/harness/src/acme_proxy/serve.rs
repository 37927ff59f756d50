//! One call: written down, perhaps broken, passed on to pebble, and answered.

use super::{AcmeCall, Before, CAA_IDENTITY, Call, Fault, Shared, Verdict};
use crate::Reply;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

#[derive(Debug, thiserror::Error)]
#[error("the connection is to be closed")]
pub(super) struct Abandoned;

pub(super) async fn one(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Abandoned> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Abandoned)?.to_bytes();
    let path = head.uri.path().to_owned();
    let call = Call::of(&path);
    let index = {
        let mut state = shared.lock();
        state.seen.push(AcmeCall {
            call,
            path: path.clone(),
            payload: payload(&body),
            status: None,
            answer: Value::Null,
        });
        state.seen.len() - 1
    };
    let fault = shared.fault(call);
    if let Some(Fault::Refuse(status, retry_after, problem)) = &fault {
        let kind = format!("urn:ietf:params:acme:error:{problem}");
        let body = json!({"type": kind, "detail": "refused by the test", "status": status.as_u16()}).to_string();
        shared.note(index, *status, body.as_bytes());
        let mut answer = Response::builder()
            .status(*status)
            .header("content-type", "application/problem+json");
        if let Some(when) = retry_after {
            answer = answer.header("retry-after", when);
        }
        return Ok(answer.body(body.into()).expect("a response"));
    }
    if let Some(Fault::Hold(Before::Request, reached, verdict)) = &fault {
        hold(reached, verdict.clone()).await?;
    }
    if call == Call::RenewalInfo {
        let answer = renewal_info(shared, &path);
        shared.note(index, answer.status(), b"");
        return Ok(answer);
    }
    let host = shared.address.to_string();
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let headers: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length" | "connection"))
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let sent = shared
        .upstream
        .try_send(head.method, &host, target, &headers, body)
        .await;
    let Ok(mut reply) = sent else {
        // Pebble is down, and so is this.
        return Err(Abandoned);
    };
    shared.note(index, reply.status, &reply.body);
    if let Some(Fault::Hold(Before::Answer, reached, verdict)) = &fault {
        hold(reached, verdict.clone()).await?;
    }
    if matches!(call, Call::NewOrder | Call::Order) && reply.status.is_success() {
        reflect_replaced(shared, index, &path, &mut reply);
    }
    if call == Call::Directory && reply.status == StatusCode::OK {
        let mut directory = reply.json();
        directory["meta"]["caaIdentities"] = json!([CAA_IDENTITY]);
        if shared.lock().renewals.is_some() {
            directory["renewalInfo"] = format!("https://{host}/renewal-info").into();
        }
        reply.body = directory.to_string().into();
    }
    Ok(passed_on(reply))
}

async fn hold(reached: &watch::Sender<bool>, mut verdict: watch::Receiver<Verdict>) -> Result<(), Abandoned> {
    let _ = reached.send(true);
    match verdict.wait_for(|v| *v != Verdict::Wait).await {
        Ok(v) if *v == Verdict::Abandon => Err(Abandoned),
        _ => Ok(()),
    }
}

fn passed_on(reply: Reply) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(reply.body));
    *answer.status_mut() = reply.status;
    *answer.headers_mut() = reply.headers;
    for name in ["content-length", "connection", "transfer-encoding"] {
        answer.headers_mut().remove(name);
    }
    answer
}

/// An order says which certificate it is to replace (RFC 9773 §5).
fn reflect_replaced(shared: &Shared, index: usize, path: &str, reply: &mut Reply) {
    let mut state = shared.lock();
    let replaced = match state.seen[index].payload.get("replaces").cloned() {
        Some(replaced) => {
            // The path of an absolute URL.
            let url = reply.header("location").splitn(4, '/').nth(3).unwrap_or_default();
            state.replaces.insert(format!("/{url}"), replaced.clone());
            Some(replaced)
        }
        None => state.replaces.get(path).cloned(),
    };
    if let Some(replaced) = replaced.filter(|_| !state.forgets_replaced) {
        let mut order = reply.json();
        order["replaces"] = replaced;
        reply.body = order.to_string().into();
    }
}

/// RFC 9773 §4.
fn renewal_info(shared: &Shared, path: &str) -> Response<Full<Bytes>> {
    let id = path.rsplit('/').next().unwrap_or_default();
    let mut state = shared.lock();
    let Some((known, over)) = &mut state.renewals else {
        let mut none = Response::new(Full::default());
        *none.status_mut() = StatusCode::NOT_FOUND;
        return none;
    };
    let position = known.iter().position(|k| k == id).unwrap_or_else(|| {
        known.push(id.to_owned());
        known.len() - 1
    });
    // One that is over ends after the certificate was made, or it is none of its own.
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(1);
    let soon = soon.format(&Rfc3339).expect("a date");
    let (start, end) = if position < *over {
        ("2020-01-01T00:00:00Z", &*soon)
    } else {
        ("2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z")
    };
    let body = json!({"suggestedWindow": {"start": start, "end": end}}).to_string();
    Response::builder()
        .header("content-type", "application/json")
        .header("retry-after", "21600")
        .body(body.into())
        .expect("a response")
}

/// The payload of a JWS in its flattened form (RFC 8555 §6.2).
fn payload(body: &[u8]) -> Value {
    let decode = || {
        let jws: Value = serde_json::from_slice(body).ok()?;
        let payload = BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str()?).ok()?;
        serde_json::from_slice(&payload).ok()
    };
    decode().unwrap_or_default()
}
