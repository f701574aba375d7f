"""Authorities and revocation lists that change on disk: taken over without a reload, by clients, servers and checks."""
import pathlib
import ssl

from support import metrics, wait_until
from test_tls import Authority, TlsCase, TlsOrigin, pair


def replace(path: pathlib.Path, text: bytes):
    """As tools do that care: the new file takes the place of the old in one step."""
    beside = path.with_suffix(".new")
    beside.write_bytes(text)
    beside.rename(path)


class Trust(TlsCase):
    def count(self, what: str) -> float:
        return metrics(self.page)[f"ringway_trust_{what}_total"]

    def accepted(self, port: int, cert) -> bool:
        try:
            return self.connect(port, "a.example", self.context(cert=cert)).get().status == 200
        except (ssl.SSLError, ConnectionResetError):
            return False

    def test_a_new_revocation_list_and_authority_of_clients(self):
        one, two = self.authority.issue("one", "client"), self.authority.issue("two", "client")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        other = Authority(elsewhere, "Other CA")
        stranger = other.issue("stranger", "client")
        ca, crl = self.folder / "clients.pem", self.folder / "clients.crl"
        ca.write_bytes(self.authority.ca.read_bytes())
        crl.write_bytes(pathlib.Path(self.authority.revocations()).read_bytes())
        balancer, port = self.serve(self.origin(), pair("ec", self.own("ec", "a.example")),
                                    f'client_auth = {{ mode = "required", ca = "{ca}", crl = "{crl}" }}')
        kept = self.connect(port, "a.example", self.context(cert=one))
        self.assertEqual(kept.get().status, 200)
        self.assertTrue(self.accepted(port, two))
        self.assertFalse(self.accepted(port, stranger))
        replace(crl, pathlib.Path(self.authority.revocations(one[0])).read_bytes())
        wait_until(lambda: not self.accepted(port, one))
        self.assertTrue(self.accepted(port, two))
        self.assertEqual(kept.get().status, 200)  # Who was let in stays.
        # Both have to change, and each is good by itself.
        replace(crl, crl.read_bytes() + pathlib.Path(other.revocations()).read_bytes())
        replace(ca, ca.read_bytes() + other.ca.read_bytes())
        wait_until(lambda: self.accepted(port, stranger))
        self.assertFalse(self.accepted(port, one))
        self.assertGreaterEqual(self.count("reloads"), 2)
        self.assertEqual(self.count("reload_failures"), 0)
        wait_until(lambda: f"tls: read again: {ca} and {crl}" in balancer.log())
        # One that is no good changes nothing, and is told once.
        replace(crl, b"no list")
        wait_until(lambda: self.count("reload_failures") == 1)
        wait_until(lambda: f"{crl}: there is no revocation list in it; what is in use stays" in balancer.log())
        self.assertTrue(self.accepted(port, two))
        self.assertFalse(self.accepted(port, one))

    def test_new_authorities_of_servers_for_requests_and_checks(self):
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        other = Authority(elsewhere, "Other CA")
        origin = TlsOrigin(self, other.issue("app", "app.example"))
        ca = self.folder / "servers.pem"
        ca.write_bytes(self.authority.ca.read_bytes())
        balancer, port = self.serve(
            origin, pair("ec", self.own("ec", "a.example")),
            upstream=f'[upstreams.app.tls]\nca = "{ca}"\nsni = "app.example"\n'
                     '[upstreams.app.health]\ntype = "http"\ninterval = "100ms"\ndown_interval = "100ms"\ntimeout = "100ms"\nrise = 1\nfall = 1\n')
        wait_until(lambda: "is down: " in balancer.log())
        self.assertNotEqual(self.connect(port, "a.example").get().status, 200)
        replace(ca, other.ca.read_bytes())
        wait_until(lambda: "is up: " in balancer.log())
        wait_until(lambda: self.connect(port, "a.example").get().status == 200)
        self.assertEqual(self.count("reloads"), 1)
