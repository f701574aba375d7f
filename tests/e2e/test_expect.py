"""Expect: 100-continue, early refusals, and answers that are malformed late."""
import socket
import threading

from support import Case, ok, raw, wait_until


class Expect(Case):
    def stepwise(self, *steps) -> int:
        """An origin for one connection: bytes are sent, numbers are read; what it read is in self.got."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.got = []

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                head, rest = head.split(b"\r\n\r\n", 1)
                self.got.append(head)
                for step in steps:
                    if isinstance(step, bytes):
                        connection.sendall(step)
                        continue
                    while len(rest) < step:
                        part = connection.recv(65536)
                        if not part:
                            return
                        rest += part
                    self.got.append(rest[:step])
                    rest = rest[step:]
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 20)
        return listener.getsockname()[1]

    HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"

    def test_the_body_waits_for_the_100_of_the_origin(self):
        _, port = self.http(self.stepwise(b"HTTP/1.1 100 Continue\r\n\r\n", 4, ok(b"got it")))
        client = self.client(port)
        client.send(self.HEAD)
        self.assertEqual(client.response().status, 100)
        self.assertIn(b"expect: 100-continue", self.got[0].lower())
        client.send(b"body")
        self.assertEqual(client.response().body, b"got it")
        self.assertEqual(self.got[1], b"body")

    def test_a_client_that_does_not_wait_is_served_as_well(self):
        _, port = self.http(self.stepwise(b"HTTP/1.1 100 Continue\r\n\r\n", 4, ok(b"got it")))
        client = self.client(port)
        client.send(self.HEAD + b"body")
        response = client.response()
        if response.status == 100:
            response = client.response()
        self.assertEqual(response.body, b"got it")

    def test_an_origin_that_refuses_gets_no_body_and_the_next_request_is_not_mistaken_for_one(self):
        _, port = self.http(self.stepwise(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno", 4))
        client = self.client(port)
        client.send(self.HEAD)
        response = client.response()
        self.assertEqual((response.status, response.body), (417, b"no"))
        # The client did not send its body: the connection says close, or the body is still expected first.
        if response.get("connection") != "close":
            client.send(b"body")
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(self.got) >= 1)
        self.assertNotIn(b"GET /", b"".join(self.got[1:]))


class Malformed(Case):
    """Answers that go wrong behind a good head: the client notices, and the connection is not used again."""
    CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    LATE = [b"5\r\nhello\r\nzz\r\n", b"5\r\nhello6\r\n", b"5\r\nhello\r\n-1\r\n", b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n", b"5\r\nhello\r\nfffffffffffffffff\r\n"]
    HEADS = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nab",
             b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", b"HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
             b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
             b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]

    def test_heads_are_502(self):
        state = {}
        origin = self.origin(lambda head, body: state["answer"])
        _, port = self.http(origin)
        client = self.client(port)
        for i, answer in enumerate(self.HEADS):
            with self.subTest(answer=answer):
                state["answer"] = answer
                self.assertEqual(client.get().status, 502)
                self.assertEqual(origin.connections, i + 1)
        state["answer"] = ok(b"well again")
        self.assertEqual(client.get().body, b"well again")

    def test_bodies_end_in_a_cut(self):
        state = {}
        origin = self.origin(lambda head, body: state["answer"])
        _, port = self.http(origin)
        for i, body in enumerate(self.LATE):
            with self.subTest(body=body):
                state["answer"] = self.CHUNKED + body
                answer = raw(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertFalse(answer.removesuffix(b"<RESET>").endswith(b"0\r\n\r\n"), answer)
                self.assertEqual(origin.connections, i + 1)
        state["answer"] = ok(b"well again")
        self.assertEqual(self.client(port).get().body, b"well again")


class Checks(Case):
    """What health checks look like to an origin, and to an operator."""

    def test_a_check_is_one_request_per_connection_and_never_the_clients(self):
        origin = self.origin(lambda head, body: ok(b"fine"))
        _, port = self.http(origin, upstream='health = { type = "http", path = "/healthz?x", interval = "50ms",'
                            ' host = "checked.example", expect = { body = "fine" } }')
        wait_until(lambda: len(origin.requests) >= 5)
        client = self.client(port)
        self.assertEqual(client.get("/mine").body, b"fine")
        checks = [head for head, _ in origin.requests if b"/healthz" in head]
        self.assertEqual(set(checks), {b"GET /healthz?x HTTP/1.1\r\nHost: checked.example\r\n"
                                       b"User-Agent: ringway-health\r\nConnection: close"})
        self.assertGreaterEqual(origin.connections, len(checks) + 1)

    def test_reasons_are_in_the_log(self):
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        closed = socket.create_server(("127.0.0.1", 0))
        gone = closed.getsockname()[1]
        closed.close()
        broken = self.origin(lambda head, body: b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        balancer, _ = self.http(broken, silent.getsockname()[1], gone,
                                upstream='health = { type = "http", interval = "50ms", fast_interval = "50ms",'
                                ' timeout = "100ms", fall = 1 }')
        for server, reason in (("app/s0", "status 503, expected 200-299"), ("app/s1", "response: timeout after 100 ms"),
                               ("app/s2", "connect: Connection refused")):
            wait_until(lambda: f"server {server} " in balancer.log())
            line = next(line for line in balancer.log().splitlines() if f"server {server} " in line)
            self.assertIn(f"is down: {reason}", line)
        self.assertEqual(balancer.log().count("is down"), 3)  # Once per change.
