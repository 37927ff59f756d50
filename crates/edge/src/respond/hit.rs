//! Answers from what is stored, and what is made of it once for all of them.

use super::{
    CACHE_STATUS,
    apply::{Representation, Source, is_conditional},
    finished,
    heads::{self, Head, HeadKey, Last, Slot},
    playlist::{host, playlist},
    private::{hide_surrogate_keys, make_private},
    status::hit_status,
};
use crate::{
    accept::Over,
    authorize::Authorized,
    body::Body,
    h1, own,
    refusal::{Reason, Refusal},
};
use bytes::Bytes;
use edgeweir_cache::{Content, Entry, Now, unshared};
use edgeweir_manifest::{Kind, Splices};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT_RANGES, AGE, ALT_SVC, CONTENT_ENCODING, CONTENT_LENGTH},
};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The answer to a hit: nothing to wait for.
pub(crate) fn hit(
    authorized: &Authorized,
    entry: &Arc<Entry>,
    ttl: Duration,
    now: Now,
) -> Result<Response<Body>, Refusal> {
    let ready = Ready::find(entry, authorized);
    let request = &authorized.resolved().request;
    let place = ready.place();
    let slot = place.map(|place| place.head_over(request.over));
    let key = slot.zip(head_key(authorized, entry, ready, ttl, now));
    let response = match key.map(|(slot, key)| (slot, key, slot.look(key))) {
        Some((_, _, Last::Kept(Head::Text(text)))) => Response::new(Body::Rendered(text, whole(entry))),
        Some((_, _, Last::Kept(Head::Fields(fields)))) => {
            let mut response = Response::new(Body::Full(whole(entry)));
            *response.headers_mut() = HeaderMap::clone(&fields);
            response
        }
        last => {
            let representation = representation(entry, authorized, ready, place, now)?;
            let mut response = finished(authorized, representation, hit_status(ttl))?;
            if let Some((slot, key, Last::Again)) = last {
                slot.keep(key, head_of(&mut response, authorized));
            }
            response
        }
    };
    if request.over == Over::Plain
        && let (Content::Whole(held), Body::Full(bytes) | Body::Rendered(_, bytes)) = (entry.content(), response.body())
    {
        held.sent(bytes.len());
    }
    Ok(response)
}

/// By what the head of a hit is found, where it can be kept: of answers with all the content.
fn head_key(authorized: &Authorized, entry: &Entry, ready: &Ready, ttl: Duration, now: Now) -> Option<HeadKey> {
    let request = &authorized.resolved().request;
    let signed = authorized.is_signed();
    let is_plain = request.method == Method::GET
        && entry.status() == StatusCode::OK
        && entry.content().length() > 0
        && !(signed && (ready.encoded || ready.playlist.is_some()))
        && !request.headers.keys().any(is_conditional);
    is_plain.then(|| HeadKey {
        site: authorized.resolved().site.number,
        signed,
        age: entry.age(now).as_secs(),
        ttl: ttl.as_secs(),
    })
}

/// The head of an answer, if it is to be kept.
fn head_of(response: &mut Response<Body>, authorized: &Authorized) -> Option<Head> {
    debug_assert_eq!(response.status(), StatusCode::OK);
    let over = authorized.resolved().request.over;
    if over == Over::Frames {
        let headers = response.headers();
        let length: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
        return (length <= heads::LONGEST).then(|| Head::Fields(Arc::new(headers.clone())));
    }
    // Nobody does it afterwards.
    let alternative = authorized.resolved().site.alternative.as_ref();
    own::tell(alternative, over == Over::Tls, response.headers_mut());
    let text = h1::rendered(response).filter(|text| text.len() <= heads::LONGEST)?;
    Some(Head::Text(text.into()))
}

/// What is made of a stored response once, for all its hits.
struct Ready {
    /// Each thread has its place, as far as there are so many: what all answers have in common would else travel between the
    /// cores with each of them.
    places: [OnceLock<Box<Place>>; PLACES],
    /// Whether it has been hit. What never is again, as most of what is read from disk, is not worth a place.
    hit: AtomicBool,
    playlist: Option<Splices>,
    /// A playlist that came encoded although it was asked for as it is: no token can be put into it.
    encoded: bool,
}

/// What is made for the hits on a thread, when it is first wanted.
#[derive(Default)]
#[repr(align(128))]
struct Place {
    /// The fields of the answers for everyone.
    open: OnceLock<Box<HeaderMap>>,
    /// Of those for who came with a token: to be kept by nobody but the client.
    signed: OnceLock<Box<HeaderMap>>,
    /// The heads that were asked for last.
    plain: Slot,
    tls: Slot,
    frames: Slot,
}

impl Place {
    fn head_over(&self, over: Over) -> &Slot {
        match over {
            Over::Plain => &self.plain,
            Over::Tls => &self.tls,
            Over::Frames => &self.frames,
        }
    }
}

const PLACES: usize = 8;

/// About what a place takes with its fields and heads, in bytes.
const PLACE_BYTES: u64 = 4 << 10;

/// What is taken to be kept with each stored response, in bytes: two places. What is served by more threads has more, and most
/// of what is stored has none.
pub const ATTACHED_BYTES: u64 = 2 * PLACE_BYTES;

thread_local! {
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PLACES
    };
}

impl Ready {
    fn find<'a>(entry: &'a Entry, authorized: &Authorized) -> &'a Self {
        entry.attach_with(|entry| Self::of(entry, authorized))
    }

    fn of(entry: &Entry, authorized: &Authorized) -> Self {
        let key = authorized.object().map_or("", |(_, key)| key.as_str());
        let kind = Kind::of_key(key).filter(|_| entry.status() == StatusCode::OK);
        let playlist = match (kind, entry.content()) {
            (Some(kind), Content::Whole(text)) => edgeweir_manifest::scan(kind, &text.bytes()).ok(),
            _ => None,
        };
        Self {
            places: Default::default(),
            hit: AtomicBool::new(false),
            playlist,
            encoded: kind.is_some() && entry.headers().contains_key(CONTENT_ENCODING),
        }
    }

    /// This thread's place; none for the first hit.
    fn place(&self) -> Option<&Place> {
        let place = &self.places[PLACE.with(|place| *place)];
        match place.get() {
            None if !self.hit.swap(true, Ordering::Relaxed) => None,
            None => Some(place.get_or_init(Box::default)),
            Some(place) => Some(place),
        }
    }
}

/// The fields of the answer to such a request, this thread's copy where it has a place.
fn fields(entry: &Entry, authorized: &Authorized, place: Option<&Place>) -> HeaderMap {
    let signed = authorized.is_signed();
    let make = |stored| {
        let mut fields = open_fields(stored, entry, authorized);
        if signed {
            make_private(&mut fields, entry.freshness_lifetime());
        }
        fields
    };
    let Some(place) = place else {
        return make(entry.headers().clone());
    };
    let kept = if signed { &place.signed } else { &place.open };
    // Some are to be added.
    HeaderMap::clone(kept.get_or_init(|| Box::new(make(unshared(entry.headers(), 5)))))
}

/// The fields of a stored response's answers to everyone, made of those that are stored.
fn open_fields(mut open: HeaderMap, entry: &Entry, authorized: &Authorized) -> HeaderMap {
    hide_surrogate_keys(authorized, &mut open);
    // In place for each hit to overwrite: a map that has to grow is made anew.
    open.insert(AGE, HeaderValue::from_static("0"));
    open.insert(CACHE_STATUS, HeaderValue::from_static("edgeweir"));
    open.insert(CONTENT_LENGTH, entry.content().length().into());
    if let Some(alternative) = &authorized.resolved().site.alternative {
        open.insert(ALT_SVC, alternative.clone());
    }
    if entry.status() == StatusCode::OK {
        open.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    open
}

pub(super) fn of_entry(entry: &Arc<Entry>, authorized: &Authorized, now: Now) -> Result<Representation, Refusal> {
    let ready = Ready::find(entry, authorized);
    representation(entry, authorized, ready, ready.place(), now)
}

fn representation(
    entry: &Arc<Entry>,
    authorized: &Authorized,
    ready: &Ready,
    place: Option<&Place>,
    now: Now,
) -> Result<Representation, Refusal> {
    let headers = fields(entry, authorized, place);
    if !authorized.is_signed() {
        return Ok(stored(entry, headers, now));
    }
    if ready.encoded {
        return Err(Refusal::at(Reason::OriginEncoded, &authorized.resolved().site));
    }
    // The token is asked for where it is needed only: finding it takes the query apart again.
    let token = ready.playlist.as_ref().and_then(|_| authorized.token());
    Ok(match ready.playlist.as_ref().zip(token) {
        Some((splices, token)) => {
            let body = splices.render(&whole(entry), token, host(authorized));
            playlist(headers, body)
        }
        None => stored(entry, headers, now),
    })
}

fn stored(entry: &Arc<Entry>, mut headers: HeaderMap, now: Now) -> Representation {
    headers.insert(AGE, entry.age(now).as_secs().into());
    Representation {
        status: entry.status(),
        headers,
        length: Some(entry.content().length()),
        source: Source::Bytes(whole(entry)),
    }
}

/// The bytes of an entry that is kept in one piece; none of one that is kept in slices.
fn whole(entry: &Entry) -> Bytes {
    match entry.content() {
        Content::Whole(held) => held.bytes(),
        Content::Sliced(_) => Bytes::new(),
    }
}
