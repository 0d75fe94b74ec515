use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stats::{Identity, Registry, Segment};
use supervise::status::{HeartbeatStatus, ListenerStatus, ProcessStatus, ServerState, ServerStatus};
use sys::shm::SharedWords;

use super::*;

mod api;

const PATIENCE: Duration = Duration::from_secs(30);

stats::metrics! {
    /// Numbers of a server that is none.
    struct Numbers;
    /// Requests.
    counter REQUESTS = "beltway_http_requests_total";
    /// Requests that failed <badly>.
    counter ERRORS = "beltway_http_errors_total" { why = "a<b" };
    /// Connections.
    gauge CONNECTIONS = "beltway_http_connections";
    /// Time.
    histogram TIME = "beltway_http_request_seconds" in Nanoseconds;
}

/// A directory of its own for one test, removed with it.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("beltway-admin-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn generation(&self, generation: u64) -> PathBuf {
        self.0.join(format!("numbers.{generation}"))
    }

    fn segment(&self, generation: u64) -> Segment {
        let mut registry = Registry::new();
        registry.add::<Numbers>().unwrap();
        let layout = registry.layout(1).unwrap();
        let memory = SharedWords::create(&self.generation(generation), layout.words()).unwrap();
        let pid = u32::try_from(100 + generation).unwrap();
        layout.create(memory, Identity { pid, generation, started_micros: 1_000_000 }).unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Source {
    status: Mutex<Status>,
    segments: Mutex<Vec<PathBuf>>,
    config: Mutex<Arc<Config>>,
    directory: RuntimeDir,
    asked: Mutex<Vec<Request>>,
    answer: Mutex<Reply>,
}

impl StatusSource for Source {
    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    fn metrics_segments(&self) -> Vec<PathBuf> {
        self.segments.lock().unwrap().clone()
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap())
    }

    fn directory(&self) -> RuntimeDir {
        self.directory.clone()
    }

    fn ask(&self, request: Request, _bound: Duration) -> Result<Reply, ControlError> {
        self.asked.lock().unwrap().push(request);
        match self.answer.lock().unwrap().clone() {
            Reply::Refused(why) => Err(ControlError::Refused(why)),
            reply => Ok(reply),
        }
    }
}

fn server(generation: u64) -> ServerStatus {
    let pid = u32::try_from(100 + generation).unwrap();
    let process = ProcessStatus { name: "traffic_server".to_owned(), pid, age_ms: 5_000, ..ProcessStatus::default() };
    ServerStatus { process, generation, state: ServerState::Ready, adopted: true, ..ServerStatus::default() }
}

fn status_with(generations: &[u64]) -> Status {
    Status {
        version: "0.1.0".to_owned(),
        runtime_dir: "/run/<beltway>".to_owned(),
        cop: Some(ProcessStatus {
            name: "traffic_cop".to_owned(),
            pid: 2,
            heartbeat: Some(HeartbeatStatus { sent: 9, missed: 1, ..HeartbeatStatus::default() }),
            ..ProcessStatus::default()
        }),
        manager: ProcessStatus { name: "traffic_manager".to_owned(), pid: 3, ..ProcessStatus::default() },
        servers: generations.iter().copied().map(server).collect(),
        listeners: vec![ListenerStatus {
            kind: "http".to_owned(),
            address: "127.0.0.1:8080".to_owned(),
            waiting: 3,
            waiting_max: 128,
            dropped: 17,
            ..ListenerStatus::default()
        }],
        ..Status::default()
    }
}

struct Port {
    handle: Option<AdminHandle>,
    source: Arc<Source>,
}

impl Port {
    fn open(status: Status, segments: Vec<PathBuf>) -> Self {
        let source = Arc::new(Source {
            status: Mutex::new(status),
            segments: Mutex::new(segments),
            config: Mutex::new(Arc::new(config::builtin_default())),
            directory: RuntimeDir::new("/nonexistent"),
            asked: Mutex::default(),
            answer: Mutex::new(Reply::Done),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handle = spawn(listener, source.clone()).unwrap();
        Self { handle: Some(handle), source }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.as_ref().unwrap().address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a head and reads until the other side closes.
    fn ask_raw(&self, head: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ask(&self, method: &str, path: &str) -> (String, String) {
        let answer = self.ask_raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn sample(&self, name: &str) -> Option<f64> {
        let (_, body) = self.ask("GET", "/metrics");
        body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            assert!(handle.stop(PATIENCE) || std::thread::panicking());
        }
    }
}

#[test]
fn counters_never_go_back_when_a_server_dies_and_its_gauges_go_with_it() {
    let room = Room::new("death");
    let first = room.segment(1).cells::<Numbers>(0).unwrap();
    first.add(Numbers::REQUESTS, 100);
    first.add(Numbers::CONNECTIONS, 7);
    let port = Port::open(status_with(&[1]), vec![room.generation(1)]);
    assert_eq!(port.sample("beltway_http_requests_total"), Some(100.0));
    assert_eq!(port.sample("beltway_http_connections"), Some(7.0));

    let second = room.segment(2).cells::<Numbers>(0).unwrap();
    second.add(Numbers::REQUESTS, 5);
    second.observe(Numbers::TIME, 1_000);
    *port.source.status.lock().unwrap() = status_with(&[2]);
    *port.source.segments.lock().unwrap() = vec![room.generation(1), room.generation(2), room.generation(3)];
    assert_eq!(port.sample("beltway_http_requests_total"), Some(105.0));
    assert_eq!(port.sample("beltway_http_connections"), Some(0.0));
    assert_eq!(port.sample("beltway_http_request_seconds_count"), Some(1.0));
    assert_eq!(port.sample("beltway_server_generation"), Some(2.0));
    assert_eq!(port.sample("beltway_segments_unreadable"), Some(0.0));
}

#[test]
fn folding_the_dead_changes_no_sum_at_any_moment() {
    let room = Room::new("fold");
    let folded = room.0.join("numbers.folded");
    for generation in 0..4 {
        room.segment(generation).cells::<Numbers>(0).unwrap().add(Numbers::REQUESTS, 10);
    }
    let all: Vec<PathBuf> = (0..4).map(|g| room.generation(g)).chain([folded.clone()]).collect();
    let port = Port::open(status_with(&[3]), all);
    let total = || port.sample("beltway_http_requests_total");
    assert_eq!(total(), Some(40.0));

    let kept: Vec<(PathBuf, Vec<u8>)> =
        (0..2).map(|g| (room.generation(g), fs::read(room.generation(g)).unwrap())).collect();
    assert!(fold_dead(&[room.generation(0), room.generation(1)], &folded).unwrap().is_empty());
    assert!(!room.generation(0).exists());
    assert_eq!(total(), Some(40.0));

    // As if manager had died between renaming and removing.
    for (path, bytes) in &kept {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(total(), Some(40.0));
    let dead: Vec<PathBuf> = (0..3).map(|g| room.generation(g)).collect();
    assert!(fold_dead(&dead, &folded).unwrap().is_empty());
    assert_eq!(total(), Some(40.0));
    assert!(dead.iter().all(|path| !path.exists()));

    let lost = fold_dead(&[Path::new("/dev/null").to_owned()], &room.0.join("no/room")).unwrap_err();
    assert_eq!(lost.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_reader_beside_the_one_who_folds_never_sees_a_counter_go_back() {
    let room = Room::new("beside");
    let folded = room.0.join("numbers.folded");
    let paths: Vec<PathBuf> = std::iter::once(folded.clone()).chain((0..40).map(|g| room.generation(g))).collect();
    for generation in 0..40 {
        room.segment(generation).cells::<Numbers>(0).unwrap().add(Numbers::REQUESTS, 1);
    }
    std::thread::scope(|scope| {
        let folding = scope.spawn(|| {
            for path in &paths[1..] {
                assert!(fold_dead(std::slice::from_ref(path), &folded).unwrap().is_empty());
            }
        });
        while !folding.is_finished() {
            let sum = numbers::Numbers::read(&Status::default(), &paths).sum;
            assert_eq!(sum.counter("beltway_http_requests_total"), 40);
        }
    });
}

#[test]
fn a_damaged_segment_is_told_of_and_the_others_are_counted() {
    let room = Room::new("damaged");
    room.segment(1).cells::<Numbers>(0).unwrap().add(Numbers::REQUESTS, 3);
    fs::write(room.generation(2), b"not a segment at all, but long enough to be one").unwrap();
    let port = Port::open(status_with(&[1]), vec![room.generation(1), room.generation(2), room.0.clone()]);
    assert_eq!(port.sample("beltway_http_requests_total"), Some(3.0));
    assert_eq!(port.sample("beltway_segments_unreadable"), Some(2.0));
    assert!(port.ask("GET", "/").1.contains("Numbers are missing"));
}

#[test]
fn the_page_shows_the_tree_and_the_numbers_and_no_markup_of_others() {
    let room = Room::new("page");
    let segment = room.segment(1);
    segment.cells::<Numbers>(0).unwrap().add(Numbers::ERRORS, 3);
    segment.cells::<Numbers>(0).unwrap().observe(Numbers::TIME, 1_000_000);
    segment.beat(0).unwrap().begin(&stats::BeatName::new("[ET_NET 0]"), 1);
    let port = Port::open(status_with(&[1]), vec![room.generation(1)]);
    for _ in 0..2 {
        let (head, page) = port.ask("GET", "/");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/html"), "{head}");
        for what in ["traffic_cop", "traffic_manager", "generation 1, ready, adopted", "127.0.0.1:8080", "[ET_NET 0]"] {
            assert!(page.contains(what), "{what} in {page}");
        }
        assert!(page.contains("/run/&lt;beltway&gt;") && page.contains("a&lt;b") && page.contains("1 of 9"));
        let queue = "127.0.0.1:8080</td><td class=\"n\">3</td><td class=\"n\">128</td><td class=\"n\">17</td>";
        assert!(page.contains(queue), "{queue} in {page}");
        assert!(page.contains("1.0 ms") && page.contains("http-equiv=\"refresh\""));
        assert!(!page.contains("<script") && !page.contains("<badly>"));
    }
}

#[test]
fn programs_get_the_status_as_json_and_balancers_a_verdict() {
    let port = Port::open(status_with(&[1]), Vec::new());
    let (head, body) = port.ask("GET", "/status.json");
    assert!(head.contains("application/json"), "{head}");
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), status_with(&[1]));
    assert!(port.ask("GET", "/healthz").0.starts_with("HTTP/1.1 200"));
    *port.source.status.lock().unwrap() = status_with(&[]);
    assert!(port.ask("GET", "/healthz").0.starts_with("HTTP/1.1 503"));
    *port.source.status.lock().unwrap() = Status { stopping: true, ..status_with(&[1]) };
    assert!(port.ask("GET", "/healthz").0.starts_with("HTTP/1.1 503"));
}

#[test]
fn only_reading_methods_known_paths_and_our_own_names_pass() {
    let port = Port::open(status_with(&[1]), Vec::new());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PURGE"] {
        let (head, _) = port.ask(method, "/metrics");
        assert!(head.starts_with("HTTP/1.1 405") && head.to_lowercase().contains("allow: get, head"), "{head}");
    }
    let (head, body) = port.ask("HEAD", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{head}");
    let (head, body) = port.ask("GET", "/nowhere");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(routes::ROUTES.iter().all(|(path, _)| body.contains(path)), "{body}");

    let rebound = port.ask_raw("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    let absolute = port.ask_raw("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(absolute.starts_with("HTTP/1.1 421"), "{absolute}");
    let nameless = port.ask_raw("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(nameless.starts_with("HTTP/1.1 400"), "{nameless}");
    let twice = port.ask_raw("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(twice.starts_with("HTTP/1.1 400"), "{twice}");
    assert!(port.ask_raw("GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
    assert!(port.ask("GET", "/").0.to_lowercase().contains("cache-control: no-store"));
}

#[test]
fn nonsense_and_heads_without_end_close_their_own_connection_only() {
    let port = Port::open(status_with(&[1]), Vec::new());
    assert!(port.ask_raw("\x16\x03\x01\x02\r\n\r\n").starts_with("HTTP/1.1 400"));
    let mut endless = port.connect();
    let _ = endless.write_all(&[b"GET /".to_vec(), vec![b'a'; 64 * 1024]].concat());
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert!(port.ask("GET", "/healthz").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn connections_beyond_the_limit_wait_and_are_served_when_others_go() {
    let port = Port::open(status_with(&[1]), Vec::new());
    let silent: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| port.connect()).collect();
    let mut waiting = port.connect();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waiting.read(&mut [0; 1]).is_err(), "no room for one more");
    drop(silent);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
