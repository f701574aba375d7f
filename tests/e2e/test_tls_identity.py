"""Client certificates: what servers and routes are told of them, and that nobody else can say it; TLS in the log and in
PROXY headers."""
import hashlib
import json
import pathlib
import shutil
import ssl
import struct
import unittest

from h2client import H2, headers
from support import Balancer, Client, free_port, json_lines, ok, wait_until
from test_proxy_protocol import FROM_LOOPBACK, Proxy, read_v2, tlv, v2
from test_tls import TlsCase, openssl, pair

NAMES = ("verify", "subject", "issuer", "serial", "fingerprint")
# The same to a server that makes HTTP_X_SSL_CLIENT_VERIFY of a field's name.
SPELLINGS = ("X-SSL-Client-{}", "x_ssl_client_{}", "X-Ssl_Client-{}", "x.ssl.client.{}")


class Identity(TlsCase):
    def setUp(self):
        super().setUp()
        self.echo = self.origin(lambda head, body: ok(head + b"\r\n|" + body))
        self.good = self.authority.issue("good", "client")
        self.expired = self.authority.issue("expired", "client", days=-1)
        self.stranger = self.authority.issue("stranger", "client", ca=False)
        self.server = pair("ec", self.own("ec", "a.example"))

    def serve_identity(self, mode: str, headers: str = "client_certificate_headers = {}", rest: str = "") -> int:
        profile = f'client_auth = {{ mode = "{mode}", ca = "{self.authority.ca}" }}' if mode != "off" else ""
        return self.serve(self.echo, self.server, profile, listener=headers, rest=rest)[1]

    def seen(self, port: int, cert=None, fields: str = "", client=None, version=None) -> dict[str, list[str]]:
        """What the origin read: values by name, as a server that takes '_' and '.' for '-' has them."""
        client = client or self.connect(port, "a.example", self.context(version, cert))
        return self.told(client.get(fields=fields).body)

    @staticmethod
    def told(head: bytes) -> dict[str, list[str]]:
        lines = head.decode("latin-1").split("\r\n")[1:]
        found: dict[str, list[str]] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon:
                found.setdefault(name.lower().replace("_", "-").replace(".", "-"), []).append(value.strip())
        return {name: found.get(f"x-ssl-client-{name}", []) for name in NAMES}

    @staticmethod
    def lies() -> str:
        return "".join(f"{spelling.format(name)}: SUCCESS\r\n" for name in NAMES for spelling in SPELLINGS)

    def test_servers_hear_who_the_client_is_and_clients_cannot_say_it(self):
        der = ssl.PEM_cert_to_DER_cert(pathlib.Path(self.good[0]).read_text())
        shown = openssl("x509", "-in", self.good[0], "-noout", "-subject", "-issuer", "-serial", "-nameopt", "RFC2253").decode()
        facts = dict(line.split("=", 1) for line in shown.splitlines())
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            port = self.serve_identity("optional")
            for fields in ("", self.lies(), "Connection: close, x-ssl-client-verify\r\n"):
                found = self.seen(port, self.good, fields, version=version)
                self.assertEqual(found["verify"], ["SUCCESS"])
                self.assertEqual(found["subject"], [facts["subject"].strip()])
                self.assertEqual(found["issuer"], [facts["issuer"].strip()])
                self.assertEqual([int(value, 16) for value in found["serial"]], [int(facts["serial"], 16)])
                self.assertEqual(found["fingerprint"], [hashlib.sha256(der).hexdigest()])
                nobody = {name: ["NONE"] if name == "verify" else [] for name in NAMES}
                self.assertEqual(self.seen(port, None, fields, version=version), nobody)
                for cert, reason in ((self.expired, "expired"), (self.stranger, "self_signed")):
                    wrong = {**nobody, "verify": [f"FAILED:{reason}"]}
                    self.assertEqual(self.seen(port, cert, fields, version=version), wrong)

    def test_a_resumed_session_is_the_same_client(self):
        port = self.serve_identity("optional")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(version, self.good)
            first = self.connect(port, "a.example", context)
            before = self.seen(port, client=first)
            self.assertEqual(before["verify"], ["SUCCESS"])
            again = self.connect(port, "a.example", context, first.socket.session)
            self.assertTrue(again.socket.session_reused)
            self.assertEqual(self.seen(port, fields=self.lies(), client=again), before)
            # Every request of a connection tells the same.
            self.assertEqual(self.seen(port, fields=self.lies(), client=again), before)

    def test_names_of_ones_own_and_off(self):
        port = self.serve_identity("required", 'client_certificate_headers = { verify = "Verified", subject = "off", '
                                   'issuer = "off", serial = "off", fingerprint = "X-Print" }')
        client = self.connect(port, "a.example", self.context(cert=self.good))
        text = client.get(fields="VERIFIED: no\r\nx_print: 1\r\nX-SSL-Client-Verify: mine\r\n").body.decode()
        self.assertIn("\r\nverified: SUCCESS\r\n", text)
        self.assertEqual(text.lower().count("print: "), 1)
        self.assertIn("\r\nX-SSL-Client-Verify: mine\r\n", text)  # Nobody asked for that name.

    def test_other_listeners_and_trailers(self):
        """A listener in clear before the same servers is no way around."""
        plain, trusting = free_port(), free_port()
        port = self.serve_identity("optional", rest=f'[listeners.plain]\nbind = "127.0.0.1:{plain}"\n'
                                   f'[listeners.trusting]\nbind = "127.0.0.1:{trusting}"\ntrusted_proxies = ["127.0.0.0/8"]\n')
        self.assertEqual(self.seen(0, fields=self.lies(), client=self.client(plain)), {name: [] for name in NAMES})
        told = self.seen(0, fields="X-SSL-Client-Verify: SUCCESS\r\n", client=self.client(trusting))
        self.assertEqual(told["verify"], ["SUCCESS"])
        for client in (self.client(plain), self.connect(port, "a.example")):
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
                        b"X-SSL-Client-Verify: SUCCESS\r\nA: b\r\nx_ssl_client_verify: SUCCESS\r\n\r\n")
            self.assertTrue(client.response().body.endswith(b"\r\n|x|A: b"))

    def test_http2_clients_cannot_say_it_either(self):
        """In a head and in trailers, in every spelling."""
        plain = free_port()
        versions = 'http_versions = ["h2", "http/1.1"]\n'
        port = self.serve_identity("optional", versions + "client_certificate_headers = {}",
                                   rest=f'[listeners.plain]\nbind = "127.0.0.1:{plain}"\n{versions}')
        lies = [(spelling.format(name).lower(), "SUCCESS") for name in NAMES for spelling in SPELLINGS]
        for cert, verify in ((self.good, ["SUCCESS"]), (None, ["NONE"]), (self.expired, ["FAILED:expired"]), ("plain", [])):
            context = None
            if cert != "plain":
                context = self.context(cert=cert)
                context.set_alpn_protocols(["h2"])
            client = H2(port if context else plain, context=context, name="a.example")
            self.addCleanup(client.close)
            for _ in range(2):
                stream = client.request("/", "POST", [*lies, ("x-other", "stays"), ("te", "trailers")], end=False)
                client.body(stream, b"x", end=False)
                client.send(headers(stream.id, [*lies, ("a", "b")]))
                client.response(stream)
                head, _, rest = bytes(stream.body).partition(b"\r\n|")
                self.assertEqual(self.told(head)["verify"], verify)
                self.assertIn(b"\r\nx-other: stays", head)
                self.assertEqual(rest, b"x|a: b")
                if cert != self.good:
                    self.assertEqual({name: values for name, values in self.told(head).items() if values},
                                     {"verify": verify} if verify else {})
                else:
                    self.assertEqual([len(values) for values in self.told(head).values()], [1] * len(NAMES))
                    self.assertNotIn(["SUCCESS"], [values for name, values in self.told(head).items() if name != "verify"])

    def test_routes_by_the_verdict(self):
        port, page = free_port(), free_port()
        Balancer(self, f'''version = 1
[listeners.web]
bind = "127.0.0.1:{port}"
tls = "public"
[tls.profiles.public]
certificates = "ec"
client_auth = {{ mode = "optional", ca = "{self.authority.ca}" }}
[tls.certificates]
{self.server}
[[routes]]
name = "open"
match = {{ path = "/open" }}
respond = {{ status = 200, body = "open" }}
[[routes]]
name = "known"
match = {{ client_certificate = "ok" }}
respond = {{ status = 200, body = "known" }}
[[routes]]
name = "expired"
match = {{ client_certificate = "expired" }}
respond = {{ status = 403, body = "renew it" }}
[[routes]]
name = "others"
match = {{ client_certificate = ["none", "refused"] }}
respond = {{ status = 403, body = "who are you?" }}
[metrics]
prometheus = "127.0.0.1:{page}"
''')
        for cert, status, body in ((self.good, 200, b"known"), (None, 403, b"who are you?"), (self.stranger, 403, b"who are you?"),
                                   (self.expired, 403, b"renew it")):
            client = self.connect(port, "a.example", self.context(cert=cert))
            answer = client.get()
            self.assertEqual((answer.status, answer.body), (status, body))
            self.assertEqual(client.get("/open").body, b"open")


class Facts(TlsCase, Proxy):
    """What the log and PROXY headers say of the TLS that the balancer itself speaks."""

    def test_the_access_log_names_version_cipher_resumption_and_certificate(self):
        origin = self.origin()
        good = self.authority.issue("good", "client")
        _, port = self.serve(origin, pair("ec", self.own("ec", "a.example")),
                             f'client_auth = {{ mode = "optional", ca = "{self.authority.ca}" }}', shards=1)  # So that lines are in order.
        log = self.folder / "access.log"
        expected = []
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            for cert in (None, good):
                context = self.context(version, cert)
                context.set_alpn_protocols(["http/1.1"])
                context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
                session = None
                for resumed in (False, True):
                    client = self.connect(port, "a.example", context, session)
                    self.assertEqual(client.get().status, 200)
                    self.assertEqual(client.socket.session_reused, resumed)
                    session = client.socket.session
                    fields = {"tls_version": name, "tls_alpn": "http/1.1", "tls_resumed": resumed, "sni": "a.example"}
                    expected.append(fields | ({"tls_certificate": "ok"} if cert else {}))
        wait_until(lambda: len(log.read_text().splitlines()) == len(expected))
        for line, fields in zip(json_lines(log), expected):
            self.assertEqual({key: value for key, value in line.items() if key.startswith("tls_") or key == "sni"},
                             fields | {"tls_cipher": line["tls_cipher"]})
            self.assertEqual(line["tls_cipher"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" if fields["tls_version"] == "TLSv1.2"
                             else line["tls_cipher"])
            self.assertTrue(line["tls_cipher"].startswith("TLS_"))

    def test_layer_4_logs_the_same_and_handshakes_that_fail(self):
        recorder = self.recorder()
        port = free_port()
        balancer = Balancer(self, f'''version = 1
[logs.access]
[listeners.raw]
bind = "127.0.0.1:{port}"
protocol = "tcp"
tls = "public"
[tls.profiles.public]
certificates = "ec"
min_version = "1.3"
[tls.certificates]
{pair("ec", self.own("ec", "a.example"))}
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
protocol = "tcp"
servers = [{{ address = "127.0.0.1:{recorder.port}" }}]
''')
        client = self.connect(port, "a.example")
        client.send(b"x")
        self.assertEqual(client.socket.recv(1), b".")
        client.close()
        with self.assertRaises(ssl.SSLError):
            self.connect(port, "b.example", self.context(ssl.TLSVersion.TLSv1_2))

        def lines() -> list[dict]:
            return [json.loads(line) for line in self.access_lines(balancer)]
        wait_until(lambda: len(lines()) == 2)
        # A client that closes with tickets unread resets, so the good one may have a cause as well.
        good, bad = sorted(lines(), key=lambda line: "tls_version" not in line)
        self.assertEqual((good["tls_version"], good["sni"], good["tls_resumed"]), ("TLSv1.3", "a.example", False))
        self.assertNotIn("tls_version", bad)
        self.assertEqual(bad["cause"], "tls_unsupported_version")

    def test_proxy_headers_tell_servers_of_our_tls(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        good = self.authority.issue("good", "client")
        expired = self.authority.issue("expired", "client", days=-1)
        recorder = self.recorder(answer, b"\r\n\r\n")
        _, port = self.serve(recorder, pair("ec", self.own("ec", "a.example")),
                             f'client_auth = {{ mode = "optional", ca = "{self.authority.ca}" }}',
                             listener=f'proxy_protocol = {{ accept = "optional", {FROM_LOOPBACK} }}',
                             upstream='send_proxy_protocol = "v2"\nsend_proxy_tlvs = ["alpn", "authority", "ssl", "crc32c"]')

        def told(cert, header: bytes = b"") -> dict:
            before = len(recorder.got)
            context = self.context(ssl.TLSVersion.TLSv1_3, cert)
            context.set_alpn_protocols(["http/1.1"])
            client = Client(port)
            self.addCleanup(client.close)
            client.send(header)
            client.socket = context.wrap_socket(client.socket, server_hostname="a.example")
            self.addCleanup(client.socket.close)
            for _ in range(2):
                self.assertEqual(client.get().status, 200)
            self.assertEqual(len(recorder.got), before + 1)
            found, rest = read_v2(recorder.got[before])
            self.assertTrue(found["checksum"])
            self.assertEqual(rest.count(b"GET / "), 2)
            self.assertEqual((found["tlvs"][1], found["tlvs"][2]), (b"http/1.1", b"a.example"))
            flags, verify = struct.unpack(">BI", found["tlvs"][0x20][:5])
            inner, values = found["tlvs"][0x20][5:], {}
            while inner:
                kind, size = struct.unpack(">BH", inner[:3])
                values[kind], inner = inner[3:3 + size], inner[3 + size:]
            self.assertEqual(values[0x21], b"TLSv1.3")
            self.assertTrue(values[0x23].startswith(b"TLS_"))
            return {"flags": flags, "verify": verify, "name": values.get(0x22)}
        self.assertEqual(told(None), {"flags": 1, "verify": 1, "name": None})
        self.assertEqual(told(good), {"flags": 7, "verify": 0, "name": b"good"})
        self.assertEqual(told(expired), {"flags": 7, "verify": 1, "name": None})
        # What a header in front of our own TLS says of some other TLS does not count here.
        lie = tlv(1, b"h2") + tlv(2, b"b.example") + tlv(0x20, b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"root"))
        self.assertEqual(told(None, v2(lie)), {"flags": 1, "verify": 1, "name": None})

    @unittest.skipUnless(shutil.which("haproxy"), "needs haproxy")
    def test_haproxy_reads_them(self):
        origin = self.origin()
        good = self.authority.issue("good", "client")
        back = self.haproxy("accept-proxy", f"127.0.0.1:{origin.port}",
                            extra=" http-request set-header x-name %[fc_pp_authority]\n")
        behind = type("Behind", (), {"port": back})
        _, port = self.serve(behind, pair("ec", self.own("ec", "a.example")),
                             f'client_auth = {{ mode = "optional", ca = "{self.authority.ca}" }}',
                             upstream='send_proxy_protocol = "v2"\nsend_proxy_tlvs = ["alpn", "authority", "ssl", "crc32c"]')
        seen = self.connect(port, "a.example", self.context(cert=good)).get().body.decode().lower()
        self.assertIn("x-name: a.example", seen)
