//! What local buckets hold, in the byte order of keys. Symbolic links are passed over.

use super::{BucketFolder, LocalError, LocalStorage, ObjectInfo, blocking};
use edgeweir_model::ObjectKey;
use std::{fs, io, path::Path};

impl LocalStorage {
    /// Objects whose keys begin with `prefix`, in byte order, after `after`, at most `limit`; and whether there are more.
    pub async fn list(
        &self,
        bucket: &BucketFolder,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<ObjectInfo>, bool), LocalError> {
        let (storage, bucket, prefix) = (self.clone(), bucket.clone(), prefix.to_owned());
        let after = after.map(str::to_owned);
        blocking(move || {
            let mut found = Vec::new();
            let root = storage.buckets.join(&*bucket.0);
            walk(
                &root,
                "",
                &mut |key| {
                    let wanted = key.starts_with(&prefix) && after.as_deref().is_none_or(|after| key > after);
                    if wanted && let Ok(key) = ObjectKey::new(key) {
                        found.push(key);
                    }
                    found.len() <= limit
                },
                &|folder: &str| {
                    let within = folder.starts_with(&prefix) || prefix.starts_with(folder);
                    // Every key of the folder begins with its name: it lies wholly before `after` unless it is a prefix of it.
                    let behind = after
                        .as_deref()
                        .is_none_or(|after| folder > after || after.starts_with(folder));
                    within && behind
                },
            )?;
            let more = found.len() > limit;
            found.truncate(limit);
            // One may have gone since.
            let infos = found
                .iter()
                .filter_map(|key| storage.stat(&bucket.path_of(key), key).ok()?);
            Ok((infos.collect(), more))
        })
        .await
    }

    /// Whether a bucket holds no object.
    pub async fn is_empty(&self, bucket: &BucketFolder) -> Result<bool, LocalError> {
        let (storage, bucket) = (self.clone(), bucket.clone());
        blocking(move || Ok(!holds_a_file(&storage.buckets.join(&*bucket.0))?)).await
    }
}

/// Visits regular files in the byte order of their keys, until `visit` says false. Symbolic links are passed over.
fn walk(
    folder: &Path,
    prefix: &str,
    visit: &mut dyn FnMut(&str) -> bool,
    enter: &dyn Fn(&str) -> bool,
) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // A folder sorts as its keys do: by its name and a slash.
        if kind.is_dir() {
            names.push(format!("{name}/"));
        } else if kind.is_file() {
            names.push(name);
        }
    }
    names.sort_unstable();
    for name in names {
        let key = format!("{prefix}{name}");
        let go_on = if name.ends_with('/') {
            !enter(&key) || walk(&folder.join(&name), &key, visit, enter)?
        } else {
            visit(&key)
        };
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a regular file anywhere below; it looks no further than the first.
fn holds_a_file(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() || (kind.is_dir() && holds_a_file(&entry.path())?) {
            return Ok(true);
        }
    }
    Ok(false)
}
