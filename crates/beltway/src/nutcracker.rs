//! twemproxy's program: its flags, its file, its answers, under its name.
//!
//! `options` reads the command line, `config::kv::nutcracker` the file; [`run`] answers what needs no engine. What is
//! different on purpose stands in docs/kv-differences.md.

mod options;

use std::io::{self, BufRead as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use base::{Clock, SystemClock};
use config::kv::KvStats;
use config::kv::nutcracker::load;
use config::{Config, Level, Log, LogFile, Place, Spanned};
use server::nutcracker::Nutcracker;
use supervise::role::{self, FIRST_DESCRIPTOR};
use supervise::wait;

pub(crate) use options::{MBUF_SIZE, Options};

/// What twemproxy ends with when anything is wrong, usage included.
const FAILED: u8 = 1;

/// What the daemon is told first: the descriptor to say on how its start went.
const AS_DAEMON: &str = "--as-daemon=fd=";
/// How long the daemon's start is waited for.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The release whose flags, file and numbers these are.
const TWEMPROXY: &str = "0.5.0";

/// Runs as `nutcracker ARGUMENTS`. Answers with the exit code.
pub(crate) fn run(arguments: &[String]) -> u8 {
    // Who is called by this name is told it twice.
    let arguments = match arguments {
        [name, rest @ ..] if name == "nutcracker" && rest.first().is_some_and(|word| word.starts_with(AS_DAEMON)) => {
            rest
        }
        all => all,
    };
    let daemon = arguments.first().and_then(|word| word.strip_prefix(AS_DAEMON)).and_then(|n| n.parse().ok());
    let arguments = if daemon.is_some() { &arguments[1..] } else { arguments };
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
            eprint!("{}", server::nutcracker::describe_stats());
        }
        return 0;
    }
    let file = options.conf_file();
    if options.test_conf {
        return if read(&options, &file, true).is_some() {
            eprintln!("nutcracker: configuration file '{}' syntax is ok", file.display());
            0
        } else {
            eprintln!("nutcracker: configuration file '{}' syntax is invalid", file.display());
            FAILED
        };
    }
    // The daemon's start has said it.
    let read = read(&options, &file, daemon.is_none());
    let Some(config) = read.and_then(|read| configuration(&options, read)) else { return FAILED };
    if options.daemonize && daemon.is_none() {
        return daemonize(arguments);
    }
    let pid_file = options.pid_file.as_deref().map(crate::commands::absolute);
    server::nutcracker::run(Nutcracker { config, level: options.log_level, pid_file, daemon })
}

/// Starts this program once more in a session of its own, and waits until it serves or says why not.
fn daemonize(arguments: &[String]) -> u8 {
    let started = std::io::pipe().and_then(|(told, tell)| {
        let mut words = vec!["nutcracker".into(), format!("{AS_DAEMON}{FIRST_DESCRIPTOR}").into()];
        words.extend(arguments.iter().map(Into::into));
        role::start_apart(&words, vec![(tell.as_fd(), FIRST_DESCRIPTOR)])?;
        drop(tell);
        let deadline = SystemClock.now() + READY_WITHIN;
        wait::readable(&[told.as_fd()], READY_WITHIN)?;
        let mut line = String::new();
        if SystemClock.now() >= deadline {
            return Ok(line);
        }
        // Written whole, or never: then it died.
        std::io::BufReader::new(told).read_line(&mut line).map(|_| line)
    });
    match started.as_deref() {
        Ok("ready\n") => 0,
        Ok("") => failed("the daemon ended, or is not ready yet; its log says why"),
        Ok(why) => failed(why.trim_end()),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> u8 {
    eprintln!("nutcracker: {why}");
    FAILED
}

/// Reads the file. What is wrong is said, and what is different here, if it `warns`.
fn read(options: &Options, file: &Path, warns: bool) -> Option<config::kv::nutcracker::Nutcracker> {
    if warns && options.mbuf_size != MBUF_SIZE {
        eprintln!("nutcracker: warning: -m {} has no effect: buffers find their size themselves", options.mbuf_size);
    }
    match load(file, &resolve) {
        Ok(read) => {
            for warning in read.warnings.iter().filter(|_| warns) {
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
fn configuration(options: &Options, read: config::kv::nutcracker::Nutcracker) -> Option<Config> {
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
    let file = options.output.clone().map_or(LogFile::Stderr, |path| LogFile::Path(crate::commands::absolute(&path)));
    Some(read.into_config(stats, Log { level, file }))
}

/// The first address of a listener's host. Waits for the system's resolver; only at the start.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))
}

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
