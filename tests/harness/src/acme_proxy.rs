//! An HTTPS proxy in front of pebble: it counts what the CA is asked, breaks what a test wants broken, and plays what
//! pebble 2.4 lacks: renewal information (RFC 9773), a CAA identity, rate limits and servers that fail.
//!
//! Pebble makes its URLs of the request's `Host`, which is passed on as it came: so every URL that a client learns leads
//! here.

mod serve;

use crate::{Client, Pebble, Protocol, loopback::own_address, pebble::ServerIdentity};
use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;

/// What the CA says it is called in CAA records (RFC 8555 §9.7.6), which pebble does not say.
pub const CAA_IDENTITY: &str = "ca.example.net";

/// How long to wait for a call. More than the minute after which a client may come again.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a client asks a CA for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The directory.
    Directory,
    /// A nonce.
    Nonce,
    /// An account, new or found by its key.
    Account,
    /// A new order.
    NewOrder,
    /// The state of an authorization.
    Authorization,
    /// That a challenge be validated, or its state.
    Challenge,
    /// The state of an order.
    Order,
    /// That an order be finalized.
    Finalize,
    /// A certificate.
    Certificate,
    /// When a certificate is to be renewed.
    RenewalInfo,
    /// Anything else.
    Other,
}

impl Call {
    fn of(path: &str) -> Self {
        match path.split('/').nth(1).unwrap_or_default() {
            "dir" => Self::Directory,
            "nonce-plz" => Self::Nonce,
            "sign-me-up" => Self::Account,
            "order-plz" => Self::NewOrder,
            "authZ" => Self::Authorization,
            "chalZ" => Self::Challenge,
            "my-order" => Self::Order,
            "finalize-order" => Self::Finalize,
            "certZ" => Self::Certificate,
            "renewal-info" => Self::RenewalInfo,
            _ => Self::Other,
        }
    }
}

/// A call as it was seen.
#[derive(Debug, Clone)]
pub struct AcmeCall {
    /// What it asked for.
    pub call: Call,
    /// The path.
    pub path: String,
    /// The signed payload, without its signature; `Null` when there was none.
    pub payload: Value,
    /// What pebble, or this proxy in its place, answered; nothing when it was not asked.
    pub status: Option<StatusCode>,
    /// The answer's JSON body.
    pub answer: Value,
}

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// The CA has not heard of it.
    Request,
    /// The CA has done it, and the client does not know.
    Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wait,
    GoOn,
    Abandon,
}

#[derive(Debug, Clone)]
enum Fault {
    Refuse(StatusCode, Option<String>, &'static str),
    Hold(Before, Arc<watch::Sender<bool>>, watch::Receiver<Verdict>),
}

#[derive(Debug)]
struct Rule {
    call: Call,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<AcmeCall>,
    rules: Vec<Rule>,
    /// The certificates asked about, in this order, and of how many of them the window is over.
    renewals: Option<(Vec<String>, usize)>,
    /// By the order's path, the certificate that it is to replace.
    replaces: HashMap<String, Value>,
    forgets_replaced: bool,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    upstream: Client,
    state: Mutex<State>,
    counted: watch::Sender<usize>,
}

/// The proxy. Its task ends with the test.
#[derive(Debug, Clone)]
pub struct AcmeProxy {
    shared: Arc<Shared>,
    _folder: Arc<tempfile::TempDir>,
    root: PathBuf,
}

/// A call that is held, or that will be. Dropped, it goes on.
#[derive(Debug)]
pub struct HeldCall {
    reached: watch::Receiver<bool>,
    verdict: watch::Sender<Verdict>,
}

impl HeldCall {
    /// Waits until a call is held.
    pub async fn reached(&mut self) {
        self.reached
            .wait_for(|reached| *reached)
            .await
            .expect("the proxy is there");
    }

    /// Lets it go on.
    pub fn release(self) {
        let _ = self.verdict.send(Verdict::GoOn);
    }

    /// Closes its connection: what was not passed on never is.
    pub fn abandon(self) {
        let _ = self.verdict.send(Verdict::Abandon);
    }
}

impl AcmeProxy {
    /// Starts a proxy in front of a pebble, also before that runs.
    pub async fn to(pebble: &Pebble) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = ServerIdentity::new();
        let root = folder.path().join("proxy-root.pem");
        std::fs::write(&root, &identity.root).expect("the folder can be written");
        let chain = CertificateDer::from_pem_slice(identity.chain.as_bytes()).expect("our own PEM");
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("our own PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let address = own_address();
        let listener = TcpListener::bind(address).await.expect("it is free");
        let upstream = Client::tls(pebble.address(), Protocol::H1, &pebble.listener_root());
        let shared = Arc::new(Shared {
            address,
            upstream: upstream.with_sni(&address.ip().to_string()),
            state: Mutex::default(),
            counted: watch::Sender::default(),
        });
        let state = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), state.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|request| serve::one(&state, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            shared,
            _folder: Arc::new(folder),
            root,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The URL of the directory.
    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.shared.address)
    }

    /// The root, in PEM, of the proxy's own certificate.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Everything that was asked so far.
    pub fn seen(&self) -> Vec<AcmeCall> {
        self.lock().seen.clone()
    }

    /// How often this was asked, whatever came of it.
    pub fn asked(&self, call: Call) -> usize {
        self.lock().seen.iter().filter(|seen| seen.call == call).count()
    }

    /// Waits until this was asked, and answered, so often; panics when it is not within a minute and a half.
    pub async fn answered(&self, call: Call, times: usize) {
        let mut counted = self.shared.counted.subscribe();
        let enough = || {
            let state = self.lock();
            let answered = state.seen.iter().filter(|c| c.call == call && c.status.is_some());
            answered.count() >= times
        };
        let answered = timeout(PATIENCE, counted.wait_for(|_| enough())).await;
        answered.expect("the calls come").expect("the proxy is there");
    }

    /// How many orders the CA has made for a name.
    pub fn orders(&self, name: &str) -> usize {
        self.finalize_urls(name).len()
    }

    /// How many of them it was told to make a certificate of, and did.
    pub fn certificates(&self, name: &str) -> usize {
        let urls = self.finalize_urls(name);
        let finalized = |seen: &&AcmeCall| {
            seen.call == Call::Finalize
                && seen.status == Some(StatusCode::OK)
                && urls.iter().any(|url| url.ends_with(&seen.path))
        };
        self.lock().seen.iter().filter(finalized).count()
    }

    fn finalize_urls(&self, name: &str) -> Vec<String> {
        let ordered = |seen: &&AcmeCall| {
            let identifiers = seen.payload["identifiers"].as_array();
            seen.call == Call::NewOrder
                && seen.status == Some(StatusCode::CREATED)
                && identifiers.is_some_and(|all| all.iter().any(|i| i["value"] == name))
        };
        let url = |seen: &AcmeCall| seen.answer["finalize"].as_str().unwrap_or_default().to_owned();
        self.lock().seen.iter().filter(ordered).map(url).collect()
    }

    /// Answers the next `times` calls itself: an ACME problem (RFC 8555 §6.7) of this type, and `Retry-After` if given.
    pub fn refuse(&self, call: Call, times: usize, status: u16, retry_after: Option<&str>, problem: &'static str) {
        let status = StatusCode::from_u16(status).expect("a status");
        let fault = Fault::Refuse(status, retry_after.map(str::to_owned), problem);
        self.lock().rules.push(Rule { call, times, fault });
    }

    /// Holds the next such call.
    pub fn hold(&self, call: Call, before: Before) -> HeldCall {
        let (reached, was_reached) = watch::channel(false);
        let (verdict, told) = watch::channel(Verdict::Wait);
        let fault = Fault::Hold(before, Arc::new(reached), told);
        self.lock().rules.push(Rule { call, times: 1, fault });
        HeldCall {
            reached: was_reached,
            verdict,
        }
    }

    /// Ends all refusals.
    pub fn mend(&self) {
        self.lock().rules.clear();
    }

    /// Offers renewal information: of the first `over` certificates that it is asked about the window has been open for
    /// years and passes, of others it is far off.
    pub fn offer_renewal_info(&self, over: usize) {
        self.lock().renewals = Some((Vec::new(), over));
    }

    /// The calls in short, for messages of tests that fail.
    pub fn story(&self) -> String {
        let mut story = String::new();
        for seen in self.seen().iter().filter(|seen| seen.call != Call::Nonce) {
            let status = seen.status.map_or("-".to_owned(), |s| s.as_u16().to_string());
            let state = seen.answer["status"].as_str().or(seen.answer["detail"].as_str());
            let _ = writeln!(
                story,
                "{:?} {} {status} {}",
                seen.call,
                seen.path,
                state.unwrap_or_default()
            );
        }
        story
    }

    /// Orders do not say which certificate they are to replace, against RFC 9773 §5.
    pub fn forget_replaced(&self) {
        self.lock().forgets_replaced = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn fault(&self, call: Call) -> Option<Fault> {
        let mut state = self.lock();
        let rule = state.rules.iter_mut().find(|r| r.call == call && r.times > 0)?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    /// What was asked here is written down before it is passed on, and again when it is answered.
    fn note(&self, index: usize, status: StatusCode, answer: &[u8]) {
        let mut state = self.lock();
        state.seen[index].status = Some(status);
        state.seen[index].answer = serde_json::from_slice(answer).unwrap_or_default();
        drop(state);
        self.counted.send_modify(|n| *n += 1);
    }
}
