//! The task that runs a fetch and feeds its fill.

use crate::{
    cache::{Cache, Outcome},
    entry::{Came, Content, Entry, Now, Times},
    fill::{
        BodyError, BoxBody, FetchError, FetchStatus, FetchedResponse, Fill, Progress, ResponseHead, Streaming, deserted,
    },
    key::Key,
    policy::{self, Settings},
    range,
    sliced::MOST_AHEAD,
    slices::{Slices, whole_length},
};
use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, COOKIE},
};
use std::{
    future::{Future, poll_fn},
    ops::Range,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// For how long a key is fetched without collapsing after an answer that was for one request only.
const PASS_UNSHARED: Duration = Duration::from_secs(60);

/// The same after one that was too large: objects seldom shrink.
pub(crate) const PASS_LARGE: Duration = Duration::from_secs(60 * 60);

/// For how long one reader may hold all others, and the fetch, of an object that is too large to be stored.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asks within this time of each other may share an answer, however soon it is stale: else an object that nobody may
/// keep would be fetched by each of a crowd while the first has not got it all.
const TOGETHER: Duration = Duration::from_secs(1);

/// For how long the rest of a body is fetched for the cache alone.
const REST: Duration = Duration::from_secs(10);

pub(crate) struct Leader {
    pub(crate) cache: Arc<Cache>,
    pub(crate) fill: Arc<Fill>,
    pub(crate) key: Key,
    pub(crate) stale: Option<Arc<Entry>>,
    /// The slice that was asked for instead of the whole.
    pub(crate) asked: Option<Range<u64>>,
}

impl Drop for Leader {
    /// However the task ends, nobody joins its fill or waits for it after that.
    fn drop(&mut self) {
        self.leave(Outcome::Nothing);
        self.fill.abandon();
    }
}

impl Leader {
    pub(crate) async fn run(
        self,
        fetch: impl Future<Output = Result<FetchedResponse, FetchError>>,
        own: oneshot::Sender<FetchedResponse>,
    ) {
        let asked = Instant::now();
        let result = fetch.await;
        let now = Now::now();
        let came = Came {
            now,
            delay: now.mono.saturating_duration_since(asked),
            born: self.fill.born,
        };
        let failed = match &result {
            Ok(response) => response.head.status.is_server_error(),
            Err(_) => true,
        };
        if let Some(stale) = self.stale.as_ref().filter(|stale| failed && stale.serves_on_error(now)) {
            let answered = result.ok().map(|response| response.head.status);
            self.fill
                .set(Progress::Entry(stale.clone(), FetchStatus::StaleIfError(answered)));
            return;
        }
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                self.leave(Outcome::Nothing);
                self.fill.set(Progress::Failed(error));
                return;
            }
        };
        let not_modified = response.head.status == StatusCode::NOT_MODIFIED;
        if let Some(stale) = self.stale.as_ref().filter(|_| not_modified) {
            let settings = response.settings;
            let head = stale.updated(&response.head.headers, &settings);
            if self.stores(&head, &settings) {
                self.confirm(stale, head, came, &settings);
                return;
            }
            match stale.content() {
                Content::Whole(body) => response = FetchedResponse::whole(head, body.bytes(), settings),
                Content::Sliced(_) => return self.use_once(stale, head, came, &settings),
            }
        }
        if let Some((slices, first)) = self.slices(&response) {
            if self.fill.share.has_room(slices.size) {
                return self.share_slices(slices, first, response, came).await;
            }
            // Who comes next may find room.
            return self.hand_over(Outcome::Nothing, response, own);
        }
        let answered = response.head.status;
        if self.asked.is_some() {
            complete(&mut response);
            if response.head.status == StatusCode::PARTIAL_CONTENT {
                self.cache.note_in_no_slices(&self.key, now.mono + PASS_UNSHARED);
                self.leave(Outcome::Nothing);
                self.fill.set(Progress::InNoSlices);
                return;
            }
        }
        let has_room = self.fill.share.has_room(response.length.unwrap_or(0));
        if !has_room || self.is_large(&response) || !self.shows(&response.head, &response.settings) {
            return self.hand_over(self.unshared(&response, now), response, own);
        }
        self.share(response, answered, came).await;
    }

    /// Gives an answer to the request that asked for it alone.
    fn hand_over(&self, outcome: Outcome<'_>, response: FetchedResponse, own: oneshot::Sender<FetchedResponse>) {
        self.leave(outcome);
        // Followers may see this before the leader takes its answer; its caller may be gone, too.
        let _ = own.send(response);
        self.fill.set(Progress::Unshared);
    }

    /// A stored response begins its time anew (RFC 9111 §4.3.4).
    fn confirm(&self, stale: &Entry, head: ResponseHead, came: Came, settings: &Settings) {
        let Some(entry) = Entry::new(head, stale.content().clone(), &self.fill.request, came, settings) else {
            return;
        };
        let entry = Arc::new(entry.with_content_of(stale));
        self.leave(Outcome::Confirm(&entry));
        self.fill.set(Progress::Entry(entry, FetchStatus::Revalidated));
    }

    /// A response in slices that is still right, and is not to be stored any more.
    fn use_once(&self, stale: &Arc<Entry>, head: ResponseHead, came: Came, settings: &Settings) {
        // What is stored is the others'.
        let instead_of = (!self.is_ones_own(&head.headers)).then_some(stale);
        let entry = Entry::new(head, stale.content().clone(), &self.fill.request, came, settings);
        self.leave(Outcome::Pass {
            until: came.now.mono + PASS_UNSHARED,
            instead_of,
        });
        if let Some(entry) = entry {
            self.fill.set(Progress::Entry(Arc::new(entry), FetchStatus::Unkept));
        }
    }

    /// How to slice a response that is too large to be kept in one piece, and which slice its body begins with.
    fn slices(&self, response: &FetchedResponse) -> Option<(Slices, u64)> {
        // What is stored of a part is found as a part.
        if !response.settings.slices || self.key.borrow().is_part() {
            return None;
        }
        let (mut slices, first) = Slices::of(response, self.asked.as_ref(), self.cache.config.slice_bytes)?;
        if !self.is_storable(StatusCode::OK, &response.head.headers, &response.settings) {
            return None;
        }
        // What is stored of the same representation is as good as ever.
        let old = self.stale.as_ref().and_then(|stale| stale.slices());
        if let Some(old) = old.filter(|old| old.same_as(&slices)) {
            slices.id = old.id;
        }
        Some((slices, first))
    }

    /// Stores the head of a large object, and brings the slices that its body begins with.
    async fn share_slices(self, slices: Slices, first: u64, response: FetchedResponse, came: Came) {
        let (slices, settings) = (Arc::new(slices), response.settings);
        let mut head = response.head;
        make_whole(&mut head, slices.length());
        let content = Content::Sliced(slices.clone());
        let Some(entry) = Entry::new(head, content, &self.fill.request, came, &settings) else {
            return;
        };
        let entry = Arc::new(entry);
        let most = if self.asked.is_some() { 1 } else { MOST_AHEAD };
        let (span, ahead) = self.cache.begin_with(&self.key, &slices, first, most);
        self.leave(Outcome::Store(&entry));
        self.fill.leave_ahead(ahead);
        self.fill.set(Progress::Entry(entry, FetchStatus::Miss));
        // Who reads it may leave before the fetch ends.
        drop(self);
        span.feed(response.body, settings.persist).await;
    }

    /// Feeds all readers, and stores what they got.
    async fn share(&self, response: FetchedResponse, answered: StatusCode, came: Came) {
        let settings = response.settings;
        let head = Arc::new(response.head);
        let stored = self.stores(&head, &settings);
        self.fill.reserve(response.length.unwrap_or(0));
        let times = Times::of(&head, came, &settings);
        let lasts = if stored {
            times.lifetime + times.while_revalidate
        } else {
            Duration::ZERO
        };
        let fresh_for = lasts.saturating_sub(times.initial_age).max(TOGETHER);
        self.fill.set(Progress::Streaming(Streaming {
            head: head.clone(),
            length: response.length,
            answered,
            stored,
            selecting: settings.selecting(&head.headers).unwrap_or_default().into(),
            came: came.now.mono,
            initial_age: times.initial_age,
            fresh_until: came.now.mono + fresh_for,
        }));
        let (last, end) = match self.stream(response.body, response.length).await {
            // What ends with its connection may have broken off, which a whole cannot tell (RFC 9112 §8).
            Ok(_) if response.length.is_none() && self.is_cut(&head) => (
                None,
                Err(BodyError::Broken("the part is not as long as it says".into())),
            ),
            Ok(last) => (last, Ok(())),
            Err(e) => (None, Err(e)),
        };
        let entry = last.as_ref().filter(|_| stored).and_then(|last| {
            let head = ResponseHead::clone(&head);
            let content = Content::Whole(self.fill.whole(last).into());
            Entry::new(head, content, &self.fill.request, came, &settings)
        });
        match entry.map(Arc::new) {
            Some(entry) => self.leave(Outcome::Store(&entry)),
            None => self.leave(Outcome::Nothing),
        }
        self.fill.finish(last.unwrap_or_default(), end);
    }

    /// Whether a part that has come has fewer bytes than its `Content-Range` says, or more.
    fn is_cut(&self, head: &ResponseHead) -> bool {
        let is_part = self.key.borrow().is_part() && head.status == StatusCode::PARTIAL_CONTENT;
        let range = range::stated(&head.headers).filter(|_| is_part);
        range.is_some_and(|(range, _)| range.end - range.start != self.fill.received())
    }

    /// What an answer that is not shared says of the next ones. An error says nothing: when it is over, its key is
    /// collapsed and stored as before.
    fn unshared(&self, response: &FetchedResponse, now: Now) -> Outcome<'_> {
        let (status, headers) = (response.head.status, &response.head.headers);
        let is_ones_own = self.is_ones_own(headers);
        let lasts = if self.is_large(response) {
            PASS_LARGE
        } else if is_ones_own || policy::is_unshared(headers, &response.settings) {
            PASS_UNSHARED
        } else {
            return Outcome::Nothing;
        };
        if status.is_client_error() || status.is_server_error() {
            return Outcome::Nothing;
        }
        Outcome::Pass {
            until: now.mono + lasts,
            // What is stored is the others'.
            instead_of: self.stale.as_ref().filter(|_| !is_ones_own),
        }
    }

    fn is_large(&self, response: &FetchedResponse) -> bool {
        response
            .length
            .is_some_and(|length| length > self.cache.config.max_object_bytes)
    }

    fn stores(&self, head: &ResponseHead, settings: &Settings) -> bool {
        let status = match head.status {
            // Of the range that was asked for, which nobody else may have (RFC 9110 §15.5.17).
            StatusCode::RANGE_NOT_SATISFIABLE if !self.key.borrow().is_part() => return false,
            // Of a part's key, the part that was asked for. What else could be 206 is not to be shared.
            StatusCode::PARTIAL_CONTENT if self.key.borrow().is_part() && range::stated(&head.headers).is_some() => {
                StatusCode::OK
            }
            status => status,
        };
        self.is_storable(status, &head.headers, settings)
    }

    fn is_storable(&self, status: StatusCode, headers: &HeaderMap, settings: &Settings) -> bool {
        !self.is_ones_own(headers) && policy::storable(&Method::GET, &self.fill.request, status, headers, settings)
    }

    /// Whether those who wait already may have the answer. An origin's failure is one to all of them, although it is not
    /// stored: each asking by itself would hit the origin when it is down. But not the failure to answer a user
    /// (RFC 9111 §3.5).
    fn shows(&self, head: &ResponseHead, settings: &Settings) -> bool {
        let is_users = [AUTHORIZATION, COOKIE]
            .iter()
            .any(|name| self.fill.request.contains_key(name))
            || policy::is_unshared(&head.headers, settings)
            || self.is_ones_own(&head.headers);
        self.stores(head, settings) || policy::is_failure(head.status) && !is_users
    }

    /// Whether the origin wants to confirm the answer to each request, and was told whose this one is: it may be theirs.
    fn is_ones_own(&self, headers: &HeaderMap) -> bool {
        self.fill.request.contains_key(COOKIE) && policy::is_to_confirm(headers)
    }

    fn leave(&self, outcome: Outcome<'_>) {
        self.cache.leave(&self.key, &self.fill, outcome);
    }

    /// Waits for the slowest reader, as long as it gets on.
    async fn room(&self, narrow: bool) -> Result<(), BodyError> {
        loop {
            let dropped = self.fill.dropped();
            match tokio::time::timeout(PATIENCE, self.fill.room(narrow)).await {
                Ok(room) => return room,
                Err(_) if self.fill.dropped() > dropped => {}
                Err(_) => {
                    self.fill.cut_off();
                    return Ok(());
                }
            }
        }
    }

    /// Feeds the fill until the body's end, and holds the body against its stated length (RFC 9112 §8). What has no length
    /// and turns out too large to be stored, or comes when fetches hold all they may, goes on to the readers that there
    /// are, at the pace of the slowest; the fill does not have the whole then. Else the last part of a body that says so
    /// is left to the caller: what is stored before anybody has all of it is there for who then asks again.
    async fn stream(&self, mut body: BoxBody, length: Option<u64>) -> Result<Option<Bytes>, BodyError> {
        let mut received = 0;
        let mut last = Some(Bytes::new());
        let mut unread = None;
        loop {
            let frame = poll_fn(|cx| {
                if self.fill.poll_read(cx) {
                    unread = None;
                } else {
                    let over = unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(REST)));
                    if self.fill.has_long_rest(length) || over.as_mut().poll(cx).is_ready() {
                        // Whoever joined it until now, reads it; no purge would find it any more, so that it is not kept.
                        self.leave(Outcome::Nothing);
                        last = None;
                        if !self.fill.poll_read(cx) {
                            return Poll::Ready(Some(Err(deserted())));
                        }
                        unread = None;
                    }
                }
                body.as_mut().poll_frame(cx)
            });
            let Some(frame) = frame.await else { break };
            let Ok(chunk) = frame?.into_data() else { continue };
            if chunk.is_empty() {
                continue;
            }
            let so_far = received + chunk.len() as u64;
            if length.is_some_and(|length| so_far > length) {
                return Err(BodyError::Broken("the body is longer than its length".into()));
            }
            if length == Some(so_far) && last.is_some() && body.is_end_stream() {
                return Ok(Some(chunk));
            }
            received = self.fill.push(chunk);
            let is_large = received > self.cache.config.max_object_bytes;
            let is_full = self.fill.is_over();
            if is_large || is_full || last.is_none() {
                if last.take().is_some() {
                    let passes = Outcome::Pass {
                        until: Now::now().mono + PASS_LARGE,
                        instead_of: self.stale.as_ref(),
                    };
                    self.leave(if is_large { passes } else { Outcome::Nothing });
                }
                self.room(is_full).await?;
            }
        }
        match length {
            Some(length) if received < length => Err(BodyError::Short {
                missing: length - received,
            }),
            _ => Ok(last),
        }
    }
}

/// A 206 that was asked for and turns out to be the whole.
fn complete(response: &mut FetchedResponse) {
    let head = &mut response.head;
    let Some(length) = response.length.filter(|_| head.status == StatusCode::PARTIAL_CONTENT) else {
        return;
    };
    if whole_length(&head.headers, &(0..length)) == Some(length) {
        make_whole(head, length);
    }
}

fn make_whole(head: &mut ResponseHead, length: u64) {
    head.status = StatusCode::OK;
    head.headers.remove(CONTENT_RANGE);
    head.headers.insert(CONTENT_LENGTH, length.into());
}
