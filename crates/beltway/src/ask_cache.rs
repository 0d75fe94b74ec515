//! `ctl cache`: what the running server has stored, and what it is told to remove.

use ctl::CtlError;
use serde_json::{json, to_value};
use supervise::cache::{CacheQuestion, CacheReply};

use crate::ask::{printed, with};
use crate::cli::{Asked, CacheCommand};

pub(crate) fn dispatch(command: CacheCommand) -> u8 {
    match command {
        CacheCommand::Status(asked) => ask(&asked, CacheQuestion::Totals),
        CacheCommand::Lookup { url, asked } => ask(&asked, CacheQuestion::LookUp(url)),
        CacheCommand::Purge { url: Some(url), asked, .. } => ask(&asked, CacheQuestion::Purge(url)),
        CacheCommand::Purge { url: None, asked, .. } => ask(&asked, CacheQuestion::Clear),
    }
}

fn ask(asked: &Asked, question: CacheQuestion) -> u8 {
    with(asked, |directory| {
        let reply = ctl::cache(directory, question)?;
        Ok(match &reply {
            CacheReply::Totals(totals) => printed(asked, to_value(totals), || ctl::totals_text(totals)),
            CacheReply::Known(known) => printed(asked, to_value(known), || ctl::known_text(known)),
            CacheReply::Removed(true) => printed(asked, Ok(json!({"removed": true})), || "removed\n".to_owned()),
            CacheReply::Removed(false) => {
                return Err(CtlError::Unfinished("nothing was stored for it".to_owned()));
            }
        })
    })
}
