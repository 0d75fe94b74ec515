//! The table of commands against what a real server says of itself.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use kv::commands::{Access, all, look_up};
use world::Server;

fn lines(reply: &str) -> Vec<&str> {
    reply.split("\r\n").collect()
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
