//! What can only be judged when all values are known: values that contradict each other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::diagnostic::{Findings, Spanned};
use crate::kv::{self, KvListen};
use crate::model::{Config, RemapRule};
use crate::remap::{HostPattern, OriginHost, OriginUrl, RemapFrom};
use crate::value::show_duration;

/// Looks at the whole configuration.
pub(crate) fn check(config: &Config, findings: &mut Findings<'_>) {
    listeners(config, findings);
    kv::check::check(&config.kv, findings);
    loops(config, findings);
    covered_rules(config, findings);
    stop_before_drained(config, findings);
    nothing_to_do(config, findings);
}

/// No two listeners may have one address.
fn listeners(config: &Config, findings: &mut Findings<'_>) {
    let http = config.http.listen.iter().map(|listener| ("http.listen", listener.address));
    let single = [
        ("admin.listen", config.admin.listen),
        ("server.listen", config.server.listen),
        ("demo.origin", config.demo.origin),
        ("demo.redis", config.demo.redis),
        ("demo.memcached", config.demo.memcached),
    ];
    let single = single.into_iter().filter_map(|(key, address)| address.map(|address| (key, address)));
    let pools = config.kv.pools.iter().filter_map(|pool| match pool.listen.value {
        KvListen::Tcp(address) => Some(("kv.pools.NAME.listen", Spanned::new(address, pool.listen.place))),
        KvListen::Unix { .. } => None,
    });
    let stats = config.kv.stats.iter().map(|stats| ("kv.stats.listen", stats.listen));
    let mut all: Vec<(&str, Spanned<SocketAddr>)> = http.chain(single).chain(pools).chain(stats).collect();
    // In the order of the file, so that the later one is blamed; defaults first, because they cannot be pointed at.
    all.sort_by_key(|(_, address)| address.place);
    for (i, (key, address)) in all.iter().enumerate() {
        let Some((other_key, other)) = all[..i].iter().find(|(_, other)| collide(address.value, other.value)) else {
            continue;
        };
        let written = if other.place.is_written() {
            format!("`{other_key}` on line {}", other.place.line)
        } else {
            format!("the default of `{other_key}`")
        };
        findings.error(address.place, || {
            let message = format!("`{key}` cannot listen on {}: {written} has {}", address.value, other.value);
            (message, Some("give each its own port".to_owned()))
        });
    }
}

/// Whether two listeners cannot both be bound. Port 0 is a different port each time.
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// No origin may be one of our own listeners: each request would come back until the limit on connections is reached.
fn loops(config: &Config, findings: &mut Findings<'_>) {
    for origin in config.http.remap.iter().flat_map(|rule| &rule.to) {
        if let Some(own) = config.http.listen.iter().find(|own| is_reached_by(own.address.value, origin)) {
            findings.error(origin.place, || {
                let message = format!(
                    "this origin is the proxy itself, which listens on {} (line {})",
                    own.address.value, own.address.place.line
                );
                (message, Some("requests would go round in a loop; name the origin behind the proxy".to_owned()))
            });
        }
    }
}

/// Whether a connection to `origin` from this machine surely ends at the listener `own`.
fn is_reached_by(own: SocketAddr, origin: &OriginUrl) -> bool {
    if own.port() != origin.port {
        return false;
    }
    let reaches = |ip: IpAddr| {
        // Connecting to the unspecified address connects to this machine.
        let here = ip.is_loopback() || ip.is_unspecified();
        own.ip() == ip
            || (here && own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4())
            || (ip.is_unspecified() && own.ip().is_loopback() && own.is_ipv4() == ip.is_ipv4())
    };
    match &origin.host {
        OriginHost::Ip(ip) => reaches(*ip),
        OriginHost::Name(name) if name == "localhost" => {
            reaches(Ipv4Addr::LOCALHOST.into()) || reaches(Ipv6Addr::LOCALHOST.into())
        }
        OriginHost::Name(_) => false,
    }
}

/// A rule behind one that is for all its requests never has its turn.
///
/// Every rule that could cover another is looked up by what it would have to be, so that ten thousand rules take
/// milliseconds; whether it does is [`RemapFrom::covers`] to say.
fn covered_rules(config: &Config, findings: &mut Findings<'_>) {
    let mut earlier: HashMap<&str, HashMap<&str, Vec<&RemapRule>>> = HashMap::new();
    for rule in &config.http.remap {
        let from = &rule.from.value;
        let covering = wider_hosts(from)
            .filter_map(|host| earlier.get(host))
            .flat_map(|of_host| wider_paths(&from.path).filter_map(|path| of_host.get(path)))
            .flatten()
            .filter(|other| other.from.covers(from))
            .min_by_key(|other| other.place);
        if let Some(other) = covering {
            findings.warning(rule.from.place, || {
                let message = format!(
                    "this rule never matches: `{}` on line {} takes all its requests",
                    other.from.value, other.from.place.line
                );
                let hint = "the first rule that matches is taken: put the narrower one before the wider";
                (message, Some(hint.to_owned()))
            });
            // It takes nothing that the other does not take, so it need not be remembered.
            continue;
        }
        earlier.entry(host_text(from)).or_default().entry(&from.path).or_default().push(rule);
    }
}

/// What stands for a rule's hosts: a name, a suffix with its dot, or nothing for any.
fn host_text(from: &RemapFrom) -> &str {
    match &from.host {
        None => "",
        Some(HostPattern::Exact(text) | HostPattern::Suffix(text)) => text,
    }
}

/// The hosts of all rules that could cover `from`: its own, every suffix of it, any.
fn wider_hosts(from: &RemapFrom) -> impl Iterator<Item = &str> {
    let text = host_text(from);
    let suffixes = text.match_indices('.').map(|(dot, _)| &text[dot..]).filter(move |suffix| suffix.len() < text.len());
    let any = (!text.is_empty()).then_some("");
    std::iter::once(text).chain(suffixes).chain(any)
}

/// The paths of all rules that could cover one of `path`: itself, and what ends before or after a `/` in it.
fn wider_paths(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.match_indices('/').flat_map(|(slash, _)| [&path[..slash], &path[..=slash]]);
    cuts.filter(move |cut| !cut.is_empty() && cut.len() < path.len()).chain(std::iter::once(path))
}

/// A server that drains must not be killed for it.
fn stop_before_drained(config: &Config, findings: &mut Findings<'_>) {
    let drain = config.server.drain_delay.saturating_add(config.server.drain_timeout);
    let stop = config.supervise.stop_timeout;
    if stop > drain {
        return;
    }
    let paths = ["supervise.stop_timeout", "server.drain_timeout", "server.drain_delay"];
    let places = paths.map(|path| config.settings.place(path));
    let place = places.into_iter().find(|place| place.is_written()).unwrap_or(places[0]);
    findings.error(place, || {
        let than = if config.server.drain_delay.is_zero() { "" } else { "`server.drain_delay` and " };
        let message = format!(
            "`supervise.stop_timeout` ({}) must be longer than {than}`server.drain_timeout` ({})",
            show_duration(stop),
            show_duration(drain)
        );
        (message, Some("a draining server would be killed before it is done".to_owned()))
    });
}

/// A configuration that serves nobody is allowed, and hardly meant.
fn nothing_to_do(config: &Config, findings: &mut Findings<'_>) {
    let http = &config.http;
    let hint = |text: &str| Some(text.to_owned());
    if http.listen.is_empty() && config.kv.pools.is_empty() {
        findings.warning(config.settings.place("http.listen"), || {
            ("no listener: clients cannot connect".to_owned(), hint("write `http: {listen: [\"0.0.0.0:8080\"]}`"))
        });
    } else if http.remap.is_empty() && !http.listen.is_empty() {
        findings.warning(config.settings.place("http.remap"), || {
            let message = "no remap rule: every request will be answered with 404".to_owned();
            (message, hint("write `remap: [{from: \"/\", to: \"http://10.0.0.5:8000/\"}]` in `http`"))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_covers_a_rule_is_among_the_wider_ones() {
        let patterns = [
            "*",
            "/",
            "/a",
            "/a/",
            "/a/b",
            "/ab",
            "http://x.y.z/",
            "http://*.y.z/",
            "http://*.z/a",
            "http://y.z/a/b",
            "http://*:80/",
            "http://x.y.z:80/a/",
            "http://[::1]/",
        ];
        let patterns = patterns.map(|text| RemapFrom::parse(text).expect("a pattern"));
        for wide in &patterns {
            for narrow in patterns.iter().filter(|narrow| wide.covers(narrow)) {
                assert!(wider_hosts(narrow).any(|host| host == host_text(wide)), "{wide} covers {narrow}");
                assert!(wider_paths(&narrow.path).any(|path| path == wide.path), "{wide} covers {narrow}");
            }
        }
    }

    #[test]
    fn listeners_collide_on_one_port_of_one_address_or_of_all() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:80", "127.0.0.1:80") && collide("0.0.0.0:80", "127.0.0.1:80"));
        assert!(collide("[::1]:80", "[::]:80"));
        assert!(!collide("127.0.0.1:80", "127.0.0.1:81") && !collide("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!collide("0.0.0.0:80", "[::]:80") && !collide("127.0.0.1:0", "127.0.0.1:0"));
    }
}
