"""tests/e2e/h2_origin.py - an HTTP/2 origin by raw frames, which keeps what it is given."""
import collections
import socket
import ssl
import threading

import h2client as h2
from h2hpack import Decoder
from reporting_origin import note_names

HTTP2 = 'http_versions = ["h2"]'  # of an upstream


class Connection:
    """One accepted connection; its thread reads frames and calls the origin's script."""

    def __init__(self, origin, sock: socket.socket):
        self.origin, self.socket = origin, sock
        self.decoder = Decoder(dict(origin.settings).get(h2.HEADER_TABLE_SIZE, 4096))
        self.settings: dict[int, int] = {}  # what the balancer has said
        self.lock = threading.Lock()
        self.open: set[int] = set()
        self.most = 0  # streams at once
        self.ids: list[int] = []
        self.requests: dict[int, dict[str, str]] = {}
        self.bodies = collections.defaultdict(bytes)
        self.name: str | None = None  # that TLS was asked for
        self.resumed = False
        self.pings = self.unanswered = 0
        self.goaway: int | None = None  # its code, from the balancer
        self.reset: dict[int, int] = {}  # codes of the streams that it has reset
        self.ended = False

    def send(self, *frames: bytes):
        with self.lock:
            self.socket.sendall(b"".join(frames))

    def answer(self, stream: int, body: bytes = b"", fields=(), status: str = "200", trailers=()):
        with self.lock:
            self.open.discard(stream)
        head = [(":status", status), *fields]
        frames = [h2.headers(stream, head, end=not body and not trailers)]
        for at in range(0, len(body), 16384):
            frames.append(h2.data(stream, body[at:at + 16384], at + 16384 >= len(body) and not trailers))
        if trailers:
            frames.append(h2.headers(stream, list(trailers), end=True))
        self.send(*frames)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def serve(self):
        try:
            if self.origin.context is not None:
                self.socket = self.origin.context.wrap_socket(self.socket, server_side=True)
                self.name, self.resumed = getattr(self.socket, "asked_name", None), self.socket.session_reused
            if self.exactly(len(h2.PREFACE)) != h2.PREFACE:
                return
            self.send(h2.settings(*self.origin.settings), h2.window_update(0, 1 << 24))
            while True:
                head = self.exactly(9)
                payload = self.exactly(int.from_bytes(head[:3], "big"))
                self.take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        except (EOFError, OSError):
            self.ended = True

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        if kind == h2.SETTINGS and not flags & h2.ACK:
            self.settings |= {int.from_bytes(payload[at:at + 2], "big"): int.from_bytes(payload[at + 2:at + 6], "big")
                              for at in range(0, len(payload), 6)}
            self.send(h2.settings(flags=h2.ACK))
        elif kind == h2.PING and not flags & h2.ACK:
            self.pings += 1
            if self.origin.answers_ping(self):
                self.send(h2.frame(h2.PING, h2.ACK, 0, payload))
            else:
                self.unanswered += 1
        elif kind == h2.HEADERS and stream not in self.requests:
            self.requests[stream] = dict(self.decoder.decode(payload))
            self.ids.append(stream)
            with self.lock:
                self.open.add(stream)
                self.most = max(self.most, len(self.open))
        elif kind == h2.HEADERS:
            self.requests[stream].update(self.decoder.decode(payload))  # Trailers.
        elif kind == h2.DATA:
            self.bodies[stream] += payload
            if payload:
                self.send(h2.window_update(stream, len(payload)), h2.window_update(0, len(payload)))
        elif kind == h2.RST_STREAM:
            with self.lock:
                self.open.discard(stream)
            self.reset[stream] = int.from_bytes(payload, "big")
            self.origin.resets += 1
        elif kind == h2.GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        if kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
            self.origin.script(self, stream, self.requests[stream], self.bodies[stream])


class H2Origin:
    """`script(connection, stream, fields, body)` runs in the connection's thread. `context`: it speaks TLS, and then
    nobody but that thread may send."""

    def __init__(self, script, *settings: tuple[int, int], context: ssl.SSLContext | None = None):
        self.script, self.settings, self.context = script, settings, context
        if context is not None:
            note_names(context)
        self.connection = Connection  # the class of what is accepted
        self.resets = 0
        self.answers_ping = lambda connection: True
        self.connections: list[Connection] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def pings(self) -> int:
        return sum(connection.pings for connection in self.connections)

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(30)
            connection = self.connection(self, sock)
            self.connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def stop(self):
        self.listener.close()
        for connection in self.connections:
            connection.socket.close()
