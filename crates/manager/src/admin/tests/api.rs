//! The interface for programs: every way to be refused, and that what passes reaches manager as it was meant.

use std::os::unix::fs::PermissionsExt;

use supervise::change::{Outcome, Proposal, Step, Verdict};
use supervise::log::Level;

use super::*;

const TOKEN: &str = "correct-horse-battery";

/// A port whose changes take [`TOKEN`], and the room its file is in.
fn guarded(name: &str) -> (Port, Room) {
    let room = Room::new(name);
    let file = room.0.join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let port = Port::open(status_with(&[1]), Vec::new());
    let text = format!("admin: {{token_file: {}}}\nhttp: {{listen: [0.0.0.0:8080], via: \"mine\"}}\n", file.display());
    *port.source.config.lock().unwrap() = Arc::new(config::parse("/etc/x.yaml", &text).unwrap());
    (port, room)
}

impl Port {
    /// Status code and body of a request with these field lines.
    fn send(&self, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let answer = self.ask_raw(&format!("{head}{fields}Content-Length: {}\r\n\r\n{body}", body.len()));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn change(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.send(method, path, &format!("Authorization: Bearer {TOKEN}\r\n"), body)
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.source.asked.lock().unwrap())
    }
}

/// Every change there is.
const CHANGES: [(&str, &str); 12] = [
    ("PUT", "/api/v1/config/keys/names.ttl"),
    ("POST", "/api/v1/config/judge"),
    ("POST", "/api/v1/config/reload"),
    ("POST", "/api/v1/config/rollback/3"),
    ("POST", "/api/v1/server/restart"),
    ("POST", "/api/v1/server/stop"),
    ("POST", "/api/v1/server/start"),
    ("POST", "/api/v1/server/drain"),
    ("DELETE", "/api/v1/server/drain"),
    ("PUT", "/api/v1/log/level"),
    ("POST", "/api/v1/log/reopen"),
    ("POST", "/api/v1/nowhere"),
];

#[test]
fn without_the_token_nothing_is_changed_and_what_is_read_is_read() {
    let (port, _room) = guarded("token");
    for (method, path) in CHANGES {
        assert_eq!(port.send(method, path, "", "").0, 401, "{method} {path}");
        for wrong in ["Bearer correct-horse-batterY", "Bearer ", "Bearer x", "Basic Y29ycmVjdA=="] {
            let (status, body) = port.send(method, path, &format!("Authorization: {wrong}\r\n"), "");
            assert!(matches!(status, 401 | 403) && body.contains("token"), "{wrong}: {status} {body}");
        }
    }
    let (head, _) = port.ask("POST", "/api/v1/server/stop");
    assert!(head.to_lowercase().contains("www-authenticate: bearer"), "{head}");
    assert_eq!(port.asked(), []);
    for path in ["", "/status", "/memory", "/metrics", "/config", "/config/keys/names.ttl", "/config/history"] {
        let (status, body) = port.send("GET", &format!("/api/v1{path}"), "", "");
        assert_eq!(status, 200, "{path}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap();
    }
    assert_eq!(port.send("GET", "/api/v1/obituaries", "", "").0, 401, "stacks are for those who may");
    assert_eq!(port.change("GET", "/api/v1/obituaries", "").0, 200);
}

#[test]
fn where_no_token_is_configured_the_port_only_reads() {
    let port = Port::open(status_with(&[1]), Vec::new());
    for (method, path) in CHANGES {
        let (status, body) = port.change(method, path, "");
        assert!(status == 403 && body.contains("only reads"), "{method} {path}: {status} {body}");
    }
    assert_eq!(port.asked(), []);
}

#[test]
fn a_token_that_others_may_read_is_not_taken() {
    let (port, room) = guarded("loose");
    fs::set_permissions(room.0.join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(port.change("POST", "/api/v1/server/stop", "").0, 403);
    assert_eq!(port.asked(), []);
}

#[test]
fn pages_of_other_sites_and_other_names_are_refused_even_with_the_token() {
    let (port, _room) = guarded("foreign");
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    for origin in ["http://evil.example", "https://localhost.evil.example", "null", "file://", "http://10.0.0.1:9001"] {
        for (method, path) in [("POST", "/api/v1/server/stop"), ("GET", "/api/v1/status"), ("GET", "/")] {
            assert_eq!(port.send(method, path, &format!("{token}Origin: {origin}\r\n"), "").0, 403, "{origin} {path}");
        }
    }
    let head = "POST /api/v1/server/stop HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n";
    assert!(port.ask_raw(&format!("{head}{token}\r\n")).starts_with("HTTP/1.1 421"));
    assert_eq!(port.asked(), []);
    assert_eq!(
        port.send("POST", "/api/v1/server/stop", &format!("{token}Origin: http://127.0.0.1:9001\r\n"), "").0,
        202
    );
    assert_eq!(port.asked(), [Request::Serve(false)]);
}

#[test]
fn nothing_is_changed_by_get() {
    let (port, _room) = guarded("get");
    let read_too = ["/api/v1/config/keys/names.ttl"];
    for (_, path) in CHANGES.iter().filter(|(_, path)| !read_too.contains(path)) {
        for method in ["GET", "HEAD"] {
            let (head, _) = port.ask(method, path);
            assert!(head.starts_with("HTTP/1.1 40"), "{method} {path}: {head}");
        }
    }
    let (head, _) = port.ask("GET", "/api/v1/config/rollback/3");
    assert!(head.starts_with("HTTP/1.1 405") && head.contains("allow: POST"), "{head}");
    assert_eq!(port.asked(), []);
}

#[test]
fn what_passes_reaches_manager_as_it_was_meant() {
    let (port, _room) = guarded("pass");
    *port.source.answer.lock().unwrap() = Reply::Verdict(Box::new(Verdict::new(Outcome::Applied, "")));
    for (method, path, body, proposal, step) in [
        ("POST", "/api/v1/config/reload", "", Proposal::File, Step::Reload),
        ("POST", "/api/v1/config/judge?number=4", "", Proposal::Past(4), Step::Judge),
        ("POST", "/api/v1/config/rollback/3?restart=true", "", Proposal::Past(3), Step::Restart),
        ("POST", "/api/v1/server/restart", "", Proposal::File, Step::Restart),
        (
            "PUT",
            "/api/v1/config/keys/names.ttl",
            "7s",
            Proposal::Set { key: "names.ttl".to_owned(), value: "7s".to_owned() },
            Step::Reload,
        ),
        (
            "DELETE",
            "/api/v1/config/keys/names.ttl?restart=true",
            "",
            Proposal::Unset { key: "names.ttl".to_owned() },
            Step::Restart,
        ),
    ] {
        let (status, answer) = port.change(method, path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        assert_eq!(serde_json::from_str::<Verdict>(&answer).unwrap().outcome, Outcome::Applied);
        assert_eq!(port.asked(), [Request::Change { proposal, step }]);
    }
    for (outcome, status) in [(Outcome::NeedsRestart, 409), (Outcome::Wrong, 422), (Outcome::Failed, 500)] {
        *port.source.answer.lock().unwrap() = Reply::Verdict(Box::new(Verdict::new(outcome, "")));
        assert_eq!(port.change("POST", "/api/v1/config/reload", "").0, status);
    }
    port.asked();
    *port.source.answer.lock().unwrap() = Reply::Done;
    for (method, path, body, request) in [
        ("POST", "/api/v1/server/start", "", Request::Serve(true)),
        ("POST", "/api/v1/server/drain", "", Request::Drain(true)),
        ("DELETE", "/api/v1/server/drain", "", Request::Drain(false)),
        ("PUT", "/api/v1/log/level", "debug\n", Request::LogLevel(Level::Debug)),
        ("POST", "/api/v1/log/reopen", "", Request::ReopenLogs),
    ] {
        assert!(matches!(port.change(method, path, body).0, 200 | 202), "{path}");
        assert_eq!(port.asked(), [request]);
    }
    assert_eq!(port.change("PUT", "/api/v1/log/level", "loud").0, 400);
    *port.source.answer.lock().unwrap() = Reply::Refused("busy".to_owned());
    let (status, body) = port.change("POST", "/api/v1/server/start", "");
    assert!(status == 409 && body.contains("busy"), "{status} {body}");
    let (status, _) = port.change("PUT", "/api/v1/config/keys/names.ttl", &"x".repeat(200_000));
    assert_eq!(status, 413);
}

#[test]
fn values_are_told_and_passwords_are_not() {
    let (port, _room) = guarded("values");
    let (_, body) = port.send("GET", "/api/v1/config/keys/http.via", "", "");
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"key": "http.via", "value": "\"mine\"", "written": true, "applied_by": "reload"})
    );
    assert_eq!(port.send("GET", "/api/v1/config/keys/nonsense", "", "").0, 404);
}

#[test]
fn auto_configuration_is_for_machines_that_know_this_one_by_another_name() {
    let (port, _room) = guarded("pac");
    for path in ["/proxy.pac", "/wpad.dat"] {
        let answer = port.ask_raw(&format!("GET {path} HTTP/1.1\r\nHost: wpad.example\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/x-ns-proxy-autoconfig"), "{answer}");
        assert!(answer.contains("function FindProxyForURL(url, host)") && answer.contains("DIRECT"), "{answer}");
        let posted = port.ask_raw(&format!("POST {path} HTTP/1.1\r\nHost: wpad\r\nConnection: close\r\n\r\n"));
        assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    }
    let other = port.ask_raw("GET /metrics HTTP/1.1\r\nHost: wpad.example\r\nConnection: close\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 421"), "{other}");
}
