//! Local buckets: plain files under `<data_dir>/buckets/<bucket>@<id>/<key>`.
//!
//! Every file is opened beneath the bucket with `openat2` (`RESOLVE_BENEATH`, no symbolic links), so that no path and
//! no link, however it comes about, leads out of it. A put writes to `<data_dir>/uploads/` and renames: a reader sees
//! the old object or the new one. What was answered to is on the disk.

mod change;
mod list;

pub use change::{Condition, PutOutcome};

use crate::{Body, Error, FileBody, Response, media_type};
use bytes::Bytes;
use edgeweir_model::{BucketId, BucketName, ObjectKey, Timestamp};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED},
};
use parking_lot::Mutex;
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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
    /// The key ends with a slash, as folders do.
    #[error("the key ends with a slash: objects are no folders, which come by themselves")]
    FolderName,
    /// A segment of the key is longer than the name of a file may be.
    #[error("a segment of the key is longer than {NAME} bytes")]
    NameTooLong,
    /// The client broke off.
    #[error("the upload broke off")]
    Aborted,
    /// The upload is larger than what it said or may be.
    #[error("the upload is larger than allowed")]
    TooLarge,
    /// What the change was to be made on the condition of is not so.
    #[error("the condition of the change does not hold")]
    ConditionFailed,
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
    /// Held while a condition is looked at and the change made: changes of objects come one after the other.
    changes: Arc<Mutex<()>>,
    /// Makes a change in a folder last.
    sync: fn(&OwnedFd) -> Result<(), Errno>,
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

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
            changes: Arc::default(),
            sync: |folder| rustix::fs::fsync(folder),
        })
    }

    /// The same with another way to make the change of an object last, for tests of one that fails.
    #[must_use]
    #[doc(hidden)]
    pub fn syncing(self, sync: fn(&OwnedFd) -> Result<(), Errno>) -> Self {
        Self { sync, ..self }
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
        blocking(move || storage.stat(&path, &key)).await
    }

    /// What there is of an object.
    fn stat(&self, path: &str, key: &ObjectKey) -> Result<Option<ObjectInfo>, LocalError> {
        let file = match self.open_beneath(path, OFlags::PATH | OFlags::NOFOLLOW) {
            // No object; where one is to be put there, that tells why it cannot be.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => return Ok(None),
            other => other?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let is_object = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_object.then(|| info(key.clone(), &stat)))
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
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(LocalError::Io(io::Error::other("the work was given up"))),
    }
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
