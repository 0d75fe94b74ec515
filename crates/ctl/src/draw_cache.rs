//! The cache as a terminal shows it.

use std::fmt::Write as _;

use supervise::cache::{CacheKnown, CacheTotals};
use supervise::memory::show;

/// How much there is.
#[must_use]
pub fn totals_text(totals: &CacheTotals) -> String {
    let asked = totals.found + totals.absent;
    let share = (totals.found * 100).checked_div(asked).map(|share| format!(" ({share}%)")).unwrap_or_default();
    let ramp = match totals.ramp_allows {
        None => String::new(),
        Some(allows) => format!("after a cold start, {allows} fetches at a time\n"),
    };
    format!(
        "{} objects, {} of {}; the longest that is stored has {}\n{} look-ups, {} found{share}\n{} stored, {} evicted\n{ramp}",
        totals.objects,
        show(totals.used_bytes),
        show(totals.budget_bytes),
        show(totals.object_max_bytes),
        asked,
        totals.found,
        totals.stored,
        totals.evicted,
    )
}

/// What is known of a URL.
#[must_use]
pub fn known_text(known: &CacheKnown) -> String {
    let mut text = format!("{}\n", known.key);
    // Writing to a string cannot fail.
    if known.stored.is_empty() {
        let _ = writeln!(text, "  nothing is stored");
    }
    for one in &known.stored {
        let fresh = if one.fresh_for_s >= 0 {
            format!("fresh for {} s", one.fresh_for_s)
        } else {
            format!("stale for {} s", -one.fresh_for_s)
        };
        let _ = writeln!(text, "  {}: {}", one.status, one.verdict);
        let _ = writeln!(
            text,
            "    age {} s, {fresh}{}; {} bytes, {} of memory",
            one.age_s,
            if one.marked_stale { ", marked stale" } else { "" },
            one.length,
            show(one.memory_bytes)
        );
        let _ = writeln!(text, "    validator: {}", one.validator.as_deref().unwrap_or("none"));
        for (name, value) in &one.vary {
            let _ = writeln!(text, "    for {name}: {}", value.as_deref().unwrap_or("(not there)"));
        }
    }
    if let Some(queue) = &known.queue {
        let _ = writeln!(text, "  eviction: in the {queue} queue");
    }
    for fetch in &known.fetches {
        let _ =
            writeln!(text, "  being fetched: {}, {} wait, {} bytes came", fetch.state, fetch.followers, fetch.length);
    }
    if let Some((why, secs)) = &known.declined {
        let _ = writeln!(text, "  not stored lately ({why}): nobody waits for another's response for {secs} s more");
    }
    text
}

#[cfg(test)]
mod tests {
    use supervise::cache::{CacheFetch, CacheStored};

    use super::*;

    #[test]
    fn what_is_stored_and_why_it_is_served_can_be_read() {
        let known = CacheKnown {
            key: "http://a/".to_owned(),
            stored: vec![CacheStored {
                status: "HTTP/1.1 200 OK".to_owned(),
                age_s: 5,
                fresh_for_s: -3,
                verdict: "validated first".to_owned(),
                vary: vec![("accept".to_owned(), None)],
                ..CacheStored::default()
            }],
            fetches: vec![CacheFetch { state: "head".to_owned(), followers: 2, length: 0 }],
            declined: Some(("no-store".to_owned(), 9)),
            queue: Some("small".to_owned()),
        };
        let text = known_text(&known);
        for part in ["stale for 3 s", "for accept: (not there)", "2 wait", "no-store", "small"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(known_text(&CacheKnown::default()).contains("nothing is stored"));
    }
}
