-- Certificates by ACME. Private keys and credentials are sealed with the node secret before they come here.

CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY,
    credentials BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- How far each subscription's certificate is. A subscription without a row is a new one.
CREATE TABLE certificate_states (
    subscription_id TEXT PRIMARY KEY REFERENCES subscriptions (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    due INTEGER NOT NULL -- milliseconds
) STRICT;
CREATE INDEX certificate_states_by_due ON certificate_states (due);

-- Orders that are open at the CA, with the key that their certificate will have.
CREATE TABLE orders (
    subscription_id TEXT PRIMARY KEY REFERENCES subscriptions (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    private_key BLOB NOT NULL,
    csr BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE challenges (
    subscription_id TEXT NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    token TEXT NOT NULL,
    key_authorization TEXT NOT NULL,
    PRIMARY KEY (subscription_id, token)
) STRICT;

-- An id is one certificate for ever: a renewed one has another.
CREATE TABLE certificates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription_id TEXT NOT NULL UNIQUE REFERENCES subscriptions (id) ON DELETE CASCADE,
    chain TEXT NOT NULL,
    private_key BLOB NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Who does a piece of work, until when (milliseconds).
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;
