"""Towards servers with TLS: PROXY headers before the handshake, and health checks, with haproxy and openssl as peers."""
import pathlib
import shutil
import subprocess
import unittest

from support import Balancer, free_port, metrics, raw, wait_until
from test_proxy_protocol import FROM_LOOPBACK, GET, V1, Proxy, v2
from test_tls import TlsCase, TlsOrigin

TWICE = GET.replace(b"Connection: close\r\n", b"") + GET


class ProxyHeaders(TlsCase, Proxy):
    def bundle(self, *names: str) -> str:
        """Certificate and key in one file, as haproxy wants them."""
        both = self.folder / "bundle.pem"
        both.write_bytes(b"".join(pathlib.Path(file).read_bytes() for file in self.authority.issue("origin", *names)))
        return str(both)

    @unittest.skipUnless(shutil.which("haproxy"), "needs haproxy")
    def test_haproxy_behind_reads_the_header_before_the_handshake(self):
        """Requests, sessions and checks; the header is ours, the handshake haproxy's OpenSSL."""
        for protocol, fields in (("http", 2), ("tcp", 1)):  # X-Forwarded-For of Ringway and haproxy, or of haproxy alone.
            for version, tlvs in (("v1", ""), ("v2", 'send_proxy_tlvs = ["unique_id", "crc32c"]\n')):
                with self.subTest(protocol=protocol, version=version):
                    origin = self.origin()
                    back = self.haproxy(f"accept-proxy ssl crt {self.bundle('origin.example')}", f"127.0.0.1:{origin.port}")
                    balancer, port = self.balancer(
                        f"127.0.0.1:{back}", f'accept = "optional", {FROM_LOOPBACK}', protocol=protocol,
                        upstream=f'send_proxy_protocol = "{version}"\n{tlvs}'
                                 f'tls = {{ ca = "{self.authority.ca}", sni = "origin.example" }}\n'
                                 f'health = {{ type = "{protocol}", initial = "down", rise = 1, interval = "100ms", '
                                 'down_interval = "100ms", timeout = "100ms" }')
                    wait_until(lambda: "is up" in balancer.log())
                    for header, address in ((V1, b"192.0.2.7"), (b"", b"127.0.0.1"), (v2(), b"192.0.2.7")):
                        answer = raw(port, header + TWICE)
                        self.assertEqual(answer.count(b"200 OK"), 2)
                        self.assertEqual(answer.lower().count(b"x-forwarded-for: " + address), 2 * fields)

    @unittest.skipUnless(shutil.which("haproxy"), "needs haproxy")
    def test_connections_stay_their_clients_own_and_are_used_again(self):
        origin = self.origin()
        back = self.haproxy(f"accept-proxy ssl crt {self.bundle('origin.example')}", f"127.0.0.1:{origin.port}")
        page = free_port()
        _, port = self.balancer(f"127.0.0.1:{back}", f'accept = "required", {FROM_LOOPBACK}',
                                upstream='send_proxy_protocol = "v2"\npool.reuse = "always"\n'
                                         f'tls = {{ ca = "{self.authority.ca}", sni = "origin.example" }}',
                                rest=f'[metrics]\nprometheus = "127.0.0.1:{page}"')
        clients = []
        for number in range(3):
            client = self.client(port)
            client.send(b"PROXY TCP4 192.0.2.%d 198.51.100.1 5555 443\r\n" % number)
            clients.append(client)
        for _ in range(3):
            for number, client in enumerate(clients):
                seen = client.get().body.decode().lower()
                self.assertEqual(seen.count(f"x-forwarded-for: 192.0.2.{number}\n".replace("\n", "")), 2, seen)
        counted = metrics(page)
        opened = next(value for name, value in counted.items() if name.startswith("ringway_server_connects_total"))
        self.assertEqual(opened, 3)


class Checks(TlsCase):
    def watch(self, port: int, kind: str, tls: str, host: str = "") -> Balancer:
        self.page = free_port()
        front = free_port()
        host = f', host = "{host}"' if host else ""
        balancer = Balancer(self, f'''version = 1
[process]
shards = 1
[listeners.web]
bind = "127.0.0.1:{front}"
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
servers = [{{ name = "s0", address = "127.0.0.1:{port}" }}]
[upstreams.app.tls]
ca = "{self.authority.ca}"
{tls}
[upstreams.app.health]
type = "{kind}"
initial = "down"
rise = 1
fall = 1
interval = "100ms"
down_interval = "100ms"
fast_interval = "100ms"
timeout = "5s"
{host[2:]}
[metrics]
prometheus = "127.0.0.1:{self.page}"
''')
        self.front = front
        return balancer

    def up(self) -> bool:
        return metrics(self.page)['ringway_server_up{upstream="app",server="s0"}'] == 1

    def test_a_server_is_up_while_its_certificate_is_good(self):
        """Up, then down by a certificate for another name, and up again by the right one, by the origin alone."""
        names = {"good": self.authority.issue("good", "origin.example"), "wrong": self.authority.issue("wrong", "other.example"),
                 "stranger": self.authority.issue("stranger", "origin.example", ca=False),
                 "expired": self.authority.issue("expired", "origin.example", days=-1)}
        for kind, tls, host in (("http", 'sni = "origin.example"', ""), ("http", "", "origin.example"),
                                ("tcp", 'sni = "origin.example"', ""), ("tcp", "", "origin.example:443")):
            with self.subTest(kind=kind, tls=tls):
                origin = TlsOrigin(self, names["good"])
                balancer = self.watch(origin.port, kind, tls, host)
                wait_until(self.up)
                self.assertEqual(set(origin.names), {"origin.example"})
                self.assertEqual(origin.requests > 0, kind == "http")
                for name, reason in (("wrong", "wrong_name"), ("stranger", "self_signed"), ("expired", "expired")):
                    origin.context.load_cert_chain(*names[name])
                    wait_until(lambda: f"is down: tls_verify:{reason}" in balancer.log())
                    wait_until(lambda: not self.up())
                    origin.context.load_cert_chain(*names["good"])
                    wait_until(self.up)

    def test_checks_of_requests_that_choose_the_name(self):
        """Without a name anywhere the certificate must be for the server's address."""
        for name, good in (("127.0.0.1", True), ("origin.example", False)):
            origin = TlsOrigin(self, self.authority.issue("origin", name))
            balancer = self.watch(origin.port, "http", "")
            if good:
                wait_until(self.up)
            else:
                failed = 'ringway_server_checks_total{upstream="app",server="s0",result="failed"}'
                wait_until(lambda: metrics(self.page)[failed] > 1)
                self.assertFalse(self.up())
            self.assertEqual(set(origin.names), {None})
            self.assertEqual(balancer.stop(), 0)

    def test_openssl_as_the_server(self):
        cert, key = self.authority.issue("origin", "origin.example")
        for versions in (["-tls1_2"], ["-tls1_3"]):
            port = free_port()
            process = subprocess.Popen(["openssl", "s_server", "-accept", str(port), "-cert", cert, "-key", key, "-quiet", "-www",
                                        *versions], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

            def stop(process=process):
                process.kill()
                process.wait(timeout=20)
            self.addCleanup(stop)
            balancer = self.watch(port, "http", 'sni = "origin.example"')
            wait_until(self.up)
            stop()
            wait_until(lambda: "is down: connect: Connection refused" in balancer.log())

    def test_a_reload_goes_on_with_checks_and_takes_a_new_authority(self):
        origin = TlsOrigin(self, self.authority.issue("origin", "origin.example"))
        balancer = self.watch(origin.port, "tcp", 'sni = "origin.example"')
        wait_until(self.up)
        text = balancer.path.read_text()
        balancer.reload(text)
        seen = len(origin.names)
        wait_until(lambda: len(origin.names) > seen + 2)
        self.assertTrue(self.up())
        # Only somebody else's certificates are believed now.
        other = pathlib.Path(self.authority.issue("other", "x.example", ca=False)[0])
        balancer.reload(text.replace(str(self.authority.ca), str(other)).replace('initial = "down"', 'initial = "up"'))
        wait_until(lambda: "is down: tls_verify:unknown_ca" in balancer.log())
        self.assertFalse(self.up())
