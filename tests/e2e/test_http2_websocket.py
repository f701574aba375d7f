"""WebSocket over HTTP/2 (RFC 8441): extended CONNECT of a client becomes an Upgrade to an HTTP/1.1 origin."""
import base64
import hashlib
import unittest

import h2client as h2
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
    while part := connection.recv(65536):
        connection.sendall(part)
    peer.ends += 1
    return False


class WebSocket(H2Case):
    def open(self, client, path: str = "/chat") -> h2.Stream:
        return client.raw_request([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                                   (":path", path), (":authority", "test"), ("sec-websocket-version", "13"),
                                   ("sec-websocket-protocol", "chat")], end=False)

    def test_bytes_both_ways_and_the_end(self):
        peer = self.peer(echo)
        client = self.connect(self.serve(peer))
        stream = self.open(client)
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
        stream = self.open(client, "/elsewhere")
        self.assertEqual(client.response(stream).status, 403)
        self.assertEqual(stream.body, b"no")

    def test_an_origin_that_knows_no_upgrade(self):
        """Its 200 would tell the client that the tunnel is open."""
        client = self.connect(self.serve(self.peer(
            lambda peer, connection, head, rest: connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") or True)))
        self.assertEqual(client.response(self.open(client)).status, 502)

    def test_a_reset_of_either_side(self):
        peer = self.peer(echo)
        client = self.connect(self.serve(peer))
        stream = self.open(client)
        client.wait(lambda: len(stream.body) == 5)
        client.send(h2.rst_stream(stream.id, 8))
        wait_until(lambda: peer.ends == 1)
        second = self.open(client)
        client.wait(lambda: len(second.body) == 5)
        peer.stop()
        client.wait(lambda: second.done)


if __name__ == "__main__":
    unittest.main()
