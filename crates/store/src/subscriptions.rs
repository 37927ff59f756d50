//! TLS subscriptions: which domains get a certificate, and how far that is.

use crate::{Page, Store, StoreError, error::unique, page::parse};
use edgeweir_model::{Change, DomainId, Fqdn, ProjectId, SubscriptionId, Timestamp};
use sqlx::{query, query_as, query_scalar};
use std::str::FromStr;

/// How far a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionStatus {
    /// Waiting for the CNAME.
    Pending,
    /// An order is under way.
    Processing,
    /// The certificate serves.
    Issued,
    /// A new certificate is being got; the old one serves.
    Renewing,
    /// The last try failed.
    Failed,
}

impl SubscriptionStatus {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Processing,
        Self::Issued,
        Self::Renewing,
        Self::Failed,
    ];

    /// The name used in JSON and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Issued => "issued",
            Self::Renewing => "renewing",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for SubscriptionStatus {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// A TLS subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The domain.
    pub domain_id: DomainId,
    /// The domain's name.
    pub domain_name: Fqdn,
    /// How far it is.
    pub status: SubscriptionStatus,
    /// What the owner should know.
    pub message: Option<String>,
    /// When the certificate ends.
    pub not_after: Option<Timestamp>,
    /// When it was made.
    pub created: Timestamp,
}

type Row = (String, String, String, String, Option<String>, Option<i64>, i64);

fn subscription((id, domain, name, status, message, not_after, created): Row) -> Result<Subscription, StoreError> {
    Ok(Subscription {
        id: parse(&id, "subscription id")?,
        domain_id: parse(&domain, "domain id")?,
        domain_name: parse(&name, "domain name")?,
        status: parse(&status, "subscription status")?,
        message,
        not_after: not_after.map(Timestamp),
        created: Timestamp(created),
    })
}

impl Store {
    /// Subscribes a domain; `message` tells its owner, given the domain's name, what to do.
    pub async fn create_subscription(
        &self,
        project: ProjectId,
        domain: DomainId,
        message: impl FnOnce(&str) -> String,
    ) -> Result<Subscription, StoreError> {
        let mut w = self.begin().await?;
        let name: Option<String> = query_scalar("SELECT name FROM domains WHERE id = ? AND project_id = ?")
            .bind(domain.to_string())
            .bind(project.0)
            .fetch_optional(&mut *w.tx)
            .await?;
        let domain_name: Fqdn = parse(&name.ok_or(StoreError::NotFound)?, "domain name")?;
        let message = message(domain_name.as_str());
        let (id, created) = (SubscriptionId::random(), Timestamp::now());
        let status = SubscriptionStatus::Pending;
        query(
            "INSERT INTO subscriptions (id, project_id, domain_id, status, message, created) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(project.0)
        .bind(domain.to_string())
        .bind(status.as_str())
        .bind(&message)
        .bind(created.0)
        .execute(&mut *w.tx)
        .await
        .map_err(|e| unique(e, StoreError::SubscriptionExists))?;
        w.commit(&Change::Rows).await?;
        Ok(Subscription {
            id,
            domain_id: domain,
            domain_name,
            status,
            message: Some(message),
            not_after: None,
            created,
        })
    }

    /// A subscription.
    pub async fn get_subscription(&self, project: ProjectId, id: SubscriptionId) -> Result<Subscription, StoreError> {
        let row: Option<Row> = query_as(
            "SELECT s.id, s.domain_id, d.name, s.status, s.message, s.not_after, s.created
             FROM subscriptions s JOIN domains d ON d.id = s.domain_id WHERE s.project_id = ? AND s.id = ?",
        )
        .bind(project.0)
        .bind(id.to_string())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        subscription(row.ok_or(StoreError::NotFound)?)
    }

    /// A project's subscriptions, newest first; also whether there are more.
    pub async fn list_subscriptions(
        &self,
        project: ProjectId,
        page: &Page,
    ) -> Result<(Vec<Subscription>, bool), StoreError> {
        let mut db = self.begin_read().await?;
        let start = page
            .start(
                &mut db,
                "SELECT pos FROM subscriptions WHERE project_id = ? AND id = ?",
                project,
            )
            .await?;
        let rows: Vec<Row> = query_as(
            "SELECT s.id, s.domain_id, d.name, s.status, s.message, s.not_after, s.created
             FROM subscriptions s JOIN domains d ON d.id = s.domain_id
             WHERE s.project_id = ? AND s.pos < ? ORDER BY s.pos DESC LIMIT ?",
        )
        .bind(project.0)
        .bind(start)
        .bind(page.fetch())
        .fetch_all(&mut *db)
        .await?;
        page.cut(rows, subscription)
    }

    /// Every project's subscriptions, oldest first.
    pub async fn all_subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        let rows: Vec<Row> = query_as(
            "SELECT s.id, s.domain_id, d.name, s.status, s.message, s.not_after, s.created
             FROM subscriptions s JOIN domains d ON d.id = s.domain_id ORDER BY s.pos",
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(subscription).collect()
    }

    /// Ends a subscription.
    pub async fn delete_subscription(&self, project: ProjectId, id: SubscriptionId) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("DELETE FROM subscriptions WHERE id = ? AND project_id = ?")
            .bind(id.to_string())
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit_found(&done).await
    }
}
