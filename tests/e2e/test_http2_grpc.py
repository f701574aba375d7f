"""gRPC by raw frames: calls of all four kinds through the balancer, and what clients get from the balancer itself."""
import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case, differs

GRPC = [("content-type", "application/grpc+proto"), ("te", "trailers")]


@differs(haproxy="makes error pages", nghttpd="is no proxy")
class Errors(H2Case):
    def assert_grpc(self, stream, code: str, message: str):
        """A response without messages: one HEADERS frame, which ends the stream."""
        self.assertEqual((stream.status, bytes(stream.body)), (200, b""))
        self.assertEqual(stream.get("content-type"), "application/grpc")
        self.assertEqual(stream.get("grpc-status"), code)
        self.assertIn(message, stream.get("grpc-message"))

    def test_a_server_that_ends_without_an_answer_is_unavailable(self):
        client = self.connect(self.serve(self.peer(lambda peer, connection, head, rest: False)))
        self.assert_grpc(client.get("/a.B/C", "POST", GRPC), "14", "server")
        plain = client.get("/a.B/C", "POST", [("content-type", "application/json")])
        self.assertEqual((plain.status, plain.get("grpc-status")), (502, None))

    def test_no_server_is_unavailable(self):
        peer = self.peer(lambda peer, connection, head, rest: False)
        client = self.connect(self.serve(peer))
        peer.stop()
        self.assert_grpc(client.get("/a.B/C", "POST", GRPC), "14", "")
        self.assertIn(client.get("/a.B/C", "POST").status, (502, 503))


def message(text: bytes) -> bytes:
    """A gRPC message: not compressed, its length, its bytes."""
    return b"\0" + len(text).to_bytes(4, "big") + text


class Service(Connection):
    """A gRPC server by raw frames. /s/Unary and /s/Collect answer at the end, /s/Count sends many messages, /s/Chat
    answers each message as it comes, /s/Die resets the stream behind its first message."""

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        super().take(kind, flags, stream, payload)
        path = self.requests.get(stream, {}).get(":path")
        if kind == h2.HEADERS and not flags & h2.END_STREAM:
            self.begin(stream)
        elif kind == h2.DATA and payload and path in ("/s/Chat", "/s/Die"):
            self.send(h2.data(stream, payload))
            if path == "/s/Die":
                self.send(h2.rst_stream(stream, h2.INTERNAL_ERROR))

    def begin(self, stream: int):
        if self.requests[stream]["te"] != "trailers":
            raise AssertionError("te: trailers is missing")
        self.send(h2.headers(stream, [(":status", "200"), ("content-type", "application/grpc")], end=False))


def finish(connection: Connection, stream: int, fields: dict, body: bytes):
    if fields[":path"] == "/s/Count":
        connection.send(*(h2.data(stream, message(b"%d" % i)) for i in range(50)))
    elif fields[":path"] != "/s/Chat":
        connection.send(h2.data(stream, body))
    connection.send(h2.headers(stream, [("grpc-status", "0"), ("grpc-message", "done")], end=True))


@differs(haproxy="not tried", nghttpd="is no gRPC server")
class Calls(H2Case):
    def setUp(self):
        origin = H2Origin(finish)
        origin.connection = Service
        self.addCleanup(origin.stop)
        self.client = self.connect(self.serve(origin, upstream=HTTP2))

    def call(self, method: str):
        return self.client.request(f"/s/{method}", "POST", GRPC, end=False)

    def assert_done(self, stream, body: bytes):
        self.assertEqual((stream.status, bytes(stream.body)), (200, body))
        self.assertEqual(dict(stream.trailers), {"grpc-status": "0", "grpc-message": "done"})

    def test_unary_and_client_streaming(self):
        for name, count in ("Unary", 1), ("Collect", 20):
            stream = self.call(name)
            for i in range(count):
                self.client.body(stream, message(b"%d" % i), end=i + 1 == count)
            self.assert_done(self.client.response(stream), b"".join(message(b"%d" % i) for i in range(count)))

    def test_server_streaming(self):
        stream = self.call("Count")
        self.client.body(stream, message(b"50"))
        self.assert_done(self.client.response(stream), b"".join(message(b"%d" % i) for i in range(50)))

    def test_both_stream_at_once(self):
        stream = self.call("Chat")
        sent = b""
        for i in range(10):
            self.client.body(stream, message(b"%d" % i), end=False)
            sent += message(b"%d" % i)
            self.client.wait(lambda: bytes(stream.body) == sent)  # Before anything else is sent.
        self.client.body(stream, b"")
        self.assert_done(self.client.response(stream), sent)

    def test_a_server_that_gives_up_in_the_middle_resets_the_stream(self):
        stream = self.call("Die")
        self.client.body(stream, message(b"x"), end=False)
        with self.assertRaises(h2.Reset):
            self.client.response(stream)
        self.assertEqual((stream.status, bytes(stream.body)), (200, message(b"x")))
