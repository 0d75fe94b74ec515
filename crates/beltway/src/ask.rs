//! Commands that ask the running processes, and print what they answer: for people, or with `--json` for programs.

use std::io::Write;
use std::time::Duration;

use base::WallTime;
use ctl::{CtlError, Known};
use serde_json::to_value;
use supervise::change::{Outcome, Proposal, Step, Verdict};
use supervise::configuration::{self, Source, history};
use supervise::directory::RuntimeDir;
use supervise::failure::{COULD_NOT, DONE, NOT_RUNNING, WRONG_CONFIGURATION, WRONG_USAGE};
use supervise::log::{Level, timestamp};
use supervise::{obituary, wait};

use crate::cli::{Asked, ConfigCommand, CtlCommand, LogCommand, MetricCommand, ServerCommand};
use crate::commands::directory;
use crate::{ask_cache, ask_kv};

/// What a change may take beyond the start of a server.
const CHANGE_MARGIN: Duration = Duration::from_secs(15);

pub(crate) fn ctl(command: CtlCommand) -> u8 {
    match command {
        CtlCommand::Status(asked) => status(&asked),
        CtlCommand::Config { command } => match command {
            ConfigCommand::Get { key: Some(key), asked, .. } => one_key(&asked, &key),
            ConfigCommand::Get { all: true, asked, .. } => every_key(&asked),
            ConfigCommand::Get { asked, .. } => in_force(&asked),
            ConfigCommand::Set { key, value, restart, judge, asked } => {
                change(&asked, Proposal::Set { key, value }, step(judge, restart))
            }
            ConfigCommand::Unset { key, restart, judge, asked } => {
                change(&asked, Proposal::Unset { key }, step(judge, restart))
            }
            ConfigCommand::Diff { number, asked } => {
                change(&asked, number.map_or(Proposal::File, Proposal::Past), Step::Judge)
            }
            ConfigCommand::Reload(asked) => change(&asked, Proposal::File, Step::Reload),
            ConfigCommand::History(asked) => past(&asked),
            ConfigCommand::Rollback { number, restart, asked } => {
                change(&asked, Proposal::Past(number), step(false, restart))
            }
        },
        CtlCommand::Server { command } => match command {
            ServerCommand::Restart(asked) => change(&asked, Proposal::File, Step::Restart),
            ServerCommand::Stop(asked) => serve(&asked, false),
            ServerCommand::Start(asked) => serve(&asked, true),
            ServerCommand::Drain(asked) => done(&asked, "draining", |directory| ctl::drain(directory, true)),
            ServerCommand::Obituaries(asked) => obituaries(&asked),
        },
        CtlCommand::Metric { command } => match command {
            MetricCommand::Get { name, asked } => numbers(&asked, &name, true),
            MetricCommand::Match { text, asked } => numbers(&asked, &text, false),
            MetricCommand::Watch { text, interval, count, asked } => {
                watch(&asked, &text, Duration::from_secs(interval), count)
            }
        },
        CtlCommand::Log { command } => match command {
            LogCommand::Reopen(asked) => done(&asked, "reopened", ctl::reopen_logs),
            LogCommand::Level { level, asked } => match level.parse::<Level>() {
                Ok(level) => done(&asked, "set", |directory| ctl::set_log_level(directory, level)),
                Err(error) => {
                    eprintln!("beltway: {error}");
                    WRONG_USAGE
                }
            },
        },
        CtlCommand::Cache { command } => ask_cache::dispatch(command),
        CtlCommand::Kv { command } => ask_kv::dispatch(command),
        CtlCommand::Memory { exact, asked } => with(&asked, |directory| {
            let memory = ctl::memory(directory, exact)?;
            Ok(printed(&asked, to_value(&memory), || ctl::memory_table(&memory)))
        }),
    }
}

const fn step(judge: bool, restart: bool) -> Step {
    match (judge, restart) {
        (true, _) => Step::Judge,
        (false, true) => Step::Restart,
        (false, false) => Step::Reload,
    }
}

pub(crate) fn status(asked: &Asked) -> u8 {
    with(asked, |directory| {
        let known = ctl::status(directory)?;
        Ok(match &known {
            Known::Whole(status) => printed(asked, to_value(status), || ctl::tree(status)),
            Known::Census(census) => printed(asked, to_value(census), || ctl::census(census)),
        })
    })
}

/// Has a configuration judged or put in force, and says the verdict.
pub(crate) fn change(asked: &Asked, proposal: Proposal, step: Step) -> u8 {
    // The file may be what is wrong, and then does not say where the processes are: the usual place it is.
    with(asked, |directory| {
        let bound = match step {
            Step::Judge | Step::Reload => Duration::ZERO,
            Step::Restart | Step::Upgrade => start_timeout(directory),
        };
        let verdict = ctl::change(directory, proposal, step, bound + CHANGE_MARGIN)?;
        let code = printed(asked, to_value(&verdict), || ctl::verdict(&verdict));
        Ok(if code == DONE { exit_code(&verdict) } else { code })
    })
}

fn exit_code(verdict: &Verdict) -> u8 {
    match verdict.outcome {
        Outcome::Applied | Outcome::Possible | Outcome::Unchanged => DONE,
        Outcome::Wrong => WRONG_CONFIGURATION,
        Outcome::NeedsRestart | Outcome::Failed => COULD_NOT,
    }
}

fn start_timeout(directory: &RuntimeDir) -> Duration {
    let in_force = configuration::in_force(directory, &Source::BuiltIn);
    // The candidate may allow more; its bound is in the table.
    in_force.map_or(Duration::ZERO, |(config, _)| config.supervise.start_timeout) * 2
}

fn in_force(asked: &Asked) -> u8 {
    with(asked, |directory| {
        let config = committed(directory)?;
        let (source, text) = (config.file_name(), config.source_text());
        let json = serde_json::json!({"source": source, "digest": configuration::digest(&config), "text": text});
        Ok(printed(asked, Ok(json), || text.to_owned()))
    })
}

pub(crate) fn committed(directory: &RuntimeDir) -> Result<config::Config, CtlError> {
    match configuration::committed(directory) {
        Ok(Some(config)) => Ok(config),
        Ok(None) => Err(CtlError::NotRunning(directory.path().display().to_string())),
        Err(why) => Err(CtlError::Unfinished(why)),
    }
}

fn one_key(asked: &Asked, key: &str) -> u8 {
    with(asked, |directory| {
        let Some(setting) = committed(directory)?.setting(key) else {
            let near = config::nearest_key(key).filter(|near| *near != key);
            let near = near.map(|near| format!("; the nearest is `{near}`")).unwrap_or_default();
            let why = format!("`{key}` is no key with a value of its own{near}; `ctl config get --all` shows them");
            return Err(CtlError::Unfinished(why));
        };
        Ok(printed(asked, Ok(json_of(&setting)), || format!("{}\n", setting.value)))
    })
}

fn every_key(asked: &Asked) -> u8 {
    with(asked, |directory| {
        let settings = committed(directory)?.every_setting();
        let json = settings.iter().map(json_of).collect();
        Ok(printed(asked, Ok(json), || ctl::settings(&settings)))
    })
}

fn json_of(setting: &config::Setting) -> serde_json::Value {
    let config::Setting { key, value, is_written, applied } = setting;
    serde_json::json!({"key": key, "value": value, "written": is_written, "applied_by": applied.to_string()})
}

fn past(asked: &Asked) -> u8 {
    with(asked, |directory| {
        let past = history::all(directory)?;
        Ok(printed(asked, to_value(&past), || {
            let line = |past: &history::Past| {
                let at = timestamp(WallTime::from_micros(past.at_us));
                format!("{:>4}  {at}  {}  {}\n", past.number, past.digest, past.source)
            };
            past.iter().map(line).collect()
        }))
    })
}

fn obituaries(asked: &Asked) -> u8 {
    with(asked, |directory| {
        let deaths = obituary::all(directory)?;
        Ok(printed(asked, to_value(&deaths), || ctl::obituaries(&deaths)))
    })
}

fn serve(asked: &Asked, wanted: bool) -> u8 {
    with(asked, |directory| {
        let bounds = configuration::in_force(directory, &Source::BuiltIn);
        let bounds = bounds.map_or_else(|_| config::builtin_default().supervise, |(config, _)| config.supervise);
        let bound = if wanted { bounds.start_timeout } else { bounds.stop_timeout };
        ctl::serve(directory, wanted, bound + CHANGE_MARGIN)?;
        let what = if wanted { "serves" } else { "stopped" };
        Ok(printed(asked, to_value(what), || format!("{what}\n")))
    })
}

fn numbers(asked: &Asked, pattern: &str, whole: bool) -> u8 {
    with(asked, |directory| {
        let mut numbers = ctl::numbers(directory, pattern)?;
        if whole {
            numbers.retain(|(name, _)| name.split('{').next() == Some(pattern));
        }
        if numbers.is_empty() {
            return Err(CtlError::Unfinished(format!("there is no number `{pattern}`")));
        }
        Ok(print_numbers(asked, &numbers))
    })
}

fn watch(asked: &Asked, pattern: &str, interval: Duration, count: u64) -> u8 {
    with(asked, |directory| {
        let mut before = Vec::new();
        for look in 0..count {
            if look > 0 {
                wait::readable(&[], interval)?;
            }
            let now = ctl::numbers(directory, pattern)?;
            let changed: Vec<_> = now.iter().filter(|number| !before.contains(*number)).cloned().collect();
            if !changed.is_empty() && print_numbers(asked, &changed) != DONE {
                return Ok(COULD_NOT);
            }
            before = now;
        }
        Ok(DONE)
    })
}

fn print_numbers(asked: &Asked, numbers: &[(String, String)]) -> u8 {
    printed(asked, to_value(numbers), || numbers.iter().map(|(name, value)| format!("{name} {value}\n")).collect())
}

/// What is done with no more to tell.
pub(crate) fn done(asked: &Asked, what: &str, act: impl FnOnce(&RuntimeDir) -> Result<(), CtlError>) -> u8 {
    with(asked, |directory| {
        act(directory)?;
        Ok(printed(asked, to_value(what), || format!("{what}\n")))
    })
}

pub(crate) fn with(asked: &Asked, act: impl FnOnce(&RuntimeDir) -> Result<u8, CtlError>) -> u8 {
    match directory(&asked.place).map(|directory| act(&directory)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            if asked.json {
                // For programs; people read the same on standard error.
                let code = exit_code_of(&error);
                let _ = printed(asked, Ok(serde_json::json!({"error": error.to_string(), "exit": code})), String::new);
            }
            complain(&error)
        }
        Err(code) => code,
    }
}

pub(crate) fn printed(asked: &Asked, json: serde_json::Result<serde_json::Value>, text: impl FnOnce() -> String) -> u8 {
    let text = if asked.json {
        json.and_then(|json| serde_json::to_string_pretty(&json)).map(|text| text + "\n")
    } else {
        Ok(text())
    };
    let written = text.map_err(std::io::Error::other).and_then(|text| std::io::stdout().write_all(text.as_bytes()));
    match written {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("beltway: the answer cannot be written: {error}");
            COULD_NOT
        }
    }
}

pub(crate) fn complain(error: &CtlError) -> u8 {
    eprintln!("beltway: {error}");
    exit_code_of(error)
}

const fn exit_code_of(error: &CtlError) -> u8 {
    if matches!(error, CtlError::NotRunning(_)) { NOT_RUNNING } else { COULD_NOT }
}
