//! Proxy auto-configuration: the script that browsers and systems fetch as `/proxy.pac` or `/wpad.dat`.
//!
//! Made from the configuration, so that it cannot name a port where nobody listens. While forward proxying is off there
//! is nothing to send clients to, and the script says so by sending them directly.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use config::Config;

/// What the script is served as.
pub(super) const CONTENT_TYPE: &str = "application/x-ns-proxy-autoconfig";

/// Proxies that one script names at most.
const PROXIES_MAX: usize = 8;

/// The script for a client that reached this machine as `host` (a name or an address, as its `Host` field has it).
pub(super) fn script(config: &Config, forwards: bool, host: Option<&str>) -> String {
    let listen: Vec<SocketAddr> = config.http.listen.iter().map(|listener| listener.address.value).collect();
    let mut proxies = Vec::new();
    if forwards {
        proxies.extend(listen.iter().filter_map(|address| reached_as(*address, host)).take(PROXIES_MAX));
    }
    let mut text = String::from("// Made from Beltway's configuration.\nfunction FindProxyForURL(url, host) {\n");
    if proxies.is_empty() {
        let why =
            if forwards { "no proxy listens where this client could reach it" } else { "forward proxying is off" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  // {why}\n  return \"DIRECT\";\n}}");
        return text;
    }
    text.push_str(
        "  if (isPlainHostName(host) || shExpMatch(host, \"127.*\") || host == \"[::1]\" || host == \"::1\" ||\n      \
         dnsDomainIs(host, \".localhost\")) {\n    return \"DIRECT\";\n  }\n",
    );
    let list: Vec<String> = proxies.iter().map(|proxy| format!("PROXY {proxy}")).collect();
    let _ = writeln!(text, "  return \"{}; DIRECT\";\n}}", list.join("; "));
    text
}

/// Where a client that reached this machine as `host` reaches `address`. A wildcard is reached under the same name; what
/// comes from the client goes into a script only when it is nothing but a name or an address.
fn reached_as(address: SocketAddr, host: Option<&str>) -> Option<String> {
    if !address.ip().is_unspecified() {
        return Some(address.to_string());
    }
    let host = host?;
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(ip, _)| ip),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, address.port()).to_string());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(plain)).then(|| format!("{name}:{}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(on: &str) -> Config {
        config::parse("/etc/x.yaml", &format!("http: {{listen: [{on}]}}\n")).unwrap()
    }

    #[test]
    fn clients_are_sent_to_the_proxy_under_the_name_they_know_it_by() {
        let config = listening("10.0.0.1:3128, 0.0.0.0:8080");
        let text = script(&config, true, Some("wpad.example.com:9001"));
        assert!(text.contains("return \"PROXY 10.0.0.1:3128; PROXY wpad.example.com:8080; DIRECT\";"), "{text}");
        assert!(script(&config, true, Some("[2001:db8::1]:9001")).contains("PROXY [2001:db8::1]:8080;"));
        assert!(script(&config, false, Some("wpad")).contains("forward proxying is off\n  return \"DIRECT\";"));
    }

    #[test]
    fn nothing_that_a_client_says_becomes_script() {
        let config = listening("0.0.0.0:8080");
        for host in ["\";alert(1);\"", "a b", "a\nb", "", "a/b", "ä"] {
            let text = script(&config, true, Some(host));
            assert!(text.contains("no proxy listens") && !text.contains("PROXY"), "{host:?}: {text}");
        }
        assert!(!script(&config, true, None).contains("PROXY"));
    }
}
