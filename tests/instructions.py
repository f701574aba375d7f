#!/usr/bin/env python3
"""tests/instructions.py BUILD [--update] - user-mode instructions per request, counted by callgrind.

Instructions are repeatable where times are not: one client, one request after the other, the epoll engine (valgrind
knows io_uring's calls, but stops all threads while one waits in them), and no busy polling, whose turns depend on how
fast the client is. Each scenario must be within MARGIN of tests/instructions.json; --update writes what was counted
into that file, to be committed with its reason. Fewer is a difference too, or the next loss would hide in it. Timers
that come due in between add some: the least of several batches counts."""
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "e2e"))
import h2client as h2  # noqa: E402
from support import free_port  # noqa: E402

KEPT = HERE / "instructions.json"
MARGIN = 0.03
WARM_UP, BATCHES, COUNTED = 60, 5, 80
SECONDS = 60  # only turns a hang into a failure

CONFIG = """version = 1
[process]
shards = 1
max_connections = 1000
[engine]
kind = "epoll"
busy_poll = "off"
[listeners.front]
bind = "127.0.0.1:{port}"
protocol = "{mode}"
[[routes]]
name = "all"
upstream = "origin"
[upstreams.origin]
protocol = "{mode}"
servers = [{{ address = "127.0.0.1:{origin}" }}]
"""


class Plain:
    """A TCP client: sends the same bytes again and again and reads what comes back whole."""

    def __init__(self, port: int, request: bytes, answer: int = 0, reconnect: bool = False):
        self.port, self.request, self.answer, self.reconnect = port, request, answer, reconnect
        self.connection = None

    def once(self):
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        self.connection.sendall(self.request)
        got = b""
        while not self.whole(got):
            more = self.connection.recv(65536)
            if not more:
                raise SystemExit(f"instructions: the balancer closed behind {got[:200]!r}")
            got += more
        if self.reconnect:
            self.close()

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def whole(self, got: bytes) -> bool:
        if self.answer:
            return len(got) >= self.answer
        head, found, body = got.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"instructions: {head!r}")
        return len(body) >= int(re.search(rb"(?i)\ncontent-length: *(\d+)", head)[1])


class Http2:
    """Sends one frame a request and none in between, so that each is one event."""

    def __init__(self, port: int):
        self.connection = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.connection.sendall(h2.PREFACE + h2.settings((h2.INITIAL_WINDOW, (1 << 31) - 1))
                                + h2.window_update(0, (1 << 31) - 1 - 65535) + h2.settings(flags=h2.ACK))
        self.file = self.connection.makefile("rb")
        self.stream = -1

    def once(self):
        self.stream += 2
        self.connection.sendall(h2.headers(self.stream, h2.get("/128")))
        while True:
            start = self.file.read(9)
            length, kind, flags = int.from_bytes(start[:3], "big"), start[3], start[4]
            payload = self.file.read(length)
            if kind in (h2.RST_STREAM, h2.GOAWAY):
                raise SystemExit(f"instructions: frame of type {kind}: {payload!r}")
            if kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
                break

    def close(self):
        self.connection.close()


def head(path: str, fields: bytes = b"", body: bytes = b"", method: str = "GET") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n".encode() + fields + length + b"\r\n" + body


FORTY = b"".join(b"X-Test-Field-%02d: " % i + b"v" * 130 + b"\r\n" for i in range(40))
SCENARIOS = {
    "l4-64B": ("tcp", lambda port: Plain(port, b"x" * 64, answer=64)),
    "h1-128B": ("http", lambda port: Plain(port, head("/128"))),
    "h1-40-headers": ("http", lambda port: Plain(port, head("/128", FORTY))),
    "h1-post-10KiB": ("http", lambda port: Plain(port, head("/128", body=b"p" * 10240, method="POST"))),
    "h1-new-connection": ("http", lambda port: Plain(port, head("/128", b"Connection: close\r\n"), reconnect=True)),
    "h2c-128B": ("http", Http2),
}


def wait_for(port: int, process: subprocess.Popen):
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("instructions: the balancer does not start")


def control(pid: int, *words: str):
    subprocess.run(["callgrind_control", *words, str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   check=True, timeout=SECONDS)


def count(build: pathlib.Path, mode: str, make, origin: int, folder: pathlib.Path) -> int:
    port = free_port()
    config, log = folder / "ringway.toml", folder / "log"
    config.write_text(CONFIG.format(port=port, mode=mode, origin=origin))
    words = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
             str(build / "tools/ringway"), "run", str(config)]
    with log.open("wb") as sink, subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink) as process:
        try:
            wait_for(port, process)
            client = make(port)
            for _ in range(WARM_UP):
                client.once()
            control(process.pid, "-i", "on")
            for _ in range(BATCHES):
                for _ in range(COUNTED):
                    client.once()
                control(process.pid, "-d")
            client.close()  # or it would be drained
            process.terminate()
            process.wait(SECONDS)
        finally:
            process.kill()
    found = [int(re.search(r"^(?:totals|summary): (\d+)", (folder / f"out.{batch + 1}").read_text(), re.M)[1])
             for batch in range(BATCHES)]
    return round(min(found) / COUNTED)


def main(words: list[str]) -> int:
    build, update = pathlib.Path(words[0]).resolve(), "--update" in words
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    http, echo = free_port(), free_port()
    origin = subprocess.Popen([str(build / "bench/load/bench_origin"), "--http", str(http), "--echo", str(echo)],
                              stdin=subprocess.DEVNULL)
    counted, bad = {}, 0
    try:
        for name, (mode, make) in SCENARIOS.items():
            with tempfile.TemporaryDirectory(prefix="ringway-instructions-") as folder:
                os.chmod(folder, 0o755)
                counted[name] = count(build, mode, make, echo if mode == "tcp" else http, pathlib.Path(folder))
            before = kept.get(name, 0)
            change = counted[name] / before - 1 if before else float("inf")
            good = update or abs(change) <= MARGIN
            bad += not good
            print(f"{name}: {counted[name]:,} instructions a request, kept {before:,}, {change:+.1%}"
                  f"{'' if good else '  <- more than the margin'}", flush=True)
    finally:
        origin.terminate()
        origin.wait()
    if update:
        KEPT.write_text(json.dumps(counted, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
