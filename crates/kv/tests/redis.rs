//! Clients of Redis through the proxy, with real servers behind.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod world;

use std::io::{Read, Write};
use std::net::TcpListener;

use kv::{Address, ServerSource};
use world::{Client, PATIENCE, Proxy, Server, eventually, pool};

fn servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::redis(&[])).collect()
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn a_pipeline_over_several_servers_is_answered_in_its_order() {
    let servers = servers(3);
    let proxy = Proxy::start(pool(&servers, true), 2);
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for round in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            for at in 0..100 {
                let (key, value) = (format!("k{number}:{at}"), format!("v{number}:{round}:{at}"));
                bytes.extend(kv::wire::resp::request::encode(&["SET", &key, &value]));
                bytes.extend(kv::wire::resp::request::encode(&["GET", &key]));
                bytes.extend(b"PING\r\n");
            }
            client.send(&bytes);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for at in 0..100 {
                assert_eq!(client.reply(), b"+OK\r\n");
                assert_eq!(String::from_utf8(client.reply()).unwrap(), bulk(&format!("v{number}:{round}:{at}")));
                assert_eq!(client.reply(), b"+PONG\r\n");
            }
        }
    }
}

#[test]
fn keys_on_several_servers_are_split_and_joined() {
    let servers = servers(3);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    let keys: Vec<String> = (0..50).map(|n| format!("{n}:{}", n * 7919)).collect();
    let mut words = vec!["MSET".to_owned()];
    words.extend(keys.iter().flat_map(|key| [key.clone(), format!("v{key}")]));
    assert_eq!(client.ask(&words), "+OK\r\n");
    let spread: Vec<String> = servers.iter().map(|server| server.client().say("DBSIZE")).collect();
    assert!(spread.iter().all(|size| size != ":0\r\n" && size != ":50\r\n"), "the keys live apart: {spread:?}");
    let mut words = vec!["MGET".to_owned(), "nothing".into()];
    words.extend(keys.iter().cloned());
    words.push(keys[0].clone());
    let mut expected = "*52\r\n$-1\r\n".to_owned();
    keys.iter().chain([&keys[0]]).for_each(|key| expected.push_str(&bulk(&format!("v{key}"))));
    assert_eq!(client.ask(&words), expected);
    let all = |name: &str| [vec![name.to_owned()], keys.clone()].concat();
    assert_eq!(client.ask(&all("EXISTS")), ":50\r\n");
    assert_eq!(client.ask(&all("TOUCH")), ":50\r\n");
    assert_eq!(client.ask(&all("DEL")), ":50\r\n");
    assert_eq!(client.ask(&all("UNLINK")), ":0\r\n");
    assert!(client.ask(&all("SUNION")).starts_with("-CROSSSERVER the keys of 'sunion'"));
    assert!(client.say("MSET a 1 b").contains("wrong number of arguments for 'mset'"));
    assert!(client.say("SORT a BY w_*").starts_with("-CROSSSERVER"));
    assert!(client.ask(&["EVAL", "return 1", "0"]).starts_with("-CROSSSERVER"));
}

#[test]
fn keys_with_a_common_tag_live_together() {
    let servers = servers(3);
    let proxy = Proxy::start(kv::PoolSource { hash_tag: "{}".parse().ok(), ..pool(&servers, true) }, 1);
    let mut client = proxy.client();
    assert_eq!(client.say("SADD {t}a 1 2"), ":2\r\n");
    assert_eq!(client.say("SADD {t}b 2 3"), ":2\r\n");
    assert_eq!(client.say("SINTERSTORE {t}c {t}a {t}b"), ":1\r\n");
    assert_eq!(client.say("ZADD {t}z 1 a"), ":1\r\n");
    assert_eq!(client.say("ZUNIONSTORE {t}y 1 {t}z"), ":1\r\n");
    assert_eq!(client.ask(&["EVAL", "return KEYS[1]", "1", "{t}a"]), bulk("{t}a"));
    assert_eq!(client.say("XADD {t}s 1-1 a b"), bulk("1-1"));
    assert!(client.say("XREAD COUNT 1 STREAMS {t}s 0").contains("1-1"));
    assert!(client.say("XREAD BLOCK 0 STREAMS {t}s 0").contains("not supported by the proxy"));
    assert_eq!(client.say("OBJECT ENCODING {t}z"), bulk("listpack"));
}

#[test]
fn a_stream_a_group_or_a_consumer_may_bear_the_name_of_an_option() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    assert_eq!(client.say("XREAD STREAMS block 0"), "*-1\r\n");
    assert_eq!(client.say("XGROUP CREATE block block 0 MKSTREAM"), "+OK\r\n");
    assert_eq!(client.say("XADD block 1-1 a b"), bulk("1-1"));
    assert!(client.say("XREADGROUP GROUP block block STREAMS block >").contains("1-1"));
    let refused = "it would block a connection that other clients share\r\n";
    assert!(client.say("XREADGROUP GROUP block block BLOCK 0 STREAMS block >").ends_with(refused));
    assert!(client.ask(&["XREAD", "BLOCK\0", "0", "STREAMS", "block", "$"]).ends_with(refused));
}

#[test]
fn a_subcommand_that_there_is_not_is_named_as_the_server_names_it() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (mut direct, mut client) = (servers[0].client(), proxy.client());
    for container in ["object", "MEMORY", "XGroup", "xinfo", "client", "command", "slowlog"] {
        for sub in ["FOO", "", "help|x", "doctors"] {
            for request in [vec![container, sub], vec![container, sub, "a"]] {
                let expected = direct.ask(&request);
                assert!(expected.starts_with("-ERR unknown subcommand '"), "{request:?}: {expected}");
                assert_eq!(client.ask(&request), expected, "{request:?}");
            }
        }
    }
    for line in ["XGROUP HELP", "XINFO help", "OBJECT HELP", "MEMORY HELP", "MEMORY DOCTOR", "memory malloc-stats"] {
        let name = line.to_ascii_lowercase();
        let expected =
            format!("-ERR '{name}' is not supported by the proxy: it concerns one server and no key, ask that");
        assert!(client.say(line).starts_with(&expected), "{line}");
        assert_eq!(client.say(&format!("{line} x y")), direct.say(&format!("{line} x y")));
    }
    for request in [&["memory|doctor"][..], &["MEMORY|doctor", "x"], &["object|encoding", "a"], &["object|encoding"]] {
        assert_eq!(client.ask(request), direct.ask(request));
    }
}

#[test]
fn an_error_tells_the_words_that_were_asked_byte_for_byte_as_the_server_does() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (mut direct, mut client) = (servers[0].client(), proxy.client());
    let every: Vec<u8> = (1..=255).collect();
    let words: [&[u8]; 8] = [
        b"",
        b"a",
        "\u{e9}\u{20ac}".as_bytes(),
        b"\r\n+OK\r\n",
        b"a\0b",
        b"\t\x01\x7f\x80\xff",
        &every[..130],
        &every[120..],
    ];
    let mut requests: Vec<Vec<&[u8]>> = Vec::new();
    for word in words {
        requests.extend([vec![b"FOO", word], vec![b"FOO", word, b"b", b"c"], vec![b"HELLO", b"2", word]]);
        requests.extend([vec![b"OBJECT", word], vec![b"client", word, b"x"], vec![b"SLOWLOG", word]]);
        if !word.is_empty() && word != b"a" {
            requests.extend([vec![word], vec![word, word]]);
        }
    }
    let long = [b'x'; 300];
    for len in [40, 121, 122, 123, 124, 125, 126, 127, 128, 129, 300] {
        let word = &long[..len];
        requests.extend([vec![b"FOO", word, b"bcdefg", b"h"], vec![b"FOO", word, word, word, word], vec![word, b"b"]]);
        requests.extend([vec![b"HELLO", &b"2"[..], word], vec![b"XINFO", word]]);
    }
    requests.push(vec![b"SLOWLOG", &b"GeT"[..], b"1", b"2"]);
    requests.push(std::iter::once(&b"FOO"[..]).chain((0..100).map(|_| &b""[..])).collect());
    for request in requests {
        let [got, expected] = [&mut client, &mut direct].map(|whom| {
            whom.put(&request);
            whom.reply()
        });
        assert!(expected.starts_with(b"-ERR "), "{request:?}");
        assert!(got == expected, "{request:?}:\n{}\n{}", got.escape_ascii(), expected.escape_ascii());
    }
    for byte in [b'x', b'\n', b'\t', 1, 0x7f, 0x80, 0xff] {
        let [got, expected] = [proxy.client(), servers[0].client()].map(|mut whom| {
            whom.send(&[b"*1\r\n", &[byte][..], b"3\r\nGET\r\n"].concat());
            whom.reply()
        });
        assert!(got == expected, "{byte}: {} {}", got.escape_ascii(), expected.escape_ascii());
    }
}

#[test]
fn what_the_proxy_answers_itself() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    assert_eq!(client.say("PING"), "+PONG\r\n");
    assert_eq!(client.say("PING hi"), bulk("hi"));
    assert_eq!(client.say("echo hi"), bulk("hi"));
    assert_eq!(client.say("SELECT 0"), "+OK\r\n");
    assert_eq!(client.say("SELECT 1"), "-ERR DB index is out of range\r\n");
    assert_eq!(client.say("CLIENT GETNAME"), "$-1\r\n");
    assert_eq!(client.say("CLIENT SETNAME me"), "+OK\r\n");
    assert_eq!(client.say("CLIENT GETNAME"), bulk("me"));
    assert_eq!(client.say("CLIENT SETINFO LIB-NAME x"), "+OK\r\n");
    assert!(client.say("CLIENT ID").starts_with(':'));
    assert!(client.say("CLIENT INFO").contains("name=me"));
    assert!(client.say("CLIENT KILL x").starts_with("-ERR"));
    assert!(client.say("COMMAND COUNT").starts_with(":2"));
    assert!(client.say("COMMAND INFO get nothing").starts_with("*2\r\n*10\r\n$3\r\nget\r\n:2\r\n"));
    assert_eq!(client.say("COMMAND GETKEYS MSET a 1 b 2"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert!(client.say("TIME").starts_with("*2\r\n$10\r\n"));
    assert!(client.say("INFO").contains("beltway_pool:test"));
    assert!(client.say("HELLO 2").starts_with("*14\r\n"));
    assert!(client.say("HELLO 3").starts_with("-NOPROTO"));
    assert_eq!(client.say("RESET"), "+RESET\r\n");
    assert_eq!(client.say("AUTH x"), "-ERR Client sent AUTH, but no password is set\r\n");
    assert_eq!(client.say("FOO a b"), "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n");
    assert_eq!(client.say("GET"), "-ERR wrong number of arguments for 'get' command\r\n");
    assert!(client.say("MULTI").contains("'multi' is not supported by the proxy: transactions"));
    assert!(client.say("DBSIZE").contains("it concerns every server"));
    client.expect("set a \"b c\"\r\nget a\r\n\r\nPING\r\n", "+OK\r\n$3\r\nb c\r\n+PONG\r\n");
    client.put(&["GET", "a"]);
    client.put(&["QUIT"]);
    assert_eq!(client.rest(), "$3\r\nb c\r\n+OK\r\n");
}

#[test]
fn what_is_owed_is_said_before_a_malformed_request_ends_the_conversation() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    client.send(b"SET a 1\r\nGET a\r\n*1\r\n:3\r\nGET a\r\n");
    assert_eq!(client.rest(), "+OK\r\n$1\r\n1\r\n-ERR Protocol error: expected '$', got ':'\r\n");
}

#[test]
fn a_client_that_ends_its_direction_is_answered_whole() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let mut client = proxy.client();
    client.send(b"SET a 1\r\nGET a\r\nGET b\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "+OK\r\n$1\r\n1\r\n$-1\r\n");
}

#[test]
fn passwords_and_databases_are_the_proxys_business() {
    let servers = vec![Server::redis(&["--requirepass", "secret"])];
    let source = kv::PoolSource { redis_auth: Some("secret".into()), redis_db: 3, ..pool(&servers, true) };
    let proxy = Proxy::start(source, 1);
    let mut client = proxy.client();
    assert_eq!(client.say("GET a"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(client.say("AUTH wrong"), "-ERR invalid password\r\n");
    assert_eq!(client.say("AUTH default secret"), "+OK\r\n");
    assert_eq!(client.say("SET a 1"), "+OK\r\n");
    let mut direct = servers[0].client();
    assert_eq!(direct.say("AUTH secret"), "+OK\r\n");
    assert_eq!(direct.say("GET a"), "$-1\r\n");
    assert_eq!(direct.say("SELECT 3"), "+OK\r\n");
    assert_eq!(direct.say("GET a"), bulk("1"));
}

#[test]
fn what_a_server_says_to_the_proxy_itself_is_not_among_its_replies() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let servers = vec![ServerSource { address: Address::Ip([127, 0, 0, 1].into(), port), weight: 1, name: None }];
    let source = kv::PoolSource { redis_auth: Some("secret".into()), redis_db: 3, servers, ..pool(&[], true) };
    let proxy = Proxy::start(source, 1);
    let mut client = proxy.client();
    assert_eq!(client.say("AUTH secret"), "+OK\r\n");
    let number = |name: &str| proxy.numbers().counter(&format!("beltway_kv_server_{name}_total"));
    client.send(b"SET a 1\r\nGET a\r\n");
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = 0;
    // What it is asked ends with the first of each, and what it says is cut wherever it may be.
    for (asked, said) in
        [("SELECT\r\n$1\r\n3\r\n", ["+O", "K\r", "\n+OK\r\n"]), ("GET\r\n$1\r\na\r\n", ["+OK\r\n$", "1\r\n1", "\r\n"])]
    {
        let mut heard = Vec::new();
        while !heard.ends_with(asked.as_bytes()) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            heard.extend(byte);
        }
        for part in said {
            stream.write_all(part.as_bytes()).unwrap();
            received += part.len() as u64;
            eventually("that has come", || number("received_bytes") == received);
        }
    }
    assert_eq!((client.reply(), client.reply()), (b"+OK\r\n".to_vec(), b"$1\r\n1\r\n".to_vec()));
    eventually("the bytes are counted", || number("reply_bytes") >= 12);
    assert_eq!((number("sent_requests"), number("replies"), number("reply_bytes")), (2, 2, 12));
    assert_eq!(proxy.numbers().distribution("beltway_kv_server_seconds").count(), 2);
}

#[test]
fn large_values_pass_both_ways_whatever_else_goes_on() {
    let servers = servers(2);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let sizes = [1_000, 16_300, 16_400, 65_000, 66_000, 300_000, 5_000_000];
    for size in sizes {
        let value: Vec<u8> = (0..size).map(|at: usize| b'a' + u8::try_from(at * 31 % 26).unwrap()).collect();
        client.put(&[b"SET", b"big", &value[..]]);
        assert_eq!(client.reply(), b"+OK\r\n");
        for _ in 0..3 {
            client.put(&["GET", "big"]);
            client.put(&["PING"]);
        }
        other.put(&["GET", "big"]);
        assert_eq!(other.say("PING").len(), size + size.to_string().len() + 5);
        assert_eq!(other.reply(), b"+PONG\r\n");
        for _ in 0..3 {
            let reply = client.reply();
            assert!(reply.ends_with(&[&value[..], b"\r\n"].concat()), "{size}");
            assert_eq!(client.reply(), b"+PONG\r\n");
        }
    }
    client.put(&["MGET", "big", "x", "big", "y"]);
    assert_eq!(client.reply().len(), 4 + 2 * (10 + 5_000_000 + 2) + 10);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_else_for_ever() {
    let servers = servers(1);
    let proxy = Proxy::start(pool(&servers, true), 1);
    let (mut lazy, mut other) = (proxy.client(), proxy.client());
    assert_eq!(other.ask(&["SET", "big", &"x".repeat(1 << 20)]), "+OK\r\n");
    for _ in 0..64 {
        lazy.put(&["GET", "big"]);
    }
    for _ in 0..64 {
        assert_eq!(lazy.reply().len(), (1 << 20) + 12);
    }
    assert_eq!(other.say("PING"), "+PONG\r\n");
    assert_eq!(other.say("GET nothing"), "$-1\r\n");
}
