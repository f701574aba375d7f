"""Towards servers with TLS: PROXY headers before the handshake, and health checks, with haproxy, nginx and openssl as peers."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
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


@unittest.skipUnless(shutil.which("nginx"), "needs nginx")
class Nginx(TlsCase):
    """nginx as the server: two names on one port, its own OpenSSL, its own reloads."""

    def nginx(self, first: str) -> tuple[int, int]:
        """Returns its port and its pid. `first` answers who asks for any other name than origin.example."""
        port = free_port()
        temp = "".join(f"{kind}_temp_path {self.folder}/t-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        server = (f"listen 127.0.0.1:{port} ssl; location / {{ return 200 "
                  '"$ssl_server_name $connection $connection_requests $ssl_session_reused"; }')
        (self.folder / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {self.folder}/pid; error_log {self.folder}/error.log;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; {temp} keepalive_requests 100000; default_type text/plain; ssl_session_tickets on;\n"
            f"server {{ {server} ssl_certificate {self.folder}/{first}.pem; ssl_certificate_key {self.folder}/{first}.key; }}\n"
            f"server {{ {server} server_name origin.example; ssl_certificate {self.folder}/origin.pem; "
            f"ssl_certificate_key {self.folder}/origin.key; }} }}\n")
        self.folder.chmod(0o755)
        process = subprocess.Popen(["nginx", "-c", f"{self.folder}/nginx.conf"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)

        def stop():  # The whole group: a master that was killed leaves its workers behind.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(timeout=20)
        self.addCleanup(stop)
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        return port, process.pid

    def renew(self, *names: str):
        """Another certificate for nginx's origin.example, in place at once."""
        for source, end in zip(self.authority.issue("origin", *names), ("pem", "key")):
            beside = self.folder / f"new.{end}"
            beside.write_bytes(pathlib.Path(source).read_bytes())
            beside.rename(self.folder / f"origin.{end}")

    def front(self, port: int, sni: str = 'sni = "origin.example"') -> tuple[Balancer, int]:
        front = free_port()
        self.page = free_port()
        return Balancer(self, f'''version = 1
[process]
shards = 1
[listeners.web]
bind = "127.0.0.1:{front}"
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
servers = [{{ name = "s0", address = "127.0.0.1:{port}" }}]
retry = {{ attempts = "off" }}
[upstreams.app.tls]
ca = "{self.authority.ca}"
{sni}
[metrics]
prometheus = "127.0.0.1:{self.page}"
'''), front

    def connects(self) -> float:
        return sum(value for name, value in metrics(self.page).items() if name.startswith("ringway_server_connects_total"))

    def test_the_name_decides_and_connections_are_used_again(self):
        self.renew("origin.example")
        self.own("other", "other.example")
        port, _ = self.nginx("other")
        _, front = self.front(port)
        client = self.client(front)
        seen = [client.get().body.decode().split() for _ in range(5)]
        self.assertEqual({(name, connection, reused) for name, connection, _, reused in seen}, {("origin.example", seen[0][1], ".")})
        self.assertEqual([int(count) for _, _, count, _ in seen], [1, 2, 3, 4, 5])
        self.assertEqual(self.connects(), 1)
        # The name of the request: each gets the server that has it, and who has no certificate here is refused.
        _, front = self.front(port, "")
        for name, status in (("origin.example", 200), ("other.example", 200), ("none.example", 502), ("origin.example", 200)):
            client = self.client(front)
            client.send(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            answer = client.response()
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.body.split()[0].decode() == name, status == 200)
        self.assertEqual(metrics(self.page)['ringway_tls_refused_certificates_total{reason="wrong_name"}'], 1)

    def test_a_new_certificate_under_requests(self):
        """nginx is reloaded: no request is lost, and what it shows from then on is what counts."""
        self.renew("origin.example")
        self.own("other", "other.example")
        port, pid = self.nginx("other")
        _, front = self.front(port)
        stop = threading.Event()
        answers, wrong = [0, 0], []

        def load(number: int):
            client = self.client(front)
            try:
                while not stop.is_set():
                    status = client.get().status
                    answers[number] += 1
                    if status != 200:
                        wrong.append(status)
            except Exception as error:  # noqa: BLE001  (any failure is one)
                wrong.append(error)
        workers = [threading.Thread(target=load, args=(number,)) for number in range(2)]
        for worker in workers:
            worker.start()
        try:
            for _ in range(5):
                before = self.serial(self.connect(port, "origin.example"))
                self.renew("origin.example")
                os.kill(pid, signal.SIGHUP)
                wait_until(lambda: self.serial(self.connect(port, "origin.example")) != before)
                seen = list(answers)
                wait_until(lambda: wrong or all(now > then + 20 for now, then in zip(answers, seen)))
        finally:
            stop.set()
            for worker in workers:
                worker.join()
        self.assertEqual(wrong, [])
        self.assertGreater(self.connects(), 5)  # Each reload ended those of before.
        # One that is no good: its connections of before end, and no new one is made.
        self.renew("wrong.example")
        os.kill(pid, signal.SIGHUP)
        client = self.client(front)
        wait_until(lambda: client.get().status == 502)
        self.assertGreater(metrics(self.page)['ringway_tls_refused_certificates_total{reason="wrong_name"}'], 0)


class Checks(TlsCase):
    def watch(self, port: int, kind: str, tls: str | None, host: str = "") -> Balancer:
        """`tls`: lines of the upstream's table, None: it has none, and `host` are lines of the checks'."""
        self.page = free_port()
        front = free_port()
        table = "" if tls is None else f'[upstreams.app.tls]\nca = "{self.authority.ca}"\n{tls}\n'
        if tls is not None:
            host = f'host = "{host}"' if host else ""
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
{table}[upstreams.app.health]
type = "{kind}"
initial = "down"
rise = 1
fall = 1
interval = "100ms"
down_interval = "100ms"
fast_interval = "100ms"
timeout = "5s"
{host}
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

    def test_handshakes_alone_to_servers_behind_passthrough(self):
        """Type "tls" of an upstream that speaks no TLS itself: verified with an authority of its own, or not at all."""
        good = self.authority.issue("good", "origin.example")
        for tls, first, reason in ((f'tls = {{ ca = "{self.authority.ca}" }}\nhost = "origin.example"', "good", "wrong_name"),
                                   (f'tls = {{ ca = "{self.authority.ca}" }}\nhost = "origin.example"', "good", "self_signed"),
                                   ('host = "origin.example"', None, "unknown_ca"),  # The system's authorities.
                                   ("tls = { verify = false }", "any", None)):
            with self.subTest(tls=tls, reason=reason):
                bad = self.authority.issue("bad", "other.example" if reason == "wrong_name" else "origin.example", ca=reason == "wrong_name")
                origin = TlsOrigin(self, bad if first == "any" else good)
                balancer = self.watch(origin.port, "tls", None, tls)
                failed = 'ringway_server_checks_total{upstream="app",server="s0",result="failed"}'
                if first is None:
                    wait_until(lambda: metrics(self.page)[failed] > 1)
                    self.assertFalse(self.up())
                else:
                    wait_until(self.up)
                    wait_until(lambda: "is up: connected, with TLS" in balancer.log())
                if first == "good":
                    self.assertEqual(set(origin.names), {"origin.example"})
                    origin.context.load_cert_chain(*bad)
                    wait_until(lambda: f"is down: tls_verify:{reason}" in balancer.log())
                    origin.context.load_cert_chain(*good)
                    wait_until(self.up)
                self.assertEqual(balancer.stop(), 0)

    def test_an_authority_of_handshakes_alone_is_read_again(self):
        authority = self.folder / "ca.pem"
        authority.write_bytes(pathlib.Path(self.authority.issue("other", "x.example", ca=False)[0]).read_bytes())
        origin = TlsOrigin(self, self.authority.issue("good", "origin.example"))
        self.watch(origin.port, "tls", None, f'tls = {{ ca = "{authority}" }}\nhost = "origin.example"')
        failed = 'ringway_server_checks_total{upstream="app",server="s0",result="failed"}'
        wait_until(lambda: metrics(self.page)[failed] > 1)
        self.assertFalse(self.up())
        fresh = self.folder / "fresh.pem"
        fresh.write_bytes(pathlib.Path(self.authority.ca).read_bytes())
        fresh.rename(authority)
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
