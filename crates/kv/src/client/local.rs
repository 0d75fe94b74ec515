//! What the proxy answers itself.

use super::described::describe;
use super::requests::{Asked, refused};
use super::{Client, Phase};
use crate::commands::{self, Command, Local, Refusal, Treat};
use crate::slow::Asker;

/// What a client said of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// By `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// By `CLIENT SETINFO LIB-NAME`.
    pub library: Vec<u8>,
    /// By `CLIENT SETINFO LIB-VER`.
    pub version: Vec<u8>,
}

/// Whether a client may say this before its password.
pub(super) fn is_open_to_all(command: &Command) -> bool {
    matches!(command.treat, Treat::Local(Local::Auth | Local::Quit | Local::Hello | Local::Reset))
}

pub(super) const OK: &[u8] = b"+OK\r\n";
const SYNTAX: &[u8] = b"-ERR syntax error\r\n";

pub(super) fn bulk(reply: &mut Vec<u8>, bytes: &[u8]) {
    reply.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
}

fn as_bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = Vec::with_capacity(bytes.len() + 16);
    bulk(&mut reply, bytes);
    reply
}

impl Client {
    pub(super) fn answer_locally(&mut self, what: Local, asked: &Asked<'_>) {
        match what {
            Local::Ping => match asked.count() {
                1 => self.answer_static(b"+PONG\r\n"),
                2 => self.answer(as_bulk(asked.argument(1))),
                _ => self.answer_static(b"-ERR wrong number of arguments for 'ping' command\r\n"),
            },
            Local::Echo => self.answer(as_bulk(asked.argument(1))),
            Local::Quit => {
                self.answer_static(OK);
                self.phase = Phase::Ending;
                self.mark();
            }
            Local::Auth => self.authenticate(asked),
            Local::Select => match commands::integer(asked.argument(1)).map(i32::try_from) {
                Some(Ok(0)) => self.answer_static(OK),
                Some(Ok(_)) => self.answer_static(b"-ERR DB index is out of range\r\n"),
                Some(Err(_)) => {
                    self.answer_static(b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n")
                }
                None => self.answer_static(b"-ERR value is not an integer or out of range\r\n"),
            },
            Local::Client => self.client(asked),
            Local::Command => self.command(asked),
            Local::Reset => {
                self.authenticated = self.pool.plan().source.redis_auth.is_none();
                self.identity = None;
                self.answer_static(b"+RESET\r\n");
            }
            Local::Time => {
                let micros = self.worker.thread().wall().as_micros();
                let mut reply = b"*2\r\n".to_vec();
                bulk(&mut reply, (micros / 1_000_000).to_string().as_bytes());
                bulk(&mut reply, (micros % 1_000_000).to_string().as_bytes());
                self.answer(reply);
            }
            Local::Info => {
                let text = self.info(asked);
                self.answer(as_bulk(text.as_bytes()));
            }
            Local::Hello => self.hello(asked),
            Local::Slowlog => self.slow_log(asked),
        }
    }

    fn authenticate(&mut self, asked: &Asked<'_>) {
        let right = match (asked.count(), &self.pool.plan().source.redis_auth) {
            (4.., _) => return self.answer_static(SYNTAX),
            (_, None) => return self.answer_static(b"-ERR Client sent AUTH, but no password is set\r\n"),
            (2, Some(password)) => asked.argument(1) == password.as_bytes(),
            (_, Some(password)) => asked.argument(1) == b"default" && asked.argument(2) == password.as_bytes(),
        };
        self.authenticated = right;
        self.answer_static(if right { OK } else { b"-ERR invalid password\r\n" });
    }

    fn hello(&mut self, asked: &Asked<'_>) {
        if asked.count() > 1 {
            match asked.argument(1) {
                b"2" => {}
                b"3" => {
                    return self.answer_static(
                        b"-NOPROTO unsupported protocol version: the proxy speaks RESP2, tell your client to (redis-py protocol=2, node-redis RESP: 2)\r\n",
                    );
                }
                version if commands::integer(version).is_some() => {
                    return self.answer_static(b"-NOPROTO unsupported protocol version\r\n");
                }
                _ => return self.answer_static(b"-ERR Protocol version is not an integer or out of range\r\n"),
            }
        }
        let (mut at, mut name) = (2, None);
        while at < asked.count() {
            let word = asked.argument(at);
            if word.eq_ignore_ascii_case(b"auth") && at + 2 < asked.count() {
                let password = self.pool.plan().source.redis_auth.as_deref();
                let right = password.is_none_or(|password| password.as_bytes() == asked.argument(at + 2))
                    && asked.argument(at + 1) == b"default";
                if !right {
                    return self.answer_static(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n");
                }
                self.authenticated = true;
                at += 3;
            } else if word.eq_ignore_ascii_case(b"setname") && at + 1 < asked.count() {
                name = Some(asked.argument(at + 1));
                at += 2;
            } else {
                let told = printable(word, word.len());
                return self.answer([b"-ERR Syntax error in HELLO option '", &told[..], b"'\r\n"].concat());
            }
        }
        if !self.authenticated {
            return self.answer_static(
                b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n",
            );
        }
        if let Some(name) = name
            && !self.set_name(name)
        {
            return;
        }
        let mut reply = b"*14\r\n".to_vec();
        for (name, value) in [("server", "redis"), ("version", SPOKEN)] {
            bulk(&mut reply, name.as_bytes());
            bulk(&mut reply, value.as_bytes());
        }
        bulk(&mut reply, b"proto");
        reply.extend_from_slice(b":2\r\n");
        bulk(&mut reply, b"id");
        reply.extend_from_slice(format!(":{}\r\n", self.id).as_bytes());
        for (name, value) in [("mode", "standalone"), ("role", "master")] {
            bulk(&mut reply, name.as_bytes());
            bulk(&mut reply, value.as_bytes());
        }
        bulk(&mut reply, b"modules");
        reply.extend_from_slice(b"*0\r\n");
        self.answer(reply);
    }

    /// What it is called from now on. False: it may not be, and is told.
    fn set_name(&mut self, name: &[u8]) -> bool {
        let right = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
        if right {
            self.identity.get_or_insert_default().name = name.to_vec();
        } else {
            self.answer_static(b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n");
        }
        right
    }

    fn client(&mut self, asked: &Asked<'_>) {
        let sub = asked.argument(1).to_ascii_lowercase();
        match (sub.as_slice(), asked.count()) {
            (b"id", 2) => self.answer(format!(":{}\r\n", self.id).into_bytes()),
            (b"getname", 2) => match &self.identity {
                Some(identity) if !identity.name.is_empty() => {
                    let reply = as_bulk(&identity.name);
                    self.answer(reply);
                }
                _ => self.answer_static(b"$-1\r\n"),
            },
            (b"setname", 3) => {
                if self.set_name(asked.argument(2)) {
                    self.answer_static(OK);
                }
            }
            (b"setinfo", 4) => {
                let identity = self.identity.get_or_insert_default();
                if asked.argument(2).eq_ignore_ascii_case(b"lib-name") {
                    identity.library = asked.argument(3).to_vec();
                } else if asked.argument(2).eq_ignore_ascii_case(b"lib-ver") {
                    identity.version = asked.argument(3).to_vec();
                } else {
                    return self.answer_static(b"-ERR Unrecognized option\r\n");
                }
                self.answer_static(OK);
            }
            (b"info", 2) => {
                let line = self.describe();
                self.answer(as_bulk(line.as_bytes()));
            }
            (b"id" | b"getname" | b"setname" | b"setinfo" | b"info", _) => {
                self.answer(wrong_count("client", &sub));
            }
            (
                b"caching" | b"getredir" | b"help" | b"kill" | b"list" | b"no-evict" | b"no-touch" | b"pause"
                | b"reply" | b"tracking" | b"trackinginfo" | b"unblock" | b"unpause",
                _,
            ) => {
                let line = refused(&format!("client {}", String::from_utf8_lossy(&sub)), Refusal::OneServer);
                self.answer(line.into_bytes());
            }
            _ => self.answer(unknown_subcommand("client", asked.argument(1))),
        }
    }

    pub(super) fn peer(&self) -> String {
        let told = |tcp: &event::Tcp| tcp.peer().map(|peer| peer.to_string());
        let left = || Some(self.awaited.as_ref()?.left.as_ref()?.address.clone());
        self.tcp.as_ref().and_then(told).or_else(left).unwrap_or_default()
    }

    /// As the slow log names it.
    pub(crate) fn asker(&self) -> Asker {
        Asker::new(self.peer(), self.identity.as_ref().map_or(b"", |identity| &identity.name))
    }

    fn describe(&self) -> String {
        let peer = self.peer();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, library, version) = self.identity.as_ref().map_or_else(Default::default, |identity| {
            (text(&identity.name), text(&identity.library), text(&identity.version))
        });
        format!("id={} addr={peer} name={name} db=0 resp=2 lib-name={library} lib-ver={version}\n", self.id)
    }

    fn command(&mut self, asked: &Asked<'_>) {
        let sub = asked.argument(1).to_ascii_lowercase();
        match (sub.as_slice(), asked.count()) {
            (_, 1) => {
                let known = commands::all().iter().filter(|command| !command.name.contains('|'));
                let mut reply = Vec::with_capacity(32 << 10);
                let rows: Vec<&Command> = known.collect();
                reply.extend_from_slice(format!("*{}\r\n", rows.len()).as_bytes());
                rows.into_iter().for_each(|command| describe(&mut reply, command));
                self.answer(reply);
            }
            (b"count", 2) => {
                let count = commands::all().iter().filter(|command| !command.name.contains('|')).count();
                self.answer(format!(":{count}\r\n").into_bytes());
            }
            (b"info", _) => {
                let mut reply = format!("*{}\r\n", asked.count() - 2).into_bytes();
                for at in 2..asked.count() {
                    match commands::look_up(asked.argument(at)) {
                        Some(command) => describe(&mut reply, command),
                        None => reply.extend_from_slice(b"$-1\r\n"),
                    }
                }
                self.answer(reply);
            }
            (b"list", 2) => {
                let names: Vec<_> = commands::all().iter().filter(|command| !command.name.contains('|')).collect();
                let mut reply = format!("*{}\r\n", names.len()).into_bytes();
                names.iter().for_each(|command| bulk(&mut reply, command.name.as_bytes()));
                self.answer(reply);
            }
            (b"getkeys", 4..) => self.keys_of(asked),
            // Of documentation there is none here, which is an answer that clients understand.
            (b"docs", _) => self.answer_static(b"*0\r\n"),
            (b"list", _) => self.answer_static(SYNTAX),
            (b"count" | b"getkeys", _) => {
                self.answer(wrong_count("command", &sub));
            }
            (b"getkeysandflags" | b"help", _) => {
                let line = refused(&format!("command {}", String::from_utf8_lossy(&sub)), Refusal::OneServer);
                self.answer(line.into_bytes());
            }
            _ => self.answer(unknown_subcommand("command", asked.argument(1))),
        }
    }

    fn keys_of(&mut self, asked: &Asked<'_>) {
        let count = asked.count() - 2;
        let Some(command) = commands::of_request(count, |at| asked.argument(at + 2)) else {
            return self.answer_static(b"-ERR Invalid command specified\r\n");
        };
        if !command.takes(count) {
            return self.answer_static(b"-ERR Invalid number of arguments specified for command\r\n");
        }
        match commands::keys(command, count, |at| asked.argument(at + 2)) {
            Ok(keys) if keys.iter().next().is_some() => {
                let places: Vec<usize> = keys.iter().collect();
                let mut reply = format!("*{}\r\n", places.len()).into_bytes();
                places.into_iter().for_each(|at| bulk(&mut reply, asked.argument(at + 2)));
                self.answer(reply);
            }
            Ok(_) => self.answer_static(b"-ERR The command has no key arguments\r\n"),
            Err(_) => self.answer_static(b"-ERR Invalid arguments specified for command\r\n"),
        }
    }
}

/// As Redis says it.
pub(super) fn unknown_subcommand(command: &str, sub: &[u8]) -> Vec<u8> {
    let told = printable(sub, TOLD_MAX);
    let name = command.to_ascii_uppercase();
    [b"-ERR unknown subcommand '", &told[..], b"'. Try ", name.as_bytes(), b" HELP.\r\n"].concat()
}

/// As Redis says it, `sub` being one that there is.
pub(super) fn wrong_count(command: &str, sub: &[u8]) -> Vec<u8> {
    let sub = String::from_utf8_lossy(sub);
    format!("-ERR wrong number of arguments for '{command}|{sub}' command\r\n").into_bytes()
}

/// So much of a command's name, of a subcommand's, and of all arguments together, is told in an error line.
pub(super) const TOLD_MAX: usize = 128;

/// What an error line says of a word, in at most `max` bytes. As Redis does it, to which it is a string of C: it ends at its
/// first zero, and only the ends of lines are blanks.
pub(super) fn printable(word: &[u8], max: usize) -> Vec<u8> {
    let told = word.iter().take(max).take_while(|byte| **byte != 0);
    told.map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// The Redis whose commands are known here.
pub(super) const SPOKEN: &str = "7.0.15";
