//! Clients that nobody of us wrote, unchanged, through pools of several servers.

#![allow(clippy::unwrap_used, reason = "a walk that cannot set up its surroundings fails")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use walks::kv::{KvTree, Store};
use walks::{free_address, process};

/// Three servers behind a pool, and the tree before them.
struct World {
    _stores: Vec<Store>,
    _tree: KvTree,
    address: SocketAddr,
}

fn world(redis: bool) -> World {
    let stores: Vec<Store> = (0..3).map(|_| if redis { Store::redis(&[]) } else { Store::memcached() }).collect();
    let address = free_address();
    let servers: Vec<String> = stores.iter().map(|store| format!("\"{}:1\"", store.address())).collect();
    let pools = format!(
        "alpha: {{listen: {address}, redis: {redis}, hash: murmur, memcached_flush_all: true, servers: [{}]}}",
        servers.join(", ")
    );
    World { _tree: KvTree::run(&pools), _stores: stores, address }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let output: Output = process::bounded(command);
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {:?}\n{text}", output.status);
    text
}

/// Where `./test` puts clients that are no packages of the system.
fn clients() -> PathBuf {
    // In `TARGET/debug/deps/`.
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("clients")
}

/// Whether a client can be used, which this command tries. Where it cannot, the test that needs it did not run: it says
/// so, and where everything must hold (`CI=true`, as `.ci/run` sets it) that is a failure, unless `./test` found nobody
/// to get it from.
fn is_there(program: &Path, arguments: &[&str], what: &str) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok_and(|status| status.success());
    if !there {
        let missing = format!("{what} is not installed in {}; ./test installs it", clients().display());
        let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
        assert!(!is("CI", "true") || is("BELTWAY_CLIENTS", "unreachable"), "{missing}");
        eprintln!("\n*** NOT RUN: {missing} ***\n");
    }
    there
}

#[test]
fn redis_cli_and_redis_benchmark() {
    let world = world(true);
    let port = world.address.port().to_string();
    let say = |words: &[&str]| run("redis-cli", &[&["-p", &port], words].concat());
    assert_eq!(say(&["SET", "a", "1"]), "OK\n");
    assert_eq!(say(&["MSET", "b", "2", "c", "3", "d", "4"]), "OK\n");
    assert_eq!(say(&["MGET", "a", "b", "c", "d", "e"]), "1\n2\n3\n4\n\n");
    assert!(say(&["KEYS", "*"]).starts_with("ERR"), "what cannot be is an error with a reason");
    let text = run(
        "redis-benchmark",
        &[
            "-p",
            &port,
            "-n",
            "2000",
            "-c",
            "20",
            "-P",
            "8",
            "-r",
            "1000",
            "-q",
            "-t",
            "set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,mset",
        ],
    );
    for name in ["SET", "GET", "INCR", "LPUSH", "RPUSH", "LPOP", "RPOP", "SADD", "HSET", "SPOP", "MSET"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("ERR") && !text.contains("Error"), "{text}");
}

#[test]
fn memccapable() {
    let world = world(false);
    let text = run("memccapable", &["-h", "127.0.0.1", "-p", &world.address.port().to_string(), "-a"]);
    assert!(text.contains("All tests passed"), "{text}");
    assert_eq!(text.matches("[pass]").count(), 27, "{text}");
}

#[test]
fn redis_py() {
    let python = clients().join("venv/bin/python");
    if !is_there(&python, &["-c", "import redis"], "redis-py") {
        return;
    }
    let world = world(true);
    let script = "
import redis, sys
r = redis.Redis(port=int(sys.argv[1]), client_name='walk', decode_responses=True)
assert r.ping()
assert r.set('a', 1) and r.get('a') == '1' and r.incr('a') == 2
assert r.mset({str(i): i for i in range(50)})
assert r.mget([str(i) for i in range(50)]) == [str(i) for i in range(50)]
assert r.delete(*[str(i) for i in range(50)]) == 50
p = r.pipeline(transaction=False)
for i in range(100): p.set('p%d' % i, i, ex=100)
for i in range(100): p.get('p%d' % i)
assert p.execute()[100:] == [str(i) for i in range(100)]
assert r.hset('h', mapping={'f': 'v', 'g': 'w'}) == 2 and r.hgetall('h') == {'f': 'v', 'g': 'w'}
assert r.rpush('l', 1, 2, 3) == 3 and r.lrange('l', 0, -1) == ['1', '2', '3']
assert r.sadd('s', 'x', 'y') == 2 and r.smembers('s') == {'x', 'y'}
assert r.zadd('z', {'m': 1.5}) == 1 and r.zscore('z', 'm') == 1.5
assert r.eval('return redis.call(\"get\", KEYS[1])', 1, 'a') == '2'
assert r.xadd('x', {'f': 'v'}) and r.xlen('x') == 1
assert [k for k in r.sscan_iter('s')]
try:
    r.rename('a', 'another'); r.sinterstore('d', 's', 'elsewhere')
except redis.ResponseError as error:
    assert 'CROSSSERVER' in str(error), error
assert r.client_getname() == 'walk'
big = 'x' * 3_000_000
assert r.set('big', big) and r.get('big') == big
print('well')
";
    let port = world.address.port().to_string();
    assert_eq!(run(python.to_str().unwrap(), &["-c", script, &port]), "well\n");
}

#[test]
fn pymemcache() {
    let python = clients().join("venv/bin/python");
    if !is_there(&python, &["-c", "import pymemcache"], "pymemcache") {
        return;
    }
    let world = world(false);
    let script = "
import sys
from pymemcache.client.base import Client
c = Client(('127.0.0.1', int(sys.argv[1])), default_noreply=False, timeout=5)
assert c.set('a', b'1') and c.get('a') == b'1' and c.incr('a', 2) == 3
assert c.set_many({'k%d' % i: b'%d' % i for i in range(50)}) == []
assert c.get_many(['k%d' % i for i in range(60)]) == {'k%d' % i: b'%d' % i for i in range(50)}
value, unique = c.gets('a')
assert c.cas('a', b'9', unique) and not c.cas('a', b'8', unique)
assert c.append('a', b'x') and c.prepend('a', b'y') and c.get('a') == b'y9x'
assert c.add('a', b'0') is False and c.replace('b', b'0') is False
assert c.touch('a', 100) and c.delete('a') and c.get('a') is None
assert c.set('e', b'1', expire=-1) and c.get('e') is None
c.set('quiet', b'1', noreply=True); assert c.get('quiet') == b'1'
big = b'x' * 900_000
assert c.set('big', big) and c.get('big') == big
assert c.version()
assert c.flush_all() and c.get('k1') is None
print('well')
";
    let port = world.address.port().to_string();
    assert_eq!(run(python.to_str().unwrap(), &["-c", script, &port]), "well\n");
}

#[test]
fn ioredis() {
    let modules = clients().join("node/node_modules");
    let tries = format!("require('{}')", modules.join("ioredis").display());
    if !is_there(Path::new("node"), &["-e", &tries], "ioredis") {
        return;
    }
    let world = world(true);
    let script = "
const Redis = require(process.argv[1] + '/ioredis');
const assert = require('assert');
(async () => {
  const r = new Redis({ port: Number(process.argv[2]), connectionName: 'walk', enableReadyCheck: true });
  assert.equal(await r.set('a', '1'), 'OK');
  assert.equal(await r.incr('a'), 2);
  const keys = [...Array(50).keys()].map(String);
  await Promise.all(keys.map(k => r.set(k, k)));
  assert.deepEqual(await r.mget(keys), keys);
  const p = r.pipeline();
  keys.forEach(k => p.get(k));
  assert.deepEqual((await p.exec()).map(x => x[1]), keys);
  assert.equal(await r.del(...keys), 50);
  assert.equal(await r.hset('h', { f: 'v' }), 1);
  assert.deepEqual(await r.hgetall('h'), { f: 'v' });
  r.disconnect();
  console.log('well');
})().catch(error => { console.error(error); process.exit(1); });
";
    let (modules, port) = (modules.display().to_string(), world.address.port().to_string());
    assert_eq!(run("node", &["-e", script, &modules, &port]), "well\n");
}
