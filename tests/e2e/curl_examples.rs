//! Every curl example of the documented API, run with real curl: only the base URL is another, and the variables are
//! filled in as a reader would.

use crate::BINARY;
use edgeweir_harness::{Edge, command_output};
use serde_json::Value;
use std::{collections::HashMap, process::Command};

/// `name`, the example, the keys of the answer's object (below its one member, where it has one).
const EXAMPLES: &[(&str, &str, &[&str])] = &[
    (
        "token",
        "curl -X POST $BASE/v1/access_token/$API_KEY",
        &["access_token"],
    ),
    (
        "list",
        "curl -X GET -H \"Authorization: Bearer $ACCESS_TOKEN\" $BASE/v1/domains",
        &["domains"],
    ),
    (
        "domain",
        "curl -X POST '$BASE/v1/domains' \\\n-H 'Authorization: Bearer $ACCESS_TOKEN' \\\n-H 'Content-Type: application/json' \\\n--data-raw '{\"name\": \"live.mydomain.com\", \"type\": \"live\"}'",
        &["created", "domain_name", "id", "type"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/domains/$DOMAIN_ID",
        &["created", "domain_name", "id", "type"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/domains",
        &["domains"],
    ),
    (
        "subscription",
        "curl -X POST '$BASE/v1/tls/subscriptions' \\\n-H 'Authorization: Bearer $ACCESS_TOKEN' \\\n-H 'Content-Type: application/json' \\\n--data-raw '{\"domain_id\": \"$DOMAIN_ID\"}'",
        &["created", "domain_id", "id", "message", "status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/tls/subscriptions/$TLS_SUBSCRIPTION_ID",
        &["created", "domain_id", "id", "message", "status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/tls/subscriptions",
        &["tls_subscriptions"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X DELETE $BASE/v1/tls/subscriptions/$TLS_SUBSCRIPTION_ID",
        &["status"],
    ),
    (
        "key",
        "curl -X POST '$BASE/v1/signing-keys' \\\n-H 'Authorization: Bearer $ACCESS_TOKEN' \\\n-H 'Content-Type: application/json' \\\n--data-raw '{\"stream_id\": \"$STREAM_ID\"}'",
        &["created", "id", "name", "private_key", "stream_id"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/signing-keys/$SIGNING_KEY_ID",
        &["created", "id", "name", "stream_id"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/signing-keys",
        &["signing_keys"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X PUT $BASE/v1/signing-keys/$SIGNING_KEY_ID  \\\n-H 'Content-Type: application/json' \\\n--data-raw '{\"name\": \"My signing key\"}'",
        &["created", "id", "name", "stream_id"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X DELETE $BASE/v1/signing-keys/$SIGNING_KEY_ID",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X PUT $BASE/v1/buckets/$BUCKET_NAME/policy/$POLICY_NAME",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X POST $BASE/v1/buckets/$BUCKET_NAME/cors -H 'Content-Type: application/json' --data '{\"Access-Control-Allow-Origin\": \"*\"}'",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X GET $BASE/v1/buckets/$BUCKET_NAME/cors",
        &["Access-Control-Allow-Origin"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X DELETE $BASE/v1/buckets/$BUCKET_NAME/cors/Access-Control-Allow-Origin",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X DELETE $BASE/v1/buckets/$BUCKET_NAME/cors",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X POST $BASE/v1/buckets/my-bucket/cache/purge_all",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n --location \"$BASE/v1/buckets/my-bucket/cache/purge\" -H 'Content-Type: application/json' \\\n --data '{\"path\": \"path/to/object\"}'",
        &["status"],
    ),
    (
        "",
        "curl -H \"Authorization: Bearer $ACCESS_TOKEN\" \\\n -X DELETE $BASE/v1/domains/$DOMAIN_ID",
        &["status"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_example_works_with_another_base_url() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    project.bucket("my-bucket").await;
    let stream = project.post("/v1/live-streams", serde_json::json!({"name": "s"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut variables: HashMap<&str, String> = HashMap::from([
        ("$BASE", format!("http://{}", edge.address("api"))),
        ("$API_KEY", project.api_key.clone()),
        ("$STREAM_ID", text(&stream["live_stream"]["id"])),
        ("$BUCKET_NAME", "my-bucket".to_owned()),
        ("$POLICY_NAME", "authenticated".to_owned()),
    ]);
    for (name, example, keys) in EXAMPLES {
        let mut script = (*example).to_owned();
        for (variable, value) in &variables {
            script = script.replace(variable, value);
        }
        assert!(!script.contains('$'), "{script}");
        let (ok, out, err) = command_output(Command::new("sh").arg("-c").arg(script.replacen("curl", "curl -sS", 1)));
        assert!(ok, "{example}: {err}");
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{example}: {e}: {out}"));
        let members = answer.as_object().unwrap();
        let only = members.values().next().filter(|_| members.len() == 1);
        let shown = only.and_then(Value::as_object).unwrap_or(members);
        assert_eq!(
            shown.keys().map(String::as_str).collect::<Vec<_>>(),
            *keys,
            "{example}: {out}"
        );
        match *name {
            "token" => _ = variables.insert("$ACCESS_TOKEN", text(&answer["access_token"])),
            "domain" => _ = variables.insert("$DOMAIN_ID", text(&answer["domain"]["id"])),
            "subscription" => _ = variables.insert("$TLS_SUBSCRIPTION_ID", text(&answer["tls_subscription"]["id"])),
            "key" => _ = variables.insert("$SIGNING_KEY_ID", text(&answer["signing_key"]["id"])),
            _ => {}
        }
    }
}
