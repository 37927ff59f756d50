//! Local buckets: plain files under `<data_dir>/buckets/<bucket>@<id>/<key>`.
//!
//! Every file is opened beneath the bucket with `openat2` (`RESOLVE_BENEATH`, no symbolic links), so that no path and
//! no link, however it comes about, leads out of it. A put writes to `<data_dir>/uploads/` and renames: a reader sees
//! the old object or the new one. What was answered to is on the disk.

use crate::{Body, Error, FileBody, Response, media_type};
use bytes::Bytes;
use edgeweir_model::{BucketId, BucketName, ObjectKey, Timestamp};
use futures_util::{Stream, StreamExt};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED},
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::io::AsyncWriteExt;

/// Up to this size, in bytes, a file is read in one go.
const WHOLE: u64 = 1 << 20;

/// The longest segment of a key, in bytes: each is the name of a file or folder (`NAME_MAX`).
const NAME: usize = 255;

/// Why a change to a local bucket failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No room on the disk.
    #[error("there is no room left for the object")]
    Full,
    /// The key is a folder of other objects, or one of its folders is an object.
    #[error("an object and a folder of others cannot have the same name")]
    Conflict,
    /// A segment of the key is longer than the name of a file may be.
    #[error("a segment of the key is longer than {NAME} bytes")]
    NameTooLong,
    /// The client broke off.
    #[error("the upload broke off")]
    Aborted,
    /// The upload is larger than what it said or may be.
    #[error("the upload is larger than allowed")]
    TooLarge,
    /// The bucket still holds objects.
    #[error("the bucket is not empty")]
    NotEmpty,
    /// The bucket was deleted meanwhile.
    #[error("the bucket is gone")]
    BucketGone,
    /// The change was made and is seen, but the disk failed to make it last: a power cut may undo it.
    #[error("the change was made, but may not last")]
    Unsynced(#[source] io::Error),
    /// The disk failed.
    #[error("the disk failed")]
    Io(#[from] io::Error),
}

impl From<Errno> for LocalError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full,
            Errno::NOTDIR | Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY | Errno::LOOP => Self::Conflict,
            Errno::NAMETOOLONG => Self::NameTooLong,
            other => Self::Io(other.into()),
        }
    }
}

/// The errors of a write, told apart.
fn write_error(error: io::Error) -> LocalError {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw_os_error(code).into(),
        None => LocalError::Io(error),
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

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag.
    pub etag: String,
    /// When it was put.
    pub modified: Timestamp,
}

/// A bucket's folder, named after the bucket and its id: a name may be used again and an id never is, so that nothing
/// of a deleted bucket meets a later one of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketFolder(Box<str>);

impl BucketFolder {
    /// The folder of this bucket.
    pub fn new(name: &BucketName, id: BucketId) -> Self {
        Self(format!("{name}@{}", id.0).into())
    }

    fn path_of(&self, key: &ObjectKey) -> String {
        format!("{}/{key}", self.0)
    }
}

/// The files of every local bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalStorage {
    root: Arc<OwnedFd>,
    buckets: PathBuf,
    uploads: PathBuf,
    /// Makes a change in a folder last.
    sync: fn(&OwnedFd) -> Result<(), Errno>,
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::NOFOLLOW);

impl LocalStorage {
    /// Opens or creates the storage in `data_dir`, and clears what unfinished uploads left.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let (buckets, uploads) = (data_dir.join("buckets"), data_dir.join("uploads"));
        for folder in [&buckets, &uploads] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        for left in fs::read_dir(&uploads)? {
            let left = left?;
            if left.file_type()?.is_dir() {
                fs::remove_dir_all(left.path())?;
            } else {
                fs::remove_file(left.path())?;
            }
        }
        let root = rustix::fs::open(
            &buckets,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            root: Arc::new(root),
            buckets,
            uploads,
            sync: |folder| rustix::fs::fsync(folder),
        })
    }

    /// The same with another way to make the change of an object last, for tests of one that fails.
    #[must_use]
    #[doc(hidden)]
    pub fn syncing(self, sync: fn(&OwnedFd) -> Result<(), Errno>) -> Self {
        Self { sync, ..self }
    }

    /// Makes a change last that was made in a folder.
    fn keep(&self, folder: &OwnedFd) -> Result<(), LocalError> {
        (self.sync)(folder).map_err(|errno| LocalError::Unsynced(errno.into()))
    }

    /// Opens beneath the root; asks again when something was renamed meanwhile, as `openat2` wants it.
    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&*self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE) {
                Err(Errno::AGAIN) if tries < 32 => tries += 1,
                result => return result,
            }
        }
    }

    /// An object as an origin's answer. `If-None-Match` and `If-Modified-Since` are honoured, to revalidate.
    pub(crate) async fn get(
        &self,
        bucket: &BucketFolder,
        key: &ObjectKey,
        request: &HeaderMap,
    ) -> Result<Response, Error> {
        let (storage, path) = (self.clone(), bucket.path_of(key));
        let opened = tokio::task::spawn_blocking(move || storage.read(&path))
            .await
            .map_err(|_| Error::Io)?;
        let Some((file, stat, whole)) = opened.map_err(|_| Error::Io)? else {
            return Ok(Response {
                status: StatusCode::NOT_FOUND,
                headers: HeaderMap::new(),
                body: Body::Whole(Bytes::new()),
                length: Some(0),
            });
        };
        let size = stat.st_size as u64;
        let etag = etag(&stat);
        let modified = httpdate::fmt_http_date(modified(&stat));
        let value = |text: &str| HeaderValue::from_str(text).expect("ASCII");
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, value(&etag));
        headers.insert(LAST_MODIFIED, value(&modified));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(key.as_str())));
        let unchanged = match request.get(IF_NONE_MATCH) {
            Some(tag) => tag.as_bytes() == etag.as_bytes(),
            None => request
                .get(IF_MODIFIED_SINCE)
                .is_some_and(|since| since.as_bytes() == modified.as_bytes()),
        };
        if unchanged {
            let body = Body::Whole(Bytes::new());
            return Ok(Response {
                status: StatusCode::NOT_MODIFIED,
                headers,
                body,
                length: Some(0),
            });
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_LENGTH, size.into());
        let body = match whole {
            Some(bytes) => Body::Whole(bytes),
            None => Body::File(FileBody::new(Arc::new(file), 0..size)),
        };
        Ok(Response {
            status: StatusCode::OK,
            headers,
            body,
            length: Some(size),
        })
    }

    /// A regular file and, if it is small, its content. `None` for whatever is no object.
    fn read(&self, path: &str) -> io::Result<Option<(File, Stat, Option<Bytes>)>> {
        // Without O_NONBLOCK, opening a FIFO would wait for its writer.
        let file = match self.open_beneath(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::NXIO
                | Errno::ISDIR,
            ) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let size = stat.st_size as u64;
        let whole = if size <= WHOLE {
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0)?;
            Some(bytes.into())
        } else {
            None
        };
        Ok(Some((file, stat, whole)))
    }

    /// An object's size and entity tag.
    pub async fn head(&self, bucket: &BucketFolder, key: &ObjectKey) -> Result<Option<ObjectInfo>, LocalError> {
        let (storage, path, key) = (self.clone(), bucket.path_of(key), key.clone());
        let found = blocking(move || Ok(storage.read(&path)?)).await?;
        Ok(found.map(|(_, stat, _)| info(key, &stat)))
    }

    /// An object's content and what [`LocalStorage::head`] tells.
    pub async fn read_object(
        &self,
        bucket: &BucketFolder,
        key: &ObjectKey,
    ) -> Result<Option<(ObjectInfo, Body)>, LocalError> {
        let (storage, path, key) = (self.clone(), bucket.path_of(key), key.clone());
        let found = blocking(move || Ok(storage.read(&path)?)).await?;
        Ok(found.map(|(file, stat, whole)| {
            let size = stat.st_size as u64;
            let body = whole.map_or_else(|| Body::File(FileBody::new(Arc::new(file), 0..size)), Body::Whole);
            (info(key, &stat), body)
        }))
    }

    /// Puts an object. Until it is complete and on the disk, nothing of it is seen; on any failure but
    /// [`LocalError::Unsynced`] the old one stays.
    pub async fn put<S, E>(
        &self,
        bucket: &BucketFolder,
        key: &ObjectKey,
        mut content: S,
        length: Option<u64>,
        limit: u64,
    ) -> Result<PutOutcome, LocalError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        if key.as_str().ends_with('/') {
            return Err(LocalError::Conflict);
        }
        // Before anything is made for it.
        if key.as_str().split('/').any(|segment| segment.len() > NAME) {
            return Err(LocalError::NameTooLong);
        }
        if length.is_some_and(|length| length > limit) {
            return Err(LocalError::TooLarge);
        }
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
            storage.place(&upload, &bucket, &key)?;
            Ok(stat)
        })
        .await?;
        Ok(PutOutcome {
            etag: etag(&stat),
            size,
        })
    }

    /// Moves an upload to its place, making the folders on the way.
    fn place(&self, upload: &Upload, bucket: &BucketFolder, key: &ObjectKey) -> Result<(), LocalError> {
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
            match rustix::fs::renameat(rustix::fs::CWD, &upload.0, &folder, name) {
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

    /// Deletes an object; whether there was one. Folders that it leaves empty go, too.
    pub async fn delete(&self, bucket: &BucketFolder, key: &ObjectKey) -> Result<bool, LocalError> {
        let (storage, bucket, key) = (self.clone(), bucket.clone(), key.clone());
        blocking(move || {
            if storage.read(&bucket.path_of(&key))?.is_none() {
                return Ok(false);
            }
            let mut path = bucket.path_of(&key);
            let mut flags = AtFlags::empty();
            while let Some((folder, name)) = path.rsplit_once('/') {
                let parent = match storage.open_beneath(folder, OFlags::DIRECTORY | OFlags::RDONLY) {
                    Ok(parent) => parent,
                    Err(errno) if flags.is_empty() => return Err(errno.into()),
                    // The object is gone, and somebody else has removed the folder, too.
                    Err(_) => break,
                };
                match rustix::fs::unlinkat(&parent, name, flags) {
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
            let infos = found.into_iter().filter_map(|key| {
                let file = storage
                    .open_beneath(&bucket.path_of(&key), OFlags::PATH | OFlags::NOFOLLOW)
                    .ok()?;
                Some(info(key, &rustix::fs::fstat(&file).ok()?))
            });
            Ok((infos.collect(), more))
        })
        .await
    }

    /// Whether a bucket holds no object.
    pub async fn is_empty(&self, bucket: &BucketFolder) -> Result<bool, LocalError> {
        let (storage, bucket) = (self.clone(), bucket.clone());
        blocking(move || Ok(!holds_a_file(&storage.buckets.join(&*bucket.0))?)).await
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

/// A file under `uploads/`, removed unless it was moved away.
struct Upload(PathBuf);

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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(LocalError::Io(io::Error::other("the work was given up"))),
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

fn info(key: ObjectKey, stat: &Stat) -> ObjectInfo {
    ObjectInfo {
        key,
        size: stat.st_size as u64,
        etag: etag(stat),
        modified: Timestamp(stat.st_mtime),
    }
}

/// Strong: a rename always brings another inode, and a write in place another time.
fn etag(stat: &Stat) -> String {
    format!(
        "\"{:x}-{:x}-{:x}-{:x}\"",
        stat.st_mtime, stat.st_mtime_nsec, stat.st_size, stat.st_ino
    )
}

fn modified(stat: &Stat) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0))
}

#[cfg(test)]
mod tests;
