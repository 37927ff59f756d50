#![allow(clippy::unwrap_used)]
use super::*;
use crate::Timeouts;
use edgeweir_model::{AccessPolicy, BucketId, CorsPolicy, KeyRing, Origin, ProjectId, S3Settings, SealedSecret};
use secrecy::SecretString;
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Opens what says that it is to be opened.
#[derive(Debug)]
struct Open;

impl Seal for Open {
    fn seal(&self, _: &str, _: &SecretString) -> SealedSecret {
        unreachable!("an origin seals nothing")
    }

    fn open(&self, purpose: &str, sealed: &SealedSecret) -> Option<SecretString> {
        (purpose == "S3 origin of the bucket mine" && *sealed.0 == *b"open").then(|| "secret".into())
    }
}

/// A server that answers the n-th connection with the n-th of these texts, the last one for ever; what it was asked.
struct Server {
    endpoint: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (
            heads.clone(),
            answers.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(),
        );
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 8192];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let n = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(String::from_utf8_lossy(&head[..read]).to_lowercase());
                    seen.len() - 1
                };
                let answer = &answers[n.min(answers.len() - 1)];
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { endpoint, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    async fn fetch(&self, method: Method, headers: &[(HeaderName, &str)]) -> Result<Response, Error> {
        fetch(&self.endpoint, true, b"open", method, headers).await
    }
}

async fn fetch(
    endpoint: &str,
    allow_private: bool,
    sealed: &[u8],
    method: Method,
    headers: &[(HeaderName, &str)],
) -> Result<Response, Error> {
    let settings = S3Settings {
        endpoint: endpoint.to_owned(),
        bucket: "there".to_owned(),
        region: "eu-west-1".to_owned(),
        access_key_id: "AKIA".to_owned(),
        path_style: true,
    };
    let origin = Arc::new(S3Origin::new(settings, SealedSecret(sealed.into())).unwrap());
    let bucket = Bucket {
        id: BucketId(1),
        name: "mine".parse().unwrap(),
        project: ProjectId(1),
        region: "local".to_owned(),
        generation: 0,
        origin: Origin::S3(origin.clone()),
        policy: AccessPolicy::Public,
        cors: CorsPolicy::default(),
        keys: KeyRing::default(),
    };
    let request = Request {
        method,
        key: ObjectKey::new("a b.mp4").unwrap(),
        query: "acl".to_owned(),
        headers: headers
            .iter()
            .map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap()))
            .collect(),
        body: None,
        interim: None,
    };
    let http = Arc::new(HttpClient::new(allow_private, Timeouts::default()));
    S3Client::new(http, Arc::new(Open))
        .fetch(&bucket, &origin, request)
        .await
}

async fn text(body: Body) -> Result<String, Error> {
    let bytes = body.collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

const BEGUN: &str = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 10\r\n\r\n0123";

#[tokio::test]
async fn a_body_that_breaks_off_goes_on() {
    let rest = |from: &str, total: &str, etag: &str, body: &str| {
        format!(
            "HTTP/1.1 206 Partial Content\r\nETag: {etag}\r\nContent-Range: bytes {from}/{total}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let whole = Ok("0123456789".to_owned());
    let broken = Err(Error::Broken);
    let busy = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let changed = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n";
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let good = rest("4-9", "10", "\"1\"", "456789");
    let twice = rest("4-9", "10", "\"1\"", "456789").replace("456789", "456");
    let last = rest("7-9", "10", "\"1\"", "789");
    for (case, answers, expected) in [
        ("once", &[BEGUN, &good][..], whole.clone()),
        ("twice", &[BEGUN, &twice, &last], whole.clone()),
        ("no answer at first", &[BEGUN, "", "", &good], whole.clone()),
        ("busy at first", &[BEGUN, busy, busy, &good], whole),
        ("another object", &[BEGUN, changed], broken.clone()),
        (
            "another object that is not told",
            &[BEGUN, &rest("4-9", "10", "\"2\"", "456789")],
            broken.clone(),
        ),
        (
            "another length",
            &[BEGUN, &rest("4-9", "11", "\"1\"", "456789")],
            broken.clone(),
        ),
        (
            "another range",
            &[BEGUN, &rest("3-9", "10", "\"1\"", "3456789")],
            broken.clone(),
        ),
        ("the whole again", &[BEGUN, BEGUN], broken.clone()),
        ("gone", &[BEGUN, gone], broken.clone()),
        ("away for good", &[BEGUN, ""], broken.clone()),
        ("a weak validator", &[&BEGUN.replace("\"1\"", "W/\"1\""), &good], broken),
    ] {
        let server = Server::start(answers).await;
        let response = server.fetch(Method::GET, &[]).await.unwrap();
        assert_eq!(response.length, Some(10), "{case}");
        assert_eq!(text(response.body).await, expected, "{case}");
        let heads = server.heads();
        if case == "once" {
            assert!(
                heads[1].contains("range: bytes=4-9\r\n") && heads[1].contains("if-match: \"1\"\r\n"),
                "{heads:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_part_goes_on_within_its_range() {
    let part =
        "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\n23";
    let rest =
        "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes 4-5/10\r\nContent-Length: 2\r\n\r\n45";
    let server = Server::start(&[part, rest]).await;
    let response = server.fetch(Method::GET, &[(RANGE, "bytes=2-5")]).await.unwrap();
    assert_eq!((response.status.as_u16(), response.length), (206, Some(4)));
    assert_eq!(text(response.body).await.unwrap(), "2345");
    assert!(server.heads()[1].contains("range: bytes=4-5\r\n"));
}

#[tokio::test]
async fn what_is_sent_is_signed_and_tells_nothing_more() {
    let server = Server::start(&[BEGUN]).await;
    let sent = [
        (RANGE, "bytes=0-1"),
        (IF_NONE_MATCH, "\"0\""),
        (IF_MODIFIED_SINCE, "Mon, 01 Jan 2024 00:00:00 GMT"),
        (http::header::ACCEPT, "*/*"),
        (http::header::COOKIE, "a=b"),
        (HeaderName::from_static("x-amz-acl"), "public-read"),
    ];
    server.fetch(Method::GET, &sent).await.unwrap();
    let head = &server.heads()[0];
    assert!(head.starts_with("get /there/a%20b.mp4 http/1.1\r\n"), "{head}");
    assert!(head.contains("credential=akia/"), "{head}");
    assert!(
        head.contains("signedheaders=host;range;x-amz-content-sha256;x-amz-date,"),
        "{head}"
    );
    assert!(head.contains("if-none-match: \"0\"\r\n"), "{head}");
    for absent in ["accept", "cookie", "x-amz-acl", "secret\r", "?acl", "if-modified-since"] {
        assert!(!head.contains(absent), "{absent}: {head}");
    }
}

#[tokio::test]
async fn a_range_is_sent_as_it_is_signed_or_not_at_all() {
    for (sent, told) in [
        (&["bytes=0-1"][..], Some("bytes=0-1")),
        (&["bytes=5-"], Some("bytes=5-")),
        (&["bytes=-5"], Some("bytes=-5")),
        (&["Bytes =  0-1 "], Some("bytes=0-1")),
        (&["bytes=0-1", "bytes=4-5"], None),
        (&["bytes=0-1,  4-5"], None),
        (&["bytes=0  -1"], None),
        (&["bytes=-"], None),
        (&["lines=0-1"], None),
        (&["bytes"], None),
    ] {
        let server = Server::start(&[BEGUN]).await;
        let fields: Vec<_> = sent.iter().map(|sent| (RANGE, *sent)).collect();
        server.fetch(Method::GET, &fields).await.unwrap();
        let head = &server.heads()[0];
        let of_head = head.lines().find_map(|line| line.strip_prefix("range: "));
        assert_eq!(of_head, told, "{sent:?}");
        assert_eq!(head.contains("signedheaders=host;range;"), told.is_some(), "{sent:?}");
    }
}

#[tokio::test]
async fn answers_become_plain_http() {
    let error = |status: &str, code: &str| {
        let body = format!("<Error><Code>{code}</Code><BucketName>there</BucketName></Error>");
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    for (case, answers, expected) in [
        ("no object", &[error("404 Not Found", "NoSuchKey")][..], Ok((404, ""))),
        (
            "no bucket",
            &[error("404 Not Found", "NoSuchBucket")],
            Err(Error::Denied),
        ),
        (
            "a wrong secret",
            &[error("403 Forbidden", "SignatureDoesNotMatch")],
            Err(Error::Denied),
        ),
        (
            "another region",
            &[error("301 Moved Permanently", "PermanentRedirect")],
            Err(Error::Denied),
        ),
        (
            "busy once",
            &[error("503 Slow Down", "SlowDown"), format!("{BEGUN}456789")],
            Ok((200, "0123456789")),
        ),
        ("busy", &[error("503 Slow Down", "SlowDown")], Err(Error::Broken)),
        (
            "a range past the end",
            &[error("416 Range Not Satisfiable", "InvalidRange")],
            Ok((416, "")),
        ),
    ] {
        let answers: Vec<_> = answers.iter().map(String::as_str).collect();
        let server = Server::start(&answers).await;
        let got = match server.fetch(Method::GET, &[]).await {
            Ok(response) => {
                let typed = response
                    .headers
                    .get("content-type")
                    .is_some_and(|t| t == "application/xml");
                assert!(!typed, "{case}");
                Ok((response.status.as_u16(), text(response.body).await.unwrap()))
            }
            Err(e) => Err(e),
        };
        assert_eq!(got, expected.map(|(status, text)| (status, text.to_owned())), "{case}");
    }
}

#[tokio::test]
async fn a_part_of_another_object_than_the_client_has_is_never_sent() {
    let changed = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let whole = format!("{BEGUN}456789");
    for (case, if_range, answers, asked) in [
        ("a tag that is not there any more", "\"0\"", &[changed, &whole][..], 2),
        ("a weak tag", "W/\"1\"", &[&whole], 1),
        ("a date", "Mon, 01 Jan 2024 00:00:00 GMT", &[&whole], 1),
    ] {
        let server = Server::start(answers).await;
        let sent = [(RANGE, "bytes=0-1"), (IF_RANGE, if_range)];
        let response = server.fetch(Method::GET, &sent).await.unwrap();
        assert_eq!(response.status, 200, "{case}");
        let heads = server.heads();
        assert_eq!(heads.len(), asked, "{case}");
        assert!(!heads[asked - 1].contains("range: bytes"), "{case}: {heads:?}");
    }
}

#[tokio::test]
async fn credentials_that_do_not_open_and_private_addresses_ask_nobody() {
    let server = Server::start(&[BEGUN]).await;
    let unopened = fetch(&server.endpoint, true, b"shut", Method::GET, &[]).await;
    assert_eq!(unopened.err(), Some(Error::Denied));
    let private = fetch(&server.endpoint, false, b"open", Method::GET, &[]).await;
    assert_eq!(private.err(), Some(Error::Refused));
    assert!(server.heads().is_empty());
}
