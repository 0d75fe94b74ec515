//! The table of commands against what a real server says of itself.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use kv::commands::{Access, all, look_up};
use world::{Proxy, Server, pool};

fn lines(reply: &str) -> Vec<&str> {
    reply.split("\r\n").collect()
}

/// Where the first key of a command is, as `COMMAND INFO` says; 0 when it has none.
fn first_key(client: &mut world::Client, name: &str) -> i64 {
    let info = client.ask(&["COMMAND", "INFO", name]);
    let info = lines(&info);
    let flags: usize = info[5].trim_start_matches('*').parse().unwrap();
    info[6 + flags].trim_start_matches(':').parse().unwrap()
}

#[test]
fn every_subcommand_with_a_key_has_a_row_and_every_other_is_known_by_name() {
    let server = Server::redis(&[]);
    let behind = [Server::redis(&[])];
    let proxy = Proxy::start(pool(&behind, true), 1);
    let (mut client, mut through) = (server.client(), proxy.client());
    let list = client.say("COMMAND LIST");
    let names: Vec<String> = lines(&list).into_iter().filter(|name| name.contains('|')).map(str::to_owned).collect();
    assert!(names.len() > 100, "{}", names.len());
    let (mut with_keys, mut without) = (0, 0);
    for name in &names {
        if first_key(&mut client, name) > 0 {
            assert!(look_up(name.as_bytes()).is_some(), "{name} has a key and is not in the table");
            with_keys += 1;
            continue;
        }
        // Either it is answered, or it is refused as what it is.
        let answer = through.ask(&name.split('|').collect::<Vec<_>>());
        assert!(!answer.starts_with("-ERR unknown"), "{name}: {answer}");
        without += 1;
    }
    assert!(with_keys >= 13 && without > 80, "{with_keys} with keys, {without} without");
}

#[test]
fn the_table_says_what_a_server_says_of_every_command_it_knows() {
    let server = Server::redis(&[]);
    let mut client = server.client();
    let list = client.say("COMMAND LIST");
    let names: Vec<&str> = lines(&list).into_iter().skip(2).step_by(2).collect();
    assert!(names.len() >= 240, "{}", names.len());
    for name in names.iter().filter(|name| !name.contains('|')) {
        assert!(look_up(name.as_bytes()).is_some(), "{name} is not in the table");
    }
    let mut compared = 0;
    for command in all() {
        let info = client.ask(&["COMMAND", "INFO", command.name]);
        let info = lines(&info);
        if matches!(info.get(1), Some(&"$-1")) {
            // Newer than this server.
            continue;
        }
        let number = |at: usize| info[at].trim_start_matches(':').parse::<i64>().unwrap();
        assert_eq!(number(4), i64::from(command.arity), "arity of {}", command.name);
        let flags: usize = info[5].trim_start_matches('*').parse().unwrap();
        let flag = |name: &str| info[6..6 + flags].contains(&format!("+{name}").as_str());
        let access = if flag("write") {
            Access::Write
        } else if flag("readonly") {
            Access::Read
        } else {
            Access::Other
        };
        assert_eq!(access, command.access, "access of {}", command.name);
        let places = [number(6 + flags), number(7 + flags), number(8 + flags)];
        let (first, last, step) = command.places;
        assert_eq!(places, [first, last, step].map(i64::from), "keys of {}", command.name);
        compared += 1;
    }
    assert!(compared >= 250, "{compared}");
}
