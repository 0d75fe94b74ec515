//! One server process by itself.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::message::Message;
use crate::origin::Origin;
use crate::peer::Peer;
use crate::process::{self, Guard};
use crate::{Home, eventually, free_address};

/// A running server with a configuration of its own.
#[derive(Debug)]
pub struct Server {
    // In this order they are dropped: first the process, then its directory.
    process: Guard,
    home: Home,
    http: SocketAddr,
    page: SocketAddr,
}

impl Server {
    /// Sends everything to these origins, one after the other.
    #[must_use]
    pub fn to(origins: &[&Origin]) -> Self {
        Self::with(&everything_to(origins))
    }

    /// As [`Server::to`], with more keys below `http`.
    #[must_use]
    pub fn to_and(origins: &[&Origin], http: &str) -> Self {
        Self::with(&format!("{}\n{http}", everything_to(origins)))
    }

    /// With these keys below `http`, one or more a line.
    #[must_use]
    pub fn with(http: &str) -> Self {
        Self::at(free_address(), http, "")
    }

    /// As [`Server::with`], listening for clients on `address`, with `sections` beside `http`.
    #[must_use]
    pub fn at(address: SocketAddr, http: &str, sections: &str) -> Self {
        let (home, page) = (Home::new(), free_address());
        let below = http.lines().map(|line| format!("  {line}\n")).collect::<String>();
        let file = home.file("beltway.yaml");
        let run = home.file("run");
        let text = format!(
            "runtime_dir: {}\nthreads: 2\nadmin: {{listen: off}}\nserver: {{listen: {page}, drain_timeout: 2s}}\n\
             http:\n  listen: [\"{address}\"]\n{below}\n{sections}\n",
            run.display()
        );
        fs::write(&file, &text).unwrap();
        let mut command = Command::new(process::beltway());
        command.args(["server", "-c"]).arg(&file).stderr(fs::File::create(home.file("log")).unwrap());
        let mut server = Self { process: Guard::start(command), home, http: address, page };
        eventually("the server is ready", || {
            assert!(server.process.runs(), "it ended:\n{text}\n{}", server.log());
            server.log().contains(" is ready ").then_some(())
        });
        server
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Guard {
        &mut self.process
    }

    /// Its directory: the configuration, `log`, and what the configuration names.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What it said on standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.home.text("log")
    }

    /// A new client.
    #[must_use]
    pub fn client(&self) -> Peer {
        Peer::connect(self.http)
    }

    /// GET on a connection of its own.
    #[must_use]
    pub fn get(&self, path: &str) -> Message {
        self.client().get(path)
    }

    /// A page of the server's own.
    #[must_use]
    pub fn page(&self, path: &str) -> Message {
        Peer::connect(self.page).ask(format!("GET {path} HTTP/1.1\r\nHost: page\r\nConnection: close\r\n\r\n"))
    }

    /// The number of this name and labels on the metrics page, as `name{label="value"}`.
    #[must_use]
    pub fn number(&self, name: &str) -> f64 {
        let page = self.page("/metrics").text();
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a number is `value`.
    pub fn await_number(&self, name: &str, value: f64) {
        self.await_number_that(name, &format!("{value}"), |number| (number - value).abs() < 0.5);
    }

    /// Waits until no client is connected: nobody but whoever asks.
    pub fn await_no_clients(&self) {
        self.await_number_that("beltway_http_client_connections_open", "0, or 1 who asks", |open| open < 1.5);
        self.await_number_that("beltway_http_transactions_active", "0, or 1 who asks", |active| active < 1.5);
    }

    fn await_number_that(&self, name: &str, wanted: &str, is: impl Fn(f64) -> bool) {
        let mut last = f64::NAN;
        let begin = crate::now();
        while begin.elapsed() < crate::PATIENCE {
            last = self.number(name);
            if is(last) {
                return;
            }
            crate::pause(Duration::from_millis(10));
        }
        panic!("{name} is {last}, not {wanted}");
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }
}

fn everything_to(origins: &[&Origin]) -> String {
    let urls: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    format!("remap: [{{from: \"/\", to: [{}]}}]", urls.join(", "))
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it says of itself explains a failed walk.
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}
