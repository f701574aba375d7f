"""WebSocket over HTTP/2 (RFC 8441), by clients, by servers, by both: extended CONNECT there is an Upgrade in HTTP/1.1."""
import base64
import contextlib
import hashlib
import os
import socket
import ssl
import threading
import unittest

import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case, Peer
from h2client import data
from support import wait_until

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def field(head: bytes, name: bytes) -> bytes:
    return next((line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:]
                 if line.split(b":", 1)[0].lower() == name), b"")


def echo(peer: Peer, connection, head: bytes, rest: bytes) -> bool:
    """A WebSocket origin that sends back what comes, and refuses what is no handshake."""
    key = field(head, b"sec-websocket-key")
    good = (head.startswith(b"GET /chat HTTP/1.1\r\n") and field(head, b"upgrade") == b"websocket" and
            field(head, b"connection").lower() == b"upgrade" and len(base64.b64decode(key)) == 16)
    if not good:
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        return True
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello" + rest)
    try:
        while part := connection.recv(65536):
            connection.sendall(part)
        peer.ends += 1
    except ConnectionResetError:
        peer.resets += 1
    return False


def open_websocket(client, path: str = "/chat") -> h2.Stream:
    return client.raw_request([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                               (":path", path), (":authority", "test"), ("sec-websocket-version", "13"),
                               ("sec-websocket-protocol", "chat")], end=False)


class WebSocketCase(H2Case):
    def open(self, client, path: str = "/chat") -> h2.Stream:
        return open_websocket(client, path)


class WebSocket(WebSocketCase):
    def test_bytes_both_ways_and_the_end(self):
        peer = self.peer(echo)
        client = self.connect(self.serve(peer))
        stream = open_websocket(client)
        client.wait(lambda: stream.fields is not None)
        self.assertEqual(stream.status, 200)
        self.assertEqual(stream.get("sec-websocket-protocol"), "chat")
        self.assertIsNone(stream.get("sec-websocket-accept"))  # RFC 8441 5.
        whole = bytes(range(256)) * 2000
        client.body(stream, whole, end=False)
        client.wait(lambda: len(stream.body) == 5 + len(whole))
        self.assertEqual(bytes(stream.body), b"hello" + whole)
        self.assertEqual(client.get("/other").status, 403)  # Beside it.
        client.send(data(stream.id, b"", True))
        client.wait(lambda: stream.ended)
        self.assertEqual(peer.ends, 1)
        client.ping()

    def test_a_refused_upgrade_keeps_its_status(self):
        client = self.connect(self.serve(self.peer(echo)))
        stream = open_websocket(client, "/elsewhere")
        self.assertEqual(client.response(stream).status, 403)
        self.assertEqual(stream.body, b"no")

    def test_an_origin_that_knows_no_upgrade(self):
        """Its 200 would tell the client that the tunnel is open."""
        client = self.connect(self.serve(self.peer(
            lambda peer, connection, head, rest: connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") or True)))
        self.assertEqual(client.response(open_websocket(client)).status, 502)

    def test_a_reset_of_either_side(self):
        peer = self.peer(echo)
        client = self.connect(self.serve(peer))
        stream = open_websocket(client)
        client.wait(lambda: len(stream.body) == 5)
        client.send(h2.rst_stream(stream.id, 8))
        wait_until(lambda: peer.resets == 1)  # A reset is passed on as one (RFC 8441 5).
        self.assertEqual(peer.ends, 0)
        second = open_websocket(client)
        client.wait(lambda: len(second.body) == 5)
        peer.stop()
        client.wait(lambda: second.done)


CONNECT_PROTOCOL = (8, 1)  # SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441 9.1.


class EchoConnection(Connection):
    """A WebSocket server by HTTP/2 that sends back what comes. It waits for `origin.go` before it says anything."""

    def __init__(self, origin, sock: socket.socket):
        super().__init__(origin, sock)
        self.window, self.initial = 65535, 65535  # of the connection; of each stream to begin with
        self.windows: dict[int, int] = {}
        self.echoes: dict[int, bytes] = {}
        self.ends: set[int] = set()

    def serve(self):
        self.origin.go.wait(30)
        super().serve()

    def pump(self):
        """Sends what the windows allow."""
        for stream, echo_ in self.echoes.items():
            while echo_ and (size := min(len(echo_), 16384, self.window, self.windows[stream])) > 0:
                self.send(h2.data(stream, echo_[:size]))
                echo_ = self.echoes[stream] = echo_[size:]
                self.window -= size
                self.windows[stream] -= size
            if not echo_ and stream in self.ends:
                self.ends.discard(stream)
                self.open.discard(stream)
                self.send(h2.data(stream, b"", True))

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        super().take(kind, flags, stream, payload)
        request = self.requests.get(stream, {})
        tunnel = request.get(":method") == "CONNECT" and request[":path"] == "/chat"
        if kind == h2.SETTINGS and not flags & h2.ACK:
            pairs = [(payload[at:at + 2], payload[at + 2:at + 6]) for at in range(0, len(payload), 6)]
            self.initial = next((int.from_bytes(v, "big") for n, v in pairs if n == b"\0\4"), self.initial)
        elif kind == h2.WINDOW_UPDATE and stream == 0:
            self.window += int.from_bytes(payload, "big")
        elif kind == h2.WINDOW_UPDATE and tunnel:
            self.windows[stream] += int.from_bytes(payload, "big")
        elif kind == h2.HEADERS and request[":method"] == "CONNECT":
            assert not flags & h2.END_STREAM
            if not tunnel:
                return self.answer(stream, b"no", status="403")
            hints = h2.headers(stream, [(":status", "103"), ("link", "</a.css>")], end=False)
            self.send(hints, h2.headers(stream, [(":status", "200"), ("sec-websocket-protocol", "chat")], end=False))
            self.windows[stream], self.echoes[stream] = self.initial, b"hello"
        elif kind == h2.DATA and tunnel:
            self.echoes[stream] += payload
            if flags & h2.END_STREAM:
                self.ends.add(stream)
        self.pump()


def plain(connection: Connection, stream: int, fields: dict, body: bytes):
    if fields[":method"] == "GET":
        connection.answer(stream, b"plain")
    elif fields[":path"] != "/chat":
        connection.origin.ends += 1


class ToServers(WebSocketCase):
    def before(self, *settings) -> tuple[H2Origin, int]:
        origin = H2Origin(plain, *settings)
        origin.connection, origin.go, origin.ends = EchoConnection, threading.Event(), 0
        origin.go.set()
        self.addCleanup(origin.stop)
        return origin, self.serve(origin, upstream=f'{HTTP2}\npool = {{ reuse = "always" }}')

    def handshake(self, port: int, path: str = "/chat", name: bytes = b"websocket", extra: bytes = b"") -> tuple:
        """A client of HTTP/1.1, its key, and what was answered up to the end of a head that is no 1xx but 101."""
        client = self.client(port)
        key = base64.b64encode(os.urandom(16))
        client.send(b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Key: %s\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\r\n" % (path.encode(), name, key) + extra)
        head = client.until(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 103 "):
            head = client.until(b"\r\n\r\n")
        return client, key, head

    def test_clients_of_http1(self):
        origin, port = self.before(CONNECT_PROTOCOL)
        client, key, head = self.handshake(port, name=b"WebSocket", extra=b"early")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head)
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        self.assertEqual((field(head, b"upgrade"), field(head, b"connection").lower(), field(head, b"sec-websocket-accept"),
                          field(head, b"sec-websocket-protocol")), (b"websocket", b"upgrade", accept, b"chat"))
        request = origin.connections[0].requests[1]
        self.assertEqual({name: request.get(name) for name in (
            ":method", ":protocol", ":scheme", ":path", ":authority", "sec-websocket-version", "sec-websocket-key", "upgrade")},
            {":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/chat", ":authority": "test",
             "sec-websocket-version": "13", "sec-websocket-key": None, "upgrade": None})
        self.assertEqual(client.exactly(10), b"helloearly")
        whole = bytes(range(256)) * 2000  # More than all windows.
        sender = threading.Thread(target=client.send, args=(whole,))
        sender.start()
        self.assertEqual(client.exactly(len(whole)), whole)
        sender.join()
        self.assertEqual(self.client(port).get("/plain").body, b"plain")  # Beside it, on the same connection.
        client.socket.shutdown(socket.SHUT_WR)
        with self.assertRaises(EOFError):
            client.exactly(1)
        self.assertEqual((len(origin.connections), origin.resets), (1, 0))

    def test_clients_of_http2(self):
        origin, port = self.before(CONNECT_PROTOCOL)
        client = self.connect(port)
        stream = self.open(client)
        client.wait(lambda: stream.fields is not None)
        self.assertEqual((stream.status, stream.get("sec-websocket-protocol"), stream.get("sec-websocket-accept")),
                         (200, "chat", None))
        whole = bytes(range(256)) * 2000
        client.body(stream, whole, end=False)
        client.wait(lambda: len(stream.body) == 5 + len(whole))
        self.assertEqual(bytes(stream.body), b"hello" + whole)
        self.assertEqual(client.get("/plain").body, b"plain")
        client.send(data(stream.id, b"", True))
        client.wait(lambda: stream.ended)
        client.ping()
        self.assertEqual((len(origin.connections), origin.resets), (1, 0))

    def test_a_refused_upgrade_keeps_its_status(self):
        origin, port = self.before(CONNECT_PROTOCOL)
        client, _, head = self.handshake(port, "/elsewhere")
        self.assertTrue(head.startswith(b"HTTP/1.1 403 "), head)
        self.assertEqual(client.until(b"\r\n0\r\n\r\n"), b"2\r\nno")
        stream = self.open(self.connect(port), "/elsewhere")
        self.assertEqual(self.client(port).get("/plain").body, b"plain")
        wait_until(lambda: origin.ends >= 1)  # The request was ended, not reset.
        self.assertEqual((len(origin.connections), origin.resets, stream.reset), (1, 0, None))

    def test_a_server_that_takes_none(self):
        origin, port = self.before()
        _, _, head = self.handshake(port)
        self.assertTrue(head.startswith(b"HTTP/1.1 502 "), head)
        client = self.connect(port)
        self.assertEqual(client.response(self.open(client)).status, 502)
        self.assertEqual(client.get("/plain").body, b"plain")
        self.assertEqual([request[":method"] for c in origin.connections for request in c.requests.values()], ["GET"])

    def test_settings_that_come_late_are_waited_for(self):
        origin, port = self.before(CONNECT_PROTOCOL)
        origin.go.clear()
        results = []
        threads = [threading.Thread(target=lambda: results.append(self.handshake(port)[2])) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: origin.connections)
        leaver = self.client(port)
        leaver.send(b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        leaver.close()
        self.assertEqual(results, [])
        origin.go.set()
        for thread in threads:
            thread.join()
        self.assertEqual([head.split(b" ")[1] for head in results], [b"101"] * 3)

    def test_without_a_key(self):
        _, port = self.before(CONNECT_PROTOCOL)
        client = self.client(port)
        client.send(b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        self.assertEqual(client.response().status, 400)

    def test_another_protocol_is_not_upgraded_to(self):
        """RFC 9110 7.8: a server may ignore the field, and this one knows no such thing (RFC 9113 8.2.2)."""
        origin, port = self.before(CONNECT_PROTOCOL)
        client, _, head = self.handshake(port, name=b"other")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        self.assertEqual(origin.connections[0].requests[1].get("upgrade"), None)
        self.assertEqual(origin.connections[0].requests[1][":method"], "GET")

    def test_a_reset_of_either_side(self):
        origin, port = self.before(CONNECT_PROTOCOL)
        client, _, _ = self.handshake(port)
        self.assertEqual(client.exactly(5), b"hello")
        client.close()
        wait_until(lambda: client_gone(origin))
        second, _, _ = self.handshake(port)
        self.assertEqual(second.exactly(5), b"hello")
        connection = origin.connections[-1]
        connection.send(h2.rst_stream(connection.ids[-1], h2.CANCEL))
        with self.assertRaises((EOFError, ConnectionResetError)):
            second.exactly(1)
        third, _, _ = self.handshake(port)
        self.assertEqual(third.exactly(5), b"hello")
        for one in origin.connections:
            with contextlib.suppress(OSError):
                one.socket.shutdown(socket.SHUT_RDWR)
        with self.assertRaises((EOFError, ConnectionResetError)):
            third.exactly(1)


class AlpnOrigin(H2Origin):
    """A TLS server that chooses HTTP/2 where it is offered, and is `peer` over HTTP/1.1."""

    def __init__(self, script, files: tuple[str, str], peer: Peer, *settings: tuple[int, int]):
        self.peer, self.tls_context = peer, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls_context.load_cert_chain(*files)
        self.tls_context.set_alpn_protocols(["h2", "http/1.1"])
        super().__init__(script, *settings)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, sock: socket.socket):
        sock.settimeout(30)
        with contextlib.suppress(OSError):
            sock = self.tls_context.wrap_socket(sock, server_side=True)
        if sock.selected_alpn_protocol() != "h2":
            return self.peer.serve(sock)
        connection = self.connection(self, sock)
        self.connections.append(connection)
        connection.serve()


class ToServersByAlpn(WebSocketCase):
    def test_websockets_go_by_http1_where_the_server_speaks_both(self):
        """Few servers take them over HTTP/2; what else goes there by HTTP/2 stays so."""
        peer = self.peer(echo)
        origin = AlpnOrigin(lambda connection, stream, fields, body: connection.answer(stream, b"plain"),
                            self.certificate(), peer)
        self.addCleanup(origin.stop)
        port = self.serve(origin, upstream='http_versions = ["h2", "http/1.1"]\ntls = { verify = false }\npool = { reuse = "always" }')
        client = self.connect(port)
        streams = []
        for turn in range(3):
            self.assertEqual(client.get("/plain").body, b"plain")
            self.assertEqual(self.client(port).get("/plain").body, b"plain")
            streams.append(self.open(client))
            client.wait(lambda: len(streams[-1].body) == 5)
            self.assertEqual((streams[-1].status, bytes(streams[-1].body)), (200, b"hello"))
            client.body(streams[-1], b"x" * 70_000, end=False)
            client.wait(lambda: len(streams[-1].body) == 70_005)
        self.assertEqual(client.response(self.open(client, "/elsewhere")).status, 403)
        self.assertEqual((len(origin.connections), len(peer.heads)), (1, 4))

    def both(self, *settings) -> tuple[AlpnOrigin, Peer, int]:
        peer = self.peer(echo)
        origin = AlpnOrigin(plain, self.certificate(), peer, *settings)
        origin.connection, origin.go, origin.ends = EchoConnection, threading.Event(), 0
        origin.go.set()
        self.addCleanup(origin.stop)
        port = self.serve(origin, upstream='http_versions = ["h2", "http/1.1"]\ntls = { verify = false }\npool = { reuse = "always" }')
        return origin, peer, port

    def echoes(self, client) -> None:
        stream = self.open(client)
        client.wait(lambda: len(stream.body) == 5)
        self.assertEqual((stream.status, bytes(stream.body)), (200, b"hello"))
        client.body(stream, b"x" * 70_000, end=False)
        client.wait(lambda: len(stream.body) == 70_005)

    def by_http1(self, port: int) -> None:
        client = self.client(port)
        client.send(b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        head = client.until(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 103 "):
            head = client.until(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertEqual(client.exactly(5), b"hello")
        client.send(b"y" * 1000)
        self.assertEqual(client.exactly(1000), b"y" * 1000)

    def test_they_go_by_http2_once_its_settings_have_said_so(self):
        origin, peer, port = self.both(CONNECT_PROTOCOL)
        client = self.connect(port)
        self.echoes(client)  # Nothing is known of the server yet.
        self.assertEqual((len(origin.connections), len(peer.heads)), (0, 1))
        self.assertEqual(client.get("/plain").body, b"plain")
        for _ in range(3):
            self.echoes(client)
            self.by_http1(port)
        self.assertEqual(self.client(port).get("/plain").body, b"plain")
        self.assertEqual((len(origin.connections), len(peer.heads)), (1, 1))
        # What is no WebSocket still has the other kind of connection, where the server may know it.
        other = self.client(port)
        other.send(b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
        self.assertEqual(other.response().status, 403)
        self.assertEqual((len(origin.connections), len(peer.heads)), (1, 2))

    def test_a_server_that_takes_them_no_more_gets_them_by_http1(self):
        """The SETTINGS of a connection made for a WebSocket say nothing of them any more."""
        origin, peer, port = self.both(CONNECT_PROTOCOL)
        client = self.connect(port)
        self.assertEqual(client.get("/plain").body, b"plain")
        self.echoes(client)
        self.assertEqual((len(origin.connections), len(peer.heads)), (1, 0))
        origin.settings = ()
        origin.connections[0].socket.shutdown(socket.SHUT_RDWR)
        self.echoes(client)
        self.by_http1(port)
        self.assertEqual(client.get("/plain").body, b"plain")
        self.assertEqual((len(origin.connections), len(peer.heads)), (2, 2))
        self.assertEqual([r[":method"] for r in origin.connections[1].requests.values()], ["GET"])


def client_gone(origin: H2Origin) -> bool:
    """The balancer has ended or reset what the client has left."""
    return not origin.connections[0].open or origin.resets > 0


if __name__ == "__main__":
    unittest.main()
