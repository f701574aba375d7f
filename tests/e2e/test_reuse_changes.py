"""Servers that change or leave under load, by reload (E13)."""
import socket
import ssl
import threading

from reuse_load import Crowd, UnderLoad
from reuse_support import KEEP, ReuseCase
from support import Origin, ok, wait_until
from test_tls import TlsCase


class Changes(UnderLoad):
    def test_a_server_that_a_reload_removes(self):
        self.start()
        first, second = self.both
        held = [self.hold(first, "own"), self.hold(first, "app")]
        text = self.balancer.path.read_text()
        gone = f'{{ name = "s0", address = "127.0.0.1:{first.port}" }}, '
        self.assertEqual(text.count(gone), 2)
        self.balancer.reload(text.replace(gone, ""))
        self.assert_left(first, held)
        self.crowd.stop()

    def test_a_server_whose_address_a_reload_changes(self):
        self.start()
        first, _ = self.both
        held = [self.hold(first, "own"), self.hold(first, "app")]
        new = self.reporting("s0")
        self.balancer.reload(self.balancer.path.read_text().replace(f":{first.port}\"", f":{new.port}\""))
        self.assert_left(first, held)
        self.assertGreater(len(new.log), 0)
        self.crowd.stop()

    def test_reloads_that_change_nothing_close_nothing(self):
        self.start()
        before = {conn.name for origin in self.both for conn in origin.open_conns}
        for _ in range(5):
            self.balancer.reload()
            self.crowd.more(50)
        self.assertEqual({conn.name for origin in self.both for conn in origin.open_conns if conn.name in before}, before)
        self.crowd.stop()

    def test_a_reload_to_never_closes_what_was_shared(self):
        [origin] = self.app(f'reuse = "always"\n{KEEP}', shards=2)
        self.park(6)
        self.balancer.reload(self.balancer.path.read_text().replace('"always"', '"never"'))
        self.never.add("app")
        wait_until(lambda: origin.established == 0)
        for _ in range(4):
            self.assertEqual(self.guest().req, 1)

    def test_max_idle_lowered_by_a_reload(self):
        [origin] = self.app(f'max_idle_per_server = 100\n{KEEP}', shards=2)
        self.park(20)
        wait_until(lambda: origin.idle == 20)
        self.balancer.reload(self.balancer.path.read_text().replace("max_idle_per_server = 100", "max_idle_per_server = 4"))
        for _ in range(3):
            self.assertEqual(self.visitor().ask().status, 200)
        wait_until(lambda: origin.established <= 4)


class EitherOrigin(Origin):
    """Speaks TLS with whoever begins so and clear text with others, and says which. /stall waits for `go`."""

    def __init__(self, certificate: tuple[str, str]):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.here = threading.local()
        self.speaking: dict[str, set[socket.socket]] = {"tls": set(), "clear": set()}
        self.stalled = 0
        self.go = threading.Event()
        super().__init__(self.say)

    def say(self, head: bytes, body: bytes) -> bytes:
        if b"/stall" in head:
            self.stalled += 1
            self.go.wait(20)
        return ok(b"", b"X-Spoken: %s\r\n" % self.here.spoken.encode())

    def serve(self, connection: socket.socket):
        self.here.spoken = spoken = ""
        try:
            self.here.spoken = spoken = "tls" if connection.recv(1, socket.MSG_PEEK) == b"\x16" else "clear"
            self.speaking[spoken].add(connection)
            tls = spoken == "tls"
            super().serve(self.context.wrap_socket(connection, server_side=True) if tls else connection)
        except OSError:
            pass
        finally:
            self.speaking.get(spoken, set()).discard(connection)
            self.open.discard(connection)


class TlsSwitched(TlsCase, ReuseCase):
    def test_tls_that_a_reload_switches_on_and_off(self):
        """Under load, with private and with busy connections: once the reload has been acknowledged, no request begins
        that is spoken the old way; what was in hand ends well."""
        origin = EitherOrigin(self.authority.issue("origin", "origin.example"))
        self.addCleanup(origin.stop)
        origin.name, origin.address = "s0", f"127.0.0.1:{origin.port}"
        self.balance(self.upstream("own", f'reuse = "never"\n{KEEP}', [origin]),
                     self.upstream("app", f'reuse = "always"\n{KEEP}', [origin]), shards=2)
        clear = self.balancer.path.read_text()
        tls = "".join(f'[upstreams.{name}.tls]\nca = "{self.authority.ca}"\nsni = "origin.example"\n' for name in ("own", "app"))
        crowd = Crowd(self, ["own", "app"])
        for text, before, after in ((clear + tls, "clear", "tls"), (clear, "tls", "clear")):
            crowd.more()
            origin.stalled = 0
            origin.go.clear()
            held = [self.visitor() for _ in range(2)]
            for visitor, upstream in zip(held, ("own", "app")):
                visitor.begin("stall", upstream=upstream)
            wait_until(lambda: origin.stalled == 2)
            self.balancer.reload(text)
            seen = len(self.answers)
            crowd.more(300)
            later: dict[str, list[str]] = {}
            for answer in self.answers[seen:]:
                later.setdefault(answer.client, []).append(answer.response.get("x-spoken"))
            for spoken in later.values():
                self.assertEqual(set(spoken[1:]), {after})  # The first one of each may have begun before.
            wait_until(lambda: len(origin.speaking[before]) == len(held))
            origin.go.set()
            for visitor in held:
                answer = visitor.end()
                self.assertEqual((answer.status, answer.response.get("x-spoken")), (200, before))
            wait_until(lambda: not origin.speaking[before])
        crowd.stop()
        self.balancer.stop()  # Its counters are not judged: this origin keeps none.
