//! Answers that the edge makes by itself: to a CA, to OPTIONS, and what leads to HTTPS; and what each answer over TLS tells of
//! HTTP/3.

use crate::{accept::Accepted, body::Body, cors, site::Site};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, ALT_SVC, CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};

/// The answer to a CA.
pub(crate) fn challenge(answer: &str, head_only: bool) -> Response<Body> {
    let mut response = Response::new(Body::full(answer.to_owned().into(), head_only));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What leads to the same place over HTTPS.
pub(crate) fn redirect(https_port: u16, request: &Accepted, site: &Site) -> Response<Body> {
    let port = if https_port == 443 {
        String::new()
    } else {
        format!(":{https_port}")
    };
    let location = format!("https://{}{port}{}", request.host, request.path_and_query());
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    // A token in the URL must not be kept with it.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    site.cors.apply(response.headers_mut());
    response
}

/// The answer to OPTIONS: a preflight's headers where one is asked for (Fetch Standard), else the methods.
pub(crate) fn options(site: &Site, request: &Accepted) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        ALLOW,
        HeaderValue::from_str(&site.allow()).expect("made of method tokens"),
    );
    if cors::is_preflight(&request.headers) {
        site.cors.apply_preflight(&request.headers, headers);
    } else {
        site.cors.apply(headers);
    }
    response
}

/// Says where else the client is served, if it `trusts` that; takes out what else says so.
pub(crate) fn tell(alternative: Option<&HeaderValue>, trusts: bool, headers: &mut HeaderMap) {
    match alternative {
        Some(alternative) if trusts => drop(headers.insert(ALT_SVC, alternative.clone())),
        Some(_) => drop(headers.remove(ALT_SVC)),
        None => {}
    }
}
