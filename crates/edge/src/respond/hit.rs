//! Answers from what is stored, and what is made of it once for all of them.

use super::{
    CACHE_STATUS,
    apply::{Representation, Source, is_conditional},
    finished,
    heads::{self, Head, HeadKey, Last, Slot},
    playlist::{host, playlist, unreadable},
    private::{hide_surrogate_keys, make_private},
    room::{Room, memory},
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
                slot.keep(key, head_of(&mut response, authorized), &ready.room);
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

/// What is made of a stored response once, for all its hits, as far as there is room for it.
struct Ready {
    /// Each thread has its place, as far as there are so many: what all answers have in common would else travel between the
    /// cores with each of them.
    places: [OnceLock<Option<Box<Place>>>; PLACES],
    room: Room,
    /// Whether it has been hit. What never is again, as most of what is read from disk, is not worth a place.
    hit: AtomicBool,
    playlist: Option<Kind>,
    /// Where tokens go, looked for when there is one.
    splices: OnceLock<Scanned>,
    /// A playlist that came encoded although it was asked for as it is: no token can be put into it.
    encoded: bool,
}

/// What was found in a playlist.
enum Scanned {
    Splices(Splices),
    /// More than there is room for: it is found anew each time.
    TooMuch,
    /// Nobody could follow it with a token.
    Unreadable(edgeweir_manifest::Error),
}

/// What is made for the hits on a thread, when it is first wanted. Fields for which there is no room are made each time.
#[derive(Default)]
#[repr(align(128))]
struct Place {
    /// The fields of the answers for everyone.
    open: OnceLock<Option<Box<HeaderMap>>>,
    /// Of those for who came with a token: to be kept by nobody but the client.
    signed: OnceLock<Option<Box<HeaderMap>>>,
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
        Self::new(
            kind.filter(|_| entry.slices().is_none()),
            kind.is_some() && entry.headers().contains_key(CONTENT_ENCODING),
        )
    }

    fn new(playlist: Option<Kind>, encoded: bool) -> Self {
        let room = Room::default();
        room.take(size_of::<Self>());
        Self {
            places: Default::default(),
            room,
            hit: AtomicBool::new(false),
            playlist,
            splices: OnceLock::new(),
            encoded,
        }
    }

    /// This thread's place; none for the first hit.
    fn place(&self) -> Option<&Place> {
        self.place_of(PLACE.with(|place| *place))
    }

    fn place_of(&self, thread: usize) -> Option<&Place> {
        let place = &self.places[thread];
        match place.get() {
            None if !self.hit.swap(true, Ordering::Relaxed) => None,
            None => {
                let has_room = || self.room.take_any(size_of::<Place>());
                place.get_or_init(|| has_room().then(Box::default)).as_deref()
            }
            Some(place) => place.as_deref(),
        }
    }

    /// Fields to be kept, if there is room for them.
    fn kept(&self, fields: &HeaderMap) -> Option<Box<HeaderMap>> {
        // A copy has memory for no more fields than there are.
        let fields = Box::new(fields.clone());
        self.room.take_any(memory(&fields)).then_some(fields)
    }

    /// The playlist with a token in it; `None` if it is none.
    fn spliced(&self, text: &[u8], token: &str, host: &str) -> Result<Option<Vec<u8>>, edgeweir_manifest::Error> {
        let Some(kind) = self.playlist else { return Ok(None) };
        let mut found = None;
        let scanned = self.splices.get_or_init(|| match edgeweir_manifest::scan(kind, text) {
            Ok(splices) if self.room.take(splices.memory_size()) => Scanned::Splices(splices),
            Ok(splices) => {
                found = Some(splices);
                Scanned::TooMuch
            }
            Err(e) => Scanned::Unreadable(e),
        });
        match scanned {
            Scanned::Splices(splices) => Ok(Some(splices.render(text, token, host))),
            Scanned::TooMuch => {
                let splices = found.map_or_else(|| edgeweir_manifest::scan(kind, text), Ok)?;
                Ok(Some(splices.render(text, token, host)))
            }
            Scanned::Unreadable(e) if e.is_no_playlist() => Ok(None),
            Scanned::Unreadable(e) => Err(e.clone()),
        }
    }
}

/// The fields of the answer to such a request, this thread's copy where it has a place.
fn fields(entry: &Entry, authorized: &Authorized, ready: &Ready, place: Option<&Place>) -> HeaderMap {
    let signed = authorized.is_signed();
    let make = |stored| {
        let mut fields = open_fields(stored, entry, authorized);
        if signed {
            make_private(&mut fields, entry.freshness_lifetime());
        }
        fields
    };
    let kept = place.and_then(|place| {
        let kept = if signed { &place.signed } else { &place.open };
        // Some are to be added.
        kept.get_or_init(|| ready.kept(&make(unshared(entry.headers(), 5))))
            .as_deref()
    });
    kept.cloned().unwrap_or_else(|| make(entry.headers().clone()))
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
    let headers = fields(entry, authorized, ready, place);
    if !authorized.is_signed() {
        return Ok(stored(entry, headers, now));
    }
    if ready.encoded {
        return Err(Refusal::at(Reason::OriginEncoded, &authorized.resolved().site));
    }
    // The token is asked for where it is needed only: finding it takes the query apart again.
    let token = ready.playlist.and_then(|_| authorized.token());
    let spliced = token.map(|token| ready.spliced(&whole(entry), token, host(authorized)));
    let unreadable = |e| unreadable(authorized, &e);
    Ok(match spliced.transpose().map_err(unreadable)?.flatten() {
        Some(body) => playlist(headers, body),
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

#[cfg(test)]
mod tests {
    use super::{super::room::ATTACHED_BYTES, *};

    const COUNTED: usize = ATTACHED_BYTES as usize;

    /// Fields of such a number and length.
    fn fields(number: usize, length: usize) -> HeaderMap {
        let value: HeaderValue = "x".repeat(length).parse().expect("a field's value");
        let field = |n| (format!("x-{n}").parse().expect("a name"), value.clone());
        (0..number).map(field).collect()
    }

    /// What is kept of an entry with these fields that is hit on every thread, in bytes, and for how many threads.
    fn hit_everywhere(headers: &HeaderMap) -> (usize, usize) {
        let ready = Ready::new(None, false);
        let (mut bytes, mut threads) = (size_of::<Ready>(), 0);
        assert!(ready.place_of(0).is_none(), "at the first hit");
        for place in (0..PLACES).filter_map(|thread| ready.place_of(thread)) {
            bytes += size_of::<Place>();
            let kept = [&place.open, &place.signed].map(|kept| kept.get_or_init(|| ready.kept(headers)));
            threads += usize::from(kept[0].is_some());
            bytes += kept.into_iter().flatten().map(|fields| memory(fields)).sum::<usize>();
        }
        (bytes, threads)
    }

    #[test]
    fn long_fields_are_kept_for_no_thread() {
        // Each thread has its own of what is usual.
        assert_eq!(hit_everywhere(&fields(13, 20)).1, PLACES);
        for (number, length) in [(1, 60_000), (60, 1000), (900, 1)] {
            let (bytes, threads) = hit_everywhere(&fields(number, length));
            assert_eq!(threads, 0, "{number} of {length}");
            assert!(bytes <= COUNTED, "{number} of {length}: {bytes}");
        }
    }

    #[test]
    fn a_playlist_keeps_its_places_if_they_fit_into_what_is_counted() {
        let segment = "#EXTINF:6.000,\nsegment00001.ts\n";
        for (line, count, is_kept) in [(segment, 3000, true), (segment, 10_000, false), ("a\n", 100_000, false)] {
            let text = format!("#EXTM3U\n{}", line.repeat(count));
            let ready = Ready::new(Some(Kind::Hls), false);
            assert!(ready.splices.get().is_none(), "before there is a token");
            for _ in 0..2 {
                let spliced = ready
                    .spliced(text.as_bytes(), "T", "host")
                    .expect("it is read")
                    .expect("it is one");
                assert_eq!(spliced.len(), text.len() + count * "?auth=T".len(), "{line} {count}");
            }
            let kept = match ready.splices.get() {
                Some(Scanned::Splices(splices)) => splices.memory_size(),
                _ => 0,
            };
            assert_eq!(kept > 0, is_kept, "{line} {count}");
            assert!(size_of::<Ready>() + kept <= COUNTED, "{line} {count}: {kept}");
        }
        let ready = Ready::new(Some(Kind::Hls), false);
        assert_eq!(ready.spliced(b"no playlist", "T", "host"), Ok(None));
        let ready = Ready::new(Some(Kind::Hls), false);
        let in_latin_1 = b"#EXTM3U\n#EXTINF:4,Caf\xe9\na.ts\n";
        for _ in 0..2 {
            let spliced = ready.spliced(in_latin_1, "T", "host");
            assert_eq!(spliced, Err(edgeweir_manifest::Error::Utf8));
        }
    }
}
