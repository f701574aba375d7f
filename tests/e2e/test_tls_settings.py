"""Settings of TLS one by one, as clients of other makes see them: groups, ciphers, stapled responses, keys of ECH; the example of the
documentation; what the metrics say of certificates and of waiting handshakes."""
import base64
import os
import pathlib
import re
import ssl
import subprocess
import threading
import unittest.mock

from support import Balancer, free_port, json_lines, metrics, raw, wait_until
from test_tls import TlsCase, TlsOrigin, openssl, pair

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Settings(TlsCase):
    def s_client(self, port: int, *args: str) -> str | None:
        """What openssl says of a handshake that went well; None: it did not."""
        done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "a.example", "-CAfile",
                               str(self.authority.ca), "-verify_return_error", *args], input=b"", capture_output=True, timeout=30)
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None

    @staticmethod
    def group(said: str | None) -> str | None:
        return said and re.search(r"Server Temp Key: (?:ECDH, )?([\w-]+)", said)[1]

    def test_groups_decide(self):
        cert = pair("rsa", self.own("rsa", "a.example", rsa=True))  # In TLS 1.2 groups are about the keys of certificates, too.
        _, port = self.serve(self.origin(), cert, 'groups = ["P-384"]')
        for version in ("-tls1_2", "-tls1_3"):
            self.assertEqual(self.group(self.s_client(port, version, "-groups", "P-384")), "secp384r1")
            # Its share is of another group: it is asked for ours.
            self.assertEqual(self.group(self.s_client(port, version, "-groups", "X25519:P-384")), "secp384r1")
            self.assertIsNone(self.s_client(port, version, "-groups", "X25519"))
        refused = metrics(self.page)['ringway_listener_tls_failures_total{listener="web"}']
        self.assertEqual(refused, 2)
        # The order is ours, whatever the client's.
        for order, chosen in ((["P-256", "X25519"], "prime256v1"), (["X25519", "P-256"], "X25519")):
            _, port = self.serve(self.origin(), cert, f"groups = {order}".replace("'", '"'))
            for version in ("-tls1_2", "-tls1_3"):
                for client in ("X25519:P-256", "P-256:X25519"):
                    self.assertEqual(self.group(self.s_client(port, version, "-groups", client)), chosen, (version, client))

    def test_ciphers_and_versions_decide(self):
        """`modern` has no CBC suite, `intermediate` does; TLS 1.2 as such ends with `min_version`."""
        cert = pair("ec", self.own("ec", "a.example"))
        old = ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA")
        good = ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
        for profile, accepted in (('ciphers = "intermediate"', [old, good]), ('ciphers = "modern"', [good]), ("", [good]),
                                  ('min_version = "1.3"', [])):
            _, port = self.serve(self.origin(), cert, profile)
            for args in (old, good):
                said = self.s_client(port, *args)
                self.assertEqual(said is not None, args in accepted, (profile, args))
                self.assertTrue(said is None or f"Cipher is {args[-1]}" in said)
            self.assertIn("Cipher is TLS_", self.s_client(port, "-tls1_3"))

    def respond(self, cert: str) -> bytes:
        """An OCSP response of the authority: the certificate is good."""
        database = str(self.authority.folder / "ca.cnf")
        openssl("ca", "-config", database, "-valid", cert)
        out = self.folder / "response"
        ca = str(self.authority.ca)
        openssl("ocsp", "-index", str(self.authority.folder / "index.txt"), "-CA", ca, "-rsigner", ca, "-rkey",
                str(self.authority.key), "-issuer", ca, "-cert", cert, "-ndays", "7", "-respout", str(out), "-noverify")
        return out.read_bytes()

    def test_an_ocsp_response_beside_the_certificate_is_stapled(self):
        files = self.own("ec", "a.example")
        response = pathlib.Path(files[0] + ".ocsp")
        _, port = self.serve(self.origin(), pair("ec", files))

        def stapled() -> bool:
            said = self.s_client(port, "-status")
            self.assertNotEqual("no response sent" in said, "Cert Status: good" in said, said)
            return "Cert Status: good" in said
        self.assertFalse(stapled())
        response.write_bytes(self.respond(files[0]))  # While it serves.
        wait_until(stapled)
        for version in ("-tls1_2", "-tls1_3"):
            self.assertIn("OCSP Response Status: successful (0x0)", self.s_client(port, version, "-status"))
        _, port = self.serve(self.origin(), pair("ec", files))  # From the start.
        self.assertTrue(stapled())
        _, port = self.serve(self.origin(), pair("ec", files), 'ocsp = "off"')
        self.assertFalse(stapled())

    def ech(self, number: int) -> bytes:
        """A key and its configuration (RFC 9849 4), as a PEM file has them (RFC 9934)."""
        path = self.folder / f"ech{number}.key"
        openssl("genpkey", "-algorithm", "X25519", "-out", str(path))
        public = openssl("pkey", "-in", str(path), "-pubout", "-outform", "DER")[-32:]
        contents = bytes([number]) + b"\0\x20" + b"\0\x20" + public + b"\0\4\0\1\0\1" + b"\x40\x09a.example" + b"\0\0"
        config = b"\xfe\x0d" + len(contents).to_bytes(2, "big") + contents
        text = base64.encodebytes(len(config).to_bytes(2, "big") + config)
        return path.read_bytes() + b"-----BEGIN ECHCONFIG-----\n" + text + b"-----END ECHCONFIG-----\n"

    def test_keys_of_ech_are_read_again(self):
        """No client at hand speaks ECH: what it opens then is a unit test's (core/tls_ech_test.cc)."""
        keys = self.folder / "ech.pem"
        keys.write_bytes(self.ech(1))
        balancer, port = self.serve(self.origin(), pair("ec", self.own("ec", "a.example")), f'ech = "{keys}"')

        def replace(text: bytes):
            beside = keys.with_suffix(".new")
            beside.write_bytes(text)
            beside.rename(keys)
        replace(b"no keys")
        wait_until(lambda: f"keys of ECH stay as they are: {keys}: there is no PRIVATE KEY in it" in balancer.log())
        self.assertNotIn("read again", balancer.log())
        replace(self.ech(2) + self.ech(1))
        wait_until(lambda: f"keys of ECH read again: {keys}" in balancer.log())
        self.assertEqual(self.connect(port, "a.example").get().status, 200)

    def test_the_system_s_authorities(self):
        """ca = "system", which is the default: from the file that SSL_CERT_FILE names."""
        stranger = self.authority.issue("stranger", "x.example", ca=False)[0]
        origin = TlsOrigin(self, self.authority.issue("origin", "origin.example"))
        for bundle, status in ((str(self.authority.ca), 200), (stranger, 502)):
            for ca in ("", 'ca = "system"\n'):
                with unittest.mock.patch.dict(os.environ, SSL_CERT_FILE=bundle):
                    _, port = self.serve(origin, pair("ec", self.own("ec", "a.example")),
                                         upstream=f'[upstreams.app.tls]\n{ca}sni = "origin.example"\n[upstreams.app.retry]\nattempts = "off"')
                self.assertEqual(self.connect(port, "a.example").get().status, status)
                refused = metrics(self.page)['ringway_tls_refused_certificates_total{reason="unknown_ca"}']
                self.assertEqual(refused, 0 if status == 200 else 1)


class Resumption(TlsCase):
    def test_a_session_is_of_one_name(self):
        """RFC 6066 3, and with one certificate for both."""
        _, port = self.serve(self.origin(), pair("ec", self.own("ec", "a.example", "b.example")))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(version)
            first = self.connect(port, "a.example", context)
            self.assertEqual(first.get().status, 200)
            for name, again in (("b.example", False), ("a.example", True)):
                client = self.connect(port, name, context, first.socket.session)
                self.assertEqual(client.get().status, 200)
                self.assertEqual(client.socket.session_reused, again)

    def test_a_reload_that_asks_for_certificates_asks_everybody(self):
        good = self.authority.issue("good", "client")
        for mode in ("optional", "required"):
            balancer, port = self.serve(self.origin(), pair("ec", self.own("ec", "a.example")))
            log = self.folder / "access.log"
            sessions = {}
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = self.context(version, good)
                client = self.connect(port, "a.example", context)
                self.assertEqual(client.get().status, 200)
                sessions[context] = client.socket.session
            balancer.reload(balancer.path.read_text().replace(
                "[tls.certificates]", f'client_auth = {{ mode = "{mode}", ca = "{self.authority.ca}" }}\n[tls.certificates]'))
            for context, session in sessions.items():
                client = self.connect(port, "a.example", context, session)
                self.assertEqual(client.get().status, 200)
                self.assertFalse(client.socket.session_reused)
            wait_until(lambda: len(log.read_text().splitlines()) == 4)
            self.assertEqual(sorted(line.get("tls_certificate", "none") for line in json_lines(log)), ["none", "none", "ok", "ok"])
            balancer.stop()
            log.unlink()


class Example(TlsCase):
    def test_hsts_goes_out_over_tls_only(self):
        """docs/examples/tls.toml as it is, but for addresses and paths (RFC 6797 7.2)."""
        origins = [TlsOrigin(self, self.authority.issue("api", "api.internal.example.com")) for _ in range(2)]
        folder = self.folder / "tls"
        (folder / "tenants.d").mkdir(parents=True)
        for place, name in ((folder / "example.com", "example.com"), (folder / "tenants.d" / "t", "tenant.example")):
            for source, end in zip(self.authority.issue("served", name), (".pem", ".key")):
                pathlib.Path(f"{place}{end}").write_bytes(pathlib.Path(source).read_bytes())
        for name in ("clients.pem", "internal-ca.pem"):
            (folder / name).write_bytes(self.authority.ca.read_bytes())
        plain, secure = free_port(), free_port()
        text = (ROOT / "docs/examples/tls.toml").read_text()
        for old, new in (('["0.0.0.0:80", "[::]:80"]', f'"127.0.0.1:{plain}"'), ('["0.0.0.0:443", "[::]:443"]', f'"127.0.0.1:{secure}"'),
                         ("10.0.0.1:8443", f"127.0.0.1:{origins[0].port}"), ("10.0.0.2:8443", f"127.0.0.1:{origins[1].port}"),
                         ("/etc/ringway/tls", str(folder))):
            self.assertIn(old, text)
            text = text.replace(old, new)
        Balancer(self, text)
        for name in ("example.com", "tenant.example"):
            client = self.connect(secure, name)
            for _ in range(2):
                answer = client.get()
                self.assertEqual((answer.status, answer.get("strict-transport-security")), (200, "max-age=31536000"))
        moved = self.client(plain).get("/a")
        self.assertEqual((moved.status, moved.get("location")), (308, "https://test/a"))
        self.assertIsNone(moved.get("strict-transport-security"))
        self.assertNotIn(b"strict-transport", raw(plain, b"nonsense\r\n\r\n").lower())


class Metrics(TlsCase):
    def test_when_certificates_end(self):
        tenants = self.folder / "tenants"
        tenants.mkdir()
        single = self.own("ec", "a.example", days=20)

        def put(days: int):
            for source, end in zip(self.authority.issue("t", "b.example", days=days), ("pem", "key")):
                (tenants / f".t.{end}").write_bytes(pathlib.Path(source).read_bytes())
                (tenants / f".t.{end}").rename(tenants / f"t.{end}")
        put(5)
        _, port = self.serve(self.origin(), pair("ec", single) + f'\ntenants = {{ directory = "{tenants}" }}')

        def told() -> dict[str, float]:
            return {re.search(r'source="([^"]*)"', name)[1]: value for name, value in metrics(self.page).items()
                    if name.startswith("ringway_certificate_not_after_seconds")}

        def shown(name: str) -> float:
            return ssl.cert_time_to_seconds(self.connect(port, name).socket.getpeercert()["notAfter"])
        before = told()
        self.assertEqual(before, {"ec": shown("a.example"), "tenants": shown("b.example")})
        put(9)
        wait_until(lambda: told() != before)
        self.assertEqual(told(), {"ec": before["ec"], "tenants": shown("b.example")})
        self.assertGreater(told()["tenants"], before["tenants"])

    def test_how_long_handshakes_wait(self):
        _, port = self.serve(self.origin(), pair("ec", self.own("ec", "a.example")), 'handshakes_per_shard = "2/s"', shards=1)
        name = "ringway_tls_handshake_wait_seconds"
        self.assertEqual(metrics(self.page)[f"{name}_count"], 0)
        self.connect(port, "a.example")
        seen = metrics(self.page)
        self.assertEqual(seen[f"{name}_count"], 1)
        # At once: there is one every half a second, so they have to wait.
        threads = [threading.Thread(target=self.connect, args=(port, "a.example")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = metrics(self.page)
        self.assertEqual(seen[f"{name}_count"], 5)
        self.assertEqual(seen[name + '_bucket{le="+Inf"}'], 5)
        self.assertGreater(seen[f"{name}_sum"], 0)
