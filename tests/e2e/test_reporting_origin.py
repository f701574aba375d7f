"""The origin that the tests of connection reuse trust: each of its reports and commands, without a balancer."""
import pathlib
import socket
import ssl
import struct
import tempfile
import unittest

from reporting_origin import INJECTIONS, PROXY_SIGNATURE, ReportingOrigin, body_of
from support import Client, read_all, wait_until
from test_tls import Authority


class Origin(unittest.TestCase):
    def setUp(self):
        self.origin = ReportingOrigin("o")
        self.addCleanup(self.origin.stop)

    def client(self) -> Client:
        client = Client(self.origin.port)
        self.addCleanup(client.close)
        return client

    def get(self, client: Client, path: str = "/", token: str = "t", method: str = "GET", fields: str = ""):
        return client.get(path, method, f"X-Token: {token}\r\nX-Client: me\r\n{fields}")

    def assert_closed(self, client: Client, sign: bytes = b""):
        self.assertEqual(client.buffer + read_all(client.socket), sign)

    def test_reports_connection_ordinal_peer_server_and_tag(self):
        first, second = self.client(), self.client()
        answers = [self.get(client, token=token) for client, token in ((first, "a"), (first, "b"), (second, "c"))]
        self.assertEqual([a.get("x-req") for a in answers], ["1", "2", "1"])
        self.assertEqual(answers[0].get("x-conn"), answers[1].get("x-conn"))
        self.assertNotEqual(answers[0].get("x-conn"), answers[2].get("x-conn"))
        self.assertEqual(answers[2].get("x-peer"), "127.0.0.1:%d" % second.socket.getsockname()[1])
        self.assertEqual([(a.get("x-server"), a.body) for a in answers], [("o", b"a"), ("o", b"b"), ("o", b"c")])
        self.assertEqual([(s.conn, s.req, s.token, s.client) for s in self.origin.log],
                         [(a.get("x-conn"), int(a.get("x-req")), t, "me") for a, t in zip(answers, "abc")])
        self.assertEqual(self.origin.connections[answers[0].get("x-conn")].clients, {"me"})

    def test_bodies_of_any_size_belong_to_one_token(self):
        client = self.client()
        for query in ("size=5000", "size=5000&chunked=1"):
            self.assertEqual(self.get(client, "/?" + query, "tok").body, body_of("tok", 5000))
        self.assertNotEqual(body_of("tok", 5000), body_of("tik", 5000))
        client.send(b"POST / HTTP/1.1\r\nX-Token: p\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        client.send(b"0\r\n\r\nGET / HTTP/1.1\r\nX-Token: q\r\n\r\n"[:5])
        self.assertEqual(client.response().body, b"p")
        client.send(b"PUT / HTTP/1.1\r\nX-Token: r\r\nContent-Length: 4\r\n\r\nb")
        client.send(b"ody")
        self.assertEqual((client.response().body, self.origin.log[-1].complete), (b"r", True))

    def test_closing_commands(self):
        client = self.client()
        self.assertEqual(self.get(client, "/close-after").get("connection"), "close")
        self.assert_closed(client)
        client = self.client()
        self.assertIsNone(self.get(client, "/close-after?how=fin").get("connection"))
        self.assert_closed(client)
        client = self.client()
        self.get(client, "/fin-idle?ms=1")
        self.assert_closed(client)
        for path, sign in (("/rst-before-response", b"<RESET>"), ("/read-then-fin", b"")):
            client = self.client()
            client.send(f"POST {path} HTTP/1.1\r\nX-Token: {path}\r\nContent-Length: 2\r\n\r\nhi".encode())
            self.assert_closed(client, sign)
            self.assertEqual(self.get(self.client(), path, path).status, 200)  # The second time it is answered.
            self.assertEqual(self.origin.attempts(path), 2)
        closed = [conn.closed_by for conn in self.origin.connections.values()]
        self.assertEqual(closed[:4] + closed[5:6], ["origin"] * 5)

    def test_held_answers(self):
        client = self.client()
        client.send(b"GET /stall HTTP/1.1\r\nX-Token: s\r\n\r\n")
        wait_until(lambda: self.origin.attempts("s"))
        self.origin.release("other")
        self.assertEqual((self.get(self.client(), "/slow?ms=1").status, len(self.origin.in_flight)), (200, 1))
        self.origin.release("s")
        self.assertEqual(client.response().body, b"s")
        client.send(b"GET /trickle?at=3&size=10 HTTP/1.1\r\nX-Token: u\r\n\r\n")
        client.until(b"\r\n\r\n")
        self.assertEqual(client.exactly(3), body_of("u", 10)[:3])
        self.assertEqual((client.buffer, self.origin.idle), (b"", 1))
        self.origin.release_all()
        self.assertEqual(client.exactly(7), body_of("u", 10)[3:])
        self.assertEqual(self.origin.peak_in_flight, 2)

    def test_answers_that_are_not_asked_for(self):
        for kind, sent in INJECTIONS.items():
            client = self.client()
            self.get(client, f"/unsolicited?kind={kind}")
            self.assertEqual(client.exactly(len(sent)), sent)
            self.get(client, f"/excess?kind={kind}")
            self.assertEqual(client.exactly(len(sent)), sent)
            name = self.get(client).get("x-conn")
            self.origin.inject(name, kind)
            self.assertEqual(client.exactly(len(sent)), sent)

    def test_an_early_answer_leaves_the_body_to_come(self):
        client = self.client()
        client.send(b"POST /early?status=413 HTTP/1.1\r\nX-Token: e\r\nContent-Length: 9\r\n\r\n")
        self.assertEqual((client.response().status, self.origin.log[0].complete), (413, False))
        client.send(b"GET / HTT" + b"GET / HTTP/1.1\r\nX-Token: f\r\n\r\n")  # The first 9 bytes are the body.
        self.assertEqual(client.response().body, b"f")

    def test_logins_make_a_connection_private(self):
        for fields, path, private in (("", "/ntlm?scheme=Nego2&status=407", 0), ("", "/ntlm?scheme=Basic", None),
                                      ("Authorization: negotiate abc\r\n", "/", 0),
                                      ("Proxy-Authorization: NTLM abc\r\n", "/ntlm", 0),
                                      ("Authorization: Basic abc\r\n", "/ntlm", None)):
            client = self.client()
            answer = self.get(client, path, fields=fields)
            self.assertEqual(answer.status, 200 if fields else 407 if "407" in path else 401)
            self.assertEqual(answer.get("proxy-authenticate"), "Nego2" if "407" in path else None)
            self.assertEqual(self.origin.connections[answer.get("x-conn")].private_from, private)

    def test_a_keep_alive_hint_is_kept(self):
        client = self.client()
        self.assertEqual(self.get(client, "/keepalive-hint?timeout=0.05&max=7").get("keep-alive"), "timeout=0.05, max=7")
        self.assert_closed(client)

    def test_closes_of_the_peer_are_told_apart(self):
        ways = {"fin": None, "rst": struct.pack("ii", 1, 0)}
        for how, linger in ways.items():
            client = Client(self.origin.port)
            name = self.get(client).get("x-conn")
            if linger:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
            wait_until(lambda: not self.origin.connections[name].open)
            self.assertEqual(self.origin.connections[name].closed_by, how)
        self.assertEqual((self.origin.established, self.origin.peak), (0, 1))

    def test_the_peak_counts_what_was_open_at_once(self):
        for count in (3, 5, 2):
            clients = [Client(self.origin.port) for _ in range(count)]
            for client in clients:
                self.get(client)
            self.assertEqual(self.origin.established, count)
            for client in clients:
                client.close()
            # Not waited for: the kernel knows at once what the origin has yet to read.
            self.assertEqual(self.origin.established, 0)
        self.assertEqual((self.origin.peak, len(self.origin.connections)), (5, 10))

    def test_doom_and_closing_idle_ones(self):
        doomed = self.client()
        self.get(doomed)
        self.origin.doom("rst")
        idle, busy = self.client(), self.client()
        self.get(idle)
        busy.send(b"GET /stall HTTP/1.1\r\nX-Token: s\r\n\r\n")
        wait_until(lambda: self.origin.attempts("s"))
        doomed.send(b"GET / HTTP/1.1\r\nX-Token: d\r\n\r\n")
        self.assert_closed(doomed, b"<RESET>")
        self.origin.close_idle()
        self.assert_closed(idle)
        self.origin.release_all()
        self.assertEqual(busy.response().body, b"s")

    def test_freeze_kill_and_restart(self):
        client = self.client()
        self.get(client)
        self.origin.freeze()
        client.send(b"GET / HTTP/1.1\r\nX-Token: frozen\r\n\r\n")
        late = self.client()  # The kernel still accepts.
        client.socket.settimeout(0.1)
        self.assertRaises(TimeoutError, client.response)
        client.socket.settimeout(20)
        self.origin.thaw()
        self.assertEqual(client.response().body, b"frozen")
        self.get(late)
        port = self.origin.port
        self.origin.kill()
        self.assert_closed(client, b"<RESET>")
        self.assertRaises(ConnectionRefusedError, Client, port)
        self.origin.restart()
        self.assertEqual((self.get(self.client()).get("x-req"), self.origin.port), ("1", port))
        self.assertEqual(len({seen.conn for seen in self.origin.log}), 3)

    def test_says_whom_a_proxy_header_names(self):
        origin = ReportingOrigin("p", proxied=True)
        self.addCleanup(origin.stop)
        v6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
        second = PROXY_SIGNATURE + b"\x21\x21" + struct.pack(">H", 36 + 5) + v6 + struct.pack(">HH", 5555, 443) + b"\5\0\2ab"
        for header, source in ((b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 443\r\n", "192.0.2.7:5555"), (second, "2001:db8::7:5555")):
            client = Client(origin.port)
            self.addCleanup(client.close)
            client.send(header[:5])
            client.send(header[5:] + b"GET / HTTP/1.1\r\nX-Token: t\r\n\r\n")
            answers = [client.response(), self.get(client)]
            self.assertEqual([answer.get("x-pp-src") for answer in answers], [source] * 2)
            self.assertEqual(origin.connections[answers[0].get("x-conn")].proxy_header, header)

    def test_says_which_name_was_asked_for_and_if_a_session_was_resumed(self):
        """One that was begun under another name, too: whoever does that is seen."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        authority = Authority(pathlib.Path(folder.name))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*authority.issue("o", "*.names.example"))
        server.set_alpn_protocols(["http/1.1"])
        origin = ReportingOrigin("t", context=server)
        self.addCleanup(origin.stop)
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.set_alpn_protocols(["http/1.1"])
        session, seen = None, []
        for name in ("a.names.example", "a.names.example", "b.names.example"):
            client = Client(origin.port)
            client.socket = context.wrap_socket(client.socket, server_hostname=name, session=session)
            answer = self.get(client)
            seen.append((answer.get("x-sni"), answer.get("x-alpn"), answer.get("x-resumed")))
            session = session or client.socket.session
            client.close()
        self.assertEqual(seen, [("a.names.example", "http/1.1", "0"), ("a.names.example", "http/1.1", "1"),
                                ("b.names.example", "http/1.1", "1")])
