//! wrk as a load generator: one thread on the load core, its numbers read from a line its script prints.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::LeashedCommand;

/// How much longer than asked wrk may run before it is given up.
const GRACE: Duration = Duration::from_secs(20);

/// How wrk chooses the path of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paths {
    /// Always this one.
    One(&'static str),
    /// One of so many below a prefix, at random.
    Random(&'static str, usize),
    /// Each request another one below a prefix.
    Fresh(&'static str),
}

impl Paths {
    /// One path that stands for all of them.
    pub(crate) fn sample(self) -> String {
        match self {
            Self::One(path) => path.to_owned(),
            Self::Random(prefix, _) => format!("{prefix}0"),
            Self::Fresh(prefix) => format!("{prefix}sample"),
        }
    }
}

/// One run.
pub(crate) struct Load {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// Which paths.
    pub(crate) paths: Paths,
    /// Connections at once.
    pub(crate) connections: u32,
    /// A client connection for each request.
    pub(crate) close: bool,
    /// How long.
    pub(crate) length: Duration,
    /// Makes fresh paths differ from those of every other run.
    pub(crate) salt: u64,
}

/// What wrk saw.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Seen {
    /// Complete responses.
    pub(crate) requests: u64,
    /// Over so many seconds.
    pub(crate) seconds: f64,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// Median latency.
    pub(crate) p50_us: u64,
    /// Latency that one of a hundred exceeded.
    pub(crate) p99_us: u64,
    /// Connections, reads and writes that failed, answers that did not come in time, statuses above 399.
    pub(crate) errors: u64,
}

impl Load {
    /// Runs wrk to its end.
    pub(crate) fn run(&self, lab: &Lab) -> Outcome<Seen> {
        let program = lab::find_program("wrk")?;
        let room = lab.room("wrk")?;
        let script = room.join("load.lua");
        fs::write(&script, self.script()).doing(script.display())?;
        // wrk takes whole seconds; the length is rounded up.
        let seconds = (self.length.as_millis().div_ceil(1000)).max(1);
        let mut command = LeashedCommand::new(program.display().to_string(), lab.load_core)
            .args(["-t", "1", "-c", &self.connections.to_string(), "-d", &format!("{seconds}s")])
            .args(["-s", &script.display().to_string(), "--timeout", "10s"]);
        if self.close {
            command = command.args(["-H", "Connection: close"]);
        }
        command = command.arg(format!("http://127.0.0.1:{}{}", self.port, self.paths.sample()));
        let text = lab.tool(&command, self.length + GRACE)?;
        let _ = fs::remove_dir_all(&room);
        parse(&text)
    }

    fn script(&self) -> String {
        let request = match self.paths {
            Paths::One(_) => String::new(),
            Paths::Random(prefix, count) => format!(
                "local asked = {{}}
init = function(args)
  math.randomseed({salt})
  for i = 0, {count} - 1 do asked[i] = wrk.format(nil, \"{prefix}\" .. i) end
end
request = function() return asked[math.random(0, {count} - 1)] end
",
                salt = self.salt
            ),
            Paths::Fresh(prefix) => format!(
                "local head, tail
local n = 0
init = function(args)
  local whole = wrk.format(nil, \"{prefix}{salt}/@\")
  local at = string.find(whole, \"@\", 1, true)
  head, tail = string.sub(whole, 1, at - 1), string.sub(whole, at + 1)
end
request = function() n = n + 1 return head .. n .. tail end
",
                salt = self.salt
            ),
        };
        format!(
            "{request}done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(\"BENCH %d %d %d %d %d %d\\n\", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.timeout + e.status))
end
"
        )
    }
}

fn parse(text: &str) -> Outcome<Seen> {
    let numbers: Option<Vec<u64>> = text
        .lines()
        .find_map(|line| line.strip_prefix("BENCH "))
        .and_then(|rest| rest.split_whitespace().map(|word| word.parse().ok()).collect());
    match numbers.as_deref() {
        Some(&[requests, micros, bytes, p50_us, p99_us, errors]) if requests > 0 => {
            Ok(Seen { requests, seconds: micros as f64 / 1e6, bytes, p50_us, p99_us, errors })
        }
        _ => Err(Trouble::Wrong(format!("wrk saw no answer: {}", text.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_script_is_found_among_the_others() {
        let seen = parse("Running 1s test\nBENCH 100 1000000 5000 210 900 3\n").unwrap();
        assert_eq!((seen.requests, seen.p50_us, seen.p99_us, seen.errors), (100, 210, 900, 3));
        assert!(parse("BENCH 0 1000000 0 0 0 0\n").is_err());
    }
}
