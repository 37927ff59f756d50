//! Changes to local buckets: objects that are put and deleted, and the folders of buckets.
//!
//! What is put is written beside the buckets and moved to its place once it is complete and on the disk. What was answered
//! to lasts: each folder that a change is made in is synced.

use super::{BucketFolder, LocalError, LocalStorage, NAME, ObjectInfo, blocking, etag};
use bytes::Bytes;
use edgeweir_model::ObjectKey;
use futures_util::{Stream, StreamExt};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::io::AsyncWriteExt;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::NOFOLLOW);

/// What must hold of an object for its change to be made: given what there is of it.
#[derive(Clone)]
pub struct Condition(Arc<dyn Fn(Option<&ObjectInfo>) -> bool + Send + Sync>);

impl Condition {
    /// One that holds where this says so.
    pub fn new(holds: impl Fn(Option<&ObjectInfo>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(holds))
    }

    /// One that always holds.
    pub fn none() -> Self {
        Self::new(|_| true)
    }
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}

/// What a put came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOutcome {
    /// The new object's entity tag.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
}

impl LocalStorage {
    /// Puts an object, if the condition holds before its content is read and still when it takes its place. Until it is
    /// complete and on the disk, nothing of it is seen; on any failure but [`LocalError::Unsynced`] the old one stays.
    pub async fn put<S, E>(
        &self,
        bucket: &BucketFolder,
        key: &ObjectKey,
        mut content: S,
        length: Option<u64>,
        limit: u64,
        condition: Condition,
    ) -> Result<PutOutcome, LocalError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        if key.as_str().ends_with('/') {
            return Err(LocalError::FolderName);
        }
        // Before anything is made for it.
        if key.as_str().split('/').any(|segment| segment.len() > NAME) {
            return Err(LocalError::NameTooLong);
        }
        if length.is_some_and(|length| length > limit) {
            return Err(LocalError::TooLarge);
        }
        let (storage, path, of, holds) = (self.clone(), bucket.path_of(key), key.clone(), condition.clone());
        blocking(move || storage.check(&path, &of, &holds)).await?;
        let upload = Upload(self.uploads.join(uuid::Uuid::new_v4().to_string()));
        let path = upload.0.clone();
        let options = || {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        };
        let mut file = tokio::fs::File::from_std(blocking(move || options().map_err(write_error)).await?);
        let mut size = 0;
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|_| LocalError::Aborted)?;
            size += chunk.len() as u64;
            if size > length.unwrap_or(limit).min(limit) {
                return Err(LocalError::TooLarge);
            }
            file.write_all(&chunk).await.map_err(write_error)?;
        }
        if length.is_some_and(|length| size < length) {
            return Err(LocalError::Aborted);
        }
        file.flush().await.map_err(write_error)?;
        file.sync_all().await.map_err(write_error)?;
        let file = file.into_std().await;
        let (storage, bucket, key) = (self.clone(), bucket.clone(), key.clone());
        let stat = blocking(move || {
            let stat = rustix::fs::fstat(&file)?;
            storage.place(&upload, &bucket, &key, &condition)?;
            Ok(stat)
        })
        .await?;
        Ok(PutOutcome {
            etag: etag(&stat),
            size,
        })
    }

    /// Whether a condition holds of what there is.
    fn check(&self, path: &str, key: &ObjectKey, condition: &Condition) -> Result<(), LocalError> {
        if condition.0(self.stat(path, key)?.as_ref()) {
            return Ok(());
        }
        Err(LocalError::ConditionFailed)
    }

    /// Moves an upload to its place, making the folders on the way.
    fn place(
        &self,
        upload: &Upload,
        bucket: &BucketFolder,
        key: &ObjectKey,
        condition: &Condition,
    ) -> Result<(), LocalError> {
        let full = bucket.path_of(key);
        let (folder, name) = full.rsplit_once('/').expect("there is a slash behind the bucket");
        // A delete may prune a folder between its making and its use: make it again.
        for _ in 0..8 {
            if let Err(Errno::NOENT) = self.open_beneath(&bucket.0, FOLDER) {
                return Err(LocalError::BucketGone);
            }
            let folder = match self.folder(folder) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let renamed = {
                let _alone = self.changes.lock();
                self.check(&full, key, condition)?;
                rustix::fs::renameat(rustix::fs::CWD, &upload.0, &folder, name)
            };
            match renamed {
                Err(Errno::NOENT) => {}
                other => {
                    other?;
                    return self.keep(&folder);
                }
            }
        }
        Err(LocalError::Conflict)
    }

    /// Opens a folder beneath the root, step by step, making what is missing below the bucket.
    fn folder(&self, path: &str) -> Result<OwnedFd, Errno> {
        let mut end = 0;
        let mut opened = None;
        for segment in path.split('/') {
            end += segment.len();
            let folder = match (self.open_beneath(&path[..end], FOLDER), &opened) {
                (Err(Errno::NOENT), Some(parent)) => {
                    match rustix::fs::mkdirat(parent, segment, Mode::RWXU) {
                        Ok(()) => rustix::fs::fsync(parent)?,
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    self.open_beneath(&path[..end], FOLDER)?
                }
                (result, _) => result?,
            };
            opened = Some(folder);
            end += 1;
        }
        opened.ok_or(Errno::NOENT)
    }

    /// Deletes an object if the condition holds; whether there was one. Folders that it leaves empty go, too.
    pub async fn delete(
        &self,
        bucket: &BucketFolder,
        key: &ObjectKey,
        condition: Condition,
    ) -> Result<bool, LocalError> {
        let (storage, bucket, key) = (self.clone(), bucket.clone(), key.clone());
        blocking(move || {
            let mut path = bucket.path_of(&key);
            if storage.stat(&path, &key)?.is_none() {
                return Ok(false);
            }
            let mut flags = AtFlags::empty();
            while let Some((folder, name)) = path.rsplit_once('/') {
                let parent = match storage.open_beneath(folder, OFlags::DIRECTORY | OFlags::RDONLY) {
                    Ok(parent) => parent,
                    // Somebody else has deleted it in between, and its folder with it.
                    Err(Errno::NOENT | Errno::NOTDIR) if flags.is_empty() => return Ok(false),
                    Err(errno) if flags.is_empty() => return Err(errno.into()),
                    // The object is gone, and somebody else has removed the folder, too.
                    Err(_) => break,
                };
                let unlinked = {
                    let _alone = storage.changes.lock();
                    if flags.is_empty() {
                        storage.check(&path, &key, &condition)?;
                    }
                    rustix::fs::unlinkat(&parent, name, flags)
                };
                match unlinked {
                    Ok(()) => storage.keep(&parent)?,
                    Err(Errno::NOENT) if flags.is_empty() => return Ok(false),
                    Err(errno) if flags.is_empty() => return Err(errno.into()),
                    // A folder that is in use stays.
                    Err(_) => break,
                }
                flags = AtFlags::REMOVEDIR;
                path.truncate(folder.len());
            }
            Ok(true)
        })
        .await
    }

    /// Makes a bucket's folder.
    pub async fn create_bucket(&self, bucket: &BucketFolder) -> Result<(), LocalError> {
        let (storage, bucket) = (self.clone(), bucket.clone());
        blocking(
            move || match rustix::fs::mkdirat(&*storage.root, &*bucket.0, Mode::RWXU) {
                Ok(()) => Ok(rustix::fs::fsync(&*storage.root)?),
                Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
        )
        .await
    }

    /// Removes a bucket's folder, which must hold no objects; empty folders in it, as a crash may leave them, go too.
    pub async fn remove_bucket(&self, bucket: &BucketFolder) -> Result<(), LocalError> {
        let (storage, bucket) = (self.clone(), bucket.clone());
        blocking(move || {
            match remove_folders(&storage.buckets.join(&*bucket.0)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => return Err(LocalError::NotEmpty),
                Err(e) => return Err(e.into()),
            }
            Ok(rustix::fs::fsync(&*storage.root)?)
        })
        .await
    }

    /// Makes a change last that was made in a folder.
    fn keep(&self, folder: &OwnedFd) -> Result<(), LocalError> {
        (self.sync)(folder).map_err(|errno| LocalError::Unsynced(errno.into()))
    }
}

/// The errors of a write, told apart.
fn write_error(error: io::Error) -> LocalError {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw_os_error(code).into(),
        None => LocalError::Io(error),
    }
}

/// A file under `uploads/`, removed unless it was moved away.
pub(super) struct Upload(pub(super) PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            let _ = fs::remove_file(path);
        };
        // Whoever gives an upload up may be a thread that serves.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Removes a folder and the folders in it, unless there is anything else.
fn remove_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_folders(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
