"""Frames, streams and HPACK of HTTP/2 as RFC 9113 and RFC 7541 have them; the numbers are those of h2spec where it has the case.

A row is: name, state of stream 1 before, bytes, what must follow. States: "idle"; "open" (a POST without its body);
"half" (half-closed (remote): a GET whose answer cannot end, since its window is 0); "closed" (a GET and its answer);
"reset" (a POST that the client has reset)."""
import h2client as h2
from h2client import (COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
                      STREAM_CLOSED, Closed, block, continuation, data, frame, get, headers, indexed, literal, number,
                      priority, rst_stream, settings, window_update)
from h2_support import SharedCase, differs, test_name
from support import ok

GET = block(get())
HEAD = block(get(method="HEAD"))
POST = block(get(method="POST"))
FILL = literal("x-fill", "f" * 3000)  # Header blocks that need no other reason to be long.
PAD = h2.PADDED
PRIO = h2.PRIORITY_FLAG
MAX = 2**31 - 1
CONNECT_PROTOCOL = 8  # RFC 8441.


# What must follow. Each is a function of the test, the client and stream 1.

def connection(*codes: int):
    return lambda test, client, stream: test.refused(client, *codes)


def stream_error(*codes: int):
    return lambda test, client, stream: test.refused(client, *codes, stream=stream)


def serves(test, client, stream):
    """The connection lives."""
    client.ping()


def resets(count: int):
    """The connection lives, and the stream was reset so often (RFC 9113 5.4.2: no RST_STREAM answers another one)."""
    def judge(test, client, stream):
        client.ping()
        test.assertEqual(stream.resets, count)
    return judge


def answered(test, client, stream):
    client.response(stream)
    test.assertEqual(stream.status, 200)
    test.assertTrue(stream.body)
    client.ping()


def answered_empty(test, client, stream):
    client.response(stream)
    test.assertEqual((stream.status, bytes(stream.body)), (200, b""))


def answered_or_refused(*codes: int):
    """What RFC 9113 has removed may be ignored or be an error."""
    def judge(test, client, stream):
        try:
            client.wait(lambda: stream.done or client.goaway)
        except Closed:
            return
        if not stream.ended:
            test.refused(client, *codes, stream=stream)
    return judge


def closes(test, client, stream):
    client.until_end()


def serves_or_closes(test, client, stream):
    try:
        client.ping()
    except Closed:
        pass


def acknowledged(test, client, stream):
    client.wait(lambda: client.settings_acks == 2)


def trailers(name: str = "x-trailer") -> bytes:
    return headers(1, literal(name, "1"))


def malformed(fields, body: bytes | None = None):
    """A request that is malformed: RFC 9113 8.1.1."""
    return "idle", headers(1, fields, end=body is None) + (body or b""), stream_error(PROTOCOL_ERROR)


GENERIC = [
    ("generic 2-1 PRIORITY on idle", "idle", priority(1), serves),
    ("generic 2-2 WINDOW_UPDATE on half-closed", "half", window_update(1, 10000), answered),
    ("generic 2-3 PRIORITY on half-closed", "half", priority(1) + window_update(1, 10000), answered),
    ("generic 2-4 RST_STREAM on half-closed", "half", rst_stream(1), serves),
    ("generic 2-5 PRIORITY on closed", "closed", priority(1), serves),
    ("generic WINDOW_UPDATE on closed", "closed", window_update(1, 100), serves),
    ("generic RST_STREAM on closed", "closed", rst_stream(1), serves),
    ("generic 3.1-1 DATA", "open", data(1, b"test", True), answered),
    ("generic 3.1-2 several DATA", "open", data(1, b"a") + data(1, b"b") + data(1, b"c", True), answered),
    ("generic 3.1-3 DATA with padding", "open", frame(h2.DATA, PAD | 1, 1, b"\x04test" + bytes(4)), answered),
    ("generic 3.1 DATA of padding only", "open", frame(h2.DATA, PAD, 1, b"\x04" + bytes(4)) + data(1, b"t", True), answered),
    ("generic 3.1 DATA empty at the end", "open", data(1, b"t") + data(1, b"", True), answered),
    ("generic 3.2-1 HEADERS", "idle", headers(1, GET), answered),
    ("generic 3.2-2 HEADERS with padding", "idle", headers(1, b"\x05" + GET + bytes(5), extra=PAD), answered),
    ("generic 3.2-3 HEADERS with priority", "idle", headers(1, number(0) + b"\xff" + GET, extra=PRIO), answered),
    ("generic 3.2 HEADERS with both", "idle",
     headers(1, b"\x05" + number(0) + b"\xff" + GET + bytes(5), extra=PRIO | PAD), answered),
    ("generic 3.3-1 PRIORITY of weight 1", "idle", priority(1, 0, 1) + headers(1, GET), answered),
    ("generic 3.3-2 PRIORITY of weight 256", "idle", priority(1, 0, 256) + headers(1, GET), answered),
    ("generic 3.3-3 PRIORITY on a stream", "idle", priority(3, 1) + headers(1, GET), answered),
    ("generic 3.3-4 PRIORITY exclusive", "idle", priority(3, 1, exclusive=True) + headers(1, GET), answered),
    ("generic 3.3-5 PRIORITY of a higher idle stream", "idle", priority(5) + headers(1, GET), answered),
    ("generic 3.4 RST_STREAM", "open", rst_stream(1), serves),
    ("generic 3.5 SETTINGS", "idle", settings((h2.INITIAL_WINDOW, 65535)), acknowledged),
    ("generic 3.7 PING", "idle", b"", serves),
    ("generic 3.8 GOAWAY and a request before it", "idle", headers(1, GET) + frame(h2.GOAWAY, 0, 0, bytes(8)),
     lambda test, client, stream: client.response(stream)),
    ("generic 3.9-1 WINDOW_UPDATE on 0", "idle", window_update(0, 1), serves),
    ("generic 3.9-2 WINDOW_UPDATE on a stream", "half", window_update(1, 10000), answered),
    ("generic 3.10-1 CONTINUATION", "idle", headers(1, GET[:5], end_headers=False) + continuation(1, GET[5:]), answered),
    ("generic 3.10-2 CONTINUATION of single bytes", "idle", headers(1, GET[:1], end_headers=False) + b"".join(
        continuation(1, GET[i:i + 1], False) for i in range(1, 6)) + continuation(1, GET[6:]), answered),
    ("generic 4-1 GET", "idle", headers(1, GET), answered),
    ("generic 4-2 HEAD", "idle", headers(1, HEAD), answered_empty),
    ("generic 4-3 POST", "idle", headers(1, POST, end=False) + data(1, b"test", True), answered),
    ("generic 4-4 POST with trailers", "idle", headers(1, POST, end=False) + data(1, b"test") + trailers(), answered),
]

FRAMES = [
    ("3.4 no SETTINGS behind the preface", "unsaid", h2.PREFACE + headers(1, GET), connection(PROTOCOL_ERROR)),
    ("3.4 SETTINGS ACK behind the preface", "unsaid", h2.PREFACE + settings(flags=1), connection(PROTOCOL_ERROR)),
    ("3.4 a request right behind the preface", "unsaid", h2.PREFACE + settings() + headers(1, GET), answered),
    ("3.5-2 invalid preface", "unsaid", b"INVALID CONNECTION PREFACE\r\n\r\n", closes),
    ("3.5 preface that goes wrong late", "unsaid", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings(), closes),
    ("4.1-1 unknown type", "idle", frame(0xFF, 0, 0, b"unknown"), serves),
    ("4.1-2 undefined flags", "idle", frame(h2.PING, 0x16, 0, bytes(8)), serves),
    ("4.1-3 reserved bit", "idle", frame(h2.PING, 0, 1 << 31, bytes(8)), serves),
    ("4.2-1 DATA of 16384", "open", data(1, bytes(16384), True), answered),
    ("4.2-2 DATA of 16385", "open", data(1, bytes(16385), True), stream_error(FRAME_SIZE_ERROR)),
    ("4.2-3 HEADERS of 16385", "idle", headers(1, GET + FILL * 5 + literal("x", "y" * 2000)),
     connection(FRAME_SIZE_ERROR)),
    ("4.2 SETTINGS of 16386", "idle", frame(h2.SETTINGS, 0, 0, settings((99, 1))[9:] * 2731), connection(FRAME_SIZE_ERROR)),
    ("4.2 unknown frame of 16385", "idle", frame(0xFF, 0, 0, bytes(16385)), connection(FRAME_SIZE_ERROR)),
    ("4.3-1 invalid header block", "idle", headers(1, GET + literal("x", "y")[:-1] + b"\xff" * 40),
     connection(COMPRESSION_ERROR)),
    ("4.3 header block that ends early", "idle", headers(1, GET + literal("x", "yyy")[:-1]), connection(COMPRESSION_ERROR)),
    ("4.3-2 PRIORITY inside a header block", "idle", headers(1, GET, end_headers=False) + priority(1) + continuation(1, FILL),
     connection(PROTOCOL_ERROR)),
    ("4.3-3 HEADERS inside a header block", "idle", headers(1, GET, end_headers=False) + headers(3, GET),
     connection(PROTOCOL_ERROR)),
    ("4.3 PING inside a header block", "idle", headers(1, GET, end_headers=False) + frame(h2.PING, 0, 0, bytes(8)),
     connection(PROTOCOL_ERROR)),
    ("5.1-1 idle: DATA", "idle", data(1, b"test", True), connection(PROTOCOL_ERROR)),
    ("5.1-2 idle: RST_STREAM", "idle", rst_stream(1), connection(PROTOCOL_ERROR)),
    ("5.1-3 idle: WINDOW_UPDATE", "idle", window_update(1, 100), connection(PROTOCOL_ERROR)),
    ("5.1-4 idle: CONTINUATION", "idle", continuation(1, GET), connection(PROTOCOL_ERROR)),
    ("5.1-5 half-closed: DATA", "half", data(1, b"test", True), stream_error(STREAM_CLOSED)),
    ("5.1-6 half-closed: HEADERS", "half", headers(1, GET), stream_error(STREAM_CLOSED)),
    ("5.1-7 half-closed: CONTINUATION", "half", continuation(1, GET), connection(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("5.1-8 reset: DATA", "reset", data(1, b"test", True), stream_error(STREAM_CLOSED)),
    ("5.1-9 reset: HEADERS", "reset", headers(1, GET), stream_error(STREAM_CLOSED)),
    ("5.1-10 reset: CONTINUATION", "reset", continuation(1, GET), connection(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("5.1-11 closed: DATA", "closed", data(1, b"test", True), stream_error(STREAM_CLOSED)),
    ("5.1-12 closed: HEADERS", "closed", headers(1, GET), connection(STREAM_CLOSED)),
    ("5.1-13 closed: CONTINUATION", "closed", continuation(1, GET), connection(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("5.1.1-1 even stream", "idle", headers(2, GET), connection(PROTOCOL_ERROR)),
    ("5.1.1-2 lower stream", "idle", headers(5, GET) + headers(3, GET),
     connection(PROTOCOL_ERROR, STREAM_CLOSED)),
    ("5.1.1 highest stream", "idle", headers(MAX, GET), lambda test, client, stream: client.wait(
        lambda: client.streams[MAX].ended)),
    ("5.3.1-1 HEADERS depends on itself", "idle", headers(1, number(1) + b"\xff" + GET, extra=PRIO),
     answered_or_refused(PROTOCOL_ERROR)),
    ("5.3.1-2 PRIORITY depends on itself", "open", priority(1, 1) + data(1, b"x", True), answered_or_refused(PROTOCOL_ERROR)),
    ("5.4.1-1 after GOAWAY the connection ends", "idle", frame(h2.PING, 0, 3, bytes(8)), closes),
    ("5.4.2 RST_STREAM on open is not answered", "open", rst_stream(1), resets(0)),
    ("5.4.2 RST_STREAM on half-closed is not answered", "half", rst_stream(1), resets(0)),
    ("5.4.2 RST_STREAM on closed is not answered", "closed", rst_stream(1), resets(0)),
    ("5.4.2 RST_STREAM on reset is not answered", "reset", rst_stream(1) * 3, resets(0)),
    ("5.4.2 RST_STREAM that crosses one is not answered", "half", window_update(1, 0) + rst_stream(1) * 3, resets(1)),
    ("5.5-1 unknown frames between frames", "open", frame(0x16, 0, 1, bytes(8)) + data(1, b"x", True), answered),
    ("5.5-2 unknown frame inside a header block", "idle",
     headers(1, GET, end_headers=False) + frame(0x16, 0, 0, bytes(8)) + continuation(1, FILL), connection(PROTOCOL_ERROR)),
    ("6.1-1 DATA on 0", "idle", data(0, b"test", True), connection(PROTOCOL_ERROR)),
    ("6.1-2 DATA on half-closed", "half", data(1, b"test", True), stream_error(STREAM_CLOSED)),
    ("6.1-3 DATA with too much padding", "open", frame(h2.DATA, PAD | 1, 1, b"\x06test1"), connection(PROTOCOL_ERROR)),
    ("6.1 DATA with padding and no length of it", "open", frame(h2.DATA, PAD | 1, 1), connection(
        PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ("6.2-1 HEADERS, then PRIORITY in its block", "idle", headers(1, GET, end_headers=False) + priority(1),
     connection(PROTOCOL_ERROR)),
    ("6.2-2 HEADERS, then HEADERS of another in its block", "idle", headers(1, GET, end_headers=False) + headers(3, GET),
     connection(PROTOCOL_ERROR)),
    ("6.2-3 HEADERS on 0", "idle", headers(0, GET), connection(PROTOCOL_ERROR)),
    ("6.2-4 HEADERS with too much padding", "idle", headers(1, b"\xff" + GET, extra=PAD), connection(PROTOCOL_ERROR)),
    ("6.2 HEADERS too short for priority", "idle", headers(1, b"\0\0\0", extra=PRIO),
     connection(PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    ("6.3-1 PRIORITY on 0", "idle", priority(0), connection(PROTOCOL_ERROR)),
    ("6.3-2 PRIORITY of 4", "open", frame(h2.PRIORITY, 0, 1, bytes(4)), stream_error(FRAME_SIZE_ERROR)),
    ("6.4-1 RST_STREAM on 0", "idle", rst_stream(0), connection(PROTOCOL_ERROR)),
    ("6.4-2 RST_STREAM on idle", "idle", rst_stream(3), connection(PROTOCOL_ERROR)),
    ("6.4-3 RST_STREAM of 3", "open", frame(h2.RST_STREAM, 0, 1, bytes(3)), connection(FRAME_SIZE_ERROR)),
    ("6.5-1 SETTINGS ACK with a payload", "idle", settings((h2.MAX_STREAMS, 1), flags=1), connection(FRAME_SIZE_ERROR)),
    ("6.5-2 SETTINGS on a stream", "idle", frame(h2.SETTINGS, 0, 1, settings((3, 1))[9:]), connection(PROTOCOL_ERROR)),
    ("6.5-3 SETTINGS of 3", "idle", frame(h2.SETTINGS, 0, 0, bytes(3)), connection(FRAME_SIZE_ERROR)),
    ("6.5.2-1 ENABLE_PUSH of 2", "idle", settings((h2.ENABLE_PUSH, 2)), connection(PROTOCOL_ERROR)),
    ("6.5.2-2 INITIAL_WINDOW_SIZE of 2^31", "idle", settings((h2.INITIAL_WINDOW, 2**31)), connection(FLOW_CONTROL_ERROR)),
    ("6.5.2-3 MAX_FRAME_SIZE of 16383", "idle", settings((h2.MAX_FRAME_SIZE, 16383)), connection(PROTOCOL_ERROR)),
    ("6.5.2-4 MAX_FRAME_SIZE of 2^24", "idle", settings((h2.MAX_FRAME_SIZE, 2**24)), connection(PROTOCOL_ERROR)),
    ("6.5.2-5 unknown setting", "idle", settings((0xFF, 1)), serves),
    ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 2", "idle", settings((CONNECT_PROTOCOL, 2)), connection(PROTOCOL_ERROR)),
    ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL taken back", "idle", settings((CONNECT_PROTOCOL, 1), (CONNECT_PROTOCOL, 0)),
     connection(PROTOCOL_ERROR)),
    ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 1 and again", "idle", settings((CONNECT_PROTOCOL, 1)) * 2 + headers(1, GET), answered),
    ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 0", "idle", settings((CONNECT_PROTOCOL, 0)) + headers(1, GET), answered),
    ("6.5.2 ENABLE_PUSH of 1", "idle", settings((h2.ENABLE_PUSH, 1)) + headers(1, GET), answered),
    ("6.5.2 all that is allowed", "idle", settings((1, 0), (2, 0), (3, 0), (4, MAX), (5, 2**24 - 1), (6, 2**32 - 1)) +
     headers(1, GET), answered),
    ("6.5.3-2 SETTINGS is acknowledged", "idle", settings(), acknowledged),
    ("6.6 PUSH_PROMISE (8.4, 8.2-1)", "open", frame(h2.PUSH_PROMISE, 4, 1, number(2) + GET), connection(PROTOCOL_ERROR)),
    ("6.7-1 PING is answered", "idle", b"", serves),
    ("6.7-2 PING ACK is not answered", "idle", frame(h2.PING, 1, 0, b"unasked!"), serves),
    ("6.7-3 PING on a stream", "idle", frame(h2.PING, 0, 1, bytes(8)), connection(PROTOCOL_ERROR)),
    ("6.7-4 PING of 6", "idle", frame(h2.PING, 0, 0, bytes(6)), connection(FRAME_SIZE_ERROR)),
    ("6.8-1 GOAWAY on a stream", "idle", frame(h2.GOAWAY, 0, 1, bytes(8)), connection(PROTOCOL_ERROR)),
    ("6.8 GOAWAY of 7", "idle", frame(h2.GOAWAY, 0, 0, bytes(7)), connection(FRAME_SIZE_ERROR)),
    ("6.9-1 WINDOW_UPDATE of 0", "idle", window_update(0, 0), connection(PROTOCOL_ERROR)),
    ("6.9-2 WINDOW_UPDATE of 0 on a stream", "half", window_update(1, 0), stream_error(PROTOCOL_ERROR)),
    ("6.9-3 WINDOW_UPDATE of 3", "idle", frame(h2.WINDOW_UPDATE, 0, 0, b"\0\0\1"), connection(FRAME_SIZE_ERROR)),
    ("6.9 WINDOW_UPDATE with the reserved bit", "idle", window_update(0, 1 << 31 | 5), serves),
    ("6.9.1-2 window above 2^31-1", "idle", window_update(0, MAX) * 2, connection(FLOW_CONTROL_ERROR)),
    ("6.9.1-3 window of a stream above 2^31-1", "half", window_update(1, MAX) * 2, stream_error(FLOW_CONTROL_ERROR)),
    ("6.9.2 INITIAL_WINDOW_SIZE lifts a window above 2^31-1", "open", window_update(1, MAX - 65535) + settings((4, 65536)),
     connection(FLOW_CONTROL_ERROR)),
    ("6.9.2-3 INITIAL_WINDOW_SIZE of 2^32-1", "half", settings((4, 2**32 - 1)), connection(FLOW_CONTROL_ERROR)),
    ("6.10-1 several CONTINUATION", "idle", headers(1, GET[:9], end_headers=False) + continuation(1, GET[9:], False) +
     continuation(1, FILL, False) + continuation(1, literal("y", "z")), answered),
    ("6.10-2 CONTINUATION, then DATA", "idle", headers(1, POST, False, False) + continuation(1, FILL, False) +
     data(1, b"test", True), connection(PROTOCOL_ERROR)),
    ("6.10-3 CONTINUATION on 0", "idle", headers(1, GET, end_headers=False) + continuation(0, FILL), connection(PROTOCOL_ERROR)),
    ("6.10 CONTINUATION of another stream", "idle", headers(1, GET, end_headers=False) + continuation(3, FILL),
     connection(PROTOCOL_ERROR)),
    ("6.10-4 CONTINUATION behind END_HEADERS", "idle", headers(1, POST, False) + continuation(1, FILL),
     connection(PROTOCOL_ERROR)),
    ("6.10-5 CONTINUATION behind CONTINUATION with END_HEADERS", "idle", headers(1, POST, False, False) +
     continuation(1, FILL) + continuation(1, FILL), connection(PROTOCOL_ERROR)),
    ("6.10-6 CONTINUATION behind DATA", "open", data(1, b"test") + continuation(1, FILL), connection(PROTOCOL_ERROR)),
    ("7-1 GOAWAY with an unknown code", "idle", frame(h2.GOAWAY, 0, 0, number(0) + number(0xFF)), serves_or_closes),
    ("7-2 RST_STREAM with an unknown code", "open", rst_stream(1, 0xFF), serves),
]

MESSAGES = [
    ("8.1-1 second HEADERS without END_STREAM", "open", headers(1, POST, end=False), stream_error(PROTOCOL_ERROR)),
    ("8.1 trailers without END_STREAM", "open", data(1, b"test") + headers(1, literal("x", "1"), end=False),
     stream_error(PROTOCOL_ERROR)),
    ("8.2.1 upper-case name (8.1.2-1)", *malformed(get() + [("X-TEST", "ok")])),
    ("8.3 unknown pseudo-header (8.1.2.1-1)", *malformed(get() + [(":test", "ok")])),
    ("8.3 pseudo-header of answers (8.1.2.1-2)", *malformed(get() + [(":status", "200")])),
    ("8.3 pseudo-header as trailer (8.1.2.1-3)", *malformed(POST, data(1, b"test") + trailers(":method"))),
    ("8.3 pseudo-header behind a field (8.1.2.1-4)", *malformed([("x-test", "ok")] + get())),
    ("8.2.2 connection-specific field (8.1.2.2-1)", *malformed(get() + [("connection", "keep-alive")])),
    ("8.2.2 te of other than trailers (8.1.2.2-2)", *malformed(get() + [("te", "trailers, deflate;q=0.5")])),
    ("8.3.1 empty path (8.1.2.3-1)", *malformed(get(path=""))),
    ("8.3.1 no method (8.1.2.3-2)", *malformed(get()[1:])),
    ("8.3.1 no scheme (8.1.2.3-3)", *malformed(get()[:1] + get()[2:])),
    ("8.3.1 no path (8.1.2.3-4)", *malformed(get()[:2] + get()[3:])),
    ("8.3.1 method twice (8.1.2.3-5)", *malformed(get()[:1] + get())),
    ("8.3.1 scheme twice (8.1.2.3-6)", *malformed(get()[1:2] + get())),
    ("8.3.1 path twice (8.1.2.3-7)", *malformed(get()[2:3] + get())),
    ("8.3.1 authority twice", *malformed(get()[3:] + get())),
    ("8.3.1 no fields at all", *malformed(b"")),
    ("8.1.1 content-length above DATA (8.1.2.6-1)", *malformed(POST + literal("content-length", "5"), data(1, b"test", True))),
    ("8.1.1 content-length below several DATA (8.1.2.6-2)",
     *malformed(POST + literal("content-length", "5"), data(1, b"tes") + data(1, b"ting", True))),
    ("8.1.1 content-length without DATA", *malformed(POST + literal("content-length", "5"))),
    ("8.1.1 content-length with trailers too early",
     *malformed(POST + literal("content-length", "5"), data(1, b"test") + trailers())),
]

HPACK = [
    ("hpack 2.3.3-1 index of nothing", "idle", headers(1, GET + indexed(70)), connection(COMPRESSION_ERROR)),
    ("hpack 2.3.3-2 index of nothing as name", "idle", headers(1, GET + literal(70, "x")), connection(COMPRESSION_ERROR)),
    ("hpack 4.2-1 size update at the end", "idle", headers(1, GET + b"\x21"), connection(COMPRESSION_ERROR)),
    ("hpack 5.2-1 Huffman padding of 8 bits", "idle", headers(1, GET + b"\x00\x01x\x84\x49\x50\x9f\xff"),
     connection(COMPRESSION_ERROR)),
    ("hpack 5.2-2 Huffman padding of zeros", "idle", headers(1, GET + b"\x00\x01x\x83\x49\x50\x90"),
     connection(COMPRESSION_ERROR)),
    ("hpack 5.2-3 EOS in a Huffman string", "idle", headers(1, GET + b"\x00\x01x\x87\x49\x50\x9f\xff\xff\xff\xff"),
     connection(COMPRESSION_ERROR)),
    ("hpack 5.1 integer above 2^32", "idle", headers(1, GET + b"\x00\x7f" + b"\xff" * 9 + b"\x01"),
     connection(COMPRESSION_ERROR)),
    ("hpack 6.1 index 0", "idle", headers(1, GET + indexed(0)), connection(COMPRESSION_ERROR)),
    ("hpack 6.3 size update above SETTINGS", "idle", headers(1, b"\x3f\xe1\xff\x7f" + GET), connection(COMPRESSION_ERROR)),
    ("hpack 6.3 size updates before the fields", "idle", headers(1, h2.integer(0, 5, 0x20) + h2.integer(4096, 5, 0x20) + GET),
     answered),
    ("hpack generic 5-1 indexed", "idle", headers(1, indexed(2) + indexed(6) + indexed(4) + literal(1, "test")), answered),
]
for kind, kind_name in ((0x40, "with indexing"), (0, "without indexing"), (0x10, "never indexed")):
    for huffman in (False, True):
        HPACK += [
            (f"hpack generic 5 {kind_name}, indexed name{', Huffman' * huffman}", "idle", headers(1, b"".join(
                literal(index, value, kind, huffman) for index, value in ((2, "GET"), (6, "http"), (4, "/"), (1, "test"),
                                                                         (58, "agent-007")))), answered),
            (f"hpack generic 5 {kind_name}, new name{', Huffman' * huffman}", "idle", headers(1, b"".join(
                literal(name, value, kind, huffman) for name, value in get() + [("x-new", "v/1 = ~")])), answered)]


# Where the programs that these tests were tried on are known to be different (nghttpd 1.52, HAProxy 2.6).
DIFFERENT = {
    "5.1.1-2 lower stream": {"nghttpd": "ignores it"},
    "6.9.2 INITIAL_WINDOW_SIZE lifts a window above 2^31-1": {"nghttpd": "resets the stream", "haproxy": "ignores it"},
    "generic 3.1-3 DATA with padding": {"haproxy": "GOAWAY when the stream ends with padding"},
    "generic 3.1 DATA of padding only": {"haproxy": "GOAWAY"},
    "5.1-6 half-closed: HEADERS": {"haproxy": "PROTOCOL_ERROR"},
    "RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 2": {"haproxy": "ignores it"},
    "RFC 8441 3 ENABLE_CONNECT_PROTOCOL taken back": {"haproxy": "ignores it"},
    "6.9 WINDOW_UPDATE with the reserved bit": {"haproxy": "looks at the bit"},
    "8.3.1 no fields at all": {"haproxy": "FRAME_SIZE_ERROR"},
    "8.3 pseudo-header as trailer (8.1.2.1-3)": {"haproxy": "INTERNAL_ERROR"},
    "8.1.1 content-length without DATA": {"haproxy": "400 and no reset"},
    "8.1.1 content-length with trailers too early": {"haproxy": "waits"},
}


def rows(*tables):
    """Makes one test of each row."""
    def add(cls):
        for name, state, sent, follows in (row for table in tables for row in table):
            def test(self, state=state, sent=sent, follows=follows):
                self.judge(state, sent, follows)
            assert not hasattr(cls, test_name(name)), name
            setattr(cls, test_name(name), differs(**DIFFERENT.get(name, {}))(test))
        return cls
    return add


@rows(GENERIC, FRAMES, MESSAGES, HPACK)
class Frames(SharedCase):
    def start_origin(self):
        return self.origin(lambda head, body: ok(b"") if head.startswith(b"HEAD") else ok(head + body))

    def judge(self, state: str, sent: bytes, follows):
        client = self.connect(self.port, *[(h2.INITIAL_WINDOW, 0)] if state == "half" else [], start=state != "unsaid")
        if state in ("open", "reset"):
            client.request(method="POST", end=False)
        elif state == "half":
            client.request()
            client.ping()
        elif state == "closed":
            client.get()
        if state == "reset":
            client.send(rst_stream(1))
        for one in split(sent):  # Streams that the bytes open.
            if one.type == h2.HEADERS and one.stream % 2 and one.stream not in client.streams:
                client.stream(one.stream)
            if one.type == h2.WINDOW_UPDATE and one.stream in client.streams:
                client.streams[one.stream].receive_window += int.from_bytes(one.payload, "big")
        client.send(sent)
        follows(self, client, client.streams.get(1))

    def test_5_1_2_more_streams_than_announced(self):
        client = self.connect(self.port, (h2.INITIAL_WINDOW, 0))
        self.assertLess(client.theirs[h2.MAX_STREAMS], 1000)
        for _ in range(client.theirs[h2.MAX_STREAMS]):
            client.request()
        self.refused(client, PROTOCOL_ERROR, REFUSED_STREAM, stream=client.request())
        if not client.goaway:
            self.assertEqual([s.reset for s in client.streams.values() if s.reset is not None][1:], [])

    def test_5_4_1_2_goaway_names_the_last_stream(self):
        client = self.connect(self.port)
        client.get()
        client.send(frame(h2.PING, 0, 3, bytes(8)))
        with self.assertRaises(Closed):
            while True:
                client.step()
        self.assertEqual(client.goaway, (1, PROTOCOL_ERROR))

    def test_6_5_3_1_the_last_value_of_a_setting_counts(self):
        client = self.connect(self.port, (h2.INITIAL_WINDOW, 100), (h2.INITIAL_WINDOW, 1), grow=False)
        stream = client.request()
        client.wait(lambda: stream.body)
        client.ping()
        self.assertEqual((len(stream.body), stream.ended), (1, False))

    def test_6_9_1_1_data_keeps_to_the_window(self):
        client = self.connect(self.port, (h2.INITIAL_WINDOW, 1), grow=False)
        stream = client.request()
        for size in range(1, 5):
            client.wait(lambda: len(stream.body) == size)
            self.assertFalse(stream.ended)
            client.give(1, 1)  # A byte too much would be a Violation.
        client.give(1, 10000)
        client.response(stream)

    def test_6_9_1_the_window_of_the_connection_stops_all_streams(self):
        client = self.connect(self.port, (h2.INITIAL_WINDOW, MAX), grow=False)
        streams = []
        while client.receive_window:  # The oracle counts.
            streams.append(client.request(fields=[("x-fill", "f" * 3000)]))
            client.wait(lambda: streams[-1].ended or not client.receive_window)
        client.give(0, 10000)
        client.response(streams[-1])

    def test_6_9_2_1_initial_window_opens_streams_that_wait(self):
        client = self.connect(self.port, (h2.INITIAL_WINDOW, 0), grow=False)
        stream = client.request()
        client.wait(lambda: stream.fields)
        client.ping()
        self.assertEqual(len(stream.body), 0)
        client.resize(1)
        client.wait(lambda: stream.body)
        self.assertEqual(len(stream.body), 1)

    def test_6_9_2_2_a_window_may_become_negative(self):
        client = self.connect(self.port, (h2.INITIAL_WINDOW, 3), grow=False)
        stream = client.request()
        client.wait(lambda: len(stream.body) == 3)
        client.resize(2)
        client.give(1, 1)
        client.ping()
        self.assertEqual(len(stream.body), 3)  # It is 0 now.
        client.give(1, 1)
        client.wait(lambda: len(stream.body) == 4)

    def test_hpack_a_smaller_table_is_kept_to(self):
        client = self.connect(self.port, (h2.HEADER_TABLE_SIZE, 0))
        for _ in range(3):
            self.assertEqual(client.get().status, 200)
        self.assertEqual(client.decoder.table, [])

    def test_hpack_what_was_indexed_is_remembered_and_evicted(self):
        client = self.connect(self.port)
        client.response(client.raw_request(GET + literal("x-kept", "a" * 1000, 0x40)))
        for _ in range(3):
            self.assertEqual(client.response(client.raw_request(GET + indexed(62))).status, 200)
        # Larger than the table: it is empty then, and 62 names nothing.
        client.response(client.raw_request(GET + literal("x-big", "b" * 4096, 0x40)))
        client.raw_request(GET + indexed(62))
        self.refused(client, COMPRESSION_ERROR)

    def test_hpack_the_table_follows_blocks_of_refused_streams(self):
        client = self.connect(self.port)
        stream = client.raw_request(get(path="") + [], end=True)
        self.refused(client, PROTOCOL_ERROR, stream=stream, status=(400,))
        if client.goaway or client.eof:
            self.skipTest("an error of the connection")
        bad = client.raw_request(literal("x-kept", "v", 0x40) + GET)
        self.refused(client, PROTOCOL_ERROR, stream=bad, status=(400,))
        self.assertEqual(client.response(client.raw_request(GET + indexed(62))).status, 200)

    @differs(haproxy="looks for the preface in one piece")
    def test_all_frames_in_single_bytes(self):
        client = self.connect(self.port, start=False)
        client.stream()
        for byte in h2.PREFACE + settings() + headers(1, POST, end=False) + data(1, b"test", True):
            client.send(bytes([byte]))
        self.assertEqual(client.response(client.streams[1]).status, 200)


class FramesOverTls(Frames):
    tls = True


def split(sent: bytes) -> list[h2.Frame]:
    at, frames = len(h2.PREFACE) if sent.startswith(h2.PREFACE) else 0, []
    while at + 9 <= len(sent):
        size = int.from_bytes(sent[at:at + 3], "big")
        frames.append(h2.Frame(sent[at + 3], sent[at + 4], int.from_bytes(sent[at + 5:at + 9], "big"),
                               sent[at + 9:at + 9 + size]))
        at += 9 + size
    return frames
