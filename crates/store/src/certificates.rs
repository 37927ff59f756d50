//! Certificates on their way: state, order, challenges, the certificate itself. What a step learned and the state after
//! it are one transaction, so that a process that ends goes on where it was.
//!
//! Private keys and credentials come here sealed; the store cannot read them.

#[cfg(test)]
mod tests;

use crate::{Store, StoreError, SubscriptionStatus, page::parse};
use edgeweir_model::{Change, Fqdn, SubscriptionId, Timestamp};
use sqlx::{SqliteConnection, query, query_as, query_scalar};

/// A subscription's certificate as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// The name that the certificate is for.
    pub domain: Fqdn,
    /// The state of its life cycle, as JSON; `None` before the first step.
    pub state: Option<String>,
}

/// An order that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOrder {
    /// Its URL.
    pub url: String,
    /// The certificate's private key, sealed.
    pub private_key: Vec<u8>,
    /// The request for the certificate: PKCS#10, DER.
    pub csr: Vec<u8>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// Its id, never used again.
    pub id: i64,
    /// The name that it is for.
    pub domain: Fqdn,
    /// The chain, PEM.
    pub chain: String,
    /// The private key, sealed.
    pub private_key: Vec<u8>,
}

/// What a step learned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Learned {
    /// Nothing to keep beside the state.
    #[default]
    Nothing,
    /// An order is open.
    Order(StoredOrder),
    /// What the CA will ask for: tokens and key authorizations.
    Challenges(Vec<(String, String)>),
    /// The order is over, without a certificate.
    OrderOver,
    /// The order is over: its certificate's chain. It takes the key that the order was stored with.
    Certificate {
        /// The chain, PEM.
        chain: String,
        /// From when on it is valid.
        not_before: Timestamp,
        /// Until when.
        not_after: Timestamp,
    },
}

/// A state to be written down.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The state, as JSON.
    pub state: String,
    /// When something is to be done next, in milliseconds.
    pub due: i64,
    /// What the owner is told.
    pub status: SubscriptionStatus,
    /// And in words.
    pub message: Option<String>,
    /// When the certificate that serves ends.
    pub not_after: Option<Timestamp>,
}

impl Store {
    /// The subscriptions for which something is to be done at `now` (milliseconds): new ones first.
    pub async fn due_issuances(&self, now: i64, limit: u32) -> Result<Vec<SubscriptionId>, StoreError> {
        let rows: Vec<String> = query_scalar(
            "SELECT s.id FROM subscriptions s LEFT JOIN certificate_states c ON c.subscription_id = s.id
             WHERE c.due IS NULL OR c.due <= ? ORDER BY c.due LIMIT ?",
        )
        .bind(now)
        .bind(limit)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(|id| parse(id, "subscription id")).collect()
    }

    /// When something is to be done next after `now`, in milliseconds.
    pub async fn next_issuance(&self, now: i64) -> Result<Option<i64>, StoreError> {
        let due = query_scalar("SELECT min(due) FROM certificate_states WHERE due > ?");
        Ok(due.bind(now).fetch_one(&mut *self.reader().await?).await?)
    }

    /// How far a subscription's certificate is; `NotFound` when it was deleted.
    pub async fn issuance(&self, id: SubscriptionId) -> Result<Issuance, StoreError> {
        let row: Option<(String, Option<String>)> = query_as(
            "SELECT d.name, c.state FROM subscriptions s JOIN domains d ON d.id = s.domain_id
             LEFT JOIN certificate_states c ON c.subscription_id = s.id WHERE s.id = ?",
        )
        .bind(id.to_string())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        let (name, state) = row.ok_or(StoreError::NotFound)?;
        Ok(Issuance {
            domain: parse(&name, "domain name")?,
            state,
        })
    }

    /// Writes down what a step learned and the state after it; `NotFound` when the subscription was deleted meanwhile.
    pub async fn save_issuance(
        &self,
        id: SubscriptionId,
        progress: &Progress,
        learned: &Learned,
    ) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let key = id.to_string();
        let done = query("UPDATE subscriptions SET status = ?, message = ?, not_after = ? WHERE id = ?")
            .bind(progress.status.as_str())
            .bind(&progress.message)
            .bind(progress.not_after.map(|t| t.0))
            .bind(&key)
            .execute(&mut *w.tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        query(
            "INSERT INTO certificate_states (subscription_id, state, due) VALUES (?, ?, ?)
             ON CONFLICT (subscription_id) DO UPDATE SET state = excluded.state, due = excluded.due",
        )
        .bind(&key)
        .bind(&progress.state)
        .bind(progress.due)
        .execute(&mut *w.tx)
        .await?;
        keep(&mut w.tx, &key, learned).await?;
        w.commit(&Change::Rows).await
    }

    /// The order that is open for a subscription.
    pub async fn order(&self, id: SubscriptionId) -> Result<Option<StoredOrder>, StoreError> {
        let row: Option<(String, Vec<u8>, Vec<u8>)> =
            query_as("SELECT url, private_key, csr FROM orders WHERE subscription_id = ?")
                .bind(id.to_string())
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        Ok(row.map(|(url, private_key, csr)| StoredOrder { url, private_key, csr }))
    }

    /// The chain of the certificate that serves for a subscription, PEM.
    pub async fn chain_of(&self, id: SubscriptionId) -> Result<Option<String>, StoreError> {
        let chain = query_scalar("SELECT chain FROM certificates WHERE subscription_id = ?");
        Ok(chain
            .bind(id.to_string())
            .fetch_optional(&mut *self.reader().await?)
            .await?)
    }

    /// Certificates by their ids; one that is not there any more, or cannot be read, is left out.
    pub async fn certificates(&self, ids: &[i64]) -> Result<Vec<StoredCertificate>, StoreError> {
        let ids = serde_json::to_string(ids).map_err(|e| StoreError::Internal(e.into()))?;
        let rows: Vec<(i64, String, String, Vec<u8>)> = query_as(
            "SELECT c.id, d.name, c.chain, c.private_key FROM certificates c
             JOIN subscriptions s ON s.id = c.subscription_id JOIN domains d ON d.id = s.domain_id
             WHERE c.id IN (SELECT value FROM json_each(?))",
        )
        .bind(ids)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let read = |(id, name, chain, private_key): (i64, String, String, Vec<u8>)| {
            let domain = name.parse().ok()?;
            Some(StoredCertificate {
                id,
                domain,
                chain,
                private_key,
            })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// The account at a CA, sealed.
    pub async fn acme_account(&self, directory: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = query_scalar("SELECT credentials FROM acme_accounts WHERE directory = ?");
        Ok(found.bind(directory).fetch_optional(&mut *self.reader().await?).await?)
    }

    /// Keeps the account at a CA, sealed, instead of any other there.
    pub async fn set_acme_account(&self, directory: &str, credentials: &[u8]) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        query("INSERT OR REPLACE INTO acme_accounts (directory, credentials, created) VALUES (?, ?, ?)")
            .bind(directory)
            .bind(credentials)
            .bind(Timestamp::now().0)
            .execute(&mut *w.tx)
            .await?;
        w.commit(&Change::Rows).await
    }
}

async fn keep(db: &mut SqliteConnection, id: &str, learned: &Learned) -> Result<(), StoreError> {
    match learned {
        Learned::Nothing => {}
        Learned::Order(order) => {
            query("INSERT OR REPLACE INTO orders (subscription_id, url, private_key, csr, created) VALUES (?, ?, ?, ?, ?)")
                .bind(id)
                .bind(&order.url)
                .bind(&order.private_key)
                .bind(&order.csr)
                .bind(Timestamp::now().0)
                .execute(db)
                .await?;
        }
        Learned::Challenges(challenges) => {
            query("DELETE FROM challenges WHERE subscription_id = ?")
                .bind(id)
                .execute(&mut *db)
                .await?;
            for (token, key_authorization) in challenges {
                query("INSERT INTO challenges (subscription_id, token, key_authorization) VALUES (?, ?, ?)")
                    .bind(id)
                    .bind(token)
                    .bind(key_authorization)
                    .execute(&mut *db)
                    .await?;
            }
        }
        Learned::OrderOver => end_order(db, id).await?,
        Learned::Certificate {
            chain,
            not_before,
            not_after,
        } => {
            query("DELETE FROM certificates WHERE subscription_id = ?")
                .bind(id)
                .execute(&mut *db)
                .await?;
            let done = query(
                "INSERT INTO certificates (subscription_id, chain, private_key, not_before, not_after, created)
                 SELECT subscription_id, ?, private_key, ?, ?, ? FROM orders WHERE subscription_id = ?",
            )
            .bind(chain)
            .bind(not_before.0)
            .bind(not_after.0)
            .bind(Timestamp::now().0)
            .bind(id)
            .execute(&mut *db)
            .await?;
            // Without its key a certificate is worth nothing, and the one before stays.
            if done.rows_affected() == 0 {
                return Err(StoreError::Corrupt("order"));
            }
            end_order(db, id).await?;
        }
    }
    Ok(())
}

async fn end_order(db: &mut SqliteConnection, id: &str) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM orders WHERE subscription_id = ?",
        "DELETE FROM challenges WHERE subscription_id = ?",
    ] {
        query(statement).bind(id).execute(&mut *db).await?;
    }
    Ok(())
}
