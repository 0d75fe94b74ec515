//! What must hold of the servers that several threads judge, looked at after each step of the world.
//!
//! The model knows every failure, since it is the script that tells them, and every probe, since it is the script's servers
//! that are asked. [`Model::look`] compares what it knows with what the threads hold.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::Instant;

use super::super::super::judge::{Standing, Verdict};
use super::super::super::{Server, State, probe};
use super::{Host, RETRY_MAX};
use crate::pool::Pool;

/// Keys of which each thread is asked where they live.
const KEYS: u32 = 8;
/// What the network and the turns of threads take at most, where nobody sleeps.
const SLACK: Duration = Duration::from_millis(15);
/// How long one question may take in these worlds, connecting included.
pub(super) const QUESTION_MAX: Duration = Duration::from_millis(400);
/// How long a thread may take to ask a server that a plan brings, from its first look at it.
const NEW_MAX: Duration = Duration::from_secs(1);
/// How often house is kept: whoever has lost what it waited for looks again then.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// What the process has found of one server.
struct Judged {
    standing: Arc<Standing>,
    verdict: Verdict,
    in_row: u32,
    /// When it came to this verdict.
    since: Instant,
    /// The script has given a reason to eject it.
    may_go_out: bool,
    /// A plan that is on its way ejects it, since it is down: it has been left alone already.
    by_plan: bool,
    /// So it was, or it was new.
    is_asked_soon: bool,
    /// An order brought it back, whoever was asking it then.
    by_hand: bool,
    /// When it went out, a question may have been under way.
    is_asked_already: bool,
}

/// A server as one thread has it.
struct Seen {
    state: State,
    since: Instant,
}

/// The times between the questions to a server that is out.
struct Pauses {
    /// When it was asked last, or came to be one that is.
    from: Instant,
    /// The first of the two.
    is_asked: bool,
    /// Until then what a thread began to ask before that may come.
    early_until: Instant,
    /// The shortest configured time since, and now.
    since: Duration,
    now: Duration,
    /// The longest configured time now, and when it is asked at the latest.
    most: Duration,
    latest: Instant,
}

/// See the module.
pub(super) struct Model {
    hosts: Vec<Rc<Host>>,
    /// The longest time that a thread does not run.
    sleep_max: Duration,
    judged: BTreeMap<usize, Judged>,
    seen: BTreeMap<(usize, String), Seen>,
    pauses: BTreeMap<String, Pauses>,
    /// By thread and name: who is out by hand there.
    pub(super) held: BTreeSet<(usize, String)>,
    /// Since when threads disagree about a key, or about a server.
    apart: BTreeMap<String, Instant>,
    /// When a thread last had no such server.
    absent: BTreeMap<String, Instant>,
    /// When an order was on its way last, or anything was ejected or came back.
    disturbed: Instant,
    /// When an order was on its way last.
    ordered: Instant,
    /// Who is taken back by hand now, by which order, and those orders that have done so already.
    restores: Option<(String, u64)>,
    restored: BTreeSet<(String, u64)>,
    pub(super) ejections: u64,
    pub(super) returns: u64,
    pub(super) probes: u64,
    pub(super) wrong: Vec<String>,
}

impl Model {
    pub(super) fn new(hosts: Vec<Rc<Host>>, sleep_max: Duration) -> Self {
        Self {
            hosts,
            sleep_max,
            judged: BTreeMap::new(),
            seen: BTreeMap::new(),
            pauses: BTreeMap::new(),
            held: BTreeSet::new(),
            apart: BTreeMap::new(),
            absent: BTreeMap::new(),
            disturbed: Instant::ORIGIN,
            ordered: Instant::ORIGIN,
            restores: None,
            restored: BTreeSet::new(),
            ejections: 0,
            returns: 0,
            probes: 0,
            wrong: Vec::new(),
        }
    }

    /// How long threads may differ about a server when nothing is on its way to them, after the last verdict: until each
    /// has had a turn.
    fn followed_within(&self) -> Duration {
        self.sleep_max + SLACK
    }

    /// How long a server may wait for a question when so long is configured.
    fn longest_pause(&self) -> impl Fn(Duration) -> Duration + use<> {
        let late = QUESTION_MAX + self.sleep_max * 4 + TICK + SLACK;
        // Whoever sleeps longer than connecting may take has not asked, and waits again.
        let tries = if self.sleep_max.is_zero() { 1 } else { 2 };
        move |most| (most + most / 8 + late) * tries
    }

    fn host(&self, name: &str) -> Rc<Host> {
        let found = self.hosts.iter().find(|host| host.name() == name);
        Rc::clone(found.expect("every server is one of the script's"))
    }

    fn judged(&mut self, server: &Server) -> &mut Judged {
        let standing = Arc::clone(server.standing());
        let new = || Judged {
            verdict: standing.verdict(),
            since: Instant::ORIGIN,
            in_row: 0,
            may_go_out: false,
            by_plan: false,
            is_asked_soon: false,
            by_hand: false,
            is_asked_already: false,
            standing: Arc::clone(&standing),
        };
        self.judged.entry(Arc::as_ptr(&standing).addr()).or_insert_with(new)
    }

    /// Something that says that it is not well has been told of it. Says whether it should be out now.
    pub(super) fn failed(&mut self, server: &Server, limit: u32) -> bool {
        let judged = self.judged(server);
        judged.in_row += 1;
        judged.may_go_out |= judged.in_row >= limit;
        judged.in_row >= limit
    }

    /// So many requests were not answered in time. Says whether it is to be ejected.
    pub(super) fn missed(&mut self, server: &Server, count: u32, limit: u32) -> bool {
        let judged = self.judged(server);
        judged.in_row += count;
        let over = judged.in_row >= limit;
        if over {
            judged.in_row = limit - 1;
        }
        over
    }

    pub(super) fn succeeded(&mut self, server: &Server) {
        self.judged(server).in_row = 0;
    }

    /// There is a reason to eject it, whatever was counted.
    pub(super) fn may_go_out(&mut self, server: &Server) {
        self.judged(server).may_go_out = true;
    }

    /// An order takes it back on a thread, until [`Self::is_restored`]; on one of them what was counted is forgiven.
    pub(super) fn restores(&mut self, server: &Server, order: u64, forgives: bool) {
        self.restores = Some((server.name().to_owned(), order));
        let judged = self.judged(server);
        if forgives && (server.state.get() != State::Well || !matches!(judged.verdict, Verdict::Open | Verdict::Fit)) {
            judged.in_row = 0;
        }
    }

    pub(super) fn is_restored(&mut self) {
        self.restores = None;
    }

    pub(super) fn say(&mut self, now: Instant, wrong: String) {
        self.wrong.push(format!("{now:?}: {wrong}"));
    }

    /// A server was asked whether it is well.
    pub(super) fn asked(&mut self, host: &Host, now: Instant) {
        let longest = self.longest_pause();
        let Some(pauses) = self.pauses.get_mut(&host.name()) else { return };
        self.probes += 1;
        let is_alone = host.open.get() == 1 || now - self.disturbed <= QUESTION_MAX + self.sleep_max + SLACK;
        let (paused, least) = (now - pauses.from, pauses.since);
        (pauses.from, pauses.since, pauses.latest) = (now, pauses.now, now + longest(pauses.most));
        pauses.is_asked = true;
        if now <= pauses.early_until || now - self.ordered <= QUESTION_MAX + self.sleep_max {
            // The first of those who ask from now on may come any moment: the answer to this may not come to them.
            pauses.since = Duration::ZERO;
        }
        if !is_alone {
            self.say(now, format!("{} is asked {} questions at once", host.name(), host.open.get()));
        }
        // Threads to which it is new have asked it for themselves.
        let is_new = self.absent.get(&host.name()).is_some_and(|at| now - *at <= NEW_MAX + self.sleep_max * 2);
        // Who sleeps hears of it late.
        if paused + self.sleep_max * 2 < least && !is_new {
            self.say(now, format!("{} is asked after {paused:?}, not {least:?}", host.name()));
        }
    }

    /// Compares what the threads have, each its pool, with what they may. `on_its_way`: an order is.
    pub(super) fn look(&mut self, pools: &[Rc<Pool>], held: &BTreeSet<String>, on_its_way: bool, now: Instant) {
        if on_its_way {
            (self.disturbed, self.ordered) = (now, now);
        }
        let servers = |pool: &Rc<Pool>| pool.servers().to_vec();
        for server in pools.iter().flat_map(servers) {
            self.look_at_verdict(&server, now);
            let by_plan = on_its_way && (server.is_down() || self.judged(&server).by_plan);
            self.judged(&server).by_plan = by_plan;
        }
        for (thread, pool) in pools.iter().enumerate() {
            self.seen
                .retain(|(on, name), _| *on != thread || pool.servers().iter().any(|server| server.name() == name));
            for server in pool.servers() {
                self.look_at_state(thread, server, held, now);
            }
        }
        self.look_at_pauses(pools, on_its_way, now);
        self.look_for_agreement(pools, on_its_way, now);
    }

    fn look_at_verdict(&mut self, server: &Server, now: Instant) {
        if server.standing.get().is_none() && server.told().standing.get().is_none() {
            return;
        }
        let host = self.host(server.name());
        let restores = self.restores.clone().filter(|(name, _)| name == server.name());
        let question_max = QUESTION_MAX + self.sleep_max;
        let judged = self.judged(server);
        let (was, is) = (std::mem::replace(&mut judged.verdict, judged.standing.verdict()), judged.standing.verdict());
        if was == is {
            return;
        }
        let (since, in_row) = (judged.since, judged.in_row);
        // Whoever is out because nobody else could take its keys was so before.
        if was != Verdict::New || is == Verdict::Fit {
            judged.since = now;
        }
        let counted = judged.standing.count(0);
        let may_go_out = std::mem::take(&mut judged.may_go_out);
        if is != Verdict::Fit {
            judged.is_asked_soon = was == Verdict::New || (judged.by_plan && !may_go_out);
            judged.is_asked_already = judged.is_asked_soon || (judged.by_hand && now - since <= question_max);
        }
        let may_go_out = may_go_out || judged.by_plan;
        // Threads on which it was down were asking it already.
        let earlier = if judged.is_asked_soon || judged.by_plan { QUESTION_MAX } else { Duration::ZERO };
        let wrong = match (was, is) {
            (Verdict::Open | Verdict::Fit, Verdict::Out | Verdict::Loads) => {
                self.ejections += 1;
                self.disturbed = now;
                (!may_go_out).then_some("is ejected for nothing")
            }
            (Verdict::New | Verdict::Out | Verdict::Loads, Verdict::Fit) => {
                judged.in_row = 0;
                self.returns += 1;
                self.disturbed = now;
                let has_answered = host.well_asked_at.get().is_some_and(|at| at + earlier >= since);
                let by_hand = restores.is_some_and(|order| self.restored.insert(order));
                self.judged(server).by_hand = by_hand;
                if !has_answered && !by_hand {
                    Some("is back, and has answered nothing")
                } else {
                    (was != Verdict::New && counted != 0).then_some("is back, and not forgiven")
                }
            }
            (Verdict::Open, Verdict::New | Verdict::Fit) | (Verdict::New, Verdict::Out) => None,
            _ => Some("is judged as it cannot be"),
        };
        if let Some(wrong) = wrong {
            self.say(now, format!("{} {wrong}: {was:?} to {is:?}, {in_row} failures", server.name()));
        }
    }

    fn look_at_state(&mut self, thread: usize, server: &Server, held: &BTreeSet<String>, now: Instant) {
        let place = (thread, server.name().to_owned());
        let (state, name) = (server.state.get(), server.name());
        let (is_told, is_to_be) = (self.held.contains(&place), held.contains(name));
        if is_told && is_to_be && state != State::Held {
            self.say(now, format!("{name} is held and {state:?} on thread {thread}"));
        }
        if !is_told && !is_to_be && state == State::Held {
            self.say(now, format!("{name} is held by nobody on thread {thread}"));
        }
        let seen = self.seen.entry(place).or_insert(Seen { state, since: now });
        let (was, since) = (seen.state, seen.since);
        if was == state {
            return;
        }
        *seen = Seen { state, since: now };
        let by_hand = self.restores.as_ref().is_some_and(|(restored, _)| restored == name);
        let verdict = server.standing().verdict();
        let is_allowed = match (was, state) {
            (State::Ejected | State::New, State::Well) => {
                let has_answered = self.host(name).well_asked_at.get().is_some_and(|at| at >= since);
                let judged = self.judged(server);
                // What this thread asked may be answered after another has taken it back: that forgives as well.
                if has_answered && judged.standing.count(0) == 0 {
                    judged.in_row = 0;
                }
                verdict == Verdict::Fit
            }
            (State::Down(_), State::Well) => {
                if !by_hand {
                    self.judged(server).in_row = 0;
                }
                by_hand || self.host(name).well_asked_at.get().is_some_and(|at| at >= since)
            }
            _ => true,
        };
        if !is_allowed {
            self.say(now, format!("{name} is {was:?}, then {state:?} on thread {thread} while it is {verdict:?}"));
        }
    }

    /// Nobody who waits for an answer is forgotten, and none is asked too often.
    fn look_at_pauses(&mut self, pools: &[Rc<Pool>], on_its_way: bool, now: Instant) {
        for host in self.hosts.clone() {
            let name = host.name();
            let threads: Vec<_> =
                pools.iter().filter_map(|pool| pool.servers().iter().find(|server| server.name() == name)).collect();
            if threads.len() < pools.len() {
                self.absent.insert(name.clone(), now);
            }
            let is_out =
                |server: &&Rc<Server>| server.standing.get().is_some_and(|standing| standing.verdict().is_out());
            // In a pool that ejects nobody each thread asks for itself.
            let ejects = threads.iter().all(|server| server.plan.source.auto_eject_hosts && !server.is_down());
            let awaited = threads.iter().filter(|server| server.state.get() == State::Ejected).filter(|s| is_out(s));
            if !ejects || awaited.count() == 0 {
                self.pauses.remove(&name);
                continue;
            }
            let configured = threads.iter().map(|server| server.plan.source.server_retry_timeout);
            let (least, most) = configured
                .fold((Duration::MAX, probe::INTERVAL_MAX), |(least, most), time| (least.min(time), most.max(time)));
            let judged = self.judged(threads[0]);
            let (is_new, is_asked_already) = (judged.since == now, judged.is_asked_already);
            let longest = self.longest_pause();
            let pauses = self.pauses.entry(name.clone()).or_insert(Pauses {
                from: now,
                is_asked: false,
                early_until: if is_asked_already { now + QUESTION_MAX + self.sleep_max } else { now },
                since: if is_new && !is_asked_already { least } else { Duration::ZERO },
                now: least,
                most,
                // What was asked before is asked on.
                latest: now + longest(if is_new { most } else { RETRY_MAX }),
            });
            (pauses.now, pauses.since) = (least, pauses.since.min(least));
            if on_its_way && pauses.is_asked && now - pauses.from <= QUESTION_MAX + self.sleep_max {
                // Whoever asks may be another now, to whom the answer does not come.
                pauses.since = Duration::ZERO;
            }
            // A pause that began when less was configured is no longer for that; one that is longer than it may be now ends.
            pauses.latest = match pauses.most.cmp(&most) {
                Ordering::Less => pauses.latest.max(pauses.from + longest(most)),
                Ordering::Equal => pauses.latest,
                Ordering::Greater => pauses.latest.min(now + longest(most)),
            };
            pauses.most = most;
            if now > pauses.latest && host.open.get() == 0 && !on_its_way {
                pauses.latest = now + longest(most);
                let paused = now - pauses.from;
                self.say(now, format!("{name} has not been asked for {paused:?}"));
            }
        }
    }

    /// The threads differ about no server and about no key for longer than they may.
    fn look_for_agreement(&mut self, pools: &[Rc<Pool>], on_its_way: bool, now: Instant) {
        if on_its_way {
            return self.apart.clear();
        }
        let live = |name: &str, pool: &Rc<Pool>| {
            pool.servers().iter().find(|server| server.name() == name).is_some_and(|server| server.is_live())
        };
        let home =
            |key: &str, pool: &Rc<Pool>| pool.pick(key.as_bytes()).map(|at| pool.servers()[at].name().to_owned());
        let differ =
            |what: &dyn Fn(&Rc<Pool>) -> Option<String>| pools.windows(2).any(|two| what(&two[0]) != what(&two[1]));
        let mut apart = BTreeSet::new();
        for host in &self.hosts {
            if differ(&|pool| Some(live(&host.name(), pool).to_string())) {
                apart.insert(host.name());
            }
        }
        for key in (0..KEYS).map(|key| format!("key {}", key * 7_919)) {
            if differ(&|pool| home(&key, pool)) {
                apart.insert(key);
            }
        }
        self.apart.retain(|what, _| apart.contains(what));
        let within = self.followed_within();
        for what in apart {
            let since = *self.apart.entry(what.clone()).or_insert(now);
            // Who has not heard of one verdict when there is another owes its obedience to that alone.
            if now - since.max(self.disturbed) > within {
                self.apart.insert(what.clone(), now);
                let states = pools.iter().map(|pool| format!("{:?}", pool.states())).collect::<Vec<_>>();
                self.say(now, format!("threads differ about {what} for {within:?}: {}", states.join(" ")));
            }
        }
    }
}
