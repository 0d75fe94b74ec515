//! The event processor: starts the groups of threads, knows them, and ends them in order.

use std::io;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::background::{self, Background, BackgroundThreads};
use crate::thread::{Handle, Thread, ThreadOptions};

/// How long a group may take to start.
const START_MAX: Duration = Duration::from_secs(10);

/// How many threads, where, and with what chance.
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// Threads of ET_NET; at least one is started.
    pub net: usize,
    /// Threads of ET_TASK; at least one is started.
    pub task: usize,
    /// Ties each ET_NET thread to a core of its own, when there are at least as many cores as threads.
    pub pin: bool,
    /// From which each thread's seed is drawn.
    pub seed: u64,
}

/// The running groups.
#[derive(Debug)]
pub struct Processor {
    net: Vec<Handle>,
    joins: Vec<JoinHandle<io::Result<()>>>,
    background: Background,
    background_threads: BackgroundThreads,
    peers: Arc<OnceLock<Vec<Handle>>>,
}

impl Processor {
    /// Starts all groups. `setup` runs on each ET_NET thread before its loop does.
    ///
    /// # Errors
    /// When a thread, or the poll of one, cannot be made, or `setup` fails on one; then all are stopped again.
    pub fn start(
        options: &ProcessorOptions,
        setup: impl Fn(&Thread) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (background, background_threads) = Background::start(options.task)?;
        let cores = sys::thread::cores();
        let net = options.net.max(1);
        let pin = options.pin && cores.len() >= net;
        let setup = Arc::new(setup);
        let mut this = Self {
            net: Vec::new(),
            joins: Vec::new(),
            background,
            background_threads,
            peers: Arc::new(OnceLock::new()),
        };
        let (ready, started) = mpsc::channel();
        for index in 0..net {
            let (setup, ready, background) = (Arc::clone(&setup), ready.clone(), this.background.clone());
            let core = if pin { cores.get(index).copied() } else { None };
            let name = format!("[ET_NET {index}]");
            let seed = options.seed.wrapping_add(index as u64);
            let options = ThreadOptions { name: name.clone(), index, seed };
            let run = move || {
                if let Some(core) = core {
                    // A core that was taken from us meanwhile: run anywhere.
                    let _ = sys::thread::pin_to(core);
                }
                background::set_for_this_thread(&background);
                let thread = match Thread::new(options).and_then(|thread| thread.prepare(&*setup).map(|()| thread)) {
                    Ok(thread) => thread,
                    Err(error) => {
                        let kind = error.kind();
                        let _ = ready.send((index, Err(error)));
                        return Err(kind.into());
                    }
                };
                let _ = ready.send((index, Ok(thread.handle())));
                drop(ready);
                // What only the set-up needed, listeners among it, is not held for the life of the thread.
                drop(setup);
                thread.run()
            };
            this.joins.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        drop(ready);
        let mut handles: Vec<Option<Handle>> = (0..net).map(|_| None).collect();
        let mut failed = None;
        for _ in 0..net {
            match started.recv_timeout(START_MAX) {
                Ok((index, Ok(handle))) => handles[index] = Some(handle),
                Ok((_, Err(error))) => failed = Some(error),
                Err(_) => failed = Some(io::Error::other("an event thread did not start")),
            }
        }
        this.net = handles.into_iter().flatten().collect();
        if let Some(error) = failed {
            this.stop(START_MAX);
            return Err(error);
        }
        // Set once, here.
        let _ = this.peers.set(this.net.clone());
        Ok(this)
    }

    /// One handle for each thread of ET_NET, by its index.
    #[must_use]
    pub fn net(&self) -> &[Handle] {
        &self.net
    }

    /// The same, for listeners that are made before the threads run: empty until [`Processor::start`] returns.
    #[must_use]
    pub fn peers(&self) -> Arc<OnceLock<Vec<Handle>>> {
        Arc::clone(&self.peers)
    }

    /// The group ET_TASK.
    #[must_use]
    pub fn background(&self) -> &Background {
        &self.background
    }

    /// Whether every ET_NET thread still runs. One that does not has lost its poll: the process should be replaced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.joins.iter().all(|join| !join.is_finished())
    }

    /// Ends all threads: ET_NET first, each after the turn it is at. Waits at most `limit`; true when all ended.
    pub fn stop(self, limit: Duration) -> bool {
        for handle in &self.net {
            handle.run(Thread::stop);
        }
        let step = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        while waited < limit && self.joins.iter().any(|join| !join.is_finished()) {
            std::thread::sleep(step);
            waited += step;
        }
        let mut all = true;
        for join in self.joins {
            if join.is_finished() {
                all &= join.join().is_ok();
            } else {
                all = false;
            }
        }
        self.background_threads.stop();
        all
    }
}
