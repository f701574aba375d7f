"""HTTP/2 connections to servers that are one client's own: reuse = "never", and a PROXY header that names the client."""
import ssl
import unittest

import h2client as h2
from h2_origin import HTTP2, H2Origin
from h2_support import H2Case
from reuse_support import KEEP
from support import wait_until
from test_reuse_http2 import Counted, Http2Case, hello


class Named(Counted):
    """Begins with a PROXY header (version 1), in clear also before TLS."""
    header: bytes = b""

    def serve(self):
        while not self.header.endswith(b"\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                self.ended = True
                return
            self.header += byte
        super().serve()


class PrivateCase(Http2Case, H2Case):
    def begin(self, script=hello, *settings, pool: str, upstream: str = "", listener: str = "", named: bool = False,
              tls: bool = False) -> H2Origin:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate())
            context.set_alpn_protocols(["h2"])
            upstream += "\ntls = { verify = false }"
        origin = H2Origin(script, *settings, context=context)
        origin.connection = Named if named else Counted
        self.addCleanup(origin.stop)
        self.balancer, self.port = self.http(origin.port, listener=listener,
                                             upstream=f"{HTTP2}\n{upstream}\n[upstreams.app.pool]\n{pool}\n{KEEP}")
        return origin

    def whose(self, origin: H2Origin) -> list[set[str]]:
        """By connection: the clients whose requests it carried."""
        return [{fields["x-client"] for fields in c.requests.values()} for c in origin.connections]

    def at_once(self, clients: list, held: list, each: int, method: str = "POST"):
        """Each client has so many requests under way before the first answer."""
        streams = [(client, client.request(f"/{number}", method, fields=[("x-client", str(i))]))
                   for number in range(each) for i, client in enumerate(clients)]
        wait_until(lambda: len(held) == len(streams))
        for connection, stream in held:
            connection.answer(stream, b"ok")
        held.clear()
        for client, stream in streams:
            self.assertEqual(client.response(stream).body, b"ok")

    def rounds(self, clients: list, held: list, origin: H2Origin, count: int):
        """Each client has four requests at once, three times over. `count`: connections then, one for each client."""
        for _ in range(3):
            self.at_once(clients, held, 4)
            self.assertEqual(len(origin.connections), count)

    def end_of(self, origin: H2Origin, client: str):
        """The connection of the client ends; those of others live."""
        [own] = [c for c, whose in zip(origin.connections, self.whose(origin)) if whose == {client}]
        wait_until(lambda: own.ended)
        self.assertEqual([c for c in origin.connections if c.ended], [own])


class Never(PrivateCase):
    def test_clients_of_http2_multiplex_each_on_its_own(self):
        held: list = []
        origin = self.begin(lambda connection, stream, fields, body: held.append((connection, stream)), pool='reuse = "never"')
        clients = [self.http2_client() for _ in range(3)]
        self.rounds(clients, held, origin, 3)
        self.assertEqual(sorted(map(sorted, self.whose(origin))), [["0"], ["1"], ["2"]])
        self.assertEqual([c.most for c in origin.connections], [4, 4, 4])
        clients[1].close()
        self.end_of(origin, "1")
        self.rounds([clients[0]], held, origin, 3)

    def test_clients_of_http1_keep_it_as_long_as_they_stay(self):
        origin = self.begin(pool='reuse = "never"')
        clients = [self.client(self.port) for _ in range(3)]
        for _ in range(3):
            for i, client in enumerate(clients):
                for method in ("GET", "POST"):
                    answer = client.get("/", method, f"Content-Length: 0\r\nX-Client: {i}\r\n")
                    self.assertEqual(answer.status, 200)
        self.assertEqual(self.whose(origin), [{"0"}, {"1"}, {"2"}])
        self.assertEqual([len(c.ids) for c in origin.connections], [6, 6, 6])
        clients[0].close()
        self.end_of(origin, "0")
        self.assertEqual(clients[1].get("/", fields="X-Client: 1\r\n").status, 200)
        self.assertEqual(len(origin.connections), 3)

    def test_what_does_not_fit_has_another_of_its_own(self):
        held: list = []
        origin = self.begin(lambda connection, stream, fields, body: held.append((connection, stream)),
                            (h2.MAX_STREAMS, 3), pool='reuse = "never"')
        clients = [self.http2_client() for _ in range(2)]
        for _ in range(3):
            self.at_once(clients, held, 8, "GET")
        self.assertEqual({len(whose) for whose in self.whose(origin)}, {1})
        self.assertEqual(max(c.most for c in origin.connections), 3)
        self.assertEqual(len(origin.connections), 6)

    def test_goaway_and_a_cut_while_idle_are_met_by_a_new_one(self):
        origin = self.begin(pool='reuse = "never"')
        client = self.http2_client()
        for number, end in enumerate(("goaway", "fin", "goaway")):
            self.assertEqual(client.get("/").body, b"hello")
            self.assertEqual(len(origin.connections), number + 1)
            last = origin.connections[-1]
            if end == "goaway":
                last.send(h2.frame(h2.GOAWAY, 0, 0, h2.number(1) + h2.number(h2.NO_ERROR)))
            else:
                last.end("fin")
            wait_until(lambda: last.ended)
        self.assertEqual(client.get("/").body, b"hello")


class ProxyHeader(PrivateCase):
    def test_the_client_s_own_ends_make_it_the_client_s_own(self):
        for tls in (False, True):
            for mode in ("safe", "always", "never"):
                with self.subTest(tls=tls, mode=mode):
                    held: list = []

                    def script(connection, stream, fields, body):
                        if fields["x-client"] == "h1" or tls:  # Over TLS nobody else may send.
                            return connection.answer(stream, b"ok")
                        held.append((connection, stream))
                    origin = self.begin(script, pool=f'reuse = "{mode}"', upstream='send_proxy_protocol = "v1"',
                                        named=True, tls=tls)
                    clients = [self.http2_client() for _ in range(2)]
                    if tls:
                        for _ in range(3):
                            streams = [(client, client.request("/", fields=[("x-client", str(i))]))
                                       for _ in range(4) for i, client in enumerate(clients)]
                            for client, stream in streams:
                                self.assertEqual(client.response(stream).body, b"ok")
                    else:
                        self.rounds(clients, held, origin, 2)
                    single = self.client(self.port)
                    for _ in range(3):
                        self.assertEqual(single.get("/", fields="X-Client: h1\r\n").status, 200)
                    self.assertEqual(sorted(map(sorted, self.whose(origin))), [["0"], ["1"], ["h1"]])
                    ports = {"0": clients[0].socket, "1": clients[1].socket, "h1": single.socket}
                    for connection, [who] in zip(origin.connections, map(list, self.whose(origin))):
                        port = ports[who].getsockname()[1]
                        self.assertEqual(connection.header,
                                         b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, self.port))
                    clients[0].close()
                    self.end_of(origin, "0")
                    self.stop()

    def carried(self, source: bytes):
        client = self.client(self.port)
        client.send(b"PROXY TCP4 " + source + b" 10.0.0.1 1000 80\r\n")
        return client

    def ask(self, client, name: str):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Client: %s\r\n\r\n" % name.encode())
        self.assertEqual(client.response().status, 200)

    def test_equal_headers_share_as_the_mode_says(self):
        listener = 'proxy_protocol = { accept = "required", from = ["127.0.0.0/8"] }'
        for mode, shared in (("always", True), ("safe", False), ("never", False)):
            with self.subTest(mode=mode):
                origin = self.begin(pool=f'reuse = "{mode}"', upstream='send_proxy_protocol = "v1"', listener=listener,
                                    named=True)
                sources = (b"10.1.1.1", b"10.1.1.1", b"10.1.1.2")
                clients = [self.carried(source) for source in sources]
                for _ in range(2):
                    for number, client in enumerate(clients):
                        self.ask(client, str(number))
                self.assertEqual([c.header.split()[2] for c in origin.connections],
                                 list(sources[1:]) if shared else list(sources))
                for connection, whose in zip(origin.connections, self.whose(origin)):
                    self.assertEqual({sources[int(who)] for who in whose}, {connection.header.split()[2]})
                if mode == "never":
                    self.assertEqual(self.whose(origin), [{"0"}, {"1"}, {"2"}])
                self.stop()

    def test_requests_that_wait_for_a_connection_that_fails_get_one_that_begins_with_it(self):
        """They have joined the first one; what they open themselves is named as well."""
        origin = self.begin((lambda connection, stream, fields, body: connection.answer(stream, b"ok")), (h2.MAX_STREAMS, 1),
                            pool='reuse = "safe"', upstream='send_proxy_protocol = "v1"', named=True)
        client = self.http2_client()
        streams = [client.request(f"/{number}", fields=[("x-client", "0")]) for number in range(6)]
        for stream in streams:
            self.assertEqual(client.response(stream).body, b"ok")
        port = client.socket.getsockname()[1]
        for connection in origin.connections:
            self.assertEqual(connection.header.split()[4], b"%d" % port)
        self.assertEqual(max(c.most for c in origin.connections), 1)
        self.assertEqual(self.whose(origin), [{"0"}] * len(origin.connections))


class Noting(Counted):
    """Keeps the frames of each request."""

    def __init__(self, *args):
        super().__init__(*args)
        self.frames: dict[int, list[h2.Frame]] = {}

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        if kind in (h2.DATA, h2.HEADERS):
            self.frames.setdefault(stream, []).append(h2.Frame(kind, flags, stream, payload))
        super().take(kind, flags, stream, payload)


class Frames(PrivateCase):
    """How an answer of an HTTP/2 server reaches a client of HTTP/2, and a request the server."""

    @staticmethod
    def shape(stream: h2.Stream) -> list[tuple[str, int, bool]]:
        return [("data" if f.type == h2.DATA else "head", len(f.payload) if f.type == h2.DATA else 0,
                 bool(f.flags & h2.END_STREAM)) for f in stream.frames]

    def test_the_last_frame_of_an_answer_says_that_it_is(self):
        def script(connection, stream, fields, body):
            size, trailers = int(fields[":path"][1:]), [("x-sum", "1")] if "x-trailers" in fields else ()
            length = [("content-length", str(size))] if "x-length" in fields else ()
            if fields[":method"] == "HEAD":
                return connection.answer(stream, b"", [("content-length", str(size))])
            connection.answer(stream, b"b" * size, length, trailers=trailers)
        self.begin(script, pool='reuse = "always"')
        client = self.http2_client()
        for length in ((), (("x-length", "1"),)):
            self.assertEqual(self.shape(client.get("/5", fields=length)), [("head", 0, False), ("data", 5, True)])
            self.assertEqual(self.shape(client.get("/0", fields=length)), [("head", 0, True)])
            self.assertEqual(self.shape(client.get("/7", "HEAD", fields=length)), [("head", 0, True)])
            self.assertEqual(self.shape(client.get("/5", fields=[*length, ("x-trailers", "1")])),
                             [("head", 0, False), ("data", 5, False), ("head", 0, True)])
            large = self.shape(client.get("/100000", fields=length))
            self.assertEqual((sum(size for _, size, _ in large), [end for *_, end in large]),
                             (100000, [False] * (len(large) - 1) + [True]))
            self.assertTrue(all(size for kind, size, _ in large if kind == "data"))

    def test_the_last_frame_of_a_request_says_that_it_is(self):
        origin = self.begin(pool='reuse = "always"')
        origin.connection = Noting
        client = self.http2_client()
        for size in (5, 100_000):
            for fields in ((), (("content-length", str(size)),)):
                stream = client.request("/", "POST", fields=fields, end=False)
                client.body(stream, b"b" * size)
                self.assertEqual(len(client.response(stream).body), size)
                [connection] = origin.connections
                frames = connection.frames[connection.ids[-1]]
                self.assertEqual([bool(f.flags & h2.END_STREAM) for f in frames], [False] * (len(frames) - 1) + [True])
                self.assertTrue(all(f.payload for f in frames), [len(f.payload) for f in frames])
        stream = client.request("/", "POST", end=False)
        client.send(h2.data(stream.id, b"hello"), h2.headers(stream.id, [("x-sum", "1")], end=True))
        client.response(stream)
        frames = connection.frames[connection.ids[-1]]
        self.assertEqual([(f.type, bool(f.flags & h2.END_STREAM)) for f in frames],
                         [(h2.HEADERS, False), (h2.DATA, False), (h2.HEADERS, True)])
        self.assertEqual(connection.requests[connection.ids[-1]]["x-sum"], "1")
        stream = client.request("/", "POST", end=False)
        client.send(h2.data(stream.id, b"hello"))
        wait_until(lambda: len(connection.ids) == 6 and connection.bodies[connection.ids[-1]] == b"hello")
        client.send(h2.data(stream.id, b"", True))  # It did not know before.
        self.assertEqual(bytes(client.response(stream).body), b"hello")

    def test_an_end_of_its_own_stays_one(self):
        """The server did not know that it had said all; nor is padding waited for."""
        def script(connection, stream, fields, body):
            connection.open.discard(stream)
            connection.send(h2.headers(stream, [(":status", "200")], end=False), h2.data(stream, b"hello"))
            if fields[":path"] == "/padded":
                connection.send(h2.frame(h2.DATA, h2.PADDED | h2.END_STREAM, stream, b"\x03you" + bytes(3)))
            else:
                connection.send(h2.data(stream, b"", True))
        self.begin(script, pool='reuse = "always"')
        client = self.http2_client()
        for path, body in (("/", b"hello"), ("/padded", b"helloyou")):
            self.assertEqual(bytes(client.get(path).body), body)

    def test_a_body_that_is_too_short_does_not_look_whole(self):
        def script(connection, stream, fields, body):
            connection.open.discard(stream)
            connection.send(h2.headers(stream, [(":status", "200"), ("content-length", "6")], end=False),
                            h2.data(stream, b"hello", True))
        self.begin(script, pool='reuse = "always"')
        client = self.http2_client()
        with self.assertRaises(h2.Reset):
            client.get("/")
        single = self.client(self.port)
        single.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with self.assertRaises((EOFError, ConnectionResetError)):
            single.response()

    def test_clients_of_http1_get_the_last_chunk_with_the_last_bytes(self):
        self.begin(lambda connection, stream, fields, body: connection.answer(
            stream, b"hello", trailers=[("x-sum", "1")] if fields[":path"] == "/t" else ()), pool='reuse = "always"')
        client = self.client(self.port)
        for path, end in (("/", b"5\r\nhello\r\n0\r\n\r\n"), ("/t", b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n")):
            client.send(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
            client.until(b"\r\n\r\n")
            self.assertEqual(client.exactly(len(end)), end)

    def test_chunks_of_an_http1_server_end_with_the_last_of_them(self):
        peer = self.peer(lambda peer, connection, head, rest: connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n" +
            (b"X-Sum: 1\r\n\r\n" if b"/t " in head else b"\r\n")) or True)
        self.balancer, self.port = self.http(peer.port)
        client = self.http2_client()
        self.assertEqual(self.shape(client.get("/")), [("head", 0, False), ("data", 5, False), ("data", 3, True)])
        self.assertEqual(self.shape(client.get("/t")),
                         [("head", 0, False), ("data", 5, False), ("data", 3, False), ("head", 0, True)])


if __name__ == "__main__":
    unittest.main()
