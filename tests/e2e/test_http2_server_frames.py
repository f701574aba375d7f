"""What servers may and may not say in HTTP/2 (RFC 9113), frame by frame: the balancer is the client, an origin by hand answers.

A row is: name, what the origin says to the request on stream 1, and what follows: of the request, of the connection. After
each of them the next request is served."""
import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case, test_name
from h2client import (CANCEL, COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, NO_ERROR, PROTOCOL_ERROR, Reset, block,
                      continuation, data, frame, headers, indexed, literal, number, priority, rst_stream, settings, window_update)
from support import wait_until

MAX = 2**31 - 1
PAD = h2.PADDED
OK = block([(":status", "200")])
HEAD = headers(1, OK, end=False)
WHOLE = HEAD + data(1, b"body", True)
FILL = literal("x-fill", "f" * 3000)


# What follows: of the request, as the client sees it.

def answered(test, client, stream):
    client.response(stream)
    test.assertEqual((stream.status, bytes(stream.body)), (200, b"body"))


def answered_empty(test, client, stream):
    client.response(stream)
    test.assertEqual((stream.status, bytes(stream.body)), (200, b""))


def bad_gateway(test, client, stream):
    test.assertEqual(client.response(stream).status, 502)


def cut(test, client, stream):
    """The answer was begun."""
    with test.assertRaises(Reset):
        client.response(stream)
    client.ping()


# And of the connection to the server.

def kept(test, connection):
    test.assertEqual((connection.goaway, connection.ended), (None, False))
    test.assertEqual(len(connection.origin.connections), 1)


def reset(code: int):
    """The stream only."""
    def judge(test, connection):
        wait_until(lambda: 1 in connection.reset)
        test.assertEqual(connection.reset, {1: code})
        kept(test, connection)
    return judge


def drained(test, connection):
    """It is closed when nothing is left on it, without a complaint."""
    wait_until(lambda: connection.ended)
    test.assertIn(connection.goaway, (None, NO_ERROR))
    test.assertEqual(len(connection.origin.connections), 2)


def closed(code: int):
    """With GOAWAY; the next request has a connection of its own."""
    def judge(test, connection):
        wait_until(lambda: connection.ended)
        test.assertEqual(connection.goaway, code)
        test.assertEqual(len(connection.origin.connections), 2)
    return judge


def goaway(last: int, code: int = NO_ERROR) -> bytes:
    return frame(h2.GOAWAY, 0, 0, number(last) + number(code))


def error(name: str, said: bytes, code: int):
    """An error of the connection (RFC 9113 5.4.1)."""
    return name, said, bad_gateway, closed(code)


def malformed(name: str, fields):
    """A response that is malformed (RFC 9113 8.1.1): an error of its stream."""
    return name, headers(1, fields) if isinstance(fields, list) else fields, bad_gateway, reset(PROTOCOL_ERROR)


GOOD = [
    ("plain", WHOLE, answered, kept),
    ("6.1 DATA with padding", HEAD + frame(h2.DATA, PAD | 1, 1, b"\x04body" + bytes(4)), answered, kept),
    ("6.1 DATA with padding of nothing", HEAD + frame(h2.DATA, PAD | 1, 1, b"\0body"), answered, kept),
    ("6.1 DATA of padding only", HEAD + frame(h2.DATA, PAD, 1, b"\x08" + bytes(8)) + data(1, b"body", True), answered, kept),
    ("6.1 DATA with 255 bytes of padding again and again", HEAD + frame(h2.DATA, PAD, 1, b"\xff" + bytes(255)) * 1000 +
     data(1, b"body", True), answered, kept),  # 256 KB: it is given back.
    ("6.1 DATA of nothing at the end", HEAD + data(1, b"body") + data(1, b"", True), answered, kept),
    ("6.2 HEADERS with padding", headers(1, b"\x05" + OK + bytes(5), end=False, extra=PAD) + data(1, b"body", True), answered, kept),
    ("6.2 HEADERS with priority", headers(1, number(0) + b"\xff" + OK, extra=h2.PRIORITY_FLAG), answered_empty, kept),
    ("6.2 HEADERS with both", headers(1, b"\x02" + number(0) + b"\xff" + OK + bytes(2), extra=h2.PRIORITY_FLAG | PAD), answered_empty,
     kept),
    ("6.10 CONTINUATION", headers(1, OK, False, False) + continuation(1, FILL, False) + continuation(1, literal("x", "y")) +
     data(1, b"body", True), answered, kept),
    ("6.10 CONTINUATION of single bytes", headers(1, OK[:1], False, False) + b"".join(
        continuation(1, OK[i:i + 1], False) for i in range(1, len(OK))) + continuation(1, b"") + data(1, b"body", True), answered, kept),
    ("6.10 CONTINUATION with trailers", HEAD + data(1, b"body") + headers(1, literal("x", "1")[:3], True, False) +
     continuation(1, literal("x", "1")[3:]), answered, kept),
    ("5.5 unknown frames", frame(0xFA, 0xFF, 1, b"x") + frame(0xFB, 0, 0) + WHOLE, answered, kept),
    ("6.3 PRIORITY", priority(1, 3) + priority(5) + WHOLE, answered, kept),
    ("6.5 SETTINGS again", settings((h2.MAX_STREAMS, 5), (h2.INITIAL_WINDOW, 1000), (0xFF, 1), (h2.ENABLE_PUSH, 0)) + WHOLE, answered,
     kept),
    ("6.7 PING, asked and unasked", frame(h2.PING, 0, 0, bytes(8)) + frame(h2.PING, 1, 0, b"unasked!") + WHOLE, answered, kept),
    ("6.9 WINDOW_UPDATE", window_update(0, 1) + window_update(1, 100) + WHOLE + window_update(1, 1), answered, kept),
    ("8.1 1xx before the answer", headers(1, [(":status", "100")], False) + headers(1, [(":status", "103")], False) + WHOLE, answered,
     kept),
    ("5.1 DATA behind the end", WHOLE + data(1, b"more", True), answered, kept),  # We might have reset it.
    ("5.1 HEADERS behind the end", WHOLE + headers(1, OK), answered, kept),
    ("5.4.2 RST_STREAM behind the end is not answered", WHOLE + rst_stream(1, CANCEL) * 3, answered, kept),
    ("6.4 RST_STREAM before the answer", rst_stream(1, CANCEL), bad_gateway, kept),
    ("6.4 RST_STREAM in the answer", HEAD + data(1, b"bo") + rst_stream(1, CANCEL), cut, kept),
    ("6.8 GOAWAY of 2^31-1, then the real one", goaway(MAX) + goaway(1) + WHOLE, answered, drained),
    ("6.8 GOAWAY of 2^31-1 only", goaway(MAX) + WHOLE, answered, drained),
    ("6.8 GOAWAY behind the answer", WHOLE + goaway(1), answered, drained),
    ("7 GOAWAY with an unknown code", goaway(1, 0xFFFF) + WHOLE, answered, drained),
]

CONNECTIONS = [
    error("4.2 a frame of 16385", frame(0xFA, 0, 0, bytes(16385)), FRAME_SIZE_ERROR),
    error("4.3 a header block that does not decode", headers(1, OK + indexed(70)), COMPRESSION_ERROR),
    error("4.3 a header block that ends early", headers(1, literal("x", "yyy")[:-1]), COMPRESSION_ERROR),
    error("5.1 DATA on idle", data(3, b"x"), PROTOCOL_ERROR),
    error("5.1 HEADERS on idle", headers(3, OK), PROTOCOL_ERROR),
    error("5.1.1 HEADERS on a stream of its own", headers(2, OK), PROTOCOL_ERROR),
    error("6.1 DATA on 0", data(0, b"x"), PROTOCOL_ERROR),
    error("6.1 DATA with too much padding", frame(h2.DATA, PAD, 1, b"\x06test1"), PROTOCOL_ERROR),
    error("6.1 DATA with padding and no length of it", frame(h2.DATA, PAD, 1), FRAME_SIZE_ERROR),
    error("6.2 HEADERS on 0", headers(0, OK), PROTOCOL_ERROR),
    error("6.2 HEADERS with too much padding", headers(1, b"\xff" + OK, extra=PAD), PROTOCOL_ERROR),
    error("6.2 HEADERS too short for priority", headers(1, b"\0\0\0", extra=h2.PRIORITY_FLAG), FRAME_SIZE_ERROR),
    error("6.4 RST_STREAM on 0", rst_stream(0), PROTOCOL_ERROR),
    error("6.4 RST_STREAM on idle", rst_stream(3), PROTOCOL_ERROR),
    error("6.4 RST_STREAM of 3", frame(h2.RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    error("6.5 SETTINGS on a stream", frame(h2.SETTINGS, 0, 1), PROTOCOL_ERROR),
    error("6.5 SETTINGS of 5", frame(h2.SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    error("6.5 SETTINGS ACK with a payload", settings((3, 1), flags=1), FRAME_SIZE_ERROR),
    error("6.5.2 ENABLE_PUSH of 1", settings((h2.ENABLE_PUSH, 1)), PROTOCOL_ERROR),
    error("6.5.2 ENABLE_PUSH of 2", settings((h2.ENABLE_PUSH, 2)), PROTOCOL_ERROR),
    error("6.5.2 INITIAL_WINDOW_SIZE of 2^31", settings((h2.INITIAL_WINDOW, 2**31)), FLOW_CONTROL_ERROR),
    error("6.5.2 MAX_FRAME_SIZE of 16383", settings((h2.MAX_FRAME_SIZE, 16383)), PROTOCOL_ERROR),
    error("6.5.2 MAX_FRAME_SIZE of 2^24", settings((h2.MAX_FRAME_SIZE, 2**24)), PROTOCOL_ERROR),
    error("6.6 PUSH_PROMISE", frame(h2.PUSH_PROMISE, 4, 1, number(2) + block(h2.get())), PROTOCOL_ERROR),
    error("6.7 PING on a stream", frame(h2.PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    error("6.7 PING of 6", frame(h2.PING, 0, 0, bytes(6)), FRAME_SIZE_ERROR),
    error("6.8 GOAWAY on a stream", frame(h2.GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    error("6.8 GOAWAY of 7", frame(h2.GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    error("6.9 WINDOW_UPDATE of 0", window_update(0, 0), PROTOCOL_ERROR),
    error("6.9 WINDOW_UPDATE of 3", frame(h2.WINDOW_UPDATE, 0, 0, b"\0\0\1"), FRAME_SIZE_ERROR),
    error("6.9 WINDOW_UPDATE on idle", window_update(3, 1), PROTOCOL_ERROR),
    error("6.9.1 a window above 2^31-1", window_update(0, MAX), FLOW_CONTROL_ERROR),
    error("6.9.2 INITIAL_WINDOW_SIZE lifts a window above 2^31-1", window_update(1, MAX - 65535) + settings((4, 65536)),
          FLOW_CONTROL_ERROR),
    error("6.10 CONTINUATION of no block", continuation(1, OK), PROTOCOL_ERROR),
    error("6.10 CONTINUATION of another stream", headers(1, OK, True, False) + continuation(3, FILL), PROTOCOL_ERROR),
    ("6.10 CONTINUATION behind END_HEADERS", HEAD + continuation(1, FILL), cut, closed(PROTOCOL_ERROR)),
    error("6.10 DATA inside a header block", headers(1, OK, False, False) + data(1, b"x", True), PROTOCOL_ERROR),
    error("6.10 PING inside a header block", headers(1, OK, False, False) + frame(h2.PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
    error("6.10 CONTINUATION without end", headers(1, OK, False, False) + continuation(1, FILL, False) * 140, h2.ENHANCE_YOUR_CALM),
]

STREAMS = [
    ("6.9 WINDOW_UPDATE of 0 on a stream", window_update(1, 0), bad_gateway, reset(PROTOCOL_ERROR)),
    ("6.9.1 a window of a stream above 2^31-1", window_update(1, MAX), bad_gateway, reset(FLOW_CONTROL_ERROR)),
    ("6.3 PRIORITY of 4", frame(h2.PRIORITY, 0, 1, bytes(4)), bad_gateway, reset(FRAME_SIZE_ERROR)),
    malformed("8.1 DATA before the head", data(1, b"x", True)),
    malformed("8.1 an interim head that ends the stream", headers(1, [(":status", "103")], end=True)),
    malformed("8.2.1 an upper-case name", [(":status", "200"), ("X-Upper", "1")]),
    malformed("8.2.1 LF in a value", [(":status", "200"), ("x", "a\nb")]),
    malformed("8.2.2 a connection-specific field", [(":status", "200"), ("connection", "close")]),
    malformed("8.2.2 transfer-encoding", [(":status", "200"), ("transfer-encoding", "chunked")]),
    malformed("8.3 a pseudo-header of requests", [(":status", "200"), (":path", "/")]),
    malformed("8.3 a pseudo-header behind a field", [("x", "1"), (":status", "200")]),
    malformed("8.3.2 no status", [("x", "1")]),
    malformed("8.3.2 a status twice", [(":status", "200"), (":status", "200")]),
    malformed("8.3.2 a status of two digits", [(":status", "20")]),
    malformed("8.6 a 101", [(":status", "101")]),
    ("8.1 a second head without END_STREAM", HEAD + headers(1, OK, end=False), cut, reset(PROTOCOL_ERROR)),
    ("8.1 trailers with a pseudo-header", HEAD + data(1, b"x") + headers(1, OK), cut, reset(PROTOCOL_ERROR)),
    ("8.1.1 content-length above DATA", headers(1, OK + literal("content-length", "5"), False) + data(1, b"x", True), cut,
     reset(PROTOCOL_ERROR)),
    ("8.1.1 content-length below DATA", headers(1, OK + literal("content-length", "1"), False) + data(1, b"xx", True), cut,
     reset(PROTOCOL_ERROR)),
]


def rows(*tables):
    """Makes one test of each row."""
    def add(cls):
        for name, said, request, server in (row for table in tables for row in table):
            def test(self, said=said, request=request, server=server):
                self.judge(said, request, server)
            assert not hasattr(cls, test_name(name)), name
            setattr(cls, test_name(name), test)
        return cls
    return add


@rows(GOOD, CONNECTIONS, STREAMS)
class ServerFrames(H2Case):
    def before(self, said: bytes) -> tuple[H2Origin, int]:
        def script(connection: Connection, stream: int, fields: dict, body: bytes):
            if fields[":path"] == "/next":
                return connection.answer(stream, b"next")
            assert stream == 1
            connection.send(said)
        origin = H2Origin(script)
        self.addCleanup(origin.stop)
        return origin, self.serve(origin, upstream=HTTP2)

    def judge(self, said: bytes, request, server):
        origin, port = self.before(said)
        client = self.connect(port)
        request(self, client, client.request("/first"))
        self.assertEqual(client.get("/next").body, b"next")
        server(self, origin.connections[0])
        self.assertEqual(client.get("/next").body, b"next")
        self.assertEqual(sum(r[":path"] == "/first" for c in origin.connections for r in c.requests.values()), 1)

    def test_6_9_1_data_beyond_the_window_of_a_stream(self):
        """The client reads nothing, so the window of 64 KiB is not opened again. (That of the connection is twice the sum of
        those of its streams, so it cannot be exceeded alone.)"""
        origin, port = self.before(HEAD + data(1, bytes(16384)) * 5)
        client = self.connect(port, (h2.INITIAL_WINDOW, 0))
        stream = client.request("/first")
        client.wait(lambda: stream.done)
        self.assertIsNotNone(stream.reset)
        other = self.connect(port)
        self.assertEqual(other.get("/next").body, b"next")
        reset(FLOW_CONTROL_ERROR)(self, origin.connections[0])

    def test_6_9_2_a_smaller_initial_window_makes_the_request_wait(self):
        """Of a stream that is open: its window becomes negative, and opens again."""
        seen = []

        def script(connection: Connection, stream: int, fields: dict, body: bytes):
            seen.append(body)
            connection.answer(stream, b"%d" % len(body))

        class Small(Connection):
            def take(self, kind, flags, stream, payload):
                if kind == h2.HEADERS:
                    self.send(settings((h2.INITIAL_WINDOW, 1000)))
                super().take(kind, flags, stream, payload)
        origin = H2Origin(script)
        origin.connection = Small
        self.addCleanup(origin.stop)
        client = self.connect(self.serve(origin, upstream=HTTP2))
        for _ in range(2):
            stream = client.request("/first", "POST", end=False)
            client.body(stream, bytes(300_000))
            self.assertEqual(client.response(stream).body, b"300000")

    def test_3_4_a_server_that_speaks_something_else(self):
        for said in (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", frame(h2.PING, 0, 0, bytes(8)), settings(flags=1),
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"):
            with self.subTest(said):
                class Other(Connection):
                    def serve(self, said=said):
                        try:
                            self.socket.sendall(said)
                            self.exactly(1 << 20)
                        except (EOFError, OSError):
                            self.ended = True
                origin = H2Origin(lambda *_: None)
                origin.connection = Other
                self.addCleanup(origin.stop)
                client = self.connect(self.serve(origin, upstream=HTTP2))
                for _ in range(2):
                    self.assertEqual(client.get().status, 502)
                wait_until(lambda: all(c.ended for c in origin.connections))


class ServerFramesToHttp1Clients(H2Case):
    """The same, as clients of HTTP/1.1 see it: each answer is whole, or 502, or cut so that it shows."""

    def test_all(self):
        for name, said, request, _ in GOOD + CONNECTIONS + STREAMS:
            with self.subTest(name):
                origin, port = ServerFrames.before(self, said)
                client = self.client(port)
                try:
                    reply = client.get("/first")
                    if reply.status < 200:
                        while reply.status < 200:
                            reply = client.response()
                    seen = {200: answered if reply.body else answered_empty, 502: bad_gateway}[reply.status]
                    self.assertIn(reply.body, (b"body", b"") if reply.status == 200 else (reply.body,))
                except (EOFError, ConnectionResetError):
                    seen = cut
                self.assertIs(seen, request)
                self.assertEqual(self.client(port).get("/next").body, b"next")
                self.balancer.stop()
                origin.stop()


