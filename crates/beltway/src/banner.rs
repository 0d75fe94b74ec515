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
            "admin" => "admin port: status page, /metrics",
            other => other,
        };
        let _ = writeln!(text, "  {:<22} {what}", listener.address);
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
        text.push_str("  beltway status\n");
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
        let listeners = vec![listener("http", "127.0.0.1:8080"), listener("admin", "127.0.0.1:9001")];
        let status = Status { listeners, ..Status::default() };
        let text = banner(&status, true);
        for part in ["curl -i http://127.0.0.1:8080/", "curl http://127.0.0.1:9001/metrics", "beltway status"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!banner(&status, false).contains("curl"));
    }
}
