//! What may be typed.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use supervise::listener::{Promised, parse_promised};

/// Beltway: a caching HTTP proxy on one event system, supervised by three processes.
#[derive(Debug, Parser)]
#[command(
    name = "beltway",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 it could not; 2 wrong usage; 3 the configuration is wrong; 4 already running; \
                  5 not running."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs all three processes in the foreground, logs on standard error
    Run(Run),
    /// Starts all three processes as a daemon and waits until they serve
    Start(Place),
    /// Stops everything, orderly, and waits for it
    Stop(Place),
    /// Puts what the configuration file says now in force, in the running server, or says why not
    Reload(Asked),
    /// Replaces the server by a new one with what the configuration file says now; no connection is refused
    Restart(Asked),
    /// Replaces all processes by the program now on disk; no connection is refused
    Upgrade(Asked),
    /// Says whether this program can take over from one that runs
    #[command(hide = true)]
    NewBinary(NewBinary),
    /// Shows the tree of processes
    Status(Asked),
    /// Reads and validates the configuration, touches nothing
    Check(Check),
    /// Talks to the running manager
    Ctl(Ctl),
    /// Runs cop by itself, which starts manager
    Cop(CopArguments),
    /// Runs manager by itself, which starts server
    Manager(RoleArguments),
    /// Runs server by itself: it binds its listeners, and nobody watches it
    Server(ServerArguments),
    /// Answers from a file alone what can be said of pools and keys
    Kv(Kv),
    /// twemproxy's program: its flags, its file (`beltway nutcracker -h`)
    #[command(disable_help_flag = true)]
    Nutcracker {
        /// What twemproxy is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Makes links to this program under the names it answers to
    InstallLinks {
        /// Where to make them
        directory: PathBuf,
    },
}

/// `kv`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Kv {
    #[command(subcommand)]
    pub(crate) command: KvCommand,
}

/// What may be asked of pools and keys.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Says which server keys belong to and why, with all servers live
    Where(Where),
}

/// `kv where`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Where {
    /// The configuration file, or twemproxy's own [default: /etc/beltway/beltway.yaml]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// As JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// The pool
    pub(crate) pool: String,
    /// The keys
    #[arg(required = true)]
    pub(crate) keys: Vec<std::ffi::OsString>,
}

/// Which Beltway is meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// The configuration file [default: /etc/beltway/beltway.yaml, else the built-in default]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Takes the built-in default, whatever files there are
    #[arg(long, conflicts_with = "config")]
    pub(crate) built_in_default: bool,
    /// Where leases and sockets are [default: as configured]
    #[arg(long, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) place: Place,
    /// As the daemon that `start` left behind: tells on this descriptor how the start went
    #[arg(long, hide = true, value_name = "fd=N", value_parser = descriptor)]
    pub(crate) daemon: Option<RawFd>,
    /// As what `start` started, which starts the daemon and ends: so that the daemon leads no session
    #[arg(long, hide = true, requires = "daemon")]
    pub(crate) leads_session: bool,
    /// What the top process left when it was another program
    #[arg(long, hide = true, value_name = "fd=N", value_parser = descriptor)]
    pub(crate) legacy: Option<RawFd>,
}

/// A question to the running processes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    pub(crate) place: Place,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `check`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Explains one key instead: what it is, its default, unit and bounds
    #[arg(long, value_name = "KEY")]
    pub(crate) explain: Option<String>,
}

/// `ctl`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ctl {
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// What may be asked of the running manager.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// Shows the tree of processes
    Status(Asked),
    /// The configuration: what is in force, what would change, what was
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The server: replace it, stop it, start it
    Server {
        #[command(subcommand)]
        command: ServerCommand,
    },
    /// The cache of HTTP responses
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Pools of Redis and memcached, and their servers
    Kv {
        #[command(subcommand)]
        command: CtlKvCommand,
    },
    /// The numbers
    Metric {
        #[command(subcommand)]
        command: MetricCommand,
    },
    /// The logs of all processes
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Shows where the memory is: by process and by room
    Memory {
        /// Divides what processes share among them, too: the server's new mappings wait some milliseconds for it
        #[arg(long)]
        exact: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

/// What may be asked of the configuration.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Shows the text that is in force, or the value of one key
    Get {
        /// The key, such as http.timeouts.keep_alive
        key: Option<String>,
        /// Every key with its value
        #[arg(long, conflicts_with = "key")]
        all: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Sets one key in the file, and puts it in force; what is refused changes neither
    Set {
        /// The key, such as http.timeouts.keep_alive
        key: String,
        /// Its value, as it would be written in the file
        value: String,
        /// With a new server side by side, when the key takes one
        #[arg(long, conflicts_with = "judge")]
        restart: bool,
        /// Only says what would happen
        #[arg(long)]
        judge: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Takes one key out of the file, so that its default is in force; what is refused changes neither
    Unset {
        /// The key, such as http.timeouts.keep_alive
        key: String,
        /// With a new server side by side, when the key takes one
        #[arg(long, conflicts_with = "judge")]
        restart: bool,
        /// Only says what would happen
        #[arg(long)]
        judge: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Judges the file as the running server would, and says which keys differ and what they take
    Diff {
        /// Instead of the file, one of the history, by its number
        number: Option<u64>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Puts what the file says in force
    Reload(Asked),
    /// Shows the configurations that were in force
    History(Asked),
    /// Puts one of them in force again
    Rollback {
        /// Its number in the history
        number: u64,
        /// With a new server side by side, when keys differ that take one
        #[arg(long)]
        restart: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

/// What may be done to the server.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Replaces it by a new one; no connection is refused
    Restart(Asked),
    /// Lets it finish what it has, and runs none until `start`: new connections wait
    Stop(Asked),
    /// Runs one again after `stop`, or takes a `drain` back
    Start(Asked),
    /// Has /healthz say `draining` and everything else go on, so that balancers send nobody new; until `start`
    Drain(Asked),
    /// Tells of what processes died, and what they were doing
    Obituaries(Asked),
}

/// What may be asked of the cache.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Shows how much there is
    Status(Asked),
    /// Shows what is stored for a URL, and whether it would be served
    Lookup {
        /// As clients write it: `http://www.example.com/page`
        url: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Removes what is stored for a URL
    Purge {
        /// As clients write it: `http://www.example.com/page`
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        url: Option<String>,
        /// Removes everything
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

/// What may be asked of the running pools.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CtlKvCommand {
    /// Shows the pools with what was counted
    Pools(Asked),
    /// Shows the servers, whether they are live, and what was counted
    Servers(Asked),
    /// Shows the commands, the one that took the most time first
    Top(Asked),
    /// Shows the newest requests that took longer than their pool's `slowlog`
    Slowlog(Asked),
    /// Says which server keys belong to now, and why
    Where {
        /// The pool
        pool: String,
        /// The keys
        #[arg(required = true)]
        keys: Vec<std::ffi::OsString>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Takes a server out of its ring until it is restored, whatever ends or starts meanwhile
    Eject(HeldServer),
    /// Takes a server back into its ring
    Restore(HeldServer),
}

/// A server of a pool.
#[derive(Clone, Debug, Args)]
pub(crate) struct HeldServer {
    /// Its name, or host:port when it has none
    pub(crate) server: String,
    /// The pool, when several have a server of that name
    #[arg(long)]
    pub(crate) pool: Option<String>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// What may be asked of the numbers.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MetricCommand {
    /// Shows one, by its name
    Get {
        /// Its name, such as beltway_http_requests_total
        name: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Shows those whose names contain a text
    Match {
        /// The text
        text: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Shows those whose names contain a text that change, again and again
    Watch {
        /// The text
        text: String,
        /// Seconds between two looks
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
        /// How many looks
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
        count: u64,
        #[command(flatten)]
        asked: Asked,
    },
}

/// What may be done to logs.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Closes and opens the log files, after they were renamed
    Reopen(Asked),
    /// Sets how much all processes tell, until the next reload
    Level {
        /// error, warn, info or debug
        #[arg(value_parser = ["error", "warn", "info", "debug"])]
        level: String,
        #[command(flatten)]
        asked: Asked,
    },
}

/// What every role is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct RoleArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Standard error goes to this file, and to a new one after USR1
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// One of a tree: reads the committed configuration, respawns its neighbour
    #[arg(long, hide = true)]
    pub(crate) in_tree: bool,
    /// What this process left when it was another program
    #[arg(long, hide = true, value_name = "fd=N", value_parser = descriptor)]
    pub(crate) legacy: Option<RawFd>,
}

/// `new-binary`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NewBinary {
    #[command(flatten)]
    pub(crate) role: RoleArguments,
    /// The version of the program that runs
    #[arg(long)]
    pub(crate) replaces: String,
}

/// `cop`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CopArguments {
    #[command(flatten)]
    pub(crate) role: RoleArguments,
    /// The first of its tree: ends when manager cannot start
    #[arg(long, hide = true)]
    pub(crate) first: bool,
}

/// `server`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArguments {
    #[command(flatten)]
    pub(crate) role: RoleArguments,
    /// The generation that manager gave it
    #[arg(long, hide = true)]
    pub(crate) generation: Option<u64>,
    /// It tries the configuration that is to be committed when it is ready
    #[arg(long, hide = true)]
    pub(crate) candidate: bool,
    /// It accepts nothing until it is told to
    #[arg(long, hide = true)]
    pub(crate) standby: bool,
    /// Inherited listeners for HTTP clients, such as 8080:fd=9,8443:fd=10
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) httpport: Option<PromisedList>,
    /// Inherited listener for the server's own page
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) serverport: Option<PromisedList>,
    /// Inherited listener for the embedded origin
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) demoport: Option<PromisedList>,
    /// Inherited listeners for the clients of pools; a Unix socket's port is 0
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) kvport: Option<PromisedList>,
    /// Inherited listener for the key-value engine's stats
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) kvstatsport: Option<PromisedList>,
    /// Inherited listener for the embedded Redis store
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) demoredisport: Option<PromisedList>,
    /// Inherited listener for the embedded memcached store
    #[arg(long, hide = true, value_name = "PORT:fd=N", value_parser = promised)]
    pub(crate) demomemcachedport: Option<PromisedList>,
    /// Inherited descriptor of the lease
    #[arg(long, hide = true, value_name = "fd=N", value_parser = descriptor)]
    pub(crate) lease: Option<RawFd>,
    /// Inherited descriptor of the pipe that is told when it is ready
    #[arg(long, hide = true, value_name = "fd=N", value_parser = descriptor)]
    pub(crate) ready: Option<RawFd>,
}

/// Promised listeners of one kind.
#[derive(Clone, Debug)]
pub(crate) struct PromisedList(pub(crate) Vec<Promised>);

fn promised(text: &str) -> Result<PromisedList, String> {
    parse_promised(text).map(PromisedList).map_err(|error| error.to_string())
}

fn descriptor(text: &str) -> Result<RawFd, String> {
    let number = text.strip_prefix("fd=").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|n| n.parse().ok()).ok_or_else(|| format!("`{text}` is not fd=NUMBER, such as fd=9"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_server_is_told_its_descriptors() {
        let words = ["beltway", "server", "--generation", "3", "--httpport", "80:fd=9,81:fd=10", "--lease", "fd=11"];
        let Command::Server(server) = Cli::try_parse_from(words).unwrap().command else { panic!("not server") };
        assert_eq!(server.httpport.unwrap().0.len(), 2);
        assert_eq!((server.generation, server.lease, server.ready), (Some(3), Some(11), None));
        for wrong in [["beltway", "server", "--lease", "11"], ["beltway", "server", "--httpport", "80"]] {
            assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2);
        }
        assert_eq!(Cli::try_parse_from(["beltway"]).unwrap_err().exit_code(), 2, "usage without a command");
    }
}
