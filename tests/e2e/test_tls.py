"""TLS: to clients with Python's ssl, curl and openssl s_client, to servers with Python's ssl as a TLS origin."""
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from support import Balancer, Case, Client, free_port, metrics, ok, read_all, serve_each, wait_until


def openssl(*args: str, text: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *args], input=text, capture_output=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {args[0]}: {done.stderr.decode()}")
    return done.stdout


class Authority:
    """A certificate authority in a folder; certificates are files there."""

    def __init__(self, folder: pathlib.Path, name: str = "Test CA"):
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.key = folder / "ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN={name}", "-keyout", str(self.key), "-out", str(self.ca))
        (folder / "index.txt").write_text("")
        (folder / "index.txt.attr").write_text("unique_subject = no\n")
        (folder / "crlnumber").write_text("01\n")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca = d\n[d]\ndatabase = {folder}/index.txt\ncrlnumber = {folder}/crlnumber\n"
            f"certificate = {self.ca}\nprivate_key = {self.key}\ndefault_md = sha256\ndefault_crl_days = 30\n")

    def issue(self, file: str, *names: str, rsa: bool = False, days: int = 20, ca: bool = True) -> tuple[str, str]:
        """NAME.pem and NAME.key; self-signed unless `ca`. Negative `days`: it has expired."""
        cert, key, request = (self.folder / f"{file}.{end}" for end in ("pem", "key", "csr"))
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        san = "subjectAltName=" + ",".join(
            f"IP:{n}" if n.replace(".", "").isdigit() else f"DNS:{n}" for n in names)
        openssl("req", "-newkey", *kind, "-nodes", "-subj", f"/CN={file}", "-keyout", str(key), "-out", str(request))
        extensions = self.folder / f"{file}.ext"
        extensions.write_text(san + "\n")
        signer = ["-CA", str(self.ca), "-CAkey", str(self.key), "-CAcreateserial"] if ca else ["-signkey", str(key)]
        openssl("x509", "-req", "-in", str(request), *signer, "-days", str(days), "-extfile", str(extensions),
                "-out", str(cert))
        return str(cert), str(key)

    def revocations(self, *revoked: str) -> str:
        for cert in revoked:
            openssl("ca", "-config", str(self.folder / "ca.cnf"), "-revoke", cert)
        crl = self.folder / "revoked.crl"
        openssl("ca", "-config", str(self.folder / "ca.cnf"), "-gencrl", "-out", str(crl))
        return str(crl)


class TlsCase(Case):
    """One authority for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.authority = Authority(pathlib.Path(cls.temporary.name))

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def serve(self, origin, certificates: str, profile: str = "", listener: str = "", upstream: str = "",
              rest: str = "", shards: int = 2) -> tuple[Balancer, int]:
        port = free_port()
        self.page = free_port()
        names = ", ".join(f'"{line.split(" =")[0]}"' for line in certificates.splitlines())
        return Balancer(self, f'''version = 1
[process]
shards = {shards}
max_connections = 1000
[listeners.web]
bind = "127.0.0.1:{port}"
tls = "public"
{listener}
[tls.profiles.public]
certificates = [{names}]
{profile}
[tls.certificates]
{certificates}
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
servers = [{{ name = "s0", address = "127.0.0.1:{origin.port}" }}]
{upstream}
[metrics]
prometheus = "127.0.0.1:{self.page}"
[logs.access]
output = "file:{self.folder}/access.log"
{rest}'''), port

    def context(self, version=None, cert: tuple[str, str] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if cert is not None:
            context.load_cert_chain(*cert)
        return context

    def connect(self, port: int, name: str, context: ssl.SSLContext | None = None, session=None) -> Client:
        client = Client(port)
        self.addCleanup(client.close)
        client.socket = (context or self.context()).wrap_socket(client.socket, server_hostname=name, session=session)
        self.addCleanup(client.socket.close)
        return client

    def own(self, file: str, *names: str, **options) -> tuple[str, str]:
        """The same in this test's folder, to be replaced there."""
        cert, key = self.authority.issue(file, *names, **options)
        mine = str(self.folder / f"{file}.pem"), str(self.folder / f"{file}.key")
        for source, to in zip((cert, key), mine):
            pathlib.Path(to).write_bytes(pathlib.Path(source).read_bytes())
        return mine

    @staticmethod
    def serial(client: Client) -> str:
        return client.socket.getpeercert()["serialNumber"]


def pair(name: str, files: tuple[str, str]) -> str:
    return f'{name} = {{ cert = "{files[0]}", key = "{files[1]}" }}'


class Clients(TlsCase):
    def test_both_versions_and_kinds_of_keys_and_what_servers_hear(self):
        origin = self.origin(lambda head, body: ok(head))
        balancer, port = self.serve(origin, pair("ec", self.own("ec", "a.example")) + "\n" +
                                    pair("rsa", self.own("rsa", "a.example", rsa=True)))
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            client = self.connect(port, "a.example", self.context(version))
            self.assertEqual(client.socket.version(), name)
            seen = client.get().body.decode().lower()
            self.assertIn("x-forwarded-proto: https", seen)
            self.assertEqual(client.get().status, 200)
        for cipher, kind in (("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "ec")):
            context = self.context(ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(cipher)
            client = self.connect(port, "a.example", context)
            self.assertEqual(dict(client.socket.getpeercert()["subject"][0])["commonName"], kind)
        done = subprocess.run(["curl", "-sS", "--cacert", str(self.authority.ca), "--resolve", f"a.example:{port}:127.0.0.1",
                               f"https://a.example:{port}/"], capture_output=True, timeout=30)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(metrics(self.page)['ringway_listener_tls_handshakes_total{listener="web"}'], 5)

    def test_a_large_answer_and_a_large_body_arrive_whole(self):
        big = os.urandom(3_000_000)
        origin = self.origin(lambda head, body: ok(big if head.startswith(b"GET") else b"%d" % (body == big)))
        _, port = self.serve(origin, pair("ec", self.own("ec", "a.example")))
        client = self.connect(port, "a.example")
        self.assertEqual(client.get().body, big)
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(big))
        client.send(big)
        self.assertEqual(client.response().body, b"1")

    def test_names_choose_the_certificate_and_strict_refuses_others(self):
        certificates = "\n".join((pair("first", self.own("first", "a.example")), pair("wild", self.own("wild", "*.b.example"))))
        origin = self.origin()
        for strict in (False, True):
            _, port = self.serve(origin, certificates, f"strict_sni = {str(strict).lower()}")

            def shown(name):
                context = self.context()
                context.check_hostname = False
                return dict(self.connect(port, name, context).socket.getpeercert()["subject"][0])["commonName"]
            self.assertEqual(shown("a.example"), "first")
            self.assertEqual(shown("x.b.example"), "wild")
            for other in ("b.example", "y.x.b.example", "c.example"):
                if not strict:
                    self.assertEqual(shown(other), "first")
                    continue
                with self.assertRaises(ssl.SSLError) as caught:
                    shown(other)
                self.assertIn("UNRECOGNIZED_NAME", str(caught.exception).upper().replace(" ", "_"))
            refused = metrics(self.page)['ringway_tls_failures_total{cause="tls_unrecognized_name"}']
            self.assertEqual(refused, 3 if strict else 0)

    def test_sessions_resume_on_whichever_shard(self):
        origin = self.origin()
        _, port = self.serve(origin, pair("ec", self.own("ec", "a.example")), shards=4)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(version)
            first = self.connect(port, "a.example", context)
            self.assertEqual(first.get().status, 200)
            session = first.socket.session
            for _ in range(12):
                again = self.connect(port, "a.example", context, session)
                self.assertTrue(again.socket.session_reused)
                self.assertEqual(again.get().status, 200)
                session = again.socket.session if version == ssl.TLSVersion.TLSv1_3 else session

    def test_what_is_no_tls_or_too_slow_is_closed_and_counted(self):
        origin = self.origin()
        balancer, port = self.serve(origin, pair("ec", self.own("ec", "a.example")),
                                    listener='timeouts = { tls_handshake = "200ms" }')
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertNotIn(b"HTTP/1.1", read_all(plain))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(b"\x16\x03\x01")
            self.assertEqual(read_all(slow), b"")
        wait_until(lambda: metrics(self.page)['ringway_listener_tls_failures_total{listener="web"}'] == 2)
        self.assertEqual(metrics(self.page)['ringway_tls_failures_total{cause="tls_not_tls"}'], 1)
        self.assertIn("TLS handshake failed: client 127.0.0.1, listener web, tls_not_tls", balancer.log())
        self.assertEqual(len(origin.requests), 0)

    def test_client_certificates(self):
        origin = self.origin()
        good = self.authority.issue("good", "client")
        revoked = self.authority.issue("revoked", "client")
        expired = self.authority.issue("expired", "client", days=-1)
        stranger = self.authority.issue("stranger", "client", ca=False)
        crl = self.authority.revocations(revoked[0])
        server = pair("ec", self.own("ec", "a.example"))
        _, port = self.serve(origin, server, f'client_auth = {{ mode = "required", ca = "{self.authority.ca}", crl = "{crl}" }}')
        self.assertEqual(self.connect(port, "a.example", self.context(cert=good)).get().status, 200)
        for cert, alert in ((None, "CERTIFICATE_REQUIRED"), (revoked, "REVOKED"), (expired, "EXPIRED"), (stranger, "UNKNOWN_CA")):
            with self.assertRaises((ssl.SSLError, ConnectionResetError)) as caught:
                self.connect(port, "a.example", self.context(cert=cert)).get()
            self.assertIn(alert, str(caught.exception).upper().replace(" ", "_"))
        reasons = metrics(self.page)
        for reason in ("revoked", "expired"):
            self.assertEqual(reasons[f'ringway_tls_refused_certificates_total{{reason="{reason}"}}'], 1)
        self.assertEqual(len(origin.requests), 1)
        _, port = self.serve(origin, server, f'client_auth = {{ mode = "optional", ca = "{self.authority.ca}" }}')
        for cert in (None, good):
            self.assertEqual(self.connect(port, "a.example", self.context(cert=cert)).get().status, 200)

    def test_layer_4_speaks_tls_and_passes_ends_on(self):
        origin = self.origin()
        port = free_port()
        cert = self.own("ec", "a.example")
        Balancer(self, f'''version = 1
[listeners.raw]
bind = "127.0.0.1:{port}"
protocol = "tcp"
tls = "public"
proxy_protocol = {{ accept = "optional", from = ["127.0.0.0/8"] }}
[tls.profiles.public]
certificates = "ec"
[tls.certificates]
{pair("ec", cert)}
[[routes]]
name = "all"
listeners = ["raw"]
upstream = "app"
[upstreams.app]
protocol = "tcp"
servers = [{{ address = "127.0.0.1:{origin.port}" }}]
''')
        self.assertEqual(self.connect(port, "a.example").get().status, 200)
        # Behind a PROXY header, in one piece with the hello.
        client = Client(port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context().wrap_bio(incoming, outgoing, server_hostname="a.example")
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n" + outgoing.read())
        while True:
            incoming.write(client.socket.recv(65536))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.send(outgoing.read())
        answer = b""
        while b"\r\n\r\n" not in answer:
            incoming.write(client.socket.recv(65536))
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:  # A ticket, or a part of a record.
                continue
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"))
        client.close()

    def test_a_reload_keeps_connections_and_changes_profiles(self):
        origin = self.origin()
        cert = self.own("ec", "a.example")
        balancer, port = self.serve(origin, pair("ec", cert))
        kept = self.connect(port, "a.example")
        self.assertEqual(kept.get().status, 200)
        text = balancer.path.read_text()
        balancer.reload(text.replace("[tls.certificates]", 'min_version = "1.3"\n[tls.certificates]'))
        self.assertEqual(kept.get().status, 200)
        with self.assertRaises(ssl.SSLError):
            self.connect(port, "a.example", self.context(ssl.TLSVersion.TLSv1_2))
        self.assertEqual(self.connect(port, "a.example").get().status, 200)
        pathlib.Path(cert[1]).write_text("no key")
        balancer.reload(text)
        wait_until(lambda: "reload failed" in balancer.log())
        self.assertEqual(self.connect(port, "a.example").get().status, 200)


class Certificates(TlsCase):
    def test_a_key_that_does_not_fit_keeps_the_old_pair(self):
        origin = self.origin()
        cert, key = self.own("ec", "a.example")
        balancer, port = self.serve(origin, pair("ec", (cert, key)))
        before = self.serial(self.connect(port, "a.example"))
        other = self.authority.issue("other", "a.example")
        pathlib.Path(cert).write_bytes(pathlib.Path(other[0]).read_bytes())
        wait_until(lambda: metrics(self.page)["ringway_certificate_reload_failures_total"] == 1)
        wait_until(lambda: "the private key does not match the first certificate" in balancer.log())
        self.assertEqual(self.serial(self.connect(port, "a.example")), before)
        pathlib.Path(key).write_bytes(pathlib.Path(other[1]).read_bytes())
        wait_until(lambda: self.serial(self.connect(port, "a.example")) != before)

    def test_shared_ticket_keys_resume_on_another_node_until_they_are_gone(self):
        origin = self.origin()
        keys = self.folder / "tickets"
        keys.write_bytes(os.urandom(80))
        cert = pair("ec", self.own("ec", "a.example"))
        profile = f'tickets = {{ keys = "{keys}" }}'
        one, port1 = self.serve(origin, cert, profile)
        two, port2 = self.serve(origin, cert, profile)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(version)
            first = self.connect(port1, "a.example", context)
            first.get()
            self.assertTrue(self.connect(port2, "a.example", context, first.socket.session).socket.session_reused)
        old = keys.read_bytes()
        keys.write_bytes(os.urandom(80) + old)  # Rotated: tickets of the old one are still good.
        wait_until(lambda: "ticket keys read again" in one.log() and "ticket keys read again" in two.log())
        context = self.context(ssl.TLSVersion.TLSv1_2)
        last = self.connect(port1, "a.example", context)
        last.get()
        self.assertTrue(self.connect(port2, "a.example", context, last.socket.session).socket.session_reused)
        keys.write_bytes(os.urandom(80))
        wait_until(lambda: two.log().count("ticket keys read again") == 2)
        again = self.connect(port2, "a.example", context, last.socket.session)
        self.assertFalse(again.socket.session_reused)  # A full handshake, no error.
        self.assertEqual(again.get().status, 200)

    def test_files_that_are_no_good_stop_the_start_with_their_place(self):
        cert, key = self.own("ec", "a.example")
        other = self.authority.issue("other", "a.example")
        balancer, _ = self.serve_wrong(pair("ec", (cert, other[1])))
        self.assertIn("the private key does not match the first certificate", balancer)
        balancer, _ = self.serve_wrong(pair("ec", (cert, "/nonexistent.key")))
        self.assertIn("No such file or directory", balancer)

    def serve_wrong(self, certificates: str) -> tuple[str, int]:
        path = self.folder / "wrong.toml"
        path.write_text(f'version = 1\n[listeners.web]\nbind = "127.0.0.1:{free_port()}"\ntls = "p"\n[tls.profiles.p]\n'
                        f'certificates = "ec"\n[tls.certificates]\n{certificates}\n[[routes]]\nname = "r"\nrespond = {{ status = 200 }}\n')
        program = os.environ.get("RINGWAY", "build/tools/ringway")
        check = subprocess.run([program, "check", str(path)], capture_output=True, text=True, timeout=30)
        self.assertEqual(check.returncode, 1)
        run = subprocess.run([program, "run", str(path)], capture_output=True, text=True, timeout=30)
        self.assertEqual(run.returncode, 1)
        self.assertIn("wrong.toml:8:", run.stderr)
        self.assertIn(check.stdout.split("\n\n")[0], run.stderr)
        return check.stdout + run.stderr, run.returncode


def read_hello(connection: socket.socket) -> dict[int, bytes]:
    """The extensions of the ClientHello that is about to be read (RFC 8446 4.1.2), by number; it stays where it is."""
    record = b""
    while len(record) < 5 or len(record) < 5 + int.from_bytes(record[3:5], "big"):
        part = connection.recv(1 << 15, socket.MSG_PEEK)
        if len(part) <= len(record):  # Nothing more comes, or not yet.
            if not connection.recv(1, socket.MSG_PEEK):
                return {}
            time.sleep(0.001)
        record = part
    at = 5 + 4 + 2 + 32
    for size in (1, 2, 1):  # Session id, suites, compression.
        at += size + int.from_bytes(record[at:at + size], "big")
    at, found = at + 2, {}
    while at < len(record):
        size = int.from_bytes(record[at + 2:at + 4], "big")
        found[int.from_bytes(record[at:at + 2], "big")] = record[at + 4:at + 4 + size]
        at += 4 + size
    return found


def offers_session(hello: dict[int, bytes]) -> bool:
    """By a pre-shared key of TLS 1.3, or a ticket of TLS 1.2."""
    return 41 in hello or bool(hello.get(35))


class TlsOrigin:
    """An HTTPS origin: answers with what it saw of the handshake."""

    def __init__(self, case: TlsCase, cert: tuple[str, str], client_ca: str = ""):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*cert)
        self.names: list[str | None] = []
        self.context.sni_callback = lambda sock, name, context: self.names.append(name)
        if client_ca:
            self.context.load_verify_locations(client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.reused: list[bool] = []
        self.offers: list[tuple[str, bool]] = []  # Who was asked for, and whether with a session to resume.
        self.requests = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        case.addCleanup(self.listener.close)
        serve_each(self.listener, self.serve)

    def serve(self, connection: socket.socket):
        try:
            hello = read_hello(connection)
            self.offers.append((hello.get(0, b"")[5:].decode(), offers_session(hello)))
            with self.context.wrap_socket(connection, server_side=True) as tls:
                self.reused.append(tls.session_reused)
                buffer = b""
                while True:
                    while b"\r\n\r\n" not in buffer:
                        part = tls.recv(65536)
                        if not part:
                            return
                        buffer += part
                    _, buffer = buffer.split(b"\r\n\r\n", 1)
                    self.requests += 1
                    peer = tls.getpeercert()
                    who = dict(peer["subject"][0])["commonName"] if peer else "nobody"
                    tls.sendall(ok(who.encode()))
        except (ssl.SSLError, OSError):
            return


class Servers(TlsCase):
    def balancer(self, origin: TlsOrigin, tls: str, pool: str = "", shards: int = 1) -> tuple[Balancer, int]:
        port = free_port()
        self.page = free_port()
        return Balancer(self, f'''version = 1
[process]
shards = {shards}
max_connections = 1000
[listeners.web]
bind = "127.0.0.1:{port}"
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
servers = [{{ name = "s0", address = "127.0.0.1:{origin.port}" }}]
retry = {{ attempts = "off" }}
{pool}
[upstreams.app.tls]
{tls}
[metrics]
prometheus = "127.0.0.1:{self.page}"
[logs.access]
output = "file:{self.folder}/access.log"
'''), port

    def test_a_good_server_is_spoken_to_reused_and_resumed(self):
        origin = TlsOrigin(self, self.authority.issue("origin", "origin.example"))
        _, port = self.balancer(origin, f'ca = "{self.authority.ca}"\nsni = "origin.example"',
                                pool="pool = { max_requests_per_connection = 2 }")
        client = self.client(port)
        for _ in range(6):
            self.assertEqual(client.get().status, 200)
        self.assertEqual(origin.requests, 6)
        self.assertEqual(origin.reused, [False, True, True])
        self.assertEqual(set(origin.names), {"origin.example"})

    def test_the_name_of_the_request_keeps_connections_apart(self):
        origin = TlsOrigin(self, self.authority.issue("wild", "*.origin.example"))
        _, port = self.balancer(origin, f'ca = "{self.authority.ca}"', pool='pool = { reuse = "always" }')
        client = self.client(port)

        def ask(host: str) -> int:
            client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return client.response().status
        for _ in range(3):
            self.assertEqual(ask("a.origin.example"), 200)
            self.assertEqual(ask("B.origin.example:8080"), 200)
        self.assertEqual(sorted(n.lower() for n in origin.names), ["a.origin.example", "b.origin.example"])
        self.assertEqual(ask("else.example"), 502)

    def test_sessions_are_resumed_for_the_name_they_are_of(self):
        """One certificate and one server for all names, and a connection for every request, which stays."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            origin = TlsOrigin(self, self.authority.issue("wild", "*.origin.example"))
            origin.context.minimum_version = origin.context.maximum_version = version
            _, port = self.balancer(origin, f'ca = "{self.authority.ca}"', pool='pool = { reuse = "never" }')
            expected = []
            for again, name in ((False, "a"), (False, "b"), (True, "a"), (False, "c"), (True, "c"), (True, "b")):
                client = self.client(port)
                client.send(f"GET / HTTP/1.1\r\nHost: {name}.origin.example\r\n\r\n".encode())
                self.assertEqual(client.response().status, 200)
                expected.append((f"{name}.origin.example", again))
            self.assertEqual(origin.offers, expected)
            self.assertEqual(origin.reused, [again for _, again in expected])

    def test_bad_certificates_are_a_502_with_the_reason(self):
        cases = {"expired": self.authority.issue("old", "origin.example", days=-1),
                 "wrong_name": self.authority.issue("wrong", "other.example"),
                 "self_signed": self.authority.issue("selfmade", "origin.example", ca=False)}
        for reason, cert in cases.items():
            with self.subTest(reason=reason):
                origin = TlsOrigin(self, cert)
                balancer, port = self.balancer(origin, f'ca = "{self.authority.ca}"\nsni = "origin.example"')
                self.assertEqual(self.client(port).get().status, 502)
                self.assertEqual(origin.requests, 0)
                access = self.folder / "access.log"
                wait_until(lambda: f"tls_verify:{reason}" in access.read_text())
                access.unlink()
                self.assertEqual(metrics(self.page)[f'ringway_tls_refused_certificates_total{{reason="{reason}"}}'], 1)
        origin = TlsOrigin(self, cases["self_signed"])
        balancer, port = self.balancer(origin, "verify = false")
        self.assertEqual(self.client(port).get().status, 200)
        self.assertIn("verify", balancer.log())

    def test_a_request_without_a_host_does_without_no_name(self):
        for name, status in (("127.0.0.1", 200), ("origin.example", 502)):
            origin = TlsOrigin(self, self.authority.issue("origin", name))
            _, port = self.balancer(origin, f'ca = "{self.authority.ca}"')
            client = self.client(port)
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            self.assertEqual(client.response().status, status)

    def test_a_server_that_wants_a_certificate_gets_it(self):
        origin = TlsOrigin(self, self.authority.issue("origin", "origin.example"), client_ca=str(self.authority.ca))
        mine = self.authority.issue("balancer", "balancer")
        _, port = self.balancer(origin, f'ca = "{self.authority.ca}"\nsni = "origin.example"\n'
                                f'certificate = {{ cert = "{mine[0]}", key = "{mine[1]}" }}')
        self.assertEqual(self.client(port).get().body, b"balancer")

    def test_a_server_without_tls_is_a_502(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        listener.settimeout(20)
        seen: list[bytes] = []

        def serve():
            with listener.accept()[0] as connection:
                seen.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        server = threading.Thread(target=serve)
        server.start()
        origin = type("Plain", (), {"port": listener.getsockname()[1]})
        _, port = self.balancer(origin, f'ca = "{self.authority.ca}"\nsni = "origin.example"')
        answer = self.client(port).get()
        server.join()
        self.assertEqual((answer.status, answer.body), (502, b"502 Bad Gateway: tls_not_tls\n"))
        self.assertNotIn(b"GET", seen[0])

    def test_a_reload_to_tls_leaves_no_request_in_clear(self):
        origin = TlsOrigin(self, self.authority.issue("origin", "origin.example"))
        balancer, port = self.balancer(origin, f'ca = "{self.authority.ca}"\nsni = "origin.example"')
        client = self.client(port)
        self.assertEqual(client.get().status, 200)
        text = balancer.path.read_text()
        balancer.reload(text.replace("origin.example", "wrong.example"))
        self.assertEqual(client.get().status, 502)
        balancer.reload(text)
        self.assertEqual(client.get().status, 200)
