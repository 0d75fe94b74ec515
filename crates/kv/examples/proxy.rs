//! A proxy and nothing else: `proxy LISTEN redis|memcached THREADS SERVER… [key=value…]`, for trying and measuring.
//!
//! Settings: `timeout`, `server_retry_timeout` (milliseconds), `server_failure_limit`, `server_connections`, `batch`,
//! `auto_eject_hosts`, `redis_auth`, `hash_tag`, `hash`, `distribution`. It ends with its input, or with `until=killed`
//! when it is killed.

use std::cell::RefCell;
use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event::{Listener, Processor, ProcessorOptions, Shares};
use kv::{Address, Plan, PoolSource, ServerSource, Shared, Worker, WorkerParts};
use net::{Names, NamesOptions};

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

fn server(text: &str) -> Result<ServerSource, Box<dyn Error>> {
    let address = match text.parse::<std::net::SocketAddr>() {
        Ok(address) => Address::Ip(address.ip(), address.port()),
        Err(_) if text.starts_with('/') => Address::Unix(text.into()),
        Err(_) => {
            let (host, port) = text.rsplit_once(':').ok_or("a server is host:port or /path")?;
            Address::Name(host.into(), port.parse()?)
        }
    };
    Ok(ServerSource { address, weight: 1, name: None })
}

fn pool(protocol: &str, rest: &[String]) -> Result<PoolSource, Box<dyn Error>> {
    let mut pool = PoolSource::new("example", Vec::new());
    pool.redis = protocol == "redis";
    for word in rest {
        let Some((key, value)) = word.split_once('=') else {
            pool.servers.push(server(word)?);
            continue;
        };
        match key {
            "timeout" => pool.timeout = Some(Duration::from_millis(value.parse()?)),
            "server_retry_timeout" => pool.server_retry_timeout = Duration::from_millis(value.parse()?),
            "server_failure_limit" => pool.server_failure_limit = value.parse()?,
            "server_connections" => pool.server_connections = value.parse()?,
            "client_connections" => pool.client_connections = Some(value.parse()?),
            "batch" => pool.batch = value.parse()?,
            "auto_eject_hosts" => pool.auto_eject_hosts = value.parse()?,
            "redis_auth" => pool.redis_auth = Some(value.into()),
            "memcached_flush_all" => pool.memcached_flush_all = value.parse()?,
            "redis_db" => pool.redis_db = value.parse()?,
            "hash_tag" => pool.hash_tag = Some(value.parse().map_err(|_| "hash_tag is two characters")?),
            "hash" => pool.hash = value.parse().map_err(|_| "no such hash")?,
            "until" => {}
            "distribution" => pool.distribution = value.parse().map_err(|_| "no such distribution")?,
            _ => return Err(format!("no such setting: {key}").into()),
        }
    }
    Ok(pool)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, protocol, threads, rest @ ..] = arguments.as_slice() else {
        return Err("proxy LISTEN redis|memcached THREADS SERVER… [key=value…]".into());
    };
    let plan = Plan::prepare(vec![pool(protocol, rest)?])?;
    let threads: usize = threads.parse()?;
    let shared = Shared::new(&plan);
    let address: std::net::SocketAddr = listen.parse()?;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    let socket = std::net::TcpListener::from(socket);
    println!("{}", socket.local_addr()?);
    let peers = Arc::new(OnceLock::new());
    let shares = Shares::new(threads, 20_000);
    let listener = Listener::new(socket.into(), shares, Arc::clone(&peers), |_, tcp| {
        WORKER.with(|worker| {
            if let Some(worker) = &*worker.borrow() {
                worker.serve(tcp, 0);
            }
        });
    })?;
    let names = NamesOptions {
        ttl: Duration::from_secs(30),
        negative_ttl: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        stale: Duration::from_secs(3_600),
    };
    let options = ProcessorOptions { net: threads, task: 1, pin: false, seed: 1 };
    let processor = Processor::start(&options, move |thread| {
        let worker = Worker::new(WorkerParts {
            thread: thread.clone(),
            plan: Arc::clone(&plan),
            shared: Arc::clone(&shared),
            names: Names::new(names),
            cells: stats::Cells::detached(),
            numbers: kv::numbers::Numbers::detached(),
        });
        WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
        let me = thread.clone();
        thread.spawn("house-keeping", async move {
            loop {
                me.sleep(Duration::from_millis(200)).await;
                me.trim();
            }
        });
        listener.accept_on(thread)
    })?;
    // Set here alone, once.
    let _ = peers.set(processor.net().to_vec());
    // Until whoever started it closes its input, or kills it.
    while rest.iter().any(|word| word == "until=killed") {
        std::thread::park();
    }
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    if processor.stop(Duration::from_secs(2)) { Ok(()) } else { Err("a thread did not end".into()) }
}
