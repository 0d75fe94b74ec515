//! The resources of a world, their versions and terms, and the checker.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use base::{Instant, Rng};

/// The terms under which a resource may be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) max_age_s: u64,
    pub(crate) while_revalidate_s: u64,
    pub(crate) if_error_s: u64,
    pub(crate) no_store: bool,
    pub(crate) no_cache: bool,
    pub(crate) must_revalidate: bool,
    /// It varies with `X-Kind`.
    pub(crate) varies: bool,
    /// It has an entity tag.
    pub(crate) tagged: bool,
}

impl Terms {
    fn drawn(rng: &mut Rng) -> Self {
        Self {
            max_age_s: rng.below(20),
            while_revalidate_s: if rng.one_in(3) { rng.below(20) } else { 0 },
            if_error_s: if rng.one_in(3) { rng.below(60) } else { 0 },
            no_store: rng.one_in(6),
            no_cache: rng.one_in(8),
            must_revalidate: rng.one_in(5),
            varies: rng.one_in(3),
            tagged: !rng.one_in(4),
        }
    }

    /// The lines that say so.
    pub(crate) fn lines(&self) -> String {
        let mut lines = format!("Cache-Control: max-age={}", self.max_age_s);
        for (is, name) in
            [(self.no_store, "no-store"), (self.no_cache, "no-cache"), (self.must_revalidate, "must-revalidate")]
        {
            if is {
                lines += &format!(", {name}");
            }
        }
        for (secs, name) in [(self.while_revalidate_s, "stale-while-revalidate"), (self.if_error_s, "stale-if-error")] {
            if secs > 0 {
                lines += &format!(", {name}={secs}");
            }
        }
        lines += "\r\n";
        if self.varies {
            lines += "Vary: X-Kind\r\n";
        }
        lines
    }

    /// How long after it was replaced a version may still be served. `validated`: to who asked for validation.
    fn grace(&self, validated: bool) -> Duration {
        let stale = if self.must_revalidate || self.no_cache {
            0
        } else if validated {
            self.if_error_s
        } else {
            self.while_revalidate_s.max(self.if_error_s)
        };
        let fresh = if self.no_cache || (validated && stale == 0) { 0 } else { self.max_age_s };
        Duration::from_secs(if self.no_store { 0 } else { fresh + stale })
    }
}

/// One resource of the origin.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) terms: Terms,
    /// Since when each version is there; the last is the current one.
    since: Vec<Instant>,
    /// Older versions were purged, or changed, before this moment: who asks later does not get them.
    floor: (u64, Instant),
    /// What is served to who asks later was there at this moment or afterwards.
    purged: Option<Instant>,
}

/// What a request is for and how it asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) resource: usize,
    pub(crate) at: Instant,
    /// It says `no-cache`.
    pub(crate) validated: bool,
    /// What was known when it asked.
    pub(crate) floor: (u64, Instant),
    pub(crate) purged: Option<Instant>,
}

/// All of a world.
pub(crate) struct Ledger {
    pub(crate) resources: RefCell<Vec<Resource>>,
    pub(crate) wrong: RefCell<Vec<String>>,
    rng: RefCell<Rng>,
    length_max: u64,
    pub(crate) calm: bool,
    /// Connections may fall silent in this world.
    pub(crate) cuts: bool,
    pub(crate) clients_over: Cell<u64>,
    pub(crate) whole: Cell<u64>,
    pub(crate) own: Cell<u64>,
    pub(crate) broken: Cell<u64>,
    pub(crate) unchanged: Cell<u64>,
    /// Requests that reached the origin.
    pub(crate) fetched: Cell<u64>,
}

pub(crate) fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Ledger {
    pub(crate) fn new(rng: &mut Rng, calm: bool, cuts: bool, segment_max: u64) -> Self {
        let count = 1 + rng.below(5);
        let resources = (0..count).map(|_| Resource {
            terms: Terms::drawn(rng),
            since: vec![Instant::ORIGIN],
            floor: (0, Instant::ORIGIN),
            purged: None,
        });
        let resources = RefCell::new(resources.collect());
        let most = if rng.one_in(8) { 1 << 17 } else { 1 << 12 };
        Self {
            resources,
            wrong: RefCell::default(),
            rng: RefCell::new(Rng::new(rng.next_u64())),
            length_max: (segment_max * 64).clamp(256, most),
            calm,
            cuts,
            clients_over: Cell::default(),
            whole: Cell::default(),
            own: Cell::default(),
            broken: Cell::default(),
            unchanged: Cell::default(),
            fetched: Cell::default(),
        }
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    pub(crate) fn count(&self) -> usize {
        self.resources.borrow().len()
    }

    pub(crate) fn wrong(&self, what: impl std::fmt::Display) {
        self.wrong.borrow_mut().push(what.to_string());
    }

    pub(crate) fn terms(&self, resource: usize) -> Option<Terms> {
        self.resources.borrow().get(resource).map(|resource| resource.terms)
    }

    /// The version that is there now.
    pub(crate) fn current(&self, resource: usize) -> u64 {
        self.resources.borrow().get(resource).map_or(0, |resource| resource.since.len() as u64 - 1)
    }

    /// A new version; answers with its number.
    pub(crate) fn change(&self, resource: usize, now: Instant) -> u64 {
        if let Some(resource) = self.resources.borrow_mut().get_mut(resource) {
            resource.since.push(now);
        }
        self.current(resource)
    }

    pub(crate) fn change_one(&self, now: Instant) {
        let resource = self.draw(|rng| rng.below(self.count() as u64));
        self.change(usize::try_from(resource).unwrap(), now);
    }

    /// A request as it is about to be made.
    pub(crate) fn ask(&self, resource: usize, validated: bool, at: Instant) -> Ask {
        let resources = self.resources.borrow();
        let Resource { floor, purged, .. } = resources[resource];
        Ask { resource, at, validated, floor, purged }
    }

    /// A client was told that an unsafe request made this version.
    pub(crate) fn changed(&self, resource: usize, version: u64, now: Instant) {
        let floor = &mut self.resources.borrow_mut()[resource].floor;
        if version > floor.0 {
            *floor = (version, now);
        }
    }

    /// A client was told that everything up to `asked`, when it asked, is purged.
    pub(crate) fn purged(&self, resource: usize, asked: Instant) {
        let purged = &mut self.resources.borrow_mut()[resource].purged;
        *purged = (*purged).max(Some(asked));
    }

    /// Bytes of a version's content.
    pub(crate) fn length(&self, resource: usize, version: u64) -> u64 {
        let order = (resource as u64 * 7 + version * 3) % u64::from(self.length_max.ilog2() + 1);
        (1 << order) - 1
    }

    /// Judges that this version was served in answer to `ask`.
    pub(crate) fn judge(&self, ask: &Ask, version: u64) {
        let resources = self.resources.borrow();
        let resource = &resources[ask.resource];
        if version >= resource.since.len() as u64 {
            self.wrong(format!("{ask:?}: version {version} was never there"));
            return;
        }
        let replaced = usize::try_from(version + 1).ok().and_then(|next| resource.since.get(next)).copied();
        let replaced = replaced.unwrap_or(Instant::FAR_FUTURE);
        let grace = resource.terms.grace(ask.validated);
        if replaced + grace < ask.at {
            let late = ask.at - replaced;
            self.wrong(format!("{ask:?}: version {version} was replaced {late:?} before; {:?}", resource.terms));
        }
        if version < ask.floor.0 {
            self.wrong(format!("{ask:?}: version {version}, after a client had changed it; {:?}", resource.terms));
        }
        if ask.purged.is_some_and(|purged| replaced < purged) {
            self.wrong(format!("{ask:?}: version {version} was gone when it was purged; {:?}", resource.terms));
        }
    }
}

/// Byte `at` of the content.
pub(crate) fn content_byte(resource: u64, version: u64, kind: u64, at: u64) -> u8 {
    let mixed = (resource + 1).wrapping_mul(0x9e37_79b9) ^ version.wrapping_mul(0x85eb_ca6b) ^ kind.wrapping_mul(97);
    (mixed ^ at.wrapping_mul(7) ^ (at >> 8)).to_le_bytes()[0]
}
