//! For tests: an engine with one event thread and one pool, and what keeps its threads busy.

use std::net::TcpListener;
use std::sync::{Arc, mpsc};

use config::Config;

use super::{Engine, EngineListeners, Identity};
use crate::kv_engine::KvListeners;

/// A running engine.
pub(crate) struct Scene {
    pub(crate) engine: Engine,
    /// Its configuration, and the file of it.
    pub(crate) config: Config,
    pub(crate) text: String,
    /// What the one server of its pool is called.
    pub(crate) server: String,
}

impl Scene {
    pub(crate) fn set() -> Self {
        Self::set_with(0)
    }

    /// The same with so many servers more.
    pub(crate) fn set_with(more: usize) -> Self {
        let pool = TcpListener::bind("127.0.0.1:0").unwrap();
        let more: String = (0..more).map(|at| format!(", \"127.0.0.1:1:1 another{at}\"")).collect();
        let text = format!(
            "threads: 1\ncache: {{ram: 2MiB}}\nkv: {{pools: {{alpha: {{listen: \"{}\", redis: true, servers: [\"127.0.0.1:1:1 one\"{more}]}}}}}}",
            pool.local_addr().unwrap()
        );
        let config = config::parse("test.yaml", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let identity = Identity { pid: std::process::id(), generation: 1 };
        let kv = KvListeners { pools: vec![pool.into()], ..KvListeners::default() };
        let listeners = EngineListeners { http: Vec::new(), server_page: None, demo: None, kv };
        let engine = Engine::start(Arc::new(config.clone()), listeners, identity, None).unwrap();
        Self { engine, config, text, server: "one".to_owned() }
    }
}

/// The first event thread does nothing else until the answer is dropped. It is busy when this returns.
pub(crate) fn keep_busy(engine: &Engine) -> mpsc::Sender<()> {
    keep_busy_with(&engine.processor.net()[0])
}

/// The same of the thread for what takes long.
pub(crate) fn keep_at_chores(engine: &Engine) -> mpsc::Sender<()> {
    keep_busy_with(&engine.chores[0])
}

fn keep_busy_with(thread: &event::Handle) -> mpsc::Sender<()> {
    let ((until, ended), (began, has_begun)) = (mpsc::channel(), mpsc::channel());
    let busy = move |_: &event::Thread| {
        began.send(()).unwrap();
        let _ = ended.recv();
    };
    thread.run(busy).unwrap();
    has_begun.recv().unwrap();
    until
}
