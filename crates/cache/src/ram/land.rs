//! From what a writer brings to what is stored.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use base::Instant;
use sys::arena::{GRANULE, PIECE_MAX};

use crate::Key;
use crate::alternate::{Alternate, Entry, Hit, RecordCost, Tags};
use crate::body::{Body, Fragment};
use crate::budget::{Charge, footprint_of, footprint_shared};
use crate::flight::Term;
use crate::ram::Inside;
use crate::ram::fill::Fill;
use crate::ram::shard::{Shard, Tide};
use crate::ram::tags::TagIndex;
use crate::store::Reason;
use crate::write::{Kept, Rest};

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
    /// Bytes of the stream's charge that were for a body that did not come so.
    pub(crate) unused: u64,
    pub(crate) now: Instant,
}

impl Inside {
    /// Takes more of a body in. `taken` is told of each fragment it was made.
    pub(crate) fn append(
        &self,
        (fill, term): (&Arc<Fill>, Term),
        rest: &mut Rest,
        bytes: &[u8],
        now: Instant,
        taken: &mut dyn FnMut(&Fragment),
    ) -> Kept {
        if matches!(rest, Rest::Short(room) if room.capacity() == bytes.len())
            && let Rest::Short(room) = std::mem::replace(rest, Rest::Nowhere)
            && let Some(body) = room.fill(bytes)
        {
            return append_whole((fill, term), Fragment::new(body), now, taken);
        }
        let unused = if let Rest::Long(_) = rest { 0 } else { rest.give_up() };
        let mut flight = fill.lock();
        let followers = flight.followers();
        let Some(stream) = flight.stream(term) else { return Kept::No(Reason::HandedOver) };
        stream.charge.shrink(unused);
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
            bytes = self.append_large((fill, term), rest, bytes, (left, now), taken);
            if bytes.is_empty() {
                return Kept::Yes;
            }
        }
        *rest = Rest::Nowhere;
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
        rest: &mut Rest,
        mut bytes: &'a [u8],
        (left, now): (u64, Instant),
        each: &mut dyn FnMut(&Fragment),
    ) -> &'a [u8] {
        let mut left = usize::try_from(left).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            if !matches!(rest, Rest::Long(tail) if tail.room() > 0) {
                *rest = self.large_piece(left.clamp(GRANULE, PIECE_MAX)).map_or(Rest::Nowhere, Rest::Long);
            }
            let Rest::Long(tail) = rest else { return bytes };
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
        stream.charge.shrink(landing.unused);
        let (total, expected) = (stream.total, stream.expected);
        let short = !landing.partial && expected.is_some_and(|expected| expected != total);
        let outcome = match stream.not_kept {
            _ if short => Err(Reason::Incomplete),
            Some(reason) => Err(reason),
            None => {
                let body = stream.single().cloned().ok_or_else(|| stream.fragments());
                Ok((body, Arc::clone(&stream.charge), (Arc::clone(&stream.metadata), stream.tags.clone())))
            }
        };
        drop(flight);
        let partial = landing.partial;
        let stored = outcome.and_then(|(body, charge, head)| {
            let complete = if partial { expected } else { Some(total) };
            let body = match body {
                Ok(one) => Body::of_one(one, complete, charge),
                Err(fragments) => {
                    let fragments = self.joined(fragments, &charge, total);
                    Body::new(fragments, complete, charge)
                }
            };
            self.land(fill, (metadata, head), body, replaces, &landing)
        });
        if stored.is_err() {
            self.unregister(fill);
        }
        let mut flight = fill.lock();
        let wakes = if short || partial {
            flight.vacate(term)
        } else {
            flight.finish(term, stored.as_ref().ok().map(|alternate| &alternate.body))
        };
        drop(flight);
        wakes.unwrap_or_default().wake();
        if stored.is_err() {
            self.cell(fill.key).lock().counts.not_stored += 1;
        }
        stored.map(|_| ())
    }

    /// Makes one fragment of several short ones, if there is room to do so.
    fn joined(&self, fragments: Vec<Fragment>, charge: &Charge, total: u64) -> Vec<Fragment> {
        if fragments.len() < 2 || total > JOINED_MAX {
            return fragments;
        }
        let Ok(len) = usize::try_from(total) else { return fragments };
        if !self.make_room(footprint_shared(len)) {
            return fragments;
        }
        charge.absorb(footprint_shared(len));
        let mut joined: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        if let Some(mut rest) = Arc::get_mut(&mut joined) {
            for fragment in &fragments {
                let (here, after) = rest.split_at_mut(fragment.len());
                here.copy_from_slice(fragment);
                rest = after;
            }
        }
        charge.shrink(fragments.iter().map(Fragment::heap_bytes).sum());
        vec![Fragment::new(joined)]
    }

    /// Puts what has come into the table, and takes its fetch out. `head` is charged with the body; `metadata`, in place
    /// of the head's, is not.
    fn land(
        &self,
        fill: &Arc<Fill>,
        (metadata, head): (Option<Arc<[u8]>>, Charged),
        body: Body,
        replaces: &dyn Fn(&[u8]) -> bool,
        landing: &Landing,
    ) -> Result<Arc<Alternate>, Reason> {
        let (since, now, key, (head, tags)) = (landing.since, landing.now, fill.key, head);
        let charged = record_bytes(&head, &tags);
        let (metadata, cost) = match metadata {
            None => (head, RecordCost::WithBody(charged)),
            Some(metadata) => {
                let own = self.reserve(record_bytes(&metadata, &tags)).ok_or(Reason::NoRoom)?;
                body.outlive(charged);
                (metadata, RecordCost::Own(own))
            }
        };
        let tide = self.tide();
        let (stored, stale_marks) = (now, AtomicU32::new(0));
        let alternate = Arc::new(Alternate { metadata, body, tags, stored, id: tide.stamp, stale_marks, cost });
        let most = self.options.alternates_max.max(1);
        let concerned = |alternate: &Alternate| self.purges.concerns(since, key, &alternate.tags);
        let arrange = |stored: &[Arc<Alternate>]| {
            if stored.is_empty() {
                return Some(Entry::One(Arc::clone(&alternate)));
            }
            let kept = stored.iter().filter(|one| !replaces(&one.metadata));
            let mut alternates: Vec<_> = kept.map(Arc::clone).collect();
            // The oldest are in front.
            alternates.drain(..(alternates.len() + 1).saturating_sub(most));
            alternates.push(Arc::clone(&alternate));
            Entry::of(alternates)
        };
        let mut over = None;
        self.change_alternates(key, Some(tide), &concerned, &alternate, &arrange, &mut |shard| {
            shard.counts.stored += 1;
            shard.declined.forget(key, Some(fill.lane));
            over = fill.take_out_of(shard);
        })?;
        // What leaves the table is dropped after the lock.
        drop(over);
        Ok(alternate)
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
            cost: RecordCost::Own(charge),
        });
        let concerned =
            |alternate: &Alternate| since.is_some_and(|since| self.purges.concerns(since, hit.key, &alternate.tags));
        let arrange = |stored: &[Arc<Alternate>]| {
            let at = stored.iter().position(|one| one.id == old.id)?;
            let mut alternates = stored.to_vec();
            // A mark that was set after the hit was found says something about the time after; it stays.
            let marked_since = stored[at].marks().saturating_sub(hit.marks);
            alternate.stale_marks.store(marked_since, std::sync::atomic::Ordering::Relaxed);
            alternates[at] = Arc::clone(&alternate);
            Entry::of(alternates)
        };
        let mut count = |shard: &mut Shard| shard.counts.refreshed += 1;
        self.change_alternates(hit.key, None, &concerned, &alternate, &arrange, &mut count).is_ok()
    }

    /// Replaces the alternates of a key by what `arrange` makes of them, provided nobody changed them meanwhile; else
    /// it is tried again. `unseen`: it is likely that nothing is there, and first tried without looking. `concerned` says
    /// under the lock whether a purge came in between; `then` is called under it when all went well.
    fn change_alternates(
        &self,
        key: Key,
        mut unseen: Option<Tide>,
        concerned: &dyn Fn(&Alternate) -> bool,
        new: &Alternate,
        arrange: &Arrange<'_>,
        then: &mut dyn FnMut(&mut Shard),
    ) -> Result<(), Reason> {
        let cell = self.cell(key);
        let mut grown: Option<Charge> = None;
        for _ in 0..ATTEMPTS_MAX {
            let unseen = unseen.take();
            let (current, growth) = match unseen {
                Some(_) => (None, 0),
                None => {
                    let guard = cell.lock();
                    let current = guard.table.peek(key).map(|stored| (stored.entry.clone(), stored.version));
                    let growth = if current.is_some() { 0 } else { guard.table.growth() };
                    (current, growth)
                }
            };
            let (current, version) = current.map_or((None, 0), |(entry, version)| (Some(entry), version));
            let entry = arrange(current.as_ref().map_or(&[], Entry::alternates)).ok_or(Reason::Contended)?;
            if growth > 0 && grown.is_none() {
                grown = Some(self.reserve(growth).ok_or(Reason::NoRoom)?);
                // Making room may have changed everything.
                continue;
            }
            drop(current);
            let tide = unseen.unwrap_or_else(|| self.tide());
            let changed = cell.change(&self.totals, |shard| {
                if concerned(new) {
                    return Err((Some(Reason::Purged), entry));
                }
                if shard.version(key) != version {
                    return Err((None, entry));
                }
                if version == 0 && shard.table.growth() > 0 {
                    let growth = shard.table.growth();
                    let Some(charge) = grown.take_if(|grown| grown.bytes() == growth) else {
                        return Err((None, entry));
                    };
                    shard.structure.absorb(charge.release());
                }
                then(shard);
                Ok(shard.put(key, entry, tide.stamp, tide))
            });
            match changed {
                Ok((replaced, known)) => {
                    self.learn(known, new.bytes());
                    drop(replaced);
                    return Ok(());
                }
                Err((Some(reason), _)) => return Err(reason),
                Err((None, _)) => {
                    // The shard grew meanwhile, or needs to: find out anew.
                    grown = None;
                }
            }
        }
        Err(Reason::Contended)
    }
}

/// The whole body at once, in memory that is paid for.
fn append_whole(
    (fill, term): (&Arc<Fill>, Term),
    body: Fragment,
    now: Instant,
    taken: &mut dyn FnMut(&Fragment),
) -> Kept {
    let len = body.len() as u64;
    taken(&body);
    let wakes = fill.lock().push(term, Some(body), len, 0, now);
    match wakes {
        Some(wakes) => {
            wakes.wake();
            Kept::Yes
        }
        // Its client has it all the same.
        None => Kept::No(Reason::HandedOver),
    }
}

/// A record and its tags, which are charged with their body.
type Charged = (Arc<[u8]>, Tags);

/// What is to lie under a key, from what lies there now; nothing to leave it alone.
type Arrange<'a> = dyn Fn(&[Arc<Alternate>]) -> Option<Entry> + 'a;

/// What an alternate takes beside its body.
pub(crate) fn record_bytes(metadata: &[u8], tags: &Tags) -> u64 {
    let tag_bytes = if tags.is_empty() { 0 } else { footprint_shared(tags.bytes()) };
    let links = tags.iter().count() as u64 * TagIndex::LINK_BYTES;
    footprint_of::<Alternate>() + footprint_shared(metadata.len()) + tag_bytes + links
}
