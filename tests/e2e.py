#!/usr/bin/env python3
"""tests/e2e.py - the real program against real sockets. Usage: tests/e2e.py PATH_TO_RINGWAY"""
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

RINGWAY = sys.argv.pop(1)
ENGINES = ["auto", "epoll"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class NamedServer:
    """Greets each connection with its name, then closes it."""

    def __init__(self, name: bytes):
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            client.sendall(self.name)
            client.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # Wakes accept(); close() alone would not.
        self.listener.close()


def read_all(port: int, host: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, port), timeout=5) as client:
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
        return answer


class Tcp(unittest.TestCase):
    def start(self, *words: str) -> subprocess.Popen:
        process = subprocess.Popen([RINGWAY, *words], stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_until_ready(self, process: subprocess.Popen):
        text = ""
        while "listening on" not in text:
            line = process.stderr.readline()
            self.assertTrue(line, text)
            text += line

    def test_two_servers_take_turns_and_a_dead_one_is_skipped(self):
        for engine in ENGINES:
            with self.subTest(engine=engine):
                a, b = NamedServer(b"a"), NamedServer(b"b")
                port = free_port()
                process = self.start("tcp", f"--engine={engine}", f"127.0.0.1:{port}",
                                     f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}")
                self.wait_until_ready(process)
                self.assertEqual(sorted(read_all(port) for _ in range(4)), [b"a", b"a", b"b", b"b"])
                a.stop()
                self.assertEqual({read_all(port) for _ in range(4)}, {b"b"})
                b.stop()
                self.assertEqual(read_all(port), b"")  # No server left: closed at once.
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(timeout=5), 0)
                self.assertIn("stopped", process.stderr.read())

    def test_demo_answers_curl(self):
        process = self.start("demo")
        text = ""
        while not (url := re.search(r"curl (http://\S+)", text)):
            line = process.stderr.readline()
            self.assertTrue(line, text)
            text += line
        answer = subprocess.run(["curl", "-sS", "--max-time", "5", url[1]], capture_output=True,
                                text=True, check=True).stdout
        self.assertEqual(answer, "Hello from Ringway\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=5), 0)

    def test_bad_command_lines_are_refused(self):
        for words in ([], ["tcp"], ["tcp", "127.0.0.1:0"], ["tcp", "--engine=x", "a", "b"],
                      ["tcp", "127.0.0.1:0", "nonsense"]):
            with self.subTest(words=words):
                done = subprocess.run([RINGWAY, *words], capture_output=True, text=True, timeout=5)
                self.assertEqual(done.returncode, 2)
                self.assertIn("ringway", done.stderr)

    def test_ipv6_and_unix_sockets_on_both_sides(self):
        for engine in ENGINES:
            with self.subTest(engine=engine), tempfile.TemporaryDirectory() as folder:
                a = NamedServer(b"a")
                self.addCleanup(a.stop)
                path, port = f"{folder}/front", free_port()
                inner = self.start("tcp", f"--engine={engine}", f"unix:{path}",
                                   f"127.0.0.1:{a.port}")
                self.wait_until_ready(inner)
                outer = self.start("tcp", f"--engine={engine}", f"[::1]:{port}", f"unix:{path}")
                self.wait_until_ready(outer)
                self.assertEqual(read_all(port, "::1"), b"a")

    def test_out_of_descriptors_pauses_accepting_and_resumes(self):
        """40 clients against room for about 5: the program survives, and serves those that come later."""
        for engine in ENGINES:
            with self.subTest(engine=engine):
                a, port = NamedServer(b"a"), free_port()
                self.addCleanup(a.stop)
                process = self.start("tcp", f"--engine={engine}", f"127.0.0.1:{port}",
                                     f"127.0.0.1:{a.port}")
                self.wait_until_ready(process)
                used = len(os.listdir(f"/proc/{process.pid}/fd"))
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
                idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
                for client in idle:
                    client.close()
                self.assertEqual([read_all(port) for _ in range(3)], [b"a"] * 3)

    def test_busy_port_says_which(self):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            at = f"127.0.0.1:{holder.getsockname()[1]}"
            done = subprocess.run([RINGWAY, "tcp", at, "127.0.0.1:1"], capture_output=True,
                                  text=True, timeout=5)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"cannot bind {at}: Address already in use", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
