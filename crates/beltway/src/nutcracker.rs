//! twemproxy's program: its flags, its file, its answers, under its name.
//!
//! `options` reads the command line, `config::kv::nutcracker` the file; [`run`] answers what needs no engine. What is
//! different on purpose stands in docs/kv-differences.md.

mod options;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use config::kv::KvStats;
use config::kv::nutcracker::{Nutcracker, load};
use config::{Config, Level, Log, LogFile, Place, Spanned};
use supervise::failure::WRONG_USAGE;

pub(crate) use options::{MBUF_SIZE, Options};

/// What twemproxy ends with when anything is wrong, usage included.
const FAILED: u8 = 1;

/// The release whose flags, file and numbers these are.
const TWEMPROXY: &str = "0.5.0";

/// Runs as `nutcracker ARGUMENTS`. Answers with the exit code.
pub(crate) fn run(arguments: &[String]) -> u8 {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("nutcracker: {wrong}\n{}", options::usage());
            return FAILED;
        }
    };
    if options.show_version {
        eprintln!("This is nutcracker-{TWEMPROXY}\nBeltway {}\n", base::VERSION);
        if options.show_help {
            eprintln!("{}", options::usage());
        }
        if options.describe_stats {
            eprint!("{STATS}");
        }
        return 0;
    }
    let file = options.conf_file();
    if options.test_conf {
        return if read(&options, &file).is_some() {
            eprintln!("nutcracker: configuration file '{}' syntax is ok", file.display());
            0
        } else {
            eprintln!("nutcracker: configuration file '{}' syntax is invalid", file.display());
            FAILED
        };
    }
    let Some(_config) = read(&options, &file).and_then(|read| configuration(&options, read)) else { return FAILED };
    // Here the engine is called, with the configuration and `options.daemonize`, `options.pid_file`.
    eprintln!("nutcracker: this version of Beltway has no key-value engine yet; nothing was started");
    WRONG_USAGE
}

/// Reads the file. What is wrong, and what is different here, is said.
fn read(options: &Options, file: &Path) -> Option<Nutcracker> {
    if options.mbuf_size != MBUF_SIZE {
        eprintln!("nutcracker: warning: -m {} has no effect: buffers find their size themselves", options.mbuf_size);
    }
    match load(file, &resolve) {
        Ok(read) => {
            for warning in &read.warnings {
                eprintln!("{warning}");
            }
            Some(read)
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            None
        }
    }
}

/// What the server is to do: the pools of the file, the stats port and the log of the command line.
fn configuration(options: &Options, read: Nutcracker) -> Option<Config> {
    let listen = resolve(&options.stats_addr, options.stats_port).inspect_err(|error| {
        eprintln!("nutcracker: stats address '{}' cannot be resolved: {error}", options.stats_addr);
    });
    let stats = KvStats { listen: Spanned::new(listen.ok()?, Place::NOWHERE), interval: options.stats_interval };
    let level = match options.log_level {
        0..=3 => Level::Error,
        4 => Level::Warn,
        5..=6 => Level::Info,
        _ => Level::Debug,
    };
    let file = options.output.clone().map_or(LogFile::Stderr, LogFile::Path);
    Some(read.into_config(stats, Log { level, file }))
}

/// The first address of a listener's host. Waits for the system's resolver; only at the start.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))
}

/// What `-D` says of the numbers on the stats port, in their order there.
const STATS: &str = r#"pool stats:
  client_eof          "clients that closed their connection"
  client_err          "client connections that failed"
  client_connections  "client connections now"
  server_ejects       "times a server was ejected"
  forward_error       "requests that could not be passed on"
  fragments           "parts that requests for several servers were split into"

server stats:
  server_eof          "times the server closed a connection"
  server_err          "server connections that failed"
  server_timedout     "requests that the server did not answer in time"
  server_connections  "server connections now"
  server_ejected_at   "when the server was last ejected, in microseconds since 1970"
  requests            "requests sent"
  request_bytes       "bytes of the requests sent"
  responses           "responses received"
  response_bytes      "bytes of the responses received"
  in_queue            "requests that wait to be sent"
  in_queue_bytes      "bytes of the requests that wait to be sent"
  out_queue           "requests that wait for their response"
  out_queue_bytes     "bytes of the requests that wait for their response"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_and_the_file_make_one_configuration() {
        let words = ["-a", "127.0.0.1", "-s", "7", "-i", "100", "-v", "11", "-o", "/tmp/n.log"].map(str::to_owned);
        let options = Options::parse(&words).unwrap();
        let text = "a:\n  listen: 127.0.0.1:1\n  timeout: 400\n  servers:\n    - 127.0.0.1:2:1\n";
        let read = config::kv::nutcracker::parse("n.yml", text, &resolve).unwrap();
        let config = configuration(&options, read).unwrap();
        let stats = config.kv.stats.as_ref().unwrap();
        assert_eq!((stats.listen.to_string().as_str(), stats.interval.as_millis()), ("127.0.0.1:7", 100));
        assert_eq!(config.log, Log { level: Level::Debug, file: LogFile::Path("/tmp/n.log".into()) });
        assert_eq!(config.kv.pools[0].name.as_str(), "a");
        assert!(config.http.listen.is_empty() && config.admin.listen.is_none() && config.server.listen.is_none());
        assert_eq!(config.file_name(), "n.yml");
    }
}
