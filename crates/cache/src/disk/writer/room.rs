//! How the writer makes room: the oldest segment goes, and what was read of it is copied on; a disk that is full makes the
//! tier smaller.

use super::{BATCH, Item, Source, Writer};
use crate::disk::{
    files::{is_full, read_all},
    format, recovery,
    shared::Segment,
};
use std::io;

/// Fewer segments than this are no cache worth its disk.
const SEGMENTS_LEAST: u64 = 3;
/// How often space is made for one write before the disk is given up.
const ATTEMPTS: usize = 4;

impl Writer {
    /// Removes the oldest segment, and tells whether there was one. With `copy`, what was read of it goes into the open
    /// segment first: at most a third, what was read most before the rest.
    pub(super) fn evict(&mut self, copy: bool) -> io::Result<bool> {
        let Some((&number, &len)) = self.sealed.first_key_value() else {
            return Ok(false);
        };
        if copy && let Some(segment) = self.shared.segment(number) {
            self.copy_used(&segment, len / 3)?;
        }
        self.shared.index.remove_segment(number);
        self.shared.segments.write().remove(&number);
        recovery::remove(&self.shared, number)?;
        // A copy that found the disk full has removed it already.
        if let Some(len) = self.sealed.remove(&number) {
            self.sealed_bytes -= len;
            self.shared.counts.evicted_segments.add(1);
        }
        self.note_used();
        Ok(true)
    }

    fn copy_used(&mut self, segment: &Segment, third: u64) -> io::Result<()> {
        let room = self
            .shared
            .limit()
            .saturating_sub(self.sealed_bytes + self.open_bytes());
        let mut budget = third.min(room);
        let mut used = self.shared.index.used(segment.number);
        used.sort_by_key(|used| std::cmp::Reverse(used.reads));
        used.retain(|used| {
            let bytes = used.place.bytes() as u64 + format::FOOTER_ENTRY as u64;
            let fits = bytes <= budget;
            if fits {
                budget -= bytes;
            }
            fits
        });
        used.sort_by_key(|used| used.place);
        for used in used {
            let place = used.place;
            if !self.fits(place.bytes() as u64) {
                break;
            }
            let mut text = vec![0; place.bytes()];
            if read_all(&*self.shared.files, &segment.file, &mut text, place.offset()).is_err() {
                self.shared.counts.errors.add(1);
                continue;
            }
            let Some(record) = format::record(segment.salt, place.offset(), text) else {
                self.shared.counts.corrupt.add(1);
                continue;
            };
            self.add(Item {
                name: record.name,
                meta: record.meta,
                body: record.body,
                source: Source::Copy(used),
            });
            if self.batch_bytes >= BATCH {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// Removes all segments.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.take() {
            self.sealed.insert(open.segment.number, open.end);
            self.sealed_bytes += open.end;
        }
        while self.evict(false)? {}
        Ok(())
    }

    /// Does what needs space on the disk; when it is full, makes the tier smaller and tries again.
    pub(super) fn with_space<T>(&mut self, mut act: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let mut attempts = 1;
        loop {
            match act(self) {
                Err(error) if is_full(&error) && attempts < ATTEMPTS => {
                    self.shared.counts.errors.add(1);
                    if !self.make_smaller()? {
                        return Err(error);
                    }
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    /// Takes what the files hold for all that there is, and gives some of it back. Tells whether enough is left.
    fn make_smaller(&mut self) -> io::Result<bool> {
        if let Some(open) = &self.open {
            self.shared.files.truncate(&open.segment.file, open.end)?;
        }
        let limit = self.shared.used().min(self.shared.limit());
        if limit < self.shared.segment_bytes * SEGMENTS_LEAST {
            return Ok(false);
        }
        tracing::warn!(
            bytes = limit,
            "no space is left for the disk tier: it makes do with less"
        );
        self.shared.set_limit(limit);
        self.full_at = Some((self.shared.config.clock)());
        while self.sealed_bytes + self.shared.headroom() > limit && self.evict(false)? {}
        Ok(true)
    }
}
