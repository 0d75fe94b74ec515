//! Idle connections to servers, ready for the next request.
//!
//! Each event thread keeps its own, newest on top: a connection that was just used is the least likely to have been
//! closed. One that ends, or speaks out of turn, or was idle too long, leaves by itself. What a thread has beyond its
//! own use goes, unregistered, to a bounded stack that all threads share, from which a thread that has none takes
//! before it connects anew.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Instant;
use event::{Cont, Continuation, Detached, Event, Tcp, Thread};
use rustc_hash::FxHashMap;

/// A thread keeps this many idle connections to one server, and twice those in use, before it donates one.
const KEPT_ALWAYS: usize = 8;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Idle connections of one thread, to all servers together.
    pub idle_per_thread: usize,
    /// Idle connections on the shared stack.
    pub idle_shared: usize,
    /// An idle connection is closed after this long. Should be below the server's own limit.
    pub keep_alive: Duration,
    /// Threads that share: with one alone nothing is donated.
    pub threads: usize,
}

struct Donated {
    connection: Detached,
    since: Instant,
    requests: u64,
}

/// The stack that all threads share. The lock is held for a push or a pop only; sockets are closed outside it.
#[derive(Default)]
pub struct SharedPool {
    stacks: Mutex<(FxHashMap<SocketAddr, Vec<Donated>>, usize)>,
}

impl std::fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedPool({})", self.len())
    }
}

impl SharedPool {
    /// Connections on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the connection back when the stack is full.
    fn push(&self, address: SocketAddr, donated: Donated, limit: usize) -> Option<Donated> {
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        if stacks.1 >= limit {
            return Some(donated);
        }
        stacks.1 += 1;
        stacks.0.entry(address).or_default().push(donated);
        None
    }

    fn pop(&self, address: SocketAddr) -> Option<Donated> {
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = stacks.0.get_mut(&address)?;
        let donated = stack.pop();
        if stack.is_empty() {
            stacks.0.remove(&address);
        }
        if donated.is_some() {
            stacks.1 -= 1;
        }
        donated
    }

    fn take_all(&self) -> Vec<Donated> {
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        stacks.1 = 0;
        stacks.0.drain().flat_map(|(_, stack)| stack).collect()
    }

    /// Closes what has been idle since before `limit`.
    fn sweep(&self, limit: Instant) {
        let mut old = Vec::new();
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        for stack in stacks.0.values_mut() {
            // Pushed in the order of time: the old ones are at the bottom.
            let keep_from = stack.iter().position(|donated| donated.since > limit).unwrap_or(stack.len());
            old.extend(stack.drain(..keep_from));
        }
        stacks.0.retain(|_, stack| !stack.is_empty());
        stacks.1 -= old.len();
        drop(stacks);
        drop(old);
    }
}

/// A connection to a server, in use.
pub struct Connection {
    tcp: Tcp,
    address: SocketAddr,
    requests: u64,
    watch: Rc<RefCell<Watch>>,
    in_use: InUse,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({}, {} requests)", self.address, self.requests)
    }
}

impl Connection {
    /// The connection itself.
    #[must_use]
    pub fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it was given back before: 0 for a fresh one.
    #[must_use]
    pub fn reuses(&self) -> u64 {
        self.requests
    }
}

/// Counts one connection in use.
struct InUse(Rc<Cell<usize>>);

impl InUse {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Watches one connection while it is idle: whatever happens to it then, it must go.
struct Watch {
    pool: Weak<RefCell<Inside>>,
    address: SocketAddr,
    id: u64,
}

impl Continuation for Watch {
    fn handle_event(&mut self, _event: Event, _thread: &Thread) {
        let gone = self.pool.upgrade().and_then(|pool| pool.borrow_mut().remove(self.address, self.id));
        drop(gone);
    }

    fn name(&self) -> &'static str {
        "idle server connection"
    }
}

struct Idle {
    id: u64,
    tcp: Tcp,
    requests: u64,
    watch: Rc<RefCell<Watch>>,
}

#[derive(Default)]
struct Server {
    idle: Vec<Idle>,
    in_use: Rc<Cell<usize>>,
}

struct Inside {
    options: PoolOptions,
    servers: FxHashMap<SocketAddr, Server>,
    idle: usize,
    next_id: u64,
}

impl Inside {
    fn remove(&mut self, address: SocketAddr, id: u64) -> Option<Idle> {
        let idle = &mut self.servers.get_mut(&address)?.idle;
        let index = idle.iter().rposition(|idle| idle.id == id)?;
        self.idle -= 1;
        Some(idle.remove(index))
    }
}

/// One thread's pool. Clones share it.
#[derive(Clone)]
pub struct Pool {
    inside: Rc<RefCell<Inside>>,
    shared: Arc<SharedPool>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} idle)", self.inside.borrow().idle)
    }
}

impl Pool {
    /// An empty pool that donates to and takes from `shared`.
    #[must_use]
    pub fn new(options: PoolOptions, shared: Arc<SharedPool>) -> Self {
        let inside = Inside { options, servers: FxHashMap::default(), idle: 0, next_id: 0 };
        Self { inside: Rc::new(RefCell::new(inside)), shared }
    }

    /// Other bounds from now on: a connection that is idle already keeps its time.
    pub fn set_options(&self, options: PoolOptions) {
        self.inside.borrow_mut().options = options;
    }

    /// Idle connections of this thread.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.inside.borrow().idle
    }

    /// An idle connection to `address` that is still open as far as can be told; else `None`: connect.
    #[must_use]
    pub fn take(&self, thread: &Thread, address: SocketAddr) -> Option<Connection> {
        loop {
            let idle = {
                let mut inside = self.inside.borrow_mut();
                let Some(idle) = inside.servers.get_mut(&address).and_then(|server| server.idle.pop()) else { break };
                inside.idle -= 1;
                idle
            };
            // The watch is the connection's own: kept for the next time it is idle.
            let _ = idle.tcp.take_handler();
            if idle.tcp.is_quiet() {
                return Some(self.in_use(idle.tcp, address, idle.requests, Some(idle.watch)));
            }
        }
        self.take_donated(thread, address)
    }

    fn take_donated(&self, thread: &Thread, address: SocketAddr) -> Option<Connection> {
        let PoolOptions { threads, keep_alive, .. } = self.inside.borrow().options;
        if threads < 2 {
            return None;
        }
        while let Some(donated) = self.shared.pop(address) {
            if thread.now() - donated.since < keep_alive && donated.connection.is_quiet() {
                let tcp = Tcp::attach(thread, donated.connection).ok()?;
                return Some(self.in_use(tcp, address, donated.requests, None));
            }
        }
        None
    }

    /// Takes a fresh connection into account.
    #[must_use]
    pub fn enrol(&self, tcp: Tcp, address: SocketAddr) -> Connection {
        self.in_use(tcp, address, 0, None)
    }

    fn in_use(&self, tcp: Tcp, address: SocketAddr, requests: u64, watch: Option<Rc<RefCell<Watch>>>) -> Connection {
        let mut inside = self.inside.borrow_mut();
        let watch = watch.unwrap_or_else(|| {
            inside.next_id += 1;
            Rc::new(RefCell::new(Watch { pool: Rc::downgrade(&self.inside), address, id: inside.next_id }))
        });
        let in_use = InUse::new(&inside.servers.entry(address).or_default().in_use);
        Connection { tcp, address, requests, watch, in_use }
    }

    /// Takes back a connection on which a whole exchange has ended and nothing is left to read or send.
    pub fn give(&self, connection: Connection) {
        let thread = connection.tcp.thread().clone();
        if connection.tcp.failure().is_some() || connection.tcp.queued() > 0 {
            return;
        }
        let Connection { tcp, address, requests, watch, in_use } = connection;
        drop(in_use);
        let requests = requests + 1;
        let mut inside = self.inside.borrow_mut();
        let options = inside.options;
        let full = inside.idle >= options.idle_per_thread;
        let server = inside.servers.entry(address).or_default();
        let surplus = options.threads > 1 && server.idle.len() >= KEPT_ALWAYS + 2 * server.in_use.get();
        if full || surplus {
            drop(inside);
            if let Some(connection) = tcp.detach().filter(|_| options.threads > 1) {
                let donated = Donated { connection, since: thread.now(), requests };
                drop(self.shared.push(address, donated, options.idle_shared));
            }
            return;
        }
        tcp.set_read_deadline(thread.now() + options.keep_alive);
        let id = watch.borrow().id;
        let handler: Cont = Rc::clone(&watch) as Cont;
        tcp.set_handler(handler);
        server.idle.push(Idle { id, tcp, requests, watch });
        inside.idle += 1;
    }

    /// Closes what the shared stack kept too long, and forgets servers that have no connection. Call it now and then.
    pub fn sweep(&self, now: Instant) {
        let keep_alive = self.inside.borrow().options.keep_alive;
        let limit = Instant::from_nanos(
            now.as_nanos().saturating_sub(u64::try_from(keep_alive.as_nanos()).unwrap_or(u64::MAX)),
        );
        self.shared.sweep(limit);
        self.inside
            .borrow_mut()
            .servers
            .retain(|_, server| !server.idle.is_empty() || Rc::strong_count(&server.in_use) > 1);
    }

    /// Closes this thread's idle connections and those on the shared stack, for somebody who needs their descriptors. Says
    /// how many there were.
    pub fn close_idle(&self) -> usize {
        let mut idle = Vec::new();
        {
            let mut inside = self.inside.borrow_mut();
            inside.servers.values_mut().for_each(|server| idle.append(&mut server.idle));
            inside.idle = 0;
        }
        let donated = self.shared.take_all();
        idle.len() + donated.len()
    }

    /// Closes every idle connection.
    pub fn clear(&self) {
        let servers = std::mem::take(&mut self.inside.borrow_mut().servers);
        self.inside.borrow_mut().idle = 0;
        drop(servers);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use event::ThreadOptions;

    use super::*;

    fn options(threads: usize) -> PoolOptions {
        PoolOptions { idle_per_thread: 100, idle_shared: 2, keep_alive: Duration::from_secs(30), threads }
    }

    /// How long anything in a test may take, on a machine however busy.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Runs `work` on a loop of its own, within a bound.
    fn on_a_thread<F: Future<Output = ()> + 'static>(work: impl FnOnce(Thread) -> F) {
        let thread = Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap();
        let done = Rc::new(Cell::new(false));
        let future = work(thread.clone());
        thread.spawn("test", {
            let (done, thread) = (Rc::clone(&done), thread.clone());
            async move {
                future.await;
                done.set(true);
                // Ends this turn without a sleep.
                thread.stop();
            }
        });
        let bound = thread.clone();
        thread.spawn("bound", async move { bound.sleep(PATIENCE).await });
        let limit = thread.precise_now() + PATIENCE;
        while !done.get() {
            assert!(thread.precise_now() < limit, "not done within {PATIENCE:?}");
            thread.turn(true).unwrap();
        }
    }

    async fn connect(thread: &Thread, address: SocketAddr) -> Tcp {
        Tcp::connect(thread, address, thread.now() + PATIENCE).await.unwrap()
    }

    #[test]
    fn the_connection_used_last_comes_first_and_one_that_was_closed_does_not_come() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        on_a_thread(|thread| async move {
            let pool = Pool::new(options(1), Arc::default());
            assert!(pool.take(&thread, address).is_none());
            let first = pool.enrol(connect(&thread, address).await, address);
            let (first_peer, _) = server.accept().unwrap();
            let second = pool.enrol(connect(&thread, address).await, address);
            let (mut second_peer, _) = server.accept().unwrap();
            let second_local = second.tcp().local();
            pool.give(first);
            pool.give(second);
            assert_eq!(pool.idle(), 2);
            let taken = pool.take(&thread, address).unwrap();
            assert_eq!((taken.tcp().local(), taken.reuses()), (second_local, 1));
            pool.give(taken);
            // The one speaks out of turn, the other ends: both leave by themselves.
            second_peer.write_all(b"?").unwrap();
            drop(first_peer);
            while pool.idle() > 0 {
                thread.sleep(Duration::from_millis(1)).await;
            }
            assert!(pool.take(&thread, address).is_none());
        });
    }

    #[test]
    fn an_idle_connection_leaves_at_its_deadline() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        on_a_thread(|thread| async move {
            let keep_alive = Duration::from_millis(20);
            let pool = Pool::new(PoolOptions { keep_alive, ..options(1) }, Arc::default());
            pool.give(pool.enrol(connect(&thread, address).await, address));
            let (mut peer, _) = server.accept().unwrap();
            while pool.idle() > 0 {
                thread.sleep(Duration::from_millis(1)).await;
            }
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            thread.sleep(Duration::from_millis(1)).await;
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        });
    }

    #[test]
    fn surplus_connections_go_to_the_shared_stack_and_another_thread_takes_them() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        on_a_thread(|thread| async move {
            let shared: Arc<SharedPool> = Arc::default();
            let (mine, other) =
                (Pool::new(options(2), Arc::clone(&shared)), Pool::new(options(2), Arc::clone(&shared)));
            let mut peers = Vec::new();
            let mut connections = Vec::new();
            for _ in 0..KEPT_ALWAYS + 3 {
                connections.push(mine.enrol(connect(&thread, address).await, address));
                peers.push(server.accept().unwrap().0);
            }
            for connection in connections.drain(..).rev() {
                mine.give(connection);
            }
            while let Some(connection) = other.take(&thread, address) {
                connections.push(connection);
            }
            assert!(!connections.is_empty() && connections.len() <= 2, "{}", connections.len());
            assert!(shared.is_empty());
            // It works: a byte goes through.
            connections[0].tcp().send(buf::Chunk::from_static(b"x"));
            thread.sleep(Duration::from_millis(1)).await;
            let got: usize = peers
                .iter_mut()
                .map(|peer| {
                    peer.set_nonblocking(true).unwrap();
                    peer.read(&mut [0]).unwrap_or(0)
                })
                .sum();
            assert_eq!(got, 1);
        });
    }

    #[test]
    fn idle_connections_are_closed_for_who_needs_their_descriptors() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        on_a_thread(|thread| async move {
            let shared: Arc<SharedPool> = Arc::default();
            let pool = Pool::new(options(2), Arc::clone(&shared));
            let used = pool.enrol(connect(&thread, address).await, address);
            pool.give(pool.enrol(connect(&thread, address).await, address));
            let donated = connect(&thread, address).await.detach().unwrap();
            let since = thread.now();
            assert!(shared.push(address, Donated { connection: donated, since, requests: 1 }, 1).is_none());
            assert_eq!(pool.close_idle(), 2);
            assert_eq!((pool.idle(), shared.len(), pool.close_idle()), (0, 0, 0));
            assert!(pool.take(&thread, address).is_none());
            pool.give(used);
            assert_eq!(pool.idle(), 1, "what was in use goes on");
        });
    }

    #[test]
    fn a_swept_stack_closes_what_is_too_old() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        on_a_thread(|thread| async move {
            let shared: Arc<SharedPool> = Arc::default();
            let connection = connect(&thread, address).await.detach().unwrap();
            let since = thread.now();
            assert!(shared.push(address, Donated { connection, since, requests: 1 }, 1).is_none());
            let pool = Pool::new(options(2), Arc::clone(&shared));
            pool.sweep(since + Duration::from_secs(29));
            assert_eq!(shared.len(), 1);
            pool.sweep(since + Duration::from_secs(30));
            assert_eq!(shared.len(), 0);
        });
    }
}
