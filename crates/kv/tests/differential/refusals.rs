//! What is not passed on: each with its reason, which the documentation tells.

use kv::commands::{Command, Refusal, Treat, all};

use super::world::{Proxy, Server, pool};

const DOCUMENTED: &str = include_str!("../../../../docs/kv-differences.md");

/// Why a pool of several does not pass it on.
fn reason(command: &Command) -> Option<Refusal> {
    match command.treat {
        Treat::Refuse(why) => Some(why),
        Treat::Alone => Some(Refusal::EveryServer),
        Treat::Forward | Treat::OneDatabase | Treat::Split(_) | Treat::Local(_) | Treat::Any | Treat::Container => None,
    }
}

#[test]
fn each_command_that_is_refused_is_refused_with_its_documented_reason() {
    let servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    let mut refused = 0;
    for (command, why) in all().iter().filter_map(|command| reason(command).map(|why| (command, why))) {
        let mut words: Vec<&str> = command.name.split('|').collect();
        words.resize(usize::from(command.arity.unsigned_abs()).max(1), "x");
        let name = command.name.replace('|', " ");
        let expected = format!("-ERR '{name}' is not supported by the proxy: {}\r\n", why.reason());
        assert_eq!(client.ask(&words), expected);
        refused += 1;
    }
    assert!(refused > 60, "{refused}");
    assert_eq!(client.say("PING"), "+PONG\r\n", "the connection stays");
}

#[test]
fn what_would_wait_or_needs_keys_is_refused_by_its_arguments() {
    let servers: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    for (line, reason) in
        [("XREAD BLOCK 0 STREAMS a 0", Refusal::Blocks), ("XREADGROUP GROUP g c BLOCK 0 STREAMS a >", Refusal::Blocks)]
    {
        assert!(client.say(line).ends_with(&format!(": {}\r\n", reason.reason())), "{line}");
    }
    assert!(client.say("SELECT 1").starts_with("-ERR DB index"));
    assert!(client.say("HELLO 3").starts_with("-NOPROTO"));
    assert!(client.say("CLIENT LIST").starts_with("-ERR 'client list' is not supported by the proxy: it concerns one"));
    assert!(client.say("SORT a BY w*").starts_with("-CROSSSERVER 'sort' makes keys of values"));
    assert!(client.say("EVAL x 0").starts_with("-CROSSSERVER 'eval' without keys"));
    // Servers are at other ports each time, so a few keys could be all on one.
    let keys: String = (0..64).map(|n| format!(" {n}:{}", n * 7919)).collect();
    assert!(client.say(&format!("SUNION{keys}")).starts_with("-CROSSSERVER the keys of 'sunion'"));
}

#[test]
fn the_documentation_tells_each_reason_and_each_command() {
    for command in all() {
        let Some(why) = reason(command) else { continue };
        assert!(DOCUMENTED.contains(why.reason()), "{:?}", why.reason());
        let name = command.name.to_ascii_uppercase().replace('|', " ");
        assert!(DOCUMENTED.contains(&format!("`{name}`")), "`{name}` is refused and not in docs/kv-differences.md");
    }
}
