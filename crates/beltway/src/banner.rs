//! What `run` prints when it serves: where each listener is, and for the built-in default what to try.

use std::fmt::Write as _;

use supervise::status::Status;

/// The lines, for standard error.
pub(crate) fn banner(status: &Status, built_in: bool) -> String {
    let mut text = format!("Beltway {} serves ({}).\n", status.version, status.configuration.source);
    for listener in &status.listeners {
        let what = match listener.kind.as_str() {
            "http" => "HTTP proxy",
            "server" => "server's own page (/healthz)",
            "demo" => "embedded origin, for demonstration",
            "demo-redis" => "embedded Redis store, for demonstration",
            "demo-memcached" => "embedded memcached store, for demonstration",
            "kv" => "key-value pool",
            "kv-stats" => "key-value numbers, as twemproxy's",
            "admin" => "admin port: status page, /metrics",
            other => other,
        };
        let pool = listener.pool.as_ref().map(|pool| format!(" \"{pool}\"")).unwrap_or_default();
        let _ = writeln!(text, "  {:<22} {what}{pool}", listener.address);
    }
    if built_in {
        let address = |kind: &str| status.listeners.iter().find(|l| l.kind == kind).map(|l| l.address.as_str());
        text.push_str("Three commands to try:\n");
        if let Some(http) = address("http") {
            let _ = writeln!(text, "  curl -i http://{http}/");
        }
        if let Some(admin) = address("admin") {
            let _ = writeln!(text, "  curl http://{admin}/metrics");
        }
        let redis = status.listeners.iter().find(|l| l.kind == "kv" && l.pool.as_deref() == Some("redis"));
        if let Some(port) = redis.and_then(|redis| redis.address.rsplit_once(':')).map(|(_, port)| port) {
            let _ = writeln!(text, "  redis-cli -p {port} set a 1");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::status::ListenerStatus;

    #[test]
    fn the_default_is_shown_with_three_commands_and_a_configured_one_without() {
        let listener = |kind: &str, address: &str| ListenerStatus {
            kind: kind.to_owned(),
            address: address.to_owned(),
            ..ListenerStatus::default()
        };
        let pool = ListenerStatus { pool: Some("redis".to_owned()), ..listener("kv", "127.0.0.1:22121") };
        let listeners = vec![listener("http", "127.0.0.1:8080"), listener("admin", "127.0.0.1:9001"), pool];
        let status = Status { listeners, ..Status::default() };
        let text = banner(&status, true);
        for part in
            ["curl -i http://127.0.0.1:8080/", "curl http://127.0.0.1:9001/metrics", "redis-cli -p 22121 set a 1"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(!banner(&status, false).contains("curl"));
    }
}
