"""Each kind of message between clients and servers of either version of HTTP: HTTP/1.1 and HTTP/2 in all four combinations."""
import socket
import struct
import threading
from typing import NamedTuple

import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case, Peer
from support import Client, ok, wait_until

MIB = 1 << 20
WHOLE = b"".join((i * 2654435761 & 0xFFFFFFFF).to_bytes(4, "big") for i in range(MIB // 4))  # Each swap shows.


class Answer(NamedTuple):
    status: int
    length: str | None
    body: bytes
    trailers: list[tuple[str, str]]
    interim: list[int]


class Cut(Exception):
    """The answer was begun and not ended."""


# ---- Clients ----

class Http1:
    def __init__(self, case: H2Case, port: int):
        self.client = Client(port)
        case.addCleanup(self.client.close)

    def begin(self, method: str, path: str, body: bytes | None, length: int | None = None, trailers=()):
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n"
        if trailers:
            head += "Transfer-Encoding: chunked\r\n"
            body = b"%x\r\n%s\r\n0\r\n" % (len(body), body) + "".join(f"{n}: {v}\r\n" for n, v in trailers).encode() + b"\r\n"
        elif body is not None:
            head += f"Content-Length: {length or len(body)}\r\n"
        self.client.send(head.encode() + b"\r\n")
        sender = threading.Thread(target=self.say, args=(body or b"",), daemon=True)
        sender.start()  # It may have to wait until the answer is read.
        return method

    def say(self, body: bytes):
        try:
            self.client.send(body)
        except OSError:
            pass

    def end(self, method: str) -> Answer:
        interim = []
        try:
            while (reply := self.client.response(method)).status < 200:
                interim.append(reply.status)
        except (EOFError, ConnectionResetError):
            raise Cut from None
        return Answer(reply.status, reply.get("content-length"), bytes(reply.body), reply.trailers, interim)

    def leave(self, _):
        self.client.close()


class Http2:
    def __init__(self, case: H2Case, port: int):
        self.client = case.connect(port)

    def begin(self, method: str, path: str, body: bytes | None, length: int | None = None, trailers=()):
        fields = [("content-length", str(length or len(body)))] if body is not None and not trailers else []
        stream = self.client.request(path, method, fields, end=body is None)
        if body is not None:
            self.client.body(stream, body, end=not trailers and length is None)
        if trailers:
            self.client.send(h2.headers(stream.id, list(trailers)))
        return stream

    def end(self, stream: h2.Stream) -> Answer:
        try:
            self.client.response(stream)
        except h2.Reset:
            raise Cut from None
        return Answer(stream.status, stream.get("content-length"), bytes(stream.body), stream.trailers or [],
                      [int(fields[0][1]) for fields in stream.informational])

    def leave(self, stream: h2.Stream):
        self.client.send(h2.rst_stream(stream.id))


# ---- Servers ----

def by_http1(peer: Peer, connection: socket.socket, head: bytes, rest: bytes) -> bool:
    match head.split(b" ")[1]:
        case b"/head":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        case b"/none":
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        case b"/trailers":
            while not rest.endswith(b"\r\n\r\n"):
                rest += connection.recv(65536)
            body, _, trailers = rest.partition(b"\r\n")[2].partition(b"\r\n0\r\n")
            sent = trailers.split(b"\r\n")[0].split(b":")[1].strip()
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-Got: %s\r\n\r\n" %
                               (len(body), body, sent))
        case b"/hints":
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"after hints"))
        case b"/early":
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly")
            peer.until_end(connection)
            return False
        case b"/echo":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MIB + rest)
            left = MIB - len(rest)
            while left:
                part = connection.recv(65536)
                connection.sendall(part)
                left -= len(part)
        case b"/stall":
            peer.until_end(connection)
            return False
        case b"/half":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            peer.go.wait(h2.SECONDS)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        case _:
            connection.sendall(ok(b"plain"))
    return True


class Http2Server(Connection):
    """Answers some paths before their requests have ended, and keeps to the windows of what it sends back."""

    def __init__(self, origin, sock):
        super().__init__(origin, sock)
        self.window = 65535
        self.windows: dict[int, int] = {}
        self.waiting: dict[int, bytearray] = {}
        self.left: dict[int, int] = {}

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        path = self.requests.get(stream, {}).get(":path")
        super().take(kind, flags, stream, payload)
        if kind == h2.HEADERS and path is None:
            self.begin(stream, self.requests[stream][":path"])
        elif kind == h2.DATA and path == "/echo":
            self.waiting[stream] += payload
        elif kind == h2.WINDOW_UPDATE and stream:
            self.windows[stream] = self.windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == h2.WINDOW_UPDATE:
            self.window += int.from_bytes(payload, "big")
        self.flush()

    def begin(self, stream: int, path: str):
        if path == "/early":
            self.answer(stream, b"early", [("content-length", "5")], "413")
        elif path == "/echo":
            self.windows[stream] = self.settings.get(h2.INITIAL_WINDOW, 65535)
            self.waiting[stream], self.left[stream] = bytearray(), MIB
            self.send(h2.headers(stream, [(":status", "200"), ("content-length", str(MIB))], end=False))
        elif path == "/half":
            self.send(h2.headers(stream, [(":status", "200"), ("content-length", "10")], end=False), h2.data(stream, b"half"))

            def reset():
                self.origin.go.wait(h2.SECONDS)
                self.send(h2.rst_stream(stream, h2.INTERNAL_ERROR))
            threading.Thread(target=reset, daemon=True).start()

    def flush(self):
        for stream, waiting in self.waiting.items():
            while size := min(len(waiting), self.window, self.windows[stream], 16384):
                self.left[stream] -= size
                self.send(h2.data(stream, bytes(waiting[:size]), not self.left[stream]))
                del waiting[:size]
                self.window -= size
                self.windows[stream] -= size


def by_http2(connection: Connection, stream: int, fields: dict, body: bytes):
    match fields[":path"]:
        case "/head":
            connection.answer(stream, fields=[("content-length", "1000")])
        case "/none":
            connection.answer(stream, status="204")
        case "/trailers":
            connection.answer(stream, body, trailers=[("x-got", fields.get("x-sent", "none"))])
        case "/hints":
            connection.send(h2.headers(stream, [(":status", "103"), ("link", "</a>")], end=False))
            connection.answer(stream, b"after hints", [("content-length", "11")])
        case "/early" | "/stall" | "/half" | "/echo":
            pass
        case _:
            connection.answer(stream, b"plain", [("content-length", "5")])


# ---- The table ----

class Matrix(H2Case):
    def before(self, server: str):
        if server == "h1":
            origin = self.peer(by_http1)
            return origin, self.serve(origin)
        origin = H2Origin(by_http2)
        origin.connection, origin.go = Http2Server, threading.Event()
        self.addCleanup(origin.stop)
        return origin, self.serve(origin, upstream=HTTP2)

    def ask(self, client, method: str, path: str, body: bytes | None = None, **more) -> Answer:
        return client.end(client.begin(method, path, body, **more))

    def head(self, client, _):
        for _ in range(2):
            self.assertEqual(self.ask(client, "HEAD", "/head"), Answer(200, "1000", b"", [], []))

    def none(self, client, _):
        for _ in range(2):
            self.assertEqual(self.ask(client, "GET", "/none"), Answer(204, None, b"", [], []))

    def trailers(self, client, _):
        for i in range(2):
            answer = self.ask(client, "POST", "/trailers", b"content", trailers=[("x-sent", str(i))])
            self.assertEqual(answer, Answer(200, None, b"content", [("x-got", str(i))], []))

    def hints(self, client, _):
        for _ in range(2):
            self.assertEqual(self.ask(client, "GET", "/hints"), Answer(200, "11", b"after hints", [], [103]))

    def early(self, client, _):
        """The answer comes whole, though the request never ends."""
        self.assertEqual(self.ask(client, "POST", "/early", b"begun", length=MIB), Answer(413, "5", b"early", [], []))

    def both_ways(self, client, _):
        answer = self.ask(client, "POST", "/echo", WHOLE)
        self.assertEqual((answer.status, answer.length, answer.body == WHOLE), (200, str(MIB), True))

    def reset_by_client(self, client, origin):
        request = client.begin("POST", "/stall", b"begun", length=MIB)
        reached = (lambda: any(b" /stall " in head for head in origin.heads)) if isinstance(origin, Peer) else (
            lambda: any(r[":path"] == "/stall" for c in origin.connections for r in list(c.requests.values())))
        wait_until(reached)
        client.leave(request)
        wait_until(lambda: (origin.ends if isinstance(origin, Peer) else origin.resets) == 1)

    def reset_by_server(self, client, origin):
        request = client.begin("GET", "/half", None)
        origin.go.set()
        with self.assertRaises(Cut):
            client.end(request)


CASES = (Matrix.head, Matrix.none, Matrix.trailers, Matrix.hints, Matrix.early, Matrix.both_ways, Matrix.reset_by_client,
         Matrix.reset_by_server)
for client_ in (Http1, Http2):
    for server_ in ("h1", "h2"):
        for case_ in CASES:
            def test_(self, client=client_, server=server_, case=case_):
                origin, port = self.before(server)
                case(self, client(self, port), origin)
                self.assertEqual(self.ask(client(self, port), "GET", "/"), Answer(200, "5", b"plain", [], []))
            setattr(Matrix, f"test_{client_.__name__.lower().replace('http', 'h')}_to_{server_}_{case_.__name__}", test_)
