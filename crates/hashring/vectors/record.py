#!/usr/bin/env python3
"""Records where twemproxy sends keys: writes more.json beside this file.

Starts Debian's `nutcracker` with pools that nutcracker.json leaves out (ejected servers, one server, many servers,
weights that do not divide, names of several lengths, memcached's port), in front of small servers that answer every GET
with their own number, and writes down who answered. Everything on 127.0.0.1; takes a minute.
"""
import json
import os
import socket
import socketserver
import subprocess
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
KEYS = [b"a", b"ab", b"abc", b"key", b"user:1000", b"\xff\x80\xfe", "naïve".encode(), b"x" * 100]
KEYS += [b"key:%012d" % n for n in range(60)] + [b"session:%d:%d" % (n, n * n) for n in range(60)]


class Answer(socketserver.StreamRequestHandler):
    """A redis that knows one command: every request of two bulk strings is answered by the server's number."""

    def handle(self):
        while line := self.rfile.readline():
            for _ in range(int(line[1:])):
                length = int(self.rfile.readline()[1:])
                self.rfile.read(length + 2)
            self.wfile.write(b"$1\r\n" + self.server.number + b"\r\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def start(host, port, number):
    server = Server((host, port), Answer)
    server.number = DIGITS[number].encode()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def ask(connection, replies, key):
    connection.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
    line = replies.readline()
    return replies.read(3)[:1].decode() if line.startswith(b"$") else None


def pools():
    """Each: hash, distribution, servers (host, port, weight, name or None), indices of the dead."""
    ports = iter(range(27000, 32000))
    plain = lambda weights: [("127.0.0.1", next(ports), weight, None) for weight in weights]
    named = lambda names, weights: [("127.0.0.1", next(ports), w, n) for n, w in zip(names, weights)]
    lengths = ["z", "yy", "xxx", "node-10", "node-9", "a-rather-long-name-of-a-server", "B", "b"]
    memcached = lambda: [("127.0.1.%d" % n, 11211, n, None) for n in (1, 2, 3)]
    for distribution in ("ketama", "modula"):
        for hash in ("md5", "fnv1a_64", "jenkins", "crc16"):
            yield hash, distribution, plain([1, 2, 1, 3]), [1]
            yield hash, distribution, plain([1, 2, 1, 3]), [0, 3]
            yield hash, distribution, plain([1]), []
            yield hash, distribution, named(lengths, [1] * 8), []
            yield hash, distribution, named(lengths, [3, 1, 4, 1, 5, 9, 2, 6]), [5, 6]
        for count in (2, 3, 5, 6, 7, 9, 10, 11, 13, 19, 23, 29, 31, 36):
            yield "md5", distribution, plain([1] * count), []
        yield "md5", distribution, plain([1, 1, 1]), [2]
        yield "md5", distribution, plain([100, 1, 1]), []
        yield "murmur", distribution, plain([1000000, 3, 500000, 7]), []
        yield "md5", distribution, memcached(), []


def record(hash, distribution, servers, dead, folder, listen):
    live = [start(host, port, n) for n, (host, port, _, _) in enumerate(servers) if n not in dead]
    lines = ["p:", f"  listen: 127.0.0.1:{listen}", f"  hash: {hash}", f"  distribution: {distribution}", "  redis: true",
             "  auto_eject_hosts: true", "  server_failure_limit: 1", "  server_retry_timeout: 600000", "  servers:"]
    lines += [f"    - {host}:{port}:{weight}" + (f" {name}" if name else "") for host, port, weight, name in servers]
    path = os.path.join(folder, "conf.yml")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    proxy = subprocess.Popen(["nutcracker", "-c", path, "-s", str(listen + 1), "-a", "127.0.0.1"], stderr=subprocess.DEVNULL)
    try:
        for attempt in range(200):
            try:
                connection = socket.create_connection(("127.0.0.1", listen), timeout=5)
                break
            except OSError:
                time.sleep(0.02)
        replies = connection.makefile("rb")
        # The first errors eject the dead; what follows the last error is the settled ring.
        for attempt in range(20):
            answers = [ask(connection, replies, key) for key in KEYS]
            if None not in answers:
                break
        assert None not in answers, answers
        connection.close()
    finally:
        proxy.kill()
        proxy.wait()
        for server in live:
            server.shutdown()
            server.server_close()
    known = [[name or (host if port == 11211 else f"{host}:{port}"), weight] for host, port, weight, name in servers]
    return {"hash": hash, "distribution": distribution, "hash_tag": None, "servers": known, "ejected": dead,
            "map": "".join(answers)}


def main():
    with tempfile.TemporaryDirectory() as folder:
        recorded = [record(*pool, folder, 26000 + 2 * n) for n, pool in enumerate(pools())]
    result = {
        "note": "observed with Debian nutcracker 0.5.0 on x86-64; map[i] is the index (in base 36) in servers of the one that got keys_hex[i]",
        "keys_hex": [key.hex() for key in KEYS],
        "pools": recorded,
    }
    # One pool a line, for readable differences.
    text = json.dumps(result).replace('{"hash"', '\n{"hash"')
    with open(os.path.join(HERE, "more.json"), "w") as file:
        file.write(text + "\n")
    print(len(recorded), "pools of", len(KEYS), "keys")


if __name__ == "__main__":
    main()
