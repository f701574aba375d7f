"""Many connections, slow ones, large ones: memory stays bounded."""
import hashlib
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from support import Balancer, Case, Client, free_port, ok, wait_until


def private_kib(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return int(re.search(r"Private_Dirty:\s+(\d+)", rollup.read())[1])


class Source:
    """Sends `size` bytes, that differ from place to place, as fast as they are taken; counts them."""

    def __init__(self, size: int, seed: bytes = b""):
        self.size, self.sent = size, 0
        # Of a prime length, so that no cut at a power of two looks like another one.
        self.block = hashlib.shake_256(seed).digest(1_000_003) * 3

    def expected(self, at: int, count: int) -> bytes:
        begin = at % 1_000_003
        return self.block[begin:begin + min(count, self.size - at)]

    def run(self, connection: socket.socket):
        while self.sent < self.size:
            begin = self.sent % 1_000_003
            end = begin + min(1 << 18, self.size - self.sent)
            self.sent += connection.send(memoryview(self.block)[begin:end])


class Scale(Case):
    def setUp(self):
        soft, self.descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, self.descriptors))

    def connect_idle(self, port: int, count: int) -> list[socket.socket]:
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), timeout=20)
            self.addCleanup(client.close)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200"))
            clients.append(client)
        return clients

    def test_10000_idle_keep_alive_clients_cost_512_bytes_each_at_most(self):
        if self.descriptors < 10_500:
            self.skipTest(f"needs 10,500 descriptors, the hard limit is {self.descriptors}")
        balancer, port = self.http(self.origin(lambda head, body: ok(b"x")))
        self.connect_idle(port, 1000)
        before = private_kib(balancer.process.pid)
        clients = self.connect_idle(port, 9000)
        each = (private_kib(balancer.process.pid) - before) * 1024 / 9000
        print(f"{each:.0f} bytes per idle client ... ", end="", flush=True)
        if "asan" not in os.environ["RINGWAY"] and "tsan" not in os.environ["RINGWAY"]:
            self.assertLessEqual(each, 512)
        for client in clients[::100]:  # They all still work.
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200"))

    def test_1000_clients_at_once(self):
        _, port = self.http(self.origin(lambda head, body: ok(head.split(b" ")[1])), shards=2)
        clients = [Client(port) for _ in range(1000)]
        for client in clients:
            self.addCleanup(client.close)
        for _ in range(3):
            for i, client in enumerate(clients):
                client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i)
            self.assertEqual([client.response().body for client in clients], [b"/%d" % i for i in range(1000)])

    @unittest.skipUnless(shutil.which("h2load") and shutil.which("nghttpd"), "needs h2load and nghttpd")
    def test_1000_http2_clients_with_20_requests_at_once_each(self):
        """h2load opens up to 100 streams on each of 1,000 connections; a connection to the server carries as many."""
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        (pathlib.Path(root.name) / "index.html").write_bytes(b"x" * 1000)
        port = free_port()
        origin = subprocess.Popen(["nghttpd", "-a", "127.0.0.1", "-d", root.name, "--no-tls", str(port)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(origin.wait, 20)
        self.addCleanup(origin.terminate)

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        wait_until(listens)
        _, front = self.http(port, upstream='http_versions = ["h2"]')
        said = subprocess.run(["h2load", "-n", "20000", "-c", "1000", "-m", "100", f"http://127.0.0.1:{front}/index.html"],
                              capture_output=True, timeout=80).stdout.decode()
        self.assertIn("20000 succeeded, 0 failed, 0 errored, 0 timeout", said)
        self.assertIn("20000 2xx, 0 3xx, 0 4xx, 0 5xx", said)

    def test_a_slow_reader_of_1_gib_bounds_memory(self):
        size = 1 << 30
        source = Source(size)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve():
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            source.run(connection)
        threading.Thread(target=serve, daemon=True).start()
        balancer, port = self.http(listener.getsockname()[1])
        before = balancer.rss_kib()
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"\r\n\r\n")
        self.stalls_in_little_memory(source, balancer, before)
        self.arrives_whole(source, client.socket, client.buffer)
        self.assertLess(balancer.rss_kib() - before, 16 << 10)

    def test_a_slow_reader_of_1_gib_bounds_memory_at_layer_4(self):
        """In either direction, both at the same time."""
        size = 1 << 30
        sources = [Source(size, b"up"), Source(size, b"down")]
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port = free_port()
        balancer = Balancer(self, f'version = 1\n[process]\nshards = 1\n[engine]\nkind = "{self.engine}"\n'
                            f'receive = "{self.receive}"\n[listeners.l4]\nprotocol = "tcp"\nbind = "127.0.0.1:{port}"\n'
                            '[[routes]]\nname = "all"\nupstream = "u"\n[upstreams.u]\nprotocol = "tcp"\n'
                            f'servers = [{{ address = "127.0.0.1:{listener.getsockname()[1]}" }}]\n')
        before = balancer.rss_kib()
        client = self.client(port).socket
        server, _ = listener.accept()
        self.addCleanup(server.close)
        for end, source in zip((client, server), sources):
            end.settimeout(60)  # One direction waits while the other one is read.
            threading.Thread(target=source.run, args=(end,), daemon=True).start()
        for source in sources:
            self.stalls_in_little_memory(source, balancer, before)
        for end, source in zip((server, client), sources):
            self.arrives_whole(source, end)
        self.assertLess(balancer.rss_kib() - before, 16 << 10)

    def test_a_server_that_does_not_read_an_upload_of_256_mib_bounds_memory(self):
        size = 256 << 20
        source = Source(size)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        balancer, port = self.http(listener.getsockname()[1])
        before = balancer.rss_kib()
        client = self.client(port)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        threading.Thread(target=source.run, args=(client.socket,), daemon=True).start()
        server, _ = listener.accept()
        self.addCleanup(server.close)
        server.settimeout(20)
        head = b""
        while b"\r\n\r\n" not in head:
            head += server.recv(1)
        self.stalls_in_little_memory(source, balancer, before)
        self.arrives_whole(source, server)
        self.assertLess(balancer.rss_kib() - before, 16 << 10)
        server.sendall(ok(b"got it"))
        self.assertEqual(client.response().body, b"got it")

    def stalls_in_little_memory(self, source: Source, balancer: Balancer, before_kib: int):
        """Waits until back-pressure has stopped the source; far before its end, and the balancer holds little of it."""
        stalled = -1
        while source.sent != stalled:
            stalled = source.sent
            time.sleep(0.3)
        self.assertGreater(stalled, 0)
        self.assertLess(stalled, 100 << 20)
        self.assertLess(balancer.rss_kib() - before_kib, 16 << 10)

    def arrives_whole(self, source: Source, end: socket.socket, first: bytes = b""):
        got = 0
        part = first
        while got < source.size:
            if part != source.expected(got, len(part)):
                self.fail(f"other bytes within {len(part)} after {got}")
            got += len(part)
            if got < source.size:
                part = end.recv(1 << 20)
                self.assertGreater(len(part), 0, f"ended after {got}")
        self.assertEqual(got, source.size)

    def test_slowloris_is_cut_off_while_others_are_served(self):
        _, port = self.http(self.origin(), listener='timeouts = { request_headers = "500ms" }')
        slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(200)]
        for client in slow:
            self.addCleanup(client.close)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Drip: ")
        answers = set()
        give_up = time.monotonic() + 20
        while slow and time.monotonic() < give_up:
            self.assertEqual(self.client(port).get().status, 200)
            for client in list(slow):
                try:
                    client.send(b"d", socket.MSG_DONTWAIT)
                    answers.add(client.recv(12, socket.MSG_DONTWAIT))
                    slow.remove(client)
                except BlockingIOError:
                    pass
                except OSError:
                    slow.remove(client)
            time.sleep(0.05)
        self.assertEqual(slow, [])
        self.assertEqual(answers - {b""}, {b"HTTP/1.1 408"})
