"""Connections that carry many requests at once: which requests share one, its limits, its end (E2, E7, E10)."""
import socket
import struct
import tempfile
import unittest

import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2client import H2
from reuse_support import KEEP
from support import Case, free_port, json_lines, wait_until


class Counted(Connection):
    """Knows when its SETTINGS were taken."""

    def __init__(self, *args):
        super().__init__(*args)
        self.acks = 0
        self.at_once: list[int] = []  # by request: how many were open with it

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        super().take(kind, flags, stream, payload)
        if kind == h2.SETTINGS and flags & h2.ACK:
            self.acks += 1

    def end(self, how: str):
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
        else:
            self.socket.shutdown(socket.SHUT_RDWR)


class Http2Case(Case):
    def setUp(self):
        self.clients: list[H2] = []

    def start(self, script, *settings, pool: str = KEEP, more: str = "") -> H2Origin:
        origin = H2Origin(script, *settings)
        origin.connection = Counted
        self.addCleanup(origin.stop)
        self.balancer, self.port = self.http(
            origin.port, upstream=f"{HTTP2}\n{more}\n[upstreams.app.pool]\n{pool}",
            rest=f'[logs.access]\noutput = "file:{self.path()}"\n')
        return origin

    def path(self) -> str:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.access = f"{folder.name}/access"
        return self.access

    def http2_client(self) -> H2:
        client = H2(self.port)
        self.addCleanup(client.close)
        self.clients.append(client)
        return client

    def stop(self):
        """Before the end of the test. Clients go first: the balancer waits for those of HTTP/2 to take their leave."""
        for client in self.clients:
            client.close()
        self.balancer.stop()


def hello(connection: Connection, stream: int, fields: dict, body: bytes):
    connection.answer(stream, body or b"hello")


class Modes(Http2Case):
    """E2. One that has answered is proven at once: its SETTINGS came, and its end would be told (GOAWAY)."""

    def test_who_may_use_an_idle_one(self):
        for mode, method, shared in (("safe", "GET", False), ("safe", "POST", False), ("aggressive", "GET", True),
                                     ("aggressive", "POST", True), ("always", "POST", True), ("auto", "GET", True),
                                     ("auto", "POST", False)):
            with self.subTest(mode=mode, method=method):
                origin = self.start(hello, pool=f'reuse = "{mode}"\n{KEEP}')
                first, second = self.client(self.port), self.client(self.port)
                self.assertEqual(first.get().status, 200)
                self.assertEqual(second.get("/", method, "Content-Length: 0\r\n").status, 200)
                self.assertEqual(len(origin.connections), 1 if shared else 2)
                for _ in range(3):  # Later ones, and all of HTTP/2, in every mode.
                    for client in (first, second):
                        self.assertEqual(client.get("/", method, "Content-Length: 0\r\n").status, 200)
                    self.assertEqual(self.http2_client().get("/", method).status, 200)
                self.assertEqual(len(origin.connections), 1 if shared else 2)
                self.stop()


    def test_one_in_use_is_shared_in_every_mode_but_safe(self):
        held = []

        def script(connection, stream, fields, body):
            if fields[":path"] == "/hold":
                held.append((connection, stream))
            else:
                hello(connection, stream, fields, body)
        for mode in ("aggressive", "always", "auto", "safe"):
            with self.subTest(mode=mode):
                origin = self.start(script, pool=f'reuse = "{mode}"\n{KEEP}')
                holder = self.client(self.port)
                holder.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
                wait_until(lambda: held)
                for method in ("GET", "POST"):
                    client = self.client(self.port)
                    self.assertEqual(client.get("/", method, "Content-Length: 0\r\n").status, 200)
                connection, stream = held.pop()
                connection.answer(stream, b"late")
                self.assertEqual(holder.response().body, b"late")
                self.assertEqual([c.most for c in origin.connections], [1, 1, 1] if mode == "safe" else [2])
                self.stop()

    def test_safe_has_one_client_on_a_connection_that_is_in_use(self):
        """E10: of many requests at once by three clients, each connection carries one's only; idle, it is anybody's."""
        held = []

        def script(connection, stream, fields, body):
            held.append((connection, stream, fields["x-client"]))
        origin = self.start(script)
        clients = [self.http2_client() for _ in range(3)]
        for turn in range(3):
            streams = [(client, client.request(f"/{number}", fields=[("x-client", str(i))]))
                       for number in range(4) for i, client in enumerate(clients)]
            wait_until(lambda: len(held) == len(streams))
            of = {}
            for connection, _, client in held:
                of.setdefault(id(connection), set()).add(client)
            self.assertEqual(sorted(map(tuple, of.values())), [("0",), ("1",), ("2",)])
            for connection, stream, _ in held:
                connection.answer(stream, b"ok")
            held.clear()
            for client, stream in streams:
                self.assertEqual(client.response(stream).body, b"ok")
            self.assertEqual(len(origin.connections), 3, turn)
        self.assertEqual([c.most for c in origin.connections], [4, 4, 4])

    def test_safe_one_client_s_bad_request_costs_no_other_client_one(self):
        """A server that ends the connection over one request ends what is on it: nobody else's."""
        held = []

        def script(connection, stream, fields, body):
            if fields[":path"] == "/bad":
                return connection.end("rst")
            held.append((connection, stream))
        self.start(script)
        good, bad = self.http2_client(), self.http2_client()
        streams = [good.request(f"/{number}", "POST") for number in range(4)]
        own = bad.request("/mine", "POST")
        wait_until(lambda: len(held) == 5)
        self.assertEqual(bad.get("/bad", "POST").status, 502)
        self.assertEqual(bad.response(own).status, 502)
        for connection, stream in held:
            try:
                connection.answer(stream, b"ok")
            except OSError:
                pass  # The one that it has ended.
        for stream in streams:
            self.assertEqual(good.response(stream).body, b"ok")


class Limits(Http2Case):
    """E10."""

    def test_requests_per_connection(self):
        for most in (1, 3):
            with self.subTest(most=most):
                origin = self.start(hello, pool=f"max_requests_per_connection = {most}\n{KEEP}")
                client = self.http2_client()
                for _ in range(3):
                    for stream in [client.request(f"/{number}") for number in range(10)]:
                        self.assertEqual(client.response(stream).body, b"hello")
                    self.assertEqual(client.get("/").body, b"hello")
                self.assertEqual(sum(len(c.ids) for c in origin.connections), 33)
                self.assertLessEqual(max(len(c.ids) for c in origin.connections), most)
                wait_until(lambda: all(self.ended(c) for c in origin.connections if len(c.ids) == most))
                self.stop()

    @staticmethod
    def ended(connection: Connection) -> bool:
        try:
            return not connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def test_settings_that_allow_fewer_than_are_in_use(self):
        """Those in hand go on. Nothing new comes before there is room under the new limit."""
        held: list = []

        def script(connection, stream, fields, body):
            connection.at_once.append(len(connection.open))
            held.append((connection, stream))
        origin = self.start(script, (h2.MAX_STREAMS, 6))
        client = self.http2_client()
        streams = [client.request(f"/{number}") for number in range(5)]
        wait_until(lambda: len(held) == 5)
        [first] = origin.connections
        first.send(h2.settings((h2.MAX_STREAMS, 2)))
        wait_until(lambda: first.acks == 2)
        streams += [client.request(f"/{number}") for number in range(5, 20)]
        for _ in range(20):
            wait_until(lambda: held)
            connection, stream = held.pop(0)
            connection.answer(stream, b"ok")
        for stream in streams:
            self.assertEqual(client.response(stream).body, b"ok")
        self.assertEqual(first.at_once[:5], [1, 2, 3, 4, 5])
        self.assertLessEqual(max(first.at_once[5:], default=0), 2)
        self.assertLessEqual(max(c.most for c in origin.connections), 6)

    def test_goaway_while_idle(self):
        origin = self.start(hello, pool=f'reuse = "always"\n{KEEP}')
        client = self.client(self.port)
        for number in range(5):
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
            self.assertEqual(client.response().body, b"body")
            self.assertEqual(len(origin.connections), number + 1)
            last = origin.connections[-1]
            last.send(h2.frame(h2.GOAWAY, 0, 0, h2.number(1) + h2.number(h2.NO_ERROR)))
            wait_until(lambda: self.ended(last))
        self.assertEqual([c.ids for c in origin.connections], [[1]] * 5)


class Dying(Http2Case):
    """E7: the server ends the connection when a request arrives, before a byte of an answer."""

    def dying(self, how: str) -> H2Origin:
        """Ends a connection over each path that it sees for the first time."""
        self.seen: list[tuple[str, int]] = []

        def script(connection, stream, fields, body):
            path = fields[":path"]
            new = path not in [path for path, _ in self.seen]
            self.seen.append((path, origin.connections.index(connection)))
            if path.startswith("/die") and new:
                return connection.end(how)
            connection.answer(stream, b"" if fields[":method"] == "HEAD" else body or b"ok")
        origin = self.start(script)
        return origin

    def tries(self, path: str) -> list[int]:
        """On which connections it came."""
        return [connection for seen, connection in self.seen if seen == path]

    def ask(self, client, path: str, method: str, body: bytes | None, chunked: bool = False) -> int:
        if isinstance(client, H2):
            stream = client.request(path, method, end=body is None)
            if body is not None:
                client.body(stream, body)
            return client.response(stream).status
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\n"
        if chunked:
            head += "Transfer-Encoding: chunked\r\n"
        elif body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body or b""
        client.send(head.encode() + b"\r\n" + framed)
        return client.response(method).status

    def rows(self):
        for method, body, repeated in (("GET", None, True), ("HEAD", None, True), ("DELETE", None, True), ("PUT", b"body", True),
                                       ("POST", b"body", False), ("PATCH", b"body", False), ("POST", b"", False)):
            for chunked in (False, True) if body else (False,):
                yield method, body, chunked, repeated

    def test_a_reused_one(self):
        for how in ("fin", "rst"):
            origin = self.dying(how)
            for number, (method, body, chunked, repeated) in enumerate(self.rows()):
                for kind in ("h1", "h2"):
                    with self.subTest(how=how, method=method, body=body, chunked=chunked, kind=kind):
                        client = self.client(self.port) if kind == "h1" else self.http2_client()
                        self.assertEqual(self.ask(client, "/", "GET", None), 200)
                        used = len(origin.connections) - 1
                        path = f"/die{number}-{kind}"
                        status = self.ask(client, path, method, body, chunked)
                        if repeated:
                            self.assertEqual((status, self.tries(path)), (200, [used, used + 1]))
                        else:
                            self.assertEqual((status, self.tries(path)), (502, [used]))
                            self.assertTrue(self.line(path)["cause"])
                        self.assertEqual(self.ask(client, "/", "GET", None), 200)  # The client's connection goes on.
            self.stop()

    def line(self, path: str) -> dict:
        found: list[dict] = []

        def written() -> bool:
            found[:] = [line for line in json_lines(self.access) if path in line["target"]]
            return bool(found)
        wait_until(written)
        return found[0]

    def test_a_fresh_one_proves_nothing(self):
        for method, body, chunked, _ in self.rows():
            with self.subTest(method=method, chunked=chunked):
                self.dying("fin")
                self.assertEqual(self.ask(self.client(self.port), "/die", method, body, chunked), 502)
                self.assertEqual(self.tries("/die"), [0])
                self.stop()


if __name__ == "__main__":
    unittest.main()
