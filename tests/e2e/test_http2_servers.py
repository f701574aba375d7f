"""HTTP/2 to servers: an origin by raw frames that counts what it is given, and Debian's nghttpd."""
import contextlib
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case
from h2client import H2
from support import free_port, metrics, raw, wait_until


def echo(connection: Connection, stream: int, fields: dict, body: bytes):
    if fields[":path"] == "/trailers":
        connection.answer(stream, body, trailers=[("x-checksum", fields.get("x-sent", "none"))])
    elif fields[":path"] == "/hints":
        connection.send(h2.headers(stream, [(":status", "103"), ("link", "</a.css>")], end=False))
        connection.answer(stream, b"after hints")
    elif fields[":path"] == "/none":
        connection.answer(stream, status="204")
    elif fields[":method"] == "HEAD":
        connection.answer(stream, fields=[("content-length", "1000")])
    else:
        seen = [(f"x-{name.strip(':')}", fields.get(name, "")) for name in (":authority", ":scheme", "x-forwarded-for", "cookie")]
        connection.answer(stream, body or b"hello", seen)


class Servers(H2Case):
    def before(self, script, *settings, upstream: str = "", **options) -> tuple[H2Origin, int]:
        origin = H2Origin(script, *settings)
        self.addCleanup(origin.stop)
        self.page = free_port()
        port = self.serve(origin, upstream=f"{HTTP2}\n{upstream}", rest=f'[metrics]\nprometheus = "127.0.0.1:{self.page}"\n',
                          **options)
        return origin, port

    def test_h1_clients(self):
        origin, port = self.before(echo)
        client = self.client(port)
        first = client.get("/", fields="Cookie: a=1\r\nConnection: x-hop\r\nX-Hop: 1\r\n")
        self.assertEqual((first.status, first.body), (200, b"hello"))
        self.assertEqual((first.get("x-authority"), first.get("x-scheme"), first.get("x-cookie")), ("test", "http", "a=1"))
        self.assertEqual(first.get("x-x-forwarded-for"), "127.0.0.1")
        self.assertNotIn("x-hop", origin.connections[0].requests[1])
        whole = bytes(range(256)) * 200  # The origin knows no windows.
        client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole)
        self.assertEqual(client.response().body, whole)
        client.send(b"POST /trailers HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sent: 7\r\n\r\n")
        reply = client.response()
        self.assertEqual((reply.body, reply.trailers), (b"abc", [("x-checksum", "7")]))
        self.assertEqual(client.get("/x", "HEAD").get("content-length"), "1000")
        self.assertEqual(client.get("/none").status, 204)
        client.send(b"GET /hints HTTP/1.1\r\nHost: test\r\n\r\n")
        self.assertEqual((client.response().status, client.response().body), (103, b"after hints"))
        self.assertEqual(len(origin.connections), 1)

    def test_data_behind_an_answer_to_head_reaches_nobody(self):
        def script(connection: Connection, stream: int, fields: dict, body: bytes):
            if fields[":method"] != "HEAD":
                return connection.answer(stream, b"next")
            connection.send(h2.headers(stream, [(":status", "200"), ("content-length", "5")], end=False),
                            h2.data(stream, b"wrong", end=True))

        _, port = self.before(script)
        # Such an answer is malformed: the connection may end behind its head, but nothing else may follow.
        said = raw(port, b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        self.assertEqual(said.count(b"HTTP/1.1 200 "), 1 + said.count(b"next"))
        self.assertNotIn(b"wrong", said)
        self.assertEqual(self.client(port).get("/").body, b"next")
        client = self.connect(port)
        with contextlib.suppress(h2.Reset):
            self.assertEqual(client.get("/", method="HEAD").body, b"")
        self.assertEqual(client.get("/").body, b"next")

    def test_h2_clients(self):
        origin, port = self.before(echo)
        client = self.connect(port)
        self.assertEqual(client.get("/").body, b"hello")
        whole = bytes(range(256)) * 200  # The origin knows no windows.
        stream = client.request(method="POST", end=False)
        client.body(stream, whole)
        self.assertEqual(client.response(stream).body, whole)
        stream = client.request("/trailers", method="POST", end=False)
        client.send(h2.data(stream.id, b"abc"), h2.headers(stream.id, [("x-sent", "9")], end=True))
        self.assertEqual(client.response(stream).trailers, [("x-checksum", "9")])
        self.assertEqual(client.get("/x", "HEAD").get("content-length"), "1000")
        self.assertEqual(client.get("/none").status, 204)
        hints = client.get("/hints")
        self.assertEqual((len(hints.informational), hints.body), (1, b"after hints"))
        self.assertEqual(len(origin.connections), 1)

    def test_never_more_streams_than_the_server_takes(self):
        held: list = []
        guard = threading.Lock()

        def script(connection, stream, fields, body):
            with guard:
                held.append((connection, stream))

        for most in (1, 2, 100):
            origin, port = self.before(script, (h2.MAX_STREAMS, most))
            client = self.connect(port)
            streams = [client.request(f"/{i}") for i in range(20)]
            for done in range(20):
                wait_until(lambda: held)
                connection, stream = held.pop(0)
                connection.answer(stream, b"ok")
            for stream in streams:
                self.assertEqual(client.response(stream).body, b"ok")
            self.assertLessEqual(max(c.most for c in origin.connections), most)

    def test_what_a_server_has_not_looked_at_is_sent_again(self):
        refused = []

        def script(connection, stream, fields, body):
            if len(refused) < 2:
                refused.append(stream)
                with connection.lock:
                    connection.open.discard(stream)
                return connection.send(h2.rst_stream(stream, 7))  # REFUSED_STREAM
            connection.answer(stream, body)
        _, port = self.before(script)
        client = self.client(port)
        client.send(b"POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")
        reply = client.response()
        self.assertEqual((reply.status, reply.body, len(refused)), (200, b"hello", 2))

    def test_goaway_in_flight(self):
        """Streams above its last are sent again elsewhere, whatever they are; those below finish."""
        first: list = []

        def script(connection, stream, fields, body):
            if connection is not origin.connections[0]:
                return connection.answer(stream, b"second")
            first.append(stream)
            if len(first) == 3:
                connection.send(h2.frame(h2.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
                connection.answer(1, b"first")
        origin, port = self.before(script)
        client = self.connect(port)
        streams = [client.request(f"/{i}", "POST") for i in range(3)]
        bodies = sorted(bytes(client.response(stream).body) for stream in streams)
        self.assertEqual(bodies, [b"first", b"second", b"second"])
        self.assertEqual(client.get("/later").body, b"second")
        self.assertEqual(origin.connections[0].ids, [1, 3, 5])

    def test_a_connection_that_dies_with_a_post_on_it(self):
        seen = []

        def script(connection, stream, fields, body):
            seen.append(fields[":path"])
            if fields[":path"] == "/die":
                return connection.socket.shutdown(socket.SHUT_RDWR)
            connection.answer(stream, b"ok")
        _, port = self.before(script)
        client = self.client(port)
        self.assertEqual(client.get("/").status, 200)
        client.send(b"POST /die HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx")
        self.assertEqual(client.response().status, 502)
        self.assertEqual(seen.count("/die"), 1)  # Never twice.
        self.assertEqual(client.get("/").status, 200)

    def test_an_answer_that_is_reset_is_cut(self):
        def script(connection, stream, fields, body):
            connection.send(h2.headers(stream, [(":status", "200"), ("content-length", "10")], end=False),
                            h2.data(stream, b"half"), h2.rst_stream(stream, 2))
        _, port = self.before(script)
        client = self.connect(port)
        self.assert_cut(client, client.request())
        with self.assertRaises((EOFError, ConnectionResetError)):
            self.client(port).get()

    def test_a_client_that_leaves_resets_its_stream_only(self):
        origin, port = self.before(lambda connection, stream, fields, body:
                                   None if fields[":path"] == "/stall" else connection.answer(stream, b"ok"))
        client = self.connect(port)
        stalled = client.request("/stall")
        self.assertEqual(client.get("/").body, b"ok")
        client.send(h2.rst_stream(stalled.id))
        wait_until(lambda: origin.resets == 1)
        self.assertEqual(client.get("/").body, b"ok")
        self.assertEqual(len(origin.connections), 1)

    def test_a_slow_client_does_not_hold_up_others(self):
        """Both are on one connection to the server."""
        def script(connection, stream, fields, body):
            if fields[":path"] != "/big":
                return connection.answer(stream, b"small")
            connection.send(h2.headers(stream, [(":status", "200")], end=False))
            for _ in range(4):  # All that the first window takes.
                connection.send(h2.data(stream, bytes(16383)))
        origin, port = self.before(script, upstream='pool.reuse = "always"')
        slow = self.connect(port, (h2.INITIAL_WINDOW, 0))
        stream = slow.request("/big")
        slow.wait(lambda: stream.fields is not None)
        other = self.connect(port)
        for _ in range(20):
            self.assertEqual(other.get("/").body, b"small")
        self.assertEqual(len(origin.connections), 1)

    @unittest.skipUnless(shutil.which("nghttpd"), "needs nghttpd")
    def test_nghttpd_chosen_by_alpn_and_restarted(self):
        cert, key = self.certificate()
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        (pathlib.Path(root.name) / "file").write_bytes(bytes(300_000))
        port = free_port()

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        def start() -> subprocess.Popen:
            process = subprocess.Popen(["nghttpd", "-a", "127.0.0.1", "-d", root.name, str(port), key, cert],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(listens)
            return process
        process = start()
        self.page = free_port()
        _, front = self.http(port, upstream='http_versions = ["h2", "http/1.1"]\ntls = { verify = false }',
                             rest=f'[metrics]\nprometheus = "127.0.0.1:{self.page}"\n')
        client = self.client(front)
        for _ in range(20):
            self.assertEqual(len(client.get("/file").body), 300_000)
        process.kill()
        process.wait()
        process = start()
        self.assertEqual(client.get("/file").status, 200)
        process.kill()
        process.wait()
        seen = metrics(self.page)
        connects = next(v for k, v in seen.items() if k.startswith("ringway_server_connects_total"))
        self.assertLessEqual(connects, 3)


if __name__ == "__main__":
    unittest.main()
