//! From what a writer brings to what is stored.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use base::Instant;
use sys::arena::{Appender, GRANULE, PIECE_MAX};

use crate::Key;
use crate::alternate::{Alternate, Entry, Hit, Tags};
use crate::body::{Body, Fragment};
use crate::budget::{Charge, footprint_of, footprint_shared};
use crate::flight::Term;
use crate::ram::Inside;
use crate::ram::fill::Fill;
use crate::ram::tags::TagIndex;
use crate::store::Reason;
use crate::write::Kept;

/// A body of several fragments that is no longer than this becomes one of one: it is sent with less work ever after.
const JOINED_MAX: u64 = 64 << 10;
/// A body of this length lies in huge pages.
const LARGE_MIN: u64 = GRANULE as u64;
/// How often a change is tried anew because another came between.
const ATTEMPTS_MAX: usize = 16;

/// What a writer knows at the end, beside the bytes.
#[derive(Debug)]
pub(crate) struct Landing {
    /// Purges before the fetch.
    pub(crate) since: u64,
    /// The body ends early.
    pub(crate) partial: bool,
    pub(crate) now: Instant,
}

impl Inside {
    /// Takes more of a body in. `taken` is told of each fragment it was made.
    pub(crate) fn append(
        &self,
        (fill, term): (&Arc<Fill>, Term),
        tail: &mut Option<Appender>,
        bytes: &[u8],
        now: Instant,
        taken: &mut dyn FnMut(&Fragment),
    ) -> Kept {
        let mut flight = fill.lock();
        let followers = flight.followers();
        let Some(stream) = flight.stream(term) else { return Kept::No(Reason::HandedOver) };
        let (total, expected, mut not_kept) = (stream.total, stream.expected, stream.not_kept);
        drop(flight);
        let len = bytes.len() as u64;
        if not_kept.is_none() && total + len > self.object_max() {
            not_kept = Some(Reason::TooLarge);
            self.decline(fill.key, fill.lane, Reason::TooLarge, now + self.options.too_large_for);
        }
        let mut bytes = bytes;
        if not_kept.is_none() && expected.unwrap_or(total + len) >= LARGE_MIN {
            let left = expected.map_or(total, |expected| expected.saturating_sub(total)).max(len);
            bytes = self.append_large((fill, term), tail, bytes, (left, now), taken);
            if bytes.is_empty() {
                return Kept::Yes;
            }
        }
        *tail = None;
        let len = bytes.len() as u64;
        let cost = footprint_shared(bytes.len());
        let mut room = not_kept.is_none() && self.make_room(cost);
        if !room {
            let reason = *not_kept.get_or_insert(Reason::NoRoom);
            // Only followers need what will not be kept, and they need the last of it.
            let window = if followers > 0 { self.options.window.0.saturating_sub(len) } else { 0 };
            let mut flight = fill.lock();
            let dropped = flight.stream(term).map(|stream| {
                stream.not_kept = Some(reason);
                stream.trim(window)
            });
            drop(flight);
            drop(dropped);
            room = followers > 0 && self.make_room(cost);
        }
        let fragment = room.then(|| Fragment::new(Arc::from(bytes)));
        fragment.iter().for_each(taken);
        let wakes = fill.lock().push(term, fragment, len, cost, now);
        match wakes {
            Some(wakes) => wakes.wake(),
            None if room => self.budget.give(cost),
            None => {}
        }
        not_kept.map_or(Kept::Yes, Kept::No)
    }

    /// Takes as much of `bytes` as it finds room for in huge pages, and answers with the rest. `left` is how much of the
    /// body there may be from here on.
    fn append_large<'a>(
        &self,
        (fill, term): (&Arc<Fill>, Term),
        tail: &mut Option<Appender>,
        mut bytes: &'a [u8],
        (left, now): (u64, Instant),
        each: &mut dyn FnMut(&Fragment),
    ) -> &'a [u8] {
        let mut left = usize::try_from(left).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            if tail.as_ref().is_none_or(|tail| tail.room() == 0) {
                *tail = self.large_piece(left.clamp(GRANULE, PIECE_MAX));
            }
            let Some(tail) = tail else { return bytes };
            let taken = tail.append(bytes);
            let fragment = Fragment::last_of(tail.piece(), taken);
            each(&fragment);
            // Superseded meanwhile: then nobody needs it, and the piece is free again with its last reference.
            let wakes = fill.lock().push(term, Some(fragment), taken as u64, 0, now);
            wakes.unwrap_or_default().wake();
            bytes = bytes.get(taken..).unwrap_or_default();
            left = left.saturating_sub(taken);
        }
        bytes
    }

    /// The body is over: stores it if it may be, then lets the followers know.
    pub(crate) fn finish(
        &self,
        fill: &Arc<Fill>,
        term: Term,
        metadata: Option<Arc<[u8]>>,
        replaces: &dyn Fn(&[u8]) -> bool,
        landing: Landing,
    ) -> Result<(), Reason> {
        let mut flight = fill.lock();
        let Some(stream) = flight.stream(term) else { return Err(Reason::HandedOver) };
        let (total, expected) = (stream.total, stream.expected);
        let short = !landing.partial && expected.is_some_and(|expected| expected != total);
        let outcome = match stream.not_kept {
            _ if short => Err(Reason::Incomplete),
            Some(reason) => Err(reason),
            None => {
                let head = (Arc::clone(&stream.metadata), stream.tags.clone());
                Ok((stream.fragments(), Arc::clone(&stream.charge), head))
            }
        };
        drop(flight);
        let partial = landing.partial;
        let stored = outcome.and_then(|(fragments, charge, (head, tags))| {
            let (fragments, charge) = self.joined(fragments, charge, total);
            let complete = if partial { expected } else { Some(total) };
            let body = Body::new(fragments, complete, charge);
            let stored = self.land(fill.key, metadata.unwrap_or(head), tags, body.clone(), replaces, &landing);
            stored.map(|()| body)
        });
        if stored.is_ok() {
            self.cell(fill.key).lock().declined.forget(fill.key, Some(fill.lane));
        }
        self.unregister(fill);
        let mut flight = fill.lock();
        let wakes =
            if short || partial { flight.vacate(term) } else { flight.finish(term, stored.as_ref().ok().cloned()) };
        drop(flight);
        wakes.unwrap_or_default().wake();
        if stored.is_err() {
            self.cell(fill.key).lock().counts.not_stored += 1;
        }
        stored.map(|_| ())
    }

    /// Makes one fragment of several short ones, if there is room to do so.
    fn joined(&self, fragments: Vec<Fragment>, charge: Arc<Charge>, total: u64) -> (Vec<Fragment>, Arc<Charge>) {
        if fragments.len() < 2 || total > JOINED_MAX {
            return (fragments, charge);
        }
        let Ok(len) = usize::try_from(total) else { return (fragments, charge) };
        let Some(charge) = self.reserve(footprint_shared(len) + footprint_of::<Charge>()) else {
            return (fragments, charge);
        };
        let mut joined: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        if let Some(mut rest) = Arc::get_mut(&mut joined) {
            for fragment in &fragments {
                let (here, after) = rest.split_at_mut(fragment.len());
                here.copy_from_slice(fragment);
                rest = after;
            }
        }
        (vec![Fragment::new(joined)], Arc::new(charge))
    }

    fn land(
        &self,
        key: Key,
        metadata: Arc<[u8]>,
        tags: Tags,
        body: Body,
        replaces: &dyn Fn(&[u8]) -> bool,
        landing: &Landing,
    ) -> Result<(), Reason> {
        let Landing { since, now, .. } = *landing;
        let charge = self.reserve(record_bytes(&metadata, &tags)).ok_or(Reason::NoRoom)?;
        let alternate = Arc::new(Alternate {
            metadata,
            body,
            tags,
            stored: now,
            id: self.stamp(),
            stale_marks: AtomicU32::new(0),
            charge,
        });
        let most = self.options.alternates_max.max(1);
        let concerned = |alternate: &Alternate| self.purges.concerns(since, key, &alternate.tags);
        self.change_alternates(key, &concerned, &alternate, &|stored| {
            let kept = stored.iter().filter(|one| !replaces(&one.metadata));
            let mut alternates: Vec<_> = kept.map(Arc::clone).collect();
            // The oldest are in front.
            alternates.drain(..(alternates.len() + 1).saturating_sub(most));
            alternates.push(Arc::clone(&alternate));
            Some(alternates)
        })?;
        self.cell(key).lock().counts.stored += 1;
        Ok(())
    }

    /// Replaces the metadata of what was found. `since`: unless a later purge concerns it.
    pub(crate) fn refresh(&self, hit: &Hit, metadata: Arc<[u8]>, since: Option<u64>) -> bool {
        let old = &hit.alternate;
        let Some(charge) = self.reserve(record_bytes(&metadata, &old.tags)) else { return false };
        let alternate = Arc::new(Alternate {
            metadata,
            body: old.body.clone(),
            tags: old.tags.clone(),
            stored: old.stored,
            id: old.id,
            stale_marks: AtomicU32::new(0),
            charge,
        });
        let concerned =
            |alternate: &Alternate| since.is_some_and(|since| self.purges.concerns(since, hit.key, &alternate.tags));
        let changed = self.change_alternates(hit.key, &concerned, &alternate, &|stored| {
            let at = stored.iter().position(|one| one.id == old.id)?;
            let mut alternates = stored.to_vec();
            // A mark that was set after the hit was found says something about the time after; it stays.
            let marked_since = stored[at].marks().saturating_sub(hit.marks);
            alternate.stale_marks.store(marked_since, std::sync::atomic::Ordering::Relaxed);
            alternates[at] = Arc::clone(&alternate);
            Some(alternates)
        });
        if changed.is_ok() {
            self.cell(hit.key).lock().counts.refreshed += 1;
        }
        changed.is_ok()
    }

    /// Replaces the alternates of a key by what `arrange` makes of them, provided nobody changed them meanwhile; else
    /// it is tried again. `concerned` says under the lock whether a purge came in between.
    fn change_alternates(
        &self,
        key: Key,
        concerned: &dyn Fn(&Alternate) -> bool,
        new: &Alternate,
        arrange: &Arrange<'_>,
    ) -> Result<(), Reason> {
        let cell = self.cell(key);
        let mut grown: Option<Charge> = None;
        for _ in 0..ATTEMPTS_MAX {
            let guard = cell.lock();
            let current = guard.table.peek(key).map(|stored| (stored.entry.clone(), stored.version));
            let growth = if current.is_some() { 0 } else { guard.table.growth() };
            drop(guard);
            let (current, version) = current.map_or((None, 0), |(entry, version)| (Some(entry), version));
            let alternates = arrange(current.as_ref().map_or(&[], Entry::alternates)).ok_or(Reason::Contended)?;
            let Some(entry) = Entry::of(alternates) else { return Err(Reason::Contended) };
            if growth > 0 && grown.is_none() {
                grown = Some(self.reserve(growth).ok_or(Reason::NoRoom)?);
                // Making room may have changed everything.
                continue;
            }
            drop(current);
            let tide = self.tide();
            let changed = cell.change(&self.totals, |shard| {
                if concerned(new) {
                    return Err(Some(Reason::Purged));
                }
                if shard.version(key) != version {
                    return Err(None);
                }
                if version == 0 && shard.table.growth() > 0 {
                    let growth = shard.table.growth();
                    let Some(charge) = grown.take_if(|grown| grown.bytes() == growth) else { return Err(None) };
                    shard.structure.absorb(charge.release());
                }
                Ok(shard.put(key, entry, tide.stamp, tide))
            });
            match changed {
                Ok((replaced, known)) => {
                    self.learn(known, new.bytes());
                    drop(replaced);
                    return Ok(());
                }
                Err(Some(reason)) => return Err(reason),
                Err(None) => {
                    // The shard grew meanwhile, or needs to: find out anew.
                    grown = None;
                }
            }
        }
        Err(Reason::Contended)
    }
}

/// What is to lie under a key, from what lies there now; nothing to leave it alone.
type Arrange<'a> = dyn Fn(&[Arc<Alternate>]) -> Option<Vec<Arc<Alternate>>> + 'a;

/// What an alternate takes beside its body.
fn record_bytes(metadata: &[u8], tags: &Tags) -> u64 {
    let tag_bytes = if tags.is_empty() { 0 } else { footprint_shared(tags.bytes()) };
    let links = tags.iter().count() as u64 * TagIndex::LINK_BYTES;
    footprint_of::<Alternate>() + footprint_shared(metadata.len()) + tag_bytes + links
}
