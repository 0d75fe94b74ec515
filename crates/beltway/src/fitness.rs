//! `new-binary`: what this program says when one that runs asks whether it can take over.
//!
//! One line of JSON on standard output, made for the asker; the exit code says the same to people. Nothing is touched.

use std::io::Write;

use supervise::change::{Outcome, Verdict};
use supervise::configuration;
use supervise::directory::RuntimeDir;
use supervise::failure::{COULD_NOT, DONE, WRONG_CONFIGURATION};
use supervise::succession::{Fitness, are_of_one_minor_version};

use crate::cli::NewBinary;
use crate::commands;

pub(crate) fn tell(asked: &NewBinary) -> u8 {
    let verdict = judge(asked);
    let outcome = verdict.outcome;
    let line = serde_json::to_string(&Fitness::ours(verdict)).map_err(std::io::Error::from);
    let told = line.and_then(|line| std::io::stdout().write_all((line + "\n").as_bytes()));
    match (told, outcome) {
        (Err(error), _) => {
            eprintln!("beltway: the answer cannot be written: {error}");
            COULD_NOT
        }
        (Ok(()), Outcome::Possible) => DONE,
        (Ok(()), Outcome::Wrong) => WRONG_CONFIGURATION,
        (Ok(()), _) => COULD_NOT,
    }
}

fn judge(asked: &NewBinary) -> Verdict {
    let failed = |why: String| Verdict::new(Outcome::Failed, why);
    if !are_of_one_minor_version(base::VERSION, &asked.replaces) {
        return failed(format!(
            "version {} cannot take over from {} while it runs: stop and start",
            base::VERSION,
            asked.replaces
        ));
    }
    let Ok(source) = commands::source(&asked.role.place) else { return failed("no working directory".to_owned()) };
    let config = match source.load() {
        Ok(config) => config,
        Err(config::Diagnostics(wrong)) => return Verdict::wrong(&wrong),
    };
    let directory = RuntimeDir::new(asked.role.place.runtime_dir.as_ref().unwrap_or(&config.runtime_dir));
    // Until the next server is ready, cop and manager run what is in force now.
    match configuration::committed(&directory) {
        Ok(_) => Verdict::new(Outcome::Possible, ""),
        Err(why) => failed(format!("version {} does not understand what is in force: {why}", base::VERSION)),
    }
}
