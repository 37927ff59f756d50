//! A real S3 server: `moto`, a process of its own on a port of its own. It checks who asks once [`S3::lock`] was called.

use crate::{Client, Protocol, loopback::own_address, program::Program, repository};
use bytes::Bytes;
use http::Method;
use std::{net::SocketAddr, path::PathBuf, process::Command};

/// The server; dropped, it ends.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    /// Who may do everything: an access key's id and secret.
    pub credentials: (String, String),
    _folder: tempfile::TempDir,
    _program: Program,
}

/// Where moto sends a request for users and keys; nothing is checked yet.
const TO_IAM: &str =
    "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";

/// Somebody, so that access control lists are not asked; nothing is checked while the server is not locked.
const TO_S3: &str = "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

const POLICY: &str = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C\
    %22Action%22%3A%22s3%3A*%22%2C%22Resource%22%3A%22*%22%7D%5D%7D";

impl S3 {
    /// Starts a server with one user and one bucket.
    pub async fn start(bucket: &str) -> Self {
        let tools = std::env::var_os("EDGEWEIR_TEST_TOOLS");
        let tools = tools.map_or_else(|| repository().join("target/test-tools"), PathBuf::from);
        let python = tools.join("venv/bin/python");
        let (address, folder) = (own_address(), tempfile::tempdir().expect("a folder"));
        let mut command = Command::new(python);
        command
            .args(["-m", "moto.server", "-H", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()]);
        let program = Program::start(&mut command, folder.path().join("moto.log"), &[address]).await;
        let mut server = Self {
            address,
            credentials: Default::default(),
            _folder: folder,
            _program: program,
        };
        server.iam("Action=CreateUser&UserName=edge").await;
        let policy = format!("Action=PutUserPolicy&UserName=edge&PolicyName=all&PolicyDocument={POLICY}");
        server.iam(&policy).await;
        let key = server.iam("Action=CreateAccessKey&UserName=edge").await;
        let text = |tag: &str| {
            let rest = key.split(&format!("<{tag}>")).nth(1).expect("it is there");
            rest.split('<').next().expect("split gives one").to_owned()
        };
        server.credentials = (text("AccessKeyId"), text("SecretAccessKey"));
        server.send(Method::PUT, &format!("/{bucket}"), &[], "").await;
        server
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on requests must be signed; nothing can be put any more until [`S3::unlock`].
    pub async fn lock(&self) {
        self.checks("0").await;
    }

    /// From now on requests need no signature.
    pub async fn unlock(&self) {
        self.checks("inf").await;
    }

    /// Puts an object, its path `/<bucket>/<key>` percent-encoded.
    pub async fn put(&self, path: &str, headers: &[(&str, &str)], content: impl Into<Bytes>) {
        let headers = [&[("authorization", TO_S3)], headers].concat();
        self.send(Method::PUT, path, &headers, content).await;
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str) {
        self.send(Method::DELETE, path, &[("authorization", TO_S3)], "").await;
    }

    async fn iam(&self, form: &str) -> String {
        let headers = [
            ("authorization", TO_IAM),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let form = format!("{form}&Version=2010-05-08");
        self.send(Method::POST, "/", &headers, form).await
    }

    async fn checks(&self, after: &str) {
        let headers = [("content-type", "text/plain")];
        self.send(Method::POST, "/moto-api/reset-auth", &headers, after.to_owned())
            .await;
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> String {
        let client = Client::plain(self.address, Protocol::H1);
        let host = self.address.to_string();
        let reply = client.send(method, &host, path, headers, body.into()).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status.is_success(), "{path}: {} {text}", reply.status);
        text
    }
}
