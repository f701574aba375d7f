"""TLS passed through: routed by the name and the protocols of the ClientHello, decrypted by the server only."""
import pathlib
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import unittest

from support import Balancer, Case, free_port, metrics, read_all, wait_until


def client_hello(name: str | None, protocols: list[str] | None = None) -> bytes:
    """The first flight of OpenSSL's client: one record."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def records(hello: bytes, size: int) -> bytes:
    """The same message in records of `size` bytes."""
    message = hello[5:]
    parts = (message[at:at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts)


@unittest.skipUnless(shutil.which("openssl"), "needs openssl")
class Sni(Case):
    """Servers "a" and "rest", each of which answers TLS with a page under its own certificate."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.folder.name)
        cls.servers, cls.ports = [], {}
        for name in ("a", "rest"):
            cert, key = cls.root / f"{name}.pem", cls.root / f"{name}.key"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                            "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", cert],
                           check=True, capture_output=True)
            port = free_port()
            cls.ports[name] = port
            cls.servers.append(subprocess.Popen(
                ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-www", "-quiet",
                 "-alpn", "h2,http/1.1"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def up(port) -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        for port in cls.ports.values():
            wait_until(lambda p=port: up(p))

    @classmethod
    def tearDownClass(cls):
        for server in cls.servers:
            server.kill()
            server.wait(timeout=20)
        cls.folder.cleanup()

    def balancer(self, listener: str = "", upstream: str = "", match: str = 'sni = ["a.example", "*.a.example"]',
                 ports: dict | None = None, default: bool = True) -> tuple[Balancer, int]:
        port, self.scrape = free_port(), free_port()
        ports = ports or self.ports
        rest = '[[routes]]\nname = "rest"\nupstream = "rest"\n' if default else ""
        text = (f'version = 1\n[process]\nshards = 1\ndrain_timeout = "2s"\n[engine]\nkind = "{self.engine}"\n'
                f'receive = "{self.receive}"\n[logs.access]\n[metrics]\nprometheus = "127.0.0.1:{self.scrape}"\n'
                f'[listeners.l]\nbind = "127.0.0.1:{port}"\nprotocol = "tcp"\n'
                f'preread = {{ sni = true, timeout = "500ms" }}\n{listener}\n'
                f'[[routes]]\nname = "a"\nmatch = {{ {match} }}\nupstream = "a"\n{rest}')
        for name in ("a", "rest") if default else ("a",):
            text += (f'[upstreams.{name}]\nprotocol = "tcp"\nservers = [{{ name = "{name}", address = "127.0.0.1:{ports[name]}" }}]\n'
                     f'{upstream}\n')
        return Balancer(self, text), port

    def subject(self, port: int, name: str | None, protocols: list[str] | None = None) -> tuple[str, str | None]:
        """Whose certificate a whole handshake gets, over which request and answer go too, and the protocol."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if protocols:
            context.set_alpn_protocols(protocols)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname=name) as client:
                der = client.getpeercert(binary_form=True)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                self.assertIn(b"200 ok", client.recv(100))
                protocol = client.selected_alpn_protocol()
        for which in ("a", "rest"):
            if ssl.PEM_cert_to_DER_cert((self.root / f"{which}.pem").read_text()) == der:
                return which, protocol
        raise AssertionError("an unknown certificate")

    def test_the_name_decides_and_the_server_decrypts(self):
        balancer, port = self.balancer()
        self.assertEqual(self.subject(port, "a.example"), ("a", None))
        self.assertEqual(self.subject(port, "X.Y.a.example", ["http/1.1"]), ("a", "http/1.1"))
        self.assertEqual(self.subject(port, "b.example"), ("rest", None))
        self.assertEqual(self.subject(port, None), ("rest", None))
        wait_until(lambda: '"sni":"b.example"' in balancer.log())
        self.assertIn('"sni":"X.Y.a.example"', balancer.log())

    def test_openssl_s_client_in_front(self):
        _, port = self.balancer()
        for name, expected in (("a.example", "a"), ("other.example", "rest")):
            said = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name],
                                  input=b"", capture_output=True, timeout=20).stdout.decode()
            self.assertIn(f"subject=CN = {expected}\n", said)

    def test_alpn_decides_too(self):
        _, port = self.balancer(match='sni = "a.example", alpn = ["h2"]')
        self.assertEqual(self.subject(port, "a.example", ["h2", "http/1.1"]), ("a", "h2"))
        self.assertEqual(self.subject(port, "a.example", ["http/1.1"]), ("rest", "http/1.1"))
        self.assertEqual(self.subject(port, "a.example"), ("rest", None))

    def test_a_hello_in_pieces_and_records_is_passed_on_as_it_came(self):
        echo = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(echo.close)
        closed = free_port()
        _, port = self.balancer(ports={"a": echo.getsockname()[1], "rest": closed})
        hello = client_hello("a.example", ["h2"])
        padding = b"\0\x15" + struct.pack(">H", 20000) + bytes(20000)
        # The padding extension, with the lengths around it: the message's and the extensions'.
        message = hello[5:]
        body = message[4:]
        at = 2 + 32
        at += 1 + body[at]
        at += 2 + struct.unpack(">H", body[at:at + 2])[0]
        at += 1 + body[at]
        extensions = body[at + 2:] + padding
        body = body[:at] + struct.pack(">H", len(extensions)) + extensions
        large = b"\x16\x03\x01xx\x01" + struct.pack(">I", len(body))[1:] + body
        for data, pieces in ((hello, len(hello)), (records(hello, 50), 1), (records(hello, 1), 1),
                             (records(large, 16384), 3)):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                step = -(-len(data) // pieces)
                for start in range(0, len(data), step):
                    client.sendall(data[start:start + step])
                client.sendall(b"behind")
                client.shutdown(socket.SHUT_WR)
                server, _ = echo.accept()
                server.settimeout(20)
                with server:
                    self.assertEqual(read_all(server), data + b"behind")

    def test_what_is_no_whole_hello_reaches_nobody(self):
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        server.settimeout(0.2)
        port_of = server.getsockname()[1]
        balancer, port = self.balancer(ports={"a": port_of, "rest": port_of})
        hello = client_hello("a.example")
        for data in (hello[:40], b"", hello[:9] + b"\xff" * 600, b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(100)):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(data)
                self.assertIn(read_all(client), (b"", b"<RESET>"))
        with self.assertRaises(TimeoutError):
            server.accept()
        counted = metrics(self.scrape)
        name = 'ringway_listener_preread_errors_total{listener="l",reason="%s"}'
        self.assertEqual([counted[name % reason] for reason in ("malformed", "too_long", "timeout", "truncated")],
                         [1, 1, 2, 0])

    def test_without_a_default_route_no_name_is_closed(self):
        _, port = self.balancer(default=False)
        self.assertEqual(self.subject(port, "a.example"), ("a", None))
        for data in (client_hello(None), client_hello("b.example"), b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(data)
                self.assertIn(read_all(client), (b"", b"<RESET>"))


class EpollTwin(Sni):
    """The same on the other engine."""
    engine = "epoll"
