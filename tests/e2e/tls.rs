//! Certificates from a real ACME server, for names of a real DNS server.

mod crash;
mod faults;
mod issue;
mod renewal;
mod serving;

use crate::BINARY;
use bytes::Bytes;
use edgeweir_harness::{
    AcmeProxy, Before, Call, Client, Dns, Edge, HeldCall, Pebble, PebbleOptions, Project, Protocol, own_address,
};
use http::Method;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// What customers' aliases point to.
const TARGET: &str = "edge.edgeweir.localhost";

/// After this long without what is waited for, a test fails. More than a minute, which the second try may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// An edge, the CA that it orders from, a proxy between them, and the DNS that both ask.
struct World {
    dns: Dns,
    pebble: Pebble,
    proxy: AcmeProxy,
    edge: Edge,
    project: Project,
    https: SocketAddr,
}

impl World {
    async fn start() -> Self {
        Self::with(PebbleOptions::default(), &[]).await
    }

    /// With options of the CA's, whose ports become the edge's, and settings of the edge's.
    async fn with(options: PebbleOptions, settings: &[(&str, &str)]) -> Self {
        let (http, https) = (own_address(), own_address());
        let options = PebbleOptions {
            http_port: http.port(),
            https_port: https.port(),
            ..options
        };
        Self::at(http, https, options, settings).await
    }

    async fn at(http: SocketAddr, https: SocketAddr, options: PebbleOptions, settings: &[(&str, &str)]) -> Self {
        let dns = Dns::start().await;
        dns.set_a(TARGET, &[&https.ip().to_string()]).await;
        let pebble = Pebble::start(options, &dns).await;
        let proxy = AcmeProxy::to(&pebble).await;
        let own = [
            ("acme.directory", proxy.directory_url()),
            ("acme.ca_bundle", proxy.root().display().to_string()),
            ("acme.contact", "mailto:ops@example.com".to_owned()),
            ("dns.resolver", dns.address().to_string()),
            ("listen.http", http.to_string()),
            ("listen.https", https.to_string()),
        ];
        let mut all: Vec<(&str, &str)> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        all.extend_from_slice(settings);
        let edge = Edge::start_with(BINARY, &all).await;
        let project = edge.project().await;
        project.bucket("videos").await;
        project.put("videos", "a.mp4", "content").await;
        Self {
            dns,
            pebble,
            proxy,
            edge,
            project,
            https,
        }
    }

    /// Kills the edge without warning, and starts it again.
    async fn kill_and_restart(&mut self) {
        self.edge.kill();
        self.edge.restart().await;
        self.project.refresh(self.edge.address("api")).await;
    }

    /// A playback domain; its id.
    async fn domain(&self, name: &str) -> String {
        let body = json!({"name": name, "type": "vod", "bucket_name": "videos"});
        let made = self.project.post("/v1/domains", body).await;
        made["domain"]["id"].as_str().unwrap().to_owned()
    }

    /// A playback domain and its TLS subscription, whose id this is.
    async fn subscribe(&self, name: &str) -> String {
        let domain = self.domain(name).await;
        let made = self
            .project
            .post("/v1/tls/subscriptions", json!({ "domain_id": domain }))
            .await;
        let subscription = &made["tls_subscription"];
        assert_eq!(subscription["status"], "pending");
        let wanted = format!("Create a CNAME for '{name}' and point it to '{TARGET}'.");
        let message = subscription["message"].as_str().unwrap();
        assert!(message.contains(&wanted), "{message}");
        subscription["id"].as_str().unwrap().to_owned()
    }

    /// Makes the alias that the message asks for.
    async fn lead_here(&self, name: &str) {
        self.dns.set_cname(name, TARGET).await;
    }

    /// A subscription that has its certificate.
    async fn issued(&self, name: &str) -> String {
        self.lead_here(name).await;
        let id = self.subscribe(name).await;
        self.until_issued(&id).await;
        id
    }

    /// A subscription that has its certificate, and the question after its renewal: once that goes on, the CA says now.
    async fn about_to_renew(&self, name: &str) -> (String, HeldCall) {
        self.proxy.offer_renewal_info(1);
        let mut asked = self.proxy.hold(Call::RenewalInfo, Before::Request);
        let id = self.issued(name).await;
        asked.reached().await;
        (id, asked)
    }

    async fn subscription(&self, id: &str) -> Value {
        let path = format!("/v1/tls/subscriptions/{id}");
        let got = self.project.ok(Method::GET, &path, Bytes::new()).await;
        got["tls_subscription"].clone()
    }

    /// Waits until a subscription is as it should be.
    async fn until(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let subscription = self.subscription(id).await;
            if wanted(&subscription) {
                return subscription;
            }
            assert!(
                Instant::now() < deadline,
                "not {what}: {subscription}; the CA was asked:\n{}",
                self.proxy.story()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_issued(&self, id: &str) -> Value {
        let issued = self.until(id, "issued", |s| s["status"] == "issued").await;
        assert!(issued["not_after"].is_string(), "{issued}");
        issued
    }

    /// Waits until the message of a subscription in this state says something.
    async fn until_told(&self, id: &str, status: &str, words: &[&str]) -> String {
        let what = format!("{status} with {words:?}");
        let told = |s: &Value| {
            let message = s["message"].as_str().unwrap_or_default();
            s["status"] == status && words.iter().all(|word| message.contains(word))
        };
        let subscription = self.until(id, &what, told).await;
        subscription["message"].as_str().unwrap().to_owned()
    }

    /// A client that trusts the CA, and nobody else.
    async fn client(&self, protocol: Protocol) -> Client {
        Client::tls(self.https, protocol, &self.root().await)
    }

    async fn root(&self) -> PathBuf {
        self.pebble.issuance_root().await
    }

    /// The types of the challenges that the CA was asked to validate.
    fn challenges(&self) -> Vec<String> {
        let seen = self.proxy.seen();
        let offered: Vec<&Value> = seen
            .iter()
            .filter(|call| call.call == Call::Authorization)
            .filter_map(|call| call.answer["challenges"].as_array())
            .flatten()
            .collect();
        let validated = seen.iter().filter(|call| call.call == Call::Challenge);
        let kind = |path: &str| {
            let is = |c: &&&Value| c["url"].as_str().is_some_and(|url| url.ends_with(path));
            Some(offered.iter().find(is)?["type"].as_str()?.to_owned())
        };
        let mut kinds: Vec<String> = validated.filter_map(|call| kind(&call.path)).collect();
        kinds.dedup();
        kinds
    }

    /// The metrics, once they are as they should be: they are brought up to date every few seconds.
    async fn until_metrics(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let admin = Client::plain(self.edge.address("admin"), Protocol::H1);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = admin.get("localhost", "/metrics").await;
            if wanted(reply.text()) {
                return reply.text().to_owned();
            }
            assert!(Instant::now() < deadline, "not {what}:\n{}", reply.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The line of the metric that counts failures says so many.
fn failures(metrics: &str, count: u32) -> bool {
    let line = format!("edgeweir_certificate_failures_total {count}");
    metrics.lines().any(|l| l == line)
}

/// What starts the line that says how many days a domain's certificate has left.
fn days_left(name: &str) -> String {
    format!("edgeweir_certificate_days_left{{domain=\"{name}\"}} ")
}
