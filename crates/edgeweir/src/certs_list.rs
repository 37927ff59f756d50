//! `edgeweir certs list`.

use crate::{Failure, config::Config, serve};
use edgeweir_store::Subscription;
use serde::Serialize;

#[derive(Serialize)]
struct Row<'a> {
    domain: &'a str,
    status: &'static str,
    not_after: Option<String>,
    message: Option<&'a str>,
}

impl<'a> From<&'a Subscription> for Row<'a> {
    fn from(s: &'a Subscription) -> Self {
        Self {
            domain: s.domain_name.as_str(),
            status: s.status.as_str(),
            not_after: s.not_after.map(|t| t.to_string()),
            message: s.message.as_deref(),
        }
    }
}

/// Every TLS subscription, as a table or as JSON.
pub(crate) async fn list(config: &Config, json: bool) -> Result<String, Failure> {
    // What only reads makes nothing, least of all where a folder's name is misspelt.
    if !config.data_dir.is_dir() {
        let dir = config.data_dir.display();
        return Err(Failure::Failed(format!(
            "data_dir {dir}: no server has used this folder"
        )));
    }
    let store = serve::open_store(config).await?;
    let all = store.all_subscriptions().await;
    store.close().await;
    let all = all.map_err(|e| Failure::because("the subscriptions cannot be read", &e))?;
    let rows: Vec<Row<'_>> = all.iter().map(Row::from).collect();
    if json {
        return Ok(serde_json::to_string_pretty(&rows).expect("rows are plain"));
    }
    Ok(table(&rows))
}

fn table(rows: &[Row<'_>]) -> String {
    let width = rows
        .iter()
        .map(|row| row.domain.len())
        .max()
        .unwrap_or(0)
        .max("DOMAIN".len());
    let line = |domain: &str, status: &str, end: &str, message: &str| {
        format!("{domain:width$}  {status:10}  {end:19}  {message}")
            .trim_end()
            .to_owned()
            + "\n"
    };
    let mut text = line("DOMAIN", "STATUS", "NOT AFTER", "MESSAGE");
    for row in rows {
        let end = row.not_after.as_deref().unwrap_or("-");
        text.push_str(&line(row.domain, row.status, end, row.message.unwrap_or("")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let rows = [Row {
            domain: "live.example.com",
            status: "issued",
            not_after: Some("2027-01-15 08:00:00".to_owned()),
            message: None,
        }];
        assert_eq!(
            table(&rows),
            "DOMAIN            STATUS      NOT AFTER            MESSAGE\n\
             live.example.com  issued      2027-01-15 08:00:00\n"
        );
    }
}
