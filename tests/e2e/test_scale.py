"""Many connections, slow ones, large ones: memory stays bounded."""
import os
import re
import resource
import socket
import threading
import time

from support import Case, Client, ok, raw, wait_until


def private_kib(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return int(re.search(r"Private_Dirty:\s+(\d+)", rollup.read())[1])


class Scale(Case):
    def setUp(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.room = min(10_000, hard - 500)

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
        balancer, port = self.http(self.origin(lambda head, body: ok(b"x")))
        warm = self.room // 10
        self.connect_idle(port, warm)
        before = private_kib(balancer.process.pid)
        more = self.room - warm
        clients = self.connect_idle(port, more)
        each = (private_kib(balancer.process.pid) - before) * 1024 / more
        print(f"{each:.0f} bytes per idle client, {self.room} clients ... ", end="", flush=True)
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

    def test_a_slow_reader_of_1_gib_bounds_memory(self):
        size, block = 1 << 30, bytes(range(256)) * 1024
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        sent = [0]

        def serve():
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while sent[0] < size:
                connection.sendall(block)
                sent[0] += len(block)
        threading.Thread(target=serve, daemon=True).start()
        balancer, port = self.http(listener.getsockname()[1])
        before = balancer.rss_kib()
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until(b"\r\n\r\n")
        stalled = -1
        while sent[0] != stalled:  # Until the origin is stopped by back-pressure.
            stalled = sent[0]
            time.sleep(0.3)
        self.assertLess(stalled, 100 << 20)
        self.assertLess(balancer.rss_kib() - before, 16 << 10)
        got = len(client.buffer)
        view = memoryview(bytearray(1 << 20))
        while got < size:
            count = client.socket.recv_into(view)
            self.assertGreater(count, 0)
            got += count
        self.assertEqual(got, size)
        self.assertLess(balancer.rss_kib() - before, 16 << 10)

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
