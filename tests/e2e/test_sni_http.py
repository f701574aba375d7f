"""One port where some names are passed through, TLS and all, and all others are decrypted and routed as HTTP."""
import socket
import ssl

from support import Balancer, Client, free_port, json_lines, metrics, ok, read_all, wait_until
from test_proxy_protocol import FROM_LOOPBACK
from test_tls import TlsCase, TlsOrigin, pair


class OnePort(TlsCase):
    def setUp(self):
        super().setUp()
        self.web = self.origin(lambda head, body: ok(head))
        self.behind = TlsOrigin(self, self.authority.issue("db", "x.db.example", "y.db.example"))

    def balancer(self, listener: str = "", tls: str = "", shards: int = 2) -> tuple[Balancer, int]:
        port, self.page = free_port(), free_port()
        return Balancer(self, f'''version = 1
[process]
shards = {shards}
drain_timeout = "2s"
[engine]
kind = "{self.engine}"
receive = "{self.receive}"
[listeners.web]
bind = "127.0.0.1:{port}"
tls = "public"
preread = {{ sni = true, timeout = "500ms" }}
{listener}
[tls.profiles.public]
certificates = "web"
{tls}
[tls.certificates]
{pair("web", self.own("web", "www.example"))}
[[routes]]
name = "db"
listeners = ["web"]
match = {{ sni = ["*.db.example"] }}
upstream = "db"
[[routes]]
name = "all"
listeners = ["web"]
upstream = "app"
[upstreams.app]
servers = [{{ name = "s0", address = "127.0.0.1:{self.web.port}" }}]
[upstreams.db]
protocol = "tcp"
servers = [{{ name = "d0", address = "127.0.0.1:{self.behind.port}" }}]
[metrics]
prometheus = "127.0.0.1:{self.page}"
[logs.access]
output = "file:{self.folder}/access.log"
'''), port

    def shown(self, client: Client) -> str:
        return dict(client.socket.getpeercert()["subject"][0])["commonName"]

    def test_the_name_decides_who_speaks_tls(self):
        _, port = self.balancer()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            passed = self.connect(port, "x.db.example", self.context(version))
            answered = self.connect(port, "www.example", self.context(version))
            self.assertEqual((self.shown(passed), self.shown(answered)), ("db", "web"))
            for _ in range(3):
                self.assertEqual(passed.get().body, b"nobody")
                self.assertIn(b"GET / HTTP/1.1\r\n", answered.get().body)
            passed.close()
            answered.close()
            passed.socket.close()
            answered.socket.close()
        self.assertEqual(self.behind.names, ["x.db.example"] * 2)
        log = self.folder / "access.log"
        wait_until(lambda: len(log.read_text().splitlines()) == 8)
        lines = [(line["protocol"], line["upstream"], line["sni"]) for line in json_lines(log)]
        self.assertEqual(lines.count(("tcp", "db", "x.db.example")), 2)
        self.assertEqual(lines.count(("http", "app", "www.example")), 6)
        counted = metrics(self.page)
        self.assertEqual(counted['ringway_listener_tls_handshakes_total{listener="web"}'], 2)
        wait_until(lambda: metrics(self.page)['ringway_listener_connections{listener="web"}'] == 0)

    def test_many_at_once_and_resumption(self):
        _, port = self.balancer(shards=3)
        context = self.context()
        session = None
        for number in range(40):
            name = "y.db.example" if number % 2 else "www.example"
            client = self.connect(port, name, context, session if name == "www.example" else None)
            self.assertEqual(client.get().status, 200)
            if name == "www.example":
                self.assertEqual(client.socket.session_reused, session is not None)
                session = client.socket.session
            if number % 3 == 0:
                client.socket.close()

    def test_a_hello_in_single_bytes_and_behind_a_proxy_header(self):
        _, port = self.balancer(f'proxy_protocol = {{ accept = "optional", {FROM_LOOPBACK} }}')
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 443\r\n"
        for single in (False, True):
            for first in (b"", header):
                for name in ("www.example", "x.db.example"):
                    client = Client(port)
                    self.addCleanup(client.close)
                    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = self.context().wrap_bio(incoming, outgoing, server_hostname=name)
                    answer, asked = b"", False
                    to_send = first
                    while (b"X-Forwarded-Proto" if name == "www.example" else b"nobody") not in answer:
                        try:
                            if not asked:
                                tls.do_handshake()
                                tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                                asked = True
                            answer += tls.read(65536)
                        except ssl.SSLWantReadError:
                            data = to_send + outgoing.read()
                            to_send = b""
                            for piece in ([data[i:i + 1] for i in range(len(data))] if single else [data]):
                                client.send(piece)
                            incoming.write(client.socket.recv(65536))
                    if name == "www.example":
                        address = b"192.0.2.7" if first else b"127.0.0.1"
                        self.assertIn(b"X-Forwarded-For: " + address + b"\r\n", answer)
                    client.close()

    def test_what_is_no_tls_or_stops_is_closed(self):
        balancer, port = self.balancer()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertNotIn(b"HTTP/1.1", read_all(plain))
        wait_until(lambda: "tls_not_tls" in balancer.log())
        for data in (b"", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
                slow.sendall(data)
                self.assertEqual(read_all(slow), b"")
        self.assertEqual(len(self.web.requests), 0)

    def test_a_reload_takes_names_away_and_a_drain_ends(self):
        balancer, port = self.balancer()
        kept = self.connect(port, "x.db.example")
        self.assertEqual(kept.get().body, b"nobody")
        text = balancer.path.read_text()
        balancer.reload(text.replace('"*.db.example"', '"other.example"'))
        with self.assertRaises(ssl.SSLCertVerificationError):  # Now it is answered here, by another name.
            self.connect(port, "x.db.example")
        self.assertEqual(kept.get().body, b"nobody")
        self.assertEqual(self.connect(port, "www.example").get().status, 200)
        kept.socket.close()
        self.assertEqual(balancer.stop(), 0)


class EpollTwin(OnePort):
    """The same on the other engine."""
    engine = "epoll"


class Multishot(OnePort):
    """The same with bytes that come by completions."""
    receive = "multishot"
