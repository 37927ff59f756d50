//! What the disk tier asks of the file system: one narrow trait, so that tests can have any of it fail.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::FlockOperation,
    io::{Errno, ReadWriteFlags},
};

/// The operations on files, each one system call or nearly so.
pub(crate) trait Files: Send + Sync + 'static {
    /// Makes the folder if it is missing, for this user alone, and takes its lock, which holds as long as the file.
    ///
    /// [`io::ErrorKind::WouldBlock`] when another process has it.
    fn claim(&self, dir: &Path) -> io::Result<File>;
    /// The names in the folder.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A new file; one of that name must not be there.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Opens a file to read and write, and tells its length.
    fn open(&self, path: &Path) -> io::Result<(File, u64)>;
    /// Unlinks the file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name of its folder, in place of the one that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Has the names in the folder reach the disk.
    fn sync_names(&self, dir: &Path) -> io::Result<()>;
    /// Reads at `offset` what is at hand, [`io::ErrorKind::WouldBlock`] if that is nothing. Never waits for a disk.
    fn read_now(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads at `offset`, and waits for it; 0 at the end of the file.
    fn read(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at `offset` some of `from`, which is not empty.
    fn write(&self, file: &File, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Cuts the file.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Has what was written reach the disk.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

impl Files for System {
    fn claim(&self, dir: &Path) -> io::Result<File> {
        make_folder(dir)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(lock)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is no text is not one of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    fn open(&self, path: &Path) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            // Neither a link that leads elsewhere nor a pipe that keeps us waiting.
            .custom_flags(
                (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK)
                    .bits()
                    .cast_signed(),
            )
            .open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        Ok((file, about.len()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn read_now(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read),
            // A file system that has no such reads. ENOSYS: nor has the kernel.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(into, offset)
    }

    fn write(&self, file: &File, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, from, offset)?)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Reads all of `into` at `offset`; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
pub(crate) fn read_all(files: &dyn Files, file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match files.read(file, into, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                into = &mut into[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Most buffers of one write: Linux takes 1024 (`IOV_MAX`).
const BUFFERS: usize = 1024;

/// Writes all of `from` at `offset`.
pub(crate) fn write_all(
    files: &dyn Files,
    file: &File,
    mut from: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut from, 0);
    while !from.is_empty() {
        match files.write(file, &from[..from.len().min(BUFFERS)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut from, written);
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// No space, or no more of it for us (EDQUOT, EFBIG).
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// No more files or memory for us, or for anybody: the disk is not at fault, and what it holds is well.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)
    )
}

/// Makes the tier's folder if it is missing, and closes it to other users.
pub(crate) fn make_folder(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Removes all segments of a tier that is not open; how many there were.
pub(crate) fn remove_segments(files: &dyn Files, dir: &Path) -> io::Result<usize> {
    let numbers = segments(files, dir)?;
    for number in &numbers {
        files.remove(&segment_path(dir, *number))?;
    }
    Ok(numbers.len())
}

/// Removes the oldest segment of a tier that is not open; whether there was one.
pub(crate) fn remove_oldest(files: &dyn Files, dir: &Path) -> io::Result<bool> {
    let Some(oldest) = segments(files, dir)?.into_iter().min() else {
        return Ok(false);
    };
    files.remove(&segment_path(dir, oldest)).map(|()| true)
}

/// The numbers of the segments in the folder.
pub(crate) fn segments(files: &dyn Files, dir: &Path) -> io::Result<Vec<u32>> {
    let names = files.names(dir)?;
    Ok(names.iter().filter_map(|name| segment_number(name)).collect())
}

/// The name of a segment's file.
pub(crate) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

/// The number of the segment that has this name; none for files of others.
fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_told_from_others() {
        let path = segment_path(Path::new("/d"), 42);
        assert_eq!(path, Path::new("/d/0000000042.seg"));
        for (name, number) in [
            ("0000000042.seg", Some(42)),
            ("4294967295.seg", Some(u32::MAX)),
            ("4294967296.seg", None),
            ("42.seg", None),
            ("+000000042.seg", None),
            ("0000000042.seg.new", None),
            ("journal", None),
        ] {
            assert_eq!(segment_number(name), number, "{name}");
        }
    }
}
