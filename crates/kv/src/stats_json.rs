//! The line of JSON that twemproxy's stats port answers with: its fields, in its order, to the byte.
//!
//! Pure: numbers in, text out. Whoever counts fills [`Report`]; whoever listens writes [`Report::line`] and closes.
//! Scripts cut this line with `sed` as often as they parse it, so spaces stand where they stood.

use std::fmt::Write as _;

/// Declares numbers as fields, and from the same list their names in JSON and what `-D` says of them.
macro_rules! numbers {
    ($(#[$about:meta])* $name:ident { $(#[doc = $doc:literal] $field:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct $name { $(#[doc = $doc] pub $field: u64,)+ }

        impl $name {
            /// The names of the fields and what each counts, in the order of the JSON.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), $doc)),+];

            fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),+].into_iter()
            }
        }
    };
}

numbers! {
    /// What is counted of a pool.
    PoolNumbers {
        #[doc = "clients that closed their connection"]
        client_eof,
        #[doc = "client connections that failed"]
        client_err,
        #[doc = "client connections now"]
        client_connections,
        #[doc = "times a server was ejected"]
        server_ejects,
        #[doc = "requests that could not be passed on"]
        forward_error,
        #[doc = "parts that requests for several servers were split into"]
        fragments,
    }
}

numbers! {
    /// What is counted of a server.
    ServerNumbers {
        #[doc = "times the server closed a connection"]
        server_eof,
        #[doc = "server connections that failed"]
        server_err,
        #[doc = "requests that the server did not answer in time"]
        server_timedout,
        #[doc = "server connections now"]
        server_connections,
        #[doc = "when the server was last ejected, in microseconds since 1970"]
        server_ejected_at,
        #[doc = "requests sent"]
        requests,
        #[doc = "bytes of the requests sent"]
        request_bytes,
        #[doc = "responses received"]
        responses,
        #[doc = "bytes of the responses received"]
        response_bytes,
        #[doc = "requests that wait to be sent"]
        in_queue,
        #[doc = "bytes of the requests that wait to be sent"]
        in_queue_bytes,
        #[doc = "requests that wait for their response"]
        out_queue,
        #[doc = "bytes of the requests that wait for their response"]
        out_queue_bytes,
    }
}

/// Everything the line tells.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// The name of this host.
    pub source: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime: u64,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Connections since the start, of clients and to servers.
    pub total_connections: u64,
    /// Connections now.
    pub curr_connections: u64,
    /// The pools, in any order.
    pub pools: Vec<PoolReport>,
}

/// One pool of the line.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Its numbers.
    pub numbers: PoolNumbers,
    /// Its servers in any order, by the names that place their keys.
    pub servers: Vec<(String, ServerNumbers)>,
}

impl Report {
    /// The line, with its end. Pools and servers come as twemproxy sorts them: shorter names first, equally long ones
    /// by their bytes. Names are escaped, which they are not there.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = String::from("{\"service\":\"nutcracker\", ");
        for (field, value) in [("source", &self.source), ("version", &self.version)] {
            line.push_str(&format!("\"{field}\":{}, ", quoted(value)));
        }
        let numbers = [
            ("uptime", self.uptime),
            ("timestamp", self.timestamp),
            ("total_connections", self.total_connections),
            ("curr_connections", self.curr_connections),
        ];
        put(&mut line, numbers);
        let mut pools: Vec<&PoolReport> = self.pools.iter().collect();
        pools.sort_by_key(|pool| (pool.name.len(), &pool.name));
        for (i, pool) in pools.into_iter().enumerate() {
            line.push_str(if i == 0 { ", " } else { "," });
            open(&mut line, &pool.name);
            put(&mut line, pool.numbers.values());
            let mut servers: Vec<_> = pool.servers.iter().collect();
            servers.sort_by_key(|(name, _)| (name.len(), name));
            for (i, (name, numbers)) in servers.into_iter().enumerate() {
                line.push_str(if i == 0 { ", " } else { "," });
                open(&mut line, name);
                put(&mut line, numbers.values());
                line.push('}');
            }
            line.push('}');
        }
        line.push_str("}\n");
        line
    }
}

/// What `nutcracker -D` says of the numbers.
#[must_use]
pub fn describe() -> String {
    let mut text = String::new();
    for (what, fields) in [("pool stats:", PoolNumbers::FIELDS), ("\nserver stats:", ServerNumbers::FIELDS)] {
        text.push_str(what);
        text.push('\n');
        for (name, meaning) in fields {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<20}\"{meaning}\"");
        }
    }
    text
}

fn open(line: &mut String, name: &str) {
    line.push_str(&quoted(name));
    line.push_str(": {");
}

fn put(line: &mut String, numbers: impl IntoIterator<Item = (&'static str, u64)>) {
    for (i, (name, value)) in numbers.into_iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(line, "{}\"{name}\":{value}", if i == 0 { "" } else { ", " });
    }
}

/// `text` as a string of JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nutcracker 0.5.0 said of two pools, sorted there from the order below, with `requests` put to 7 by hand.
    const SEEN: &str = concat!(
        r#"{"service":"nutcracker", "source":"vm", "version":"0.5.0", "uptime":1, "timestamp":1795311925, "#,
        r#""total_connections":2, "curr_connections":2, "zeta": {"client_eof":0, "client_err":0, "#,
        r#""client_connections":0, "server_ejects":0, "forward_error":0, "fragments":0, "named": {"server_eof":0, "#,
        r#""server_err":0, "server_timedout":0, "server_connections":0, "server_ejected_at":0, "requests":7, "#,
        r#""request_bytes":0, "responses":0, "response_bytes":0, "in_queue":0, "in_queue_bytes":0, "out_queue":0, "#,
        r#""out_queue_bytes":0},"127.0.0.1": {"server_eof":0, "server_err":0, "server_timedout":0, "#,
        r#""server_connections":0, "server_ejected_at":0, "requests":0, "request_bytes":0, "responses":0, "#,
        r#""response_bytes":0, "in_queue":0, "in_queue_bytes":0, "out_queue":0, "out_queue_bytes":0}},"alpha": "#,
        r#"{"client_eof":0, "client_err":0, "client_connections":0, "server_ejects":0, "forward_error":0, "#,
        r#""fragments":0, "x": {"server_eof":0, "server_err":0, "server_timedout":0, "server_connections":0, "#,
        r#""server_ejected_at":0, "requests":0, "request_bytes":0, "responses":0, "response_bytes":0, "in_queue":0, "#,
        r#""in_queue_bytes":0, "out_queue":0, "out_queue_bytes":0}}}"#,
        "\n"
    );

    fn report() -> Report {
        let seven = ServerNumbers { requests: 7, ..ServerNumbers::default() };
        let server = |name: &str| (name.to_owned(), ServerNumbers::default());
        let pool = |name: &str, servers| PoolReport { name: name.to_owned(), servers, ..PoolReport::default() };
        Report {
            source: "vm".to_owned(),
            version: "0.5.0".to_owned(),
            uptime: 1,
            timestamp: 1_795_311_925,
            total_connections: 2,
            curr_connections: 2,
            pools: vec![
                pool("alpha", vec![server("x")]),
                pool("zeta", vec![server("127.0.0.1"), ("named".to_owned(), seven)]),
            ],
        }
    }

    #[test]
    fn the_line_is_what_twemproxy_was_seen_to_say_to_the_byte() {
        assert_eq!(report().line(), SEEN);
    }

    #[test]
    fn a_name_cannot_break_the_line() {
        let mut report = report();
        report.pools[0].name = "we\"ird\\\n".to_owned();
        assert!(report.line().contains(r#""we\"ird\\\u000a": {"#), "{}", report.line());
        report.pools.clear();
        assert!(report.line().ends_with("\"curr_connections\":2}\n"));
    }

    #[test]
    fn every_number_is_described_in_the_order_of_the_line() {
        let text = describe();
        assert!(text.starts_with("pool stats:\n  client_eof          \"clients that closed"), "{text}");
        assert!(text.contains("\n\nserver stats:\n  server_eof          \""), "{text}");
        assert_eq!(PoolNumbers::FIELDS.len() + ServerNumbers::FIELDS.len(), 19);
    }
}
