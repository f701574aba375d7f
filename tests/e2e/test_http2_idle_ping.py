"""`idle_ping`: clients and servers that were silent for a while get a PING, and what they do not answer ends."""
import base64
import hashlib
import time
import unittest

import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case, Peer
from h2client import Closed
from support import free_port, metrics, wait_until
from test_http2_websocket import MAGIC, field

PING = 'idle_ping = "500ms"'
CLOSES = 'ringway_server_closes_total{upstream="app",server="s0",reason="%s"}'


class IdlePing(H2Case):
    def begin(self, origin, listener: str = "", upstream: str = "") -> int:
        self.page = free_port()
        rest = f'[logs.access]\n[metrics]\nprometheus = "127.0.0.1:{self.page}"\n'
        return self.serve(origin, listener=listener, upstream=upstream, rest=rest)

    def closes(self, reason: str) -> float:
        return metrics(self.page)[CLOSES % reason]


class Clients(IdlePing):
    TIMEOUTS = 'ringway_listener_http2_idle_ping_timeouts_total{listener="web"}'

    def stall(self) -> Peer:
        def script(peer, connection, head, rest):
            if head.startswith(b"GET /stall "):
                peer.until_end(connection)
                return False
            if head.startswith(b"GET /later "):
                peer.go.wait(20)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return True
        return self.peer(script)

    def test_who_answers_stays(self):
        peer = self.stall()
        client = self.connect(self.begin(peer, f"h2 = {{ {PING} }}"))
        stream = client.request("/later")
        client.wait(lambda: client.asked >= 2)
        peer.go.set()
        self.assertEqual(client.response(stream).body, b"ok")
        client.wait(lambda: client.asked >= 4)  # Without a stream, too.
        self.assertEqual(client.get("/").body, b"ok")
        self.assertEqual(metrics(self.page)[self.TIMEOUTS], 0)

    def test_whatever_comes_is_an_answer(self):
        client = self.connect(self.begin(self.stall(), f"h2 = {{ {PING} }}"))
        client.answers_pings = False
        for asked in range(1, 4):
            client.wait(lambda asked=asked: client.asked >= asked)
            client.send(h2.window_update(0, 1))
        self.assertEqual(client.get("/").body, b"ok")

    def ends(self, client):
        """Says nothing until the balancer ends the connection, as it must, and judges how."""
        client.answers_pings = False
        client.asked = 0
        with self.assertRaises(Closed):
            client.wait(lambda: False)
        self.assertEqual(client.asked, 1)
        self.assertEqual(client.goaway[1], h2.NO_ERROR)
        wait_until(lambda: "listener web, NO_ERROR: the client does not answer PING" in self.balancer.log())
        self.assertEqual(metrics(self.page)[self.TIMEOUTS], 1)

    def test_who_is_silent_is_ended_with_its_requests(self):
        peer = self.stall()
        client = self.connect(self.begin(peer, f"h2 = {{ {PING} }}"))
        stream = client.request("/stall")
        wait_until(lambda: peer.heads)
        self.ends(client)
        self.assertFalse(stream.ended)
        wait_until(lambda: peer.ends == 1)

    def test_who_is_silent_without_a_request_is_ended_before_keep_alive(self):
        port = self.begin(self.stall(), f"h2 = {{ {PING} }}")
        client = self.connect(port)
        self.assertEqual(client.get("/").body, b"ok")
        self.ends(client)

    def test_a_tunnel_ends_with_its_client(self):
        def script(peer, connection, head, rest):
            accept = base64.b64encode(hashlib.sha1(field(head, b"sec-websocket-key") + MAGIC).digest())
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            peer.until_end(connection)
            return False
        peer = self.peer(script)
        client = self.connect(self.begin(peer, f"h2 = {{ {PING} }}"))
        stream = client.raw_request([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"),
                                     (":authority", "test"), ("sec-websocket-version", "13")], end=False)
        client.wait(lambda: stream.fields is not None and client.asked >= 2)
        self.assertEqual((stream.status, peer.ends), (200, 0))
        self.ends(client)
        wait_until(lambda: peer.ends == 1)

    def test_who_leaves_bytes_untaken_is_judged_by_client_idle(self):
        """A PING would stand behind them."""
        whole = bytes(1 << 23)

        def script(peer, connection, head, rest):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole)
            return True
        client = self.connect(self.begin(self.peer(script), f"h2 = {{ {PING} }}"), (h2.INITIAL_WINDOW, 1 << 24),
                              receive_buffer=4096)
        client.give(0, 1 << 24)
        stream = client.request()
        client.wait(lambda: stream.body)
        time.sleep(2)  # Four times as long as it takes to be asked.
        self.assertEqual(len(client.response(stream).body), len(whole))
        self.assertEqual(metrics(self.page)[self.TIMEOUTS], 0)

    def test_answers_do_not_prolong_keep_alive(self):
        client = self.connect(self.begin(self.stall(), f'h2 = {{ {PING} }}\ntimeouts = {{ keep_alive = "2s" }}'))
        self.assertEqual(client.get("/").body, b"ok")
        with self.assertRaises(Closed):
            client.wait(lambda: False)
        self.assertGreaterEqual(client.asked, 1)
        self.assertEqual(client.goaway[1], h2.NO_ERROR)
        self.assertEqual(metrics(self.page)[self.TIMEOUTS], 0)


class TlsClients(Clients):
    tls = True


class Servers(IdlePing):
    def setUp(self):
        self.held: list[tuple[Connection, int]] = []

    def script(self, connection: Connection, stream: int, fields: dict, body: bytes):
        if fields[":path"] == "/stall" and connection is self.h2.connections[0]:
            self.held.append((connection, stream))
        elif fields[":path"] == "/half":
            connection.send(h2.headers(stream, [(":status", "200"), ("content-length", "10")], end=False),
                            h2.data(stream, b"half"))
        else:
            connection.answer(stream, b"ok")

    def before(self, pool: str = PING) -> int:
        self.h2 = H2Origin(self.script)
        self.addCleanup(self.h2.stop)
        return self.begin(self.h2, upstream=f"{HTTP2}\npool = {{ {pool} }}")

    def test_who_answers_stays(self):
        port = self.before()
        client = self.connect(port)
        stream = client.request("/stall")
        wait_until(lambda: self.h2.pings >= 2)
        self.held[0][0].answer(self.held[0][1], b"late")
        self.assertEqual(client.response(stream).body, b"late")
        wait_until(lambda: self.h2.pings >= 4)  # While it is idle, too.
        self.assertEqual(client.get("/").body, b"ok")
        self.assertEqual(len(self.h2.connections), 1)
        self.assertEqual(self.closes("ping_timeout"), 0)

    def silence(self):
        """On the first connection no PING is answered any more."""
        self.h2.answers_ping = lambda connection: connection is not self.h2.connections[0]

    def lost(self):
        self.assertEqual((self.h2.connections[0].unanswered, self.closes("ping_timeout")), (1, 1))

    def test_a_request_on_a_silent_connection_gets_502(self):
        port = self.before()
        self.silence()
        client = self.connect(port)
        reply = client.get("/stall", method="POST")
        self.assertEqual(reply.status, 502)
        wait_until(lambda: '"cause":"the server does not answer PING"' in self.balancer.log())
        self.lost()
        self.assertEqual(client.get("/").body, b"ok")
        self.assertEqual(len(self.h2.connections), 2)

    def test_one_that_may_be_repeated_goes_by_a_new_connection(self):
        """As from any reused connection that was found dead."""
        port = self.before()
        client = self.client(port)
        self.assertEqual(client.get("/").body, b"ok")
        self.silence()
        self.assertEqual(client.get("/stall").body, b"ok")
        self.lost()
        self.assertEqual([c.ids for c in self.h2.connections], [[1, 3], [1]])

    def test_an_answer_under_way_is_cut(self):
        port = self.before()
        self.silence()
        client = self.connect(port)
        self.assert_cut(client, client.request("/half"))
        self.lost()
        self.assertEqual(client.get("/").body, b"ok")

    def test_an_idle_connection_is_closed(self):
        port = self.before()
        client = self.client(port)
        self.assertEqual(client.get("/").body, b"ok")
        self.silence()
        wait_until(lambda: self.h2.connections[0].ended)
        self.lost()
        self.assertEqual(client.get("/").body, b"ok")
        self.assertEqual(len(self.h2.connections), 2)

    def test_answers_do_not_prolong_idle_timeout(self):
        port = self.before(f'{PING}, idle_timeout = "2s"')
        self.assertEqual(self.client(port).get("/").body, b"ok")
        wait_until(lambda: self.h2.connections[0].ended)
        self.assertGreaterEqual(self.h2.pings, 1)
        self.assertEqual((self.closes("idle_timeout"), self.closes("ping_timeout")), (1, 0))


class BothSides(IdlePing):
    def test_a_long_stream_with_nothing_on_it_lives_by_pings(self):
        """Of the client, and of the server; each answers for itself."""
        held: list[tuple[Connection, int]] = []
        origin = H2Origin(lambda connection, stream, fields, body: held.append((connection, stream)))
        self.addCleanup(origin.stop)
        client = self.connect(self.begin(origin, f"h2 = {{ {PING} }}", f"{HTTP2}\npool = {{ {PING} }}"))
        stream = client.request("/", "POST", end=False)
        wait_until(lambda: origin.connections and origin.connections[0].ids)
        client.wait(lambda: client.asked >= 3)
        client.send(h2.data(stream.id, b"x", True))
        wait_until(lambda: held)
        held[0][0].answer(held[0][1], b"done")
        self.assertEqual(client.response(stream).body, b"done")
        self.assertGreaterEqual(origin.pings, 2)
        client.answers_pings = False
        with self.assertRaises(Closed):
            client.wait(lambda: False)
        self.assertEqual(len(origin.connections), 1)
        self.assertFalse(origin.connections[0].ended)


if __name__ == "__main__":
    unittest.main()
