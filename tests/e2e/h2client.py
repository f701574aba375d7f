"""tests/e2e/h2client.py - HTTP/2 by hand (RFC 9113): frames, and a client that checks what servers send.

The client is an oracle: a frame that a server must not send (too large, beyond a window, on a stream that has ended, with
fields that HTTP/2 forbids) raises Violation. What a test sends may be as wrong as it likes: see frame() and literal()."""
import os
import select
import socket
import ssl
import time
from typing import NamedTuple

from h2hpack import Decoder, Fields, Violation, block, indexed, integer, literal

SECONDS = float(os.environ.get("H2_SECONDS", "10"))  # Only turns a hang into a failure.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITY_FLAG = 4, 8, 32

(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_HEADER_LIST = range(1, 7)

class Closed(Exception):
    """The server has closed or reset the connection."""


class Reset(Exception):
    """The server has reset the stream."""

    def __init__(self, stream: int, code: int):
        super().__init__(f"stream {stream} was reset with {code}")
        self.code = code


# ---- Frames ----

class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    payload: bytes

    def __str__(self):
        return f"type {self.type} flags {self.flags} stream {self.stream} payload {self.payload[:40]!r}"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """Any frame; `length` may lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(stream: int, fields_or_block, end: bool = True, end_headers: bool = True, extra: int = 0) -> bytes:
    fragment = fields_or_block if isinstance(fields_or_block, bytes) else block(fields_or_block)
    return frame(HEADERS, end * END_STREAM | end_headers * END_HEADERS | extra, stream, fragment)


def continuation(stream: int, fragment: bytes, end_headers: bool = True) -> bytes:
    return frame(CONTINUATION, end_headers * END_HEADERS, stream, fragment)


def data(stream: int, payload: bytes = b"", end: bool = False) -> bytes:
    return frame(DATA, end * END_STREAM, stream, payload)


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, number(code))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, number(increment))


def priority(stream: int, depends_on: int = 0, weight: int = 16, exclusive: bool = False) -> bytes:
    return frame(PRIORITY, 0, stream, number(depends_on | exclusive << 31) + bytes([weight - 1]))


def settings(*pairs: tuple[int, int], flags: int = 0) -> bytes:
    return frame(SETTINGS, flags, 0, b"".join(key.to_bytes(2, "big") + number(value) for key, value in pairs))


def get(path: str = "/", method: str = "GET", authority: str = "test", scheme: str = "http") -> Fields:
    return [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]


# ---- The client ----

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


class Stream:
    def __init__(self, number_: int, send_window: int, receive_window: int):
        self.id = number_
        self.send_window = send_window
        self.receive_window = receive_window
        self.informational: list[Fields] = []
        self.fields: Fields | None = None
        self.trailers: Fields | None = None
        self.body = bytearray()
        self.ended = False
        self.reset: int | None = None
        self.resets = 0  # RST_STREAM frames that came.
        self.frames: list[Frame] = []  # HEADERS and DATA that came.

    @property
    def status(self) -> int:
        return int(self.get(":status") or 0)

    def get(self, name: str):
        return next((v for n, v in self.fields or [] if n == name), None)

    @property
    def done(self) -> bool:
        return self.ended or self.reset is not None


class H2:
    """One connection. Methods that wait give up, with AssertionError, after SECONDS.

    `initial`: our SETTINGS. `grow`: answer DATA with WINDOW_UPDATE, so that windows never stop the server.
    `start` = False sends nothing at all."""

    def __init__(self, port: int, *initial: tuple[int, int], context: ssl.SSLContext | None = None, name: str = "test",
                 grow: bool = True, start: bool = True, receive_buffer: int = 0):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.socket.setblocking(False)
        self.ours = {INITIAL_WINDOW: 65535, MAX_FRAME_SIZE: 16384, HEADER_TABLE_SIZE: 4096} | dict(initial)
        self.theirs = {INITIAL_WINDOW: 65535, MAX_FRAME_SIZE: 16384, MAX_STREAMS: 1 << 31}
        self.seen_settings = False
        self.grow = grow
        self.send_window = self.receive_window = 65535
        self.streams: dict[int, Stream] = {}
        self.next_id = 1
        self.decoder = Decoder(self.ours[HEADER_TABLE_SIZE])
        self.buffer = bytearray()
        self.eof = False
        self.goaway: tuple[int, int] | None = None  # Last stream and code.
        self.settings_acks = 0
        self.pings = 0
        self.pongs: list[bytes] = []
        self.asked = 0  # PINGs that came
        self.answers_pings = True
        self.open_block: tuple[Frame, bytearray] | None = None
        if start:
            self.send(PREFACE + settings(*initial))

    def close(self):
        self.socket.close()

    # Bytes.

    def receive(self) -> bool:
        """Takes what is there; False: nothing was."""
        try:
            part = self.socket.recv(1 << 18)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            part = b""
        self.buffer += part
        self.eof = self.eof or not part
        return bool(part)

    def send(self, *parts: bytes, read: bool = True) -> bool:
        """Sends all, reading meanwhile, so that neither side waits for the other. False: the server has closed."""
        rest = memoryview(b"".join(parts))
        give_up = time.monotonic() + SECONDS
        while rest:
            try:
                rest = rest[self.socket.send(rest[:1 << 16]):]
                continue
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError:
                return False
            assert time.monotonic() < give_up, "the server takes no more bytes"
            if read and not self.eof:
                while self.receive():
                    pass
            select.select([self.socket] if read and not self.eof else [], [self.socket], [], 0.2)
        return True

    def frame(self) -> Frame:
        """The next frame, as it came. Raises Closed."""
        give_up = time.monotonic() + SECONDS
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            if not self.receive():
                if self.eof:
                    raise Closed
                left = give_up - time.monotonic()
                assert left > 0, f"nothing came; {self}"
                select.select([self.socket], [], [], left)
        size = int.from_bytes(self.buffer[:3], "big")
        one = Frame(self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF,
                    bytes(self.buffer[9:9 + size]))
        del self.buffer[:9 + size]
        return one

    def __str__(self):
        states = {i: ("reset", s.reset) if s.reset is not None else ("ended" if s.ended else "open", len(s.body))
                  for i, s in list(self.streams.items())[-5:]}
        return f"goaway {self.goaway}, streams {states}"

    # Events.

    def step(self) -> Frame:
        """Reads one frame, judges it and acts on it."""
        one = self.frame()
        if not self.seen_settings and (one.type != SETTINGS or one.flags & ACK):
            raise Violation(f"the first frame is not SETTINGS: {one}")
        if len(one.payload) > self.ours[MAX_FRAME_SIZE]:
            raise Violation(f"frame of {len(one.payload)} bytes")
        if self.open_block and (one.type != CONTINUATION or one.stream != self.open_block[0].stream):
            raise Violation(f"inside a header block: {one}")
        handler = {DATA: self.on_data, HEADERS: self.on_headers, CONTINUATION: self.on_continuation,
                   RST_STREAM: self.on_reset, SETTINGS: self.on_settings, PING: self.on_ping, GOAWAY: self.on_goaway,
                   WINDOW_UPDATE: self.on_window_update, PUSH_PROMISE: self.on_push}.get(one.type)
        if handler:
            handler(one)
        return one

    def known(self, one: Frame) -> Stream:
        stream = self.streams.get(one.stream)
        if stream is None:
            raise Violation(f"on a stream that is idle: {one}")
        return stream

    def on_data(self, one: Frame):
        stream = self.known(one)
        if stream.fields is None or stream.done:
            raise Violation(f"DATA before the head, or after the end: {one}")
        stream.frames.append(one)
        self.receive_window -= len(one.payload)
        stream.receive_window -= len(one.payload)
        if one.payload and (self.receive_window < 0 or stream.receive_window < 0):
            raise Violation(f"DATA beyond the window: {self.receive_window}, {stream.receive_window}")
        pad = one.payload[0] + 1 if one.flags & PADDED else 0
        stream.body += one.payload[1 if pad else 0:len(one.payload) - max(pad - 1, 0)]
        stream.ended = bool(one.flags & END_STREAM)
        length = stream.get("content-length")
        if length is not None and (len(stream.body) > int(length) or stream.ended and len(stream.body) != int(length)):
            raise Violation(f"{len(stream.body)} bytes of a body of {length}")
        if self.grow and one.payload:
            self.give(0, len(one.payload))
            if not stream.ended:
                self.give(stream.id, len(one.payload))

    def give(self, stream: int, increment: int):
        """Grants the server more."""
        if stream:
            self.streams[stream].receive_window += increment
        else:
            self.receive_window += increment
        self.send(window_update(stream, increment))

    def resize(self, window: int):
        """Changes the initial window, thus the window of every stream."""
        change = window - self.ours[INITIAL_WINDOW]
        self.ours[INITIAL_WINDOW] = window
        acks = self.settings_acks
        self.send(settings((INITIAL_WINDOW, window)))
        if change < 0:  # What was sent before the server knew is no violation.
            self.wait(lambda: self.settings_acks > acks)
        for stream in self.streams.values():
            stream.receive_window += change

    def on_headers(self, one: Frame):
        fragment = one.payload
        if one.flags & PADDED:
            fragment = fragment[1:len(fragment) - fragment[0]]
        if one.flags & PRIORITY_FLAG:
            fragment = fragment[5:]
        self.open_block = (one, bytearray(fragment))
        if one.flags & END_HEADERS:
            self.end_block()

    def on_continuation(self, one: Frame):
        if not self.open_block:
            raise Violation(f"no header block is open: {one}")
        self.open_block[1].extend(one.payload)
        if one.flags & END_HEADERS:
            self.end_block()

    def end_block(self):
        one, fragment = self.open_block
        self.open_block = None
        fields = self.decoder.decode(bytes(fragment))  # Always: the table has to follow.
        stream = self.known(one)
        stream.frames.append(one)
        if stream.done:
            raise Violation(f"HEADERS after the end: {one}")
        pseudo = [n for n, _ in fields if n.startswith(":")]
        for name, value in fields:
            if name != name.lower() or name in HOP_BY_HOP or any(c in value for c in "\r\n\0") or value != value.strip():
                raise Violation(f"field {name!r}: {value!r}")
        if stream.fields is None:
            if pseudo != [":status"] or fields[0][0] != ":status":
                raise Violation(f"pseudo-header fields: {fields}")
            if fields[0][1].startswith("1"):
                if one.flags & END_STREAM:
                    raise Violation("a 1xx ends the stream")
                stream.informational.append(fields)
            else:
                stream.fields = fields
        else:
            if pseudo or not one.flags & END_STREAM:
                raise Violation(f"trailers: {one} {fields}")
            stream.trailers = fields
        stream.ended = bool(one.flags & END_STREAM)

    def on_reset(self, one: Frame):
        if len(one.payload) != 4:
            raise Violation(f"length: {one}")
        stream = self.known(one)
        stream.resets += 1
        if stream.reset is None:  # Later ones only repeat it (RFC 9113 5.4.2).
            stream.reset = int.from_bytes(one.payload, "big")

    def on_settings(self, one: Frame):
        if one.stream or len(one.payload) % 6 or one.flags & ACK and one.payload:
            raise Violation(str(one))
        if one.flags & ACK:
            self.settings_acks += 1
            return
        old = self.theirs[INITIAL_WINDOW]
        for at in range(0, len(one.payload), 6):
            self.theirs[int.from_bytes(one.payload[at:at + 2], "big")] = int.from_bytes(one.payload[at + 2:at + 6], "big")
        for stream in self.streams.values():
            stream.send_window += self.theirs[INITIAL_WINDOW] - old
        self.seen_settings = True
        self.send(settings(flags=ACK))

    def on_ping(self, one: Frame):
        if one.stream or len(one.payload) != 8:
            raise Violation(str(one))
        if one.flags & ACK:
            self.pongs.append(one.payload)
            return
        self.asked += 1
        if self.answers_pings:
            self.send(frame(PING, ACK, 0, one.payload))

    def on_goaway(self, one: Frame):
        if one.stream or len(one.payload) < 8:
            raise Violation(str(one))
        last = int.from_bytes(one.payload[:4], "big") & 0x7FFFFFFF
        if self.goaway and last > self.goaway[0]:
            raise Violation("the last stream of GOAWAY has grown")
        self.goaway = (last, int.from_bytes(one.payload[4:8], "big"))

    def on_window_update(self, one: Frame):
        increment = int.from_bytes(one.payload, "big") & 0x7FFFFFFF
        if len(one.payload) != 4 or not increment:
            raise Violation(str(one))
        if one.stream == 0:
            self.send_window += increment
        else:
            self.known(one).send_window += increment

    def on_push(self, one: Frame):
        raise Violation(f"PUSH_PROMISE: {one}")

    def wait(self, condition):
        """Acts on frames until `condition()`. Raises Closed if the connection ends first."""
        give_up = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < give_up, f"it did not happen; {self}"
            self.step()

    def until_end(self) -> bytes:
        """All bytes until the server closes, whatever they mean."""
        give_up = time.monotonic() + SECONDS
        while not self.eof:
            if not self.receive() and not self.eof:
                left = give_up - time.monotonic()
                assert left > 0, "the server does not close"
                select.select([self.socket], [], [], left)
        return bytes(self.buffer)

    def drain(self):
        """Acts on what has come, without waiting."""
        while self.receive():
            pass
        while len(self.buffer) >= 9 + int.from_bytes(self.buffer[:3], "big") and len(self.buffer) >= 9:
            self.step()

    # Requests.

    def stream(self, number_: int | None = None) -> Stream:
        """Opens a stream in our books; sends nothing."""
        stream = Stream(self.next_id if number_ is None else number_, self.theirs[INITIAL_WINDOW],
                        self.ours[INITIAL_WINDOW])
        self.next_id = max(self.next_id, stream.id + 2)
        self.streams[stream.id] = stream
        return stream

    def request(self, path: str = "/", method: str = "GET", fields=(), end: bool = True, **pseudo) -> Stream:
        stream = self.stream()
        self.send(headers(stream.id, get(path, method, **pseudo) + list(fields), end))
        return stream

    def raw_request(self, fields_or_block, end: bool = True) -> Stream:
        stream = self.stream()
        self.send(headers(stream.id, fields_or_block, end))
        return stream

    def body(self, stream: Stream, content: bytes, end: bool = True, piece: int = 16384):
        """Sends DATA as the windows allow."""
        self.wait(lambda: self.seen_settings)
        sent = 0
        while sent < len(content) and stream.reset is None:
            size = min(piece, len(content) - sent, self.send_window, stream.send_window)
            if size <= 0:
                self.step()
                continue
            last = end and sent + size == len(content)
            self.send_window -= size
            stream.send_window -= size
            self.send(data(stream.id, content[sent:sent + size], last))
            sent += size
        if end and not content:
            self.send(data(stream.id, b"", True))

    def response(self, stream: Stream) -> Stream:
        """Waits for the end of the answer. Raises Reset or Closed if it is cut."""
        self.wait(lambda: stream.done)
        if not stream.ended:
            raise Reset(stream.id, stream.reset)
        return stream

    def get(self, path: str = "/", method: str = "GET", fields=(), **pseudo) -> Stream:
        return self.response(self.request(path, method, fields, **pseudo))

    def ping(self):
        """Returns when the server has answered, thus has read, all that was sent before."""
        self.pings += 1
        payload = b"ping%4d" % self.pings
        self.send(frame(PING, 0, 0, payload))
        self.wait(lambda: payload in self.pongs)


__all__ = ["Decoder", "Fields", "Violation", "block", "indexed", "integer", "literal"]  # For tests, from one place.
