-- Times are unix seconds. `pos` gives lists their order: it only ever grows.
CREATE TABLE projects (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    hash BLOB NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

-- AUTOINCREMENT: a bucket's id is part of cache keys and must never come back.
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL UNIQUE,
    region TEXT NOT NULL,
    origin TEXT NOT NULL,
    policy TEXT NOT NULL DEFAULT 'public',
    cors TEXT NOT NULL DEFAULT '{}',
    generation INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE domains (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL UNIQUE,
    bucket_id INTEGER REFERENCES buckets (id),
    policy TEXT NOT NULL DEFAULT 'public',
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX domains_by_project ON domains (project_id);
CREATE INDEX domains_by_bucket ON domains (bucket_id);

-- Names of deleted domains, kept for their last owner.
CREATE TABLE released_names (
    name TEXT PRIMARY KEY,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    until INTEGER NOT NULL
) STRICT;

CREATE TABLE subscriptions (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    domain_id TEXT NOT NULL UNIQUE REFERENCES domains (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    message TEXT,
    not_after INTEGER,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE streams (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    playback_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    pull_url TEXT,
    key_hash BLOB UNIQUE,
    policy TEXT NOT NULL DEFAULT 'public',
    created INTEGER NOT NULL,
    CHECK ((pull_url IS NULL) <> (key_hash IS NULL))
) STRICT;
CREATE INDEX streams_by_project ON streams (project_id);

CREATE TABLE signing_keys (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project_id INTEGER NOT NULL REFERENCES projects (id),
    domain_id TEXT REFERENCES domains (id) ON DELETE CASCADE,
    stream_id TEXT REFERENCES streams (id) ON DELETE CASCADE,
    bucket_id INTEGER REFERENCES buckets (id) ON DELETE CASCADE,
    name TEXT,
    public_key BLOB NOT NULL,
    created INTEGER NOT NULL,
    CHECK ((domain_id IS NOT NULL) + (stream_id IS NOT NULL) + (bucket_id IS NOT NULL) = 1)
) STRICT;
CREATE INDEX signing_keys_by_domain ON signing_keys (domain_id);
CREATE INDEX signing_keys_by_stream ON signing_keys (stream_id);
CREATE INDEX signing_keys_by_bucket ON signing_keys (bucket_id);
CREATE INDEX signing_keys_by_project ON signing_keys (project_id);

CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    payload TEXT,
    created INTEGER NOT NULL
) STRICT;
