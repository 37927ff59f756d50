//! A version of a live playlist as it was published, and the forms in which viewers get it.

use bytes::Bytes;
use edgeweir_manifest::{
    Kind, Splices,
    live::{self, MediaPlaylist},
};
use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use std::{
    io::Write,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// A version of a playlist or manifest. Never changed.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) kind: Kind,
    body: Bytes,
    /// What it says, when it is a media playlist of HLS.
    pub(crate) media: Option<MediaPlaylist>,
    /// For how long it may stand in for later ones that cannot be got: what it lists plays as long.
    pub(crate) window: Duration,
    /// By what is put before its relative URIs: there are as many as there are paths that lead to it.
    forms: Mutex<Vec<(Box<str>, Arc<Form>)>>,
}

/// What of a version does not depend on who asks.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) body: Bytes,
    /// Where tokens go. `None` for a text that takes none.
    pub(crate) splices: Option<Splices>,
    compressed: OnceLock<Bytes>,
}

impl Form {
    fn new(kind: Kind, body: Bytes) -> Self {
        Self {
            splices: edgeweir_manifest::scan(kind, &body).ok(),
            compressed: OnceLock::new(),
            body,
        }
    }

    /// The body without any token, compressed once.
    pub(crate) fn compressed(&self) -> &Bytes {
        self.compressed.get_or_init(|| gzip(&self.body).into())
    }
}

/// The text in gzip (RFC 1952), as fast as that goes: a playlist is made for each viewer that has a token.
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("memory takes what is written")
}

impl Version {
    pub(crate) fn new(kind: Kind, body: Bytes, media: Option<MediaPlaylist>, window: Duration) -> Arc<Self> {
        Arc::new(Self {
            kind,
            body,
            media,
            window,
            forms: Mutex::default(),
        })
    }

    /// The version with its relative URIs beginning with `prefix`: a folder with its slash, or nothing.
    pub(crate) fn form(&self, prefix: &str) -> Arc<Form> {
        let mut forms = self.forms.lock();
        if let Some((_, form)) = forms.iter().find(|(p, _)| **p == *prefix) {
            return form.clone();
        }
        let body = if prefix.is_empty() {
            self.body.clone()
        } else {
            self.prefixed(prefix)
        };
        let form = Arc::new(Form::new(self.kind, body));
        forms.push((prefix.into(), form.clone()));
        form
    }

    fn prefixed(&self, prefix: &str) -> Bytes {
        let Ok(text) = std::str::from_utf8(&self.body) else {
            return self.body.clone();
        };
        let mut map = |uri: &str| is_relative(uri).then(|| format!("{prefix}{uri}"));
        match live::map_uris(self.kind, text, &mut map) {
            Ok(text) => text.into(),
            Err(_) => self.body.clone(),
        }
    }

    /// The text as it is in its own place.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Whether a reference is relative to its playlist's folder: a path that begins with a segment (RFC 3986 §4.2).
fn is_relative(uri: &str) -> bool {
    let first = uri.split(['/', '?', '#']).next().unwrap_or_default();
    !first.is_empty() && !first.contains(':') && !first.contains('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_paths_get_a_prefix() {
        for (uri, relative) in [
            ("a.ts", true),
            ("a/b.ts?x=1:2", true),
            ("../a.ts", true),
            ("./a.ts", true),
            ("/a.ts", false),
            ("//h/a.ts", false),
            ("https://h/a.ts", false),
            ("data:x", false),
            ("?x", false),
            ("#x", false),
            ("{$base}/a.ts", false),
            ("", false),
        ] {
            assert_eq!(is_relative(uri), relative, "{uri}");
        }
    }
}
