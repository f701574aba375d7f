"""Where connections to servers come from: `source` and `socket` (E5), requests and health checks alike."""
import socket
import ssl
import threading
import types

import h2client as h2
from h2_origin import HTTP2, H2Origin
from h2client import H2
from reuse_support import KEEP, ReuseCase
from support import Balancer, Case, free_port, metrics, read_all, wait_until
from test_tls import TlsCase

ALWAYS = f'reuse = "always"\n{KEEP}'
FOREIGN = "192.0.2.77"  # Of documentation: no machine has it.
NOT_HERE = "source: not an address of this machine"
CHECK = 'health = { type = "http", path = "/", interval = "50ms", fast_interval = "50ms", timeout = "5s" }'


def ip_of(peer: str) -> str:
    return peer.rpartition(":")[0]


class Sources(ReuseCase):
    counts_exact = closes_exact = False  # Counters of a server that left are gone with it.

    def peers(self, origin, check: bool = False) -> set[str]:
        """Addresses that connections with requests, or with checks, came from."""
        return {ip_of(conn.peer) for conn in list(origin.connections.values()) if conn.seen and self.is_check(conn) == check}

    def test_distinct_sources_never_share_and_equal_ones_do(self):
        """One origin behind three upstreams and, in one of them, two servers."""
        origin = self.reporting()
        two = [(types.SimpleNamespace(name=name, address=origin.address), f'source = "{source}"')
               for name, source in (("x", "127.0.0.4"), ("y", "127.0.0.5"))]
        self.balance(self.upstream("own", ALWAYS, [(origin, 'source = "127.0.0.2"')], 'source = "127.0.0.9"'),
                     self.upstream("all", ALWAYS, [origin], 'source = "127.0.0.3"'),
                     self.upstream("none", ALWAYS, [origin]), self.upstream("two", ALWAYS, two))
        wanted = {"own": {"127.0.0.2"}, "all": {"127.0.0.3"}, "none": {"127.0.0.1"}, "two": {"127.0.0.4", "127.0.0.5"}}
        conns: dict[str, set[str]] = {}
        for _ in range(6):
            for upstream in wanted:
                conns.setdefault(upstream, set()).add(self.guest(upstream=upstream).conn)
        for upstream, names in conns.items():
            self.assertEqual({ip_of(self.conn(name).peer) for name in names}, wanted[upstream])
            self.assertEqual(len(names), len(wanted[upstream]))
        self.assertEqual(len(set.union(*conns.values())), 5)

    def test_checks_come_from_there_too(self):
        [origin] = self.app(ALWAYS, more=f'source = "127.0.0.2"\n{CHECK}')
        wait_until(lambda: len(origin.log) >= 3)
        self.guest()
        self.assertEqual((self.peers(origin, check=True), self.peers(origin)), ({"127.0.0.2"}, {"127.0.0.2"}))

    def test_a_source_that_is_not_here(self):
        """Another server takes over; with none the client and the log are told, and checks find it down."""
        good = self.reporting()
        bad = types.SimpleNamespace(name="bad", address=good.address)
        one = (bad, f'source = "{FOREIGN}"')
        self.balance(self.upstream("both", ALWAYS, [one, good], 'balance.algorithm = "first"'),
                     self.upstream("lone", ALWAYS, [one]), self.upstream("seen", ALWAYS, [one], CHECK))
        self.assertIn(f"server both/bad cannot be reached: {NOT_HERE} ({FOREIGN})", self.balancer.log())
        for _ in range(3):
            answer = self.guest(upstream="both")
            self.assertEqual((answer.status, self.access_of(answer.token)["server"]), (200, "s0"))
        answer = self.guest(upstream="lone")
        self.assertEqual((answer.status, self.access_of(answer.token)["cause"]), (503, NOT_HERE))
        wait_until(lambda: f"server seen/bad ({good.address}) is down: {NOT_HERE}" in self.balancer.log())
        now = self.counters()
        for upstream in ("both", "lone"):
            failed = now.sum("ringway_server_local_failures_total", upstream=upstream)
            self.assertGreater(failed, 0)
            self.assertEqual(now.sum("ringway_server_connect_errors_total", upstream=upstream), failed)
        self.assertEqual({ip_of(conn.peer) for conn in good.connections.values()}, {"127.0.0.1"})

    def test_a_reload_that_changes_it(self):
        """As with another address: idle and private connections end at once, busy ones when they are done."""
        origin = self.reporting()
        self.balance(*(self.upstream(name, pool, [(origin, 'source = "127.0.0.2"')])
                       for name, pool in (("app", ALWAYS), ("own", f'reuse = "never"\n{KEEP}'))))
        idle, [private] = self.guest().conn, [self.visitor()]
        names = {idle, private.ask(upstream="own").conn}
        busy = self.visitor()
        token = busy.begin("stall")
        wait_until(lambda: origin.attempts(token))
        names.add(next(conn.name for conn in origin.connections.values() if conn.busy))
        text = self.balancer.path.read_text()
        self.balancer.reload(text.replace("127.0.0.2", "127.0.0.3"))
        after = {self.guest().conn, private.ask(upstream="own").conn, self.guest().conn}
        self.assertEqual({ip_of(self.conn(name).peer) for name in after}, {"127.0.0.3"})
        self.assertEqual(len(after), 2)
        wait_until(lambda: sum(self.conn(name).open for name in names) == 1)
        origin.release(token)
        self.assertEqual(busy.end().status, 200)
        for name in names:
            self.wait_closed(name)
            self.assertEqual(ip_of(self.conn(name).peer), "127.0.0.2")

    def test_marks_and_interfaces(self):
        """Not everybody may set a mark: then the log says what is missing, and the server is not reached without it."""
        origin = self.reporting()
        said = {"lo": 'interface = "lo"', "mark": "mark = 7", "nowhere": 'interface = "rw-nowhere"'}
        self.balance(*(self.upstream(name, ALWAYS, [origin], f"socket = {{ {option} }}") for name, option in said.items()))
        log = self.balancer.log()
        self.assertIn("server nowhere/s0 cannot be reached: socket.interface: no such interface (rw-nowhere)", log)
        conns = set()
        for name, capability in (("lo", "CAP_NET_RAW"), ("mark", "CAP_NET_ADMIN")):
            refused = f"server {name}/s0 cannot be reached" in log
            first, second = self.guest(upstream=name), self.guest(upstream=name)
            if refused:
                self.assertEqual(first.status, 503)
                self.assertIn(f"needs {capability}", self.access_of(first.token)["cause"])
            else:
                self.assertEqual((first.status, second.conn), (200, first.conn))
                self.assertNotIn(first.conn, conns)
                conns.add(first.conn)
        answer = self.guest(upstream="nowhere")
        self.assertEqual(self.access_of(answer.token)["cause"], "socket.interface: no such interface")


class EpollSources(Sources):
    engine = "epoll"


class Sessions(Case):
    """Layer 4 and HTTP/2."""

    def accept(self, listener: socket.socket):
        while True:
            try:
                client, peer = listener.accept()
            except OSError:
                return
            client.sendall(peer[0].encode())
            client.close()

    def test_tcp_sessions(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def start(*servers: str) -> tuple[Balancer, int, int]:
            port, page = free_port(), free_port()
            balancer = Balancer(self, f'version = 1\n[process]\nshards = 1\n'
                                f'[engine]\nkind = "{self.engine}"\nreceive = "{self.receive}"\n'
                                f'[listeners.l4]\nprotocol = "tcp"\nbind = "127.0.0.1:{port}"\n'
                                f'[[routes]]\nname = "all"\nupstream = "u"\n[upstreams.u]\nprotocol = "tcp"\n'
                                f'servers = [{", ".join(servers)}]\n[metrics]\nprometheus = "127.0.0.1:{page}"\n'
                                f'[logs.access]\noutput = "stdout"\n')
            return balancer, port, page

        def greeting(port: int) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                return read_all(client)

        two, three, foreign = (f'{{ name = "{source}", address = "{address}", source = "{source}" }}'
                               for source in ("127.0.0.2", "127.0.0.3", FOREIGN))
        _, port, page = start(two, foreign, three)
        self.assertEqual({greeting(port) for _ in range(6)}, {b"127.0.0.2", b"127.0.0.3"})
        self.assertGreater(metrics(page)[f'ringway_server_local_failures_total{{upstream="u",server="{FOREIGN}"}}'], 0)
        balancer, port, _ = start(foreign)
        self.assertEqual(greeting(port), b"")
        wait_until(lambda: f'"cause":"{NOT_HERE}"' in balancer.log())

    def test_http2_to_servers(self):
        origin = H2Origin(lambda connection, stream, fields, body: connection.answer(
            stream, connection.socket.getpeername()[0].encode()))
        self.addCleanup(origin.stop)
        _, port = self.http(origin.port, upstream=f'{HTTP2}\nsource = "127.0.0.2"')
        client = H2(port, (h2.INITIAL_WINDOW, 1 << 20))
        self.addCleanup(client.close)
        for _ in range(3):
            self.assertEqual(bytes(client.get().body), b"127.0.0.2")
        self.assertEqual(len(origin.connections), 1)


class OverTls(TlsCase, ReuseCase):
    def test_requests_and_checks(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("origin", "origin.example"))
        [origin] = self.app(ALWAYS, origin={"context": context},
                            more=f'source = "127.0.0.2"\ntls = {{ ca = "{self.authority.ca}", sni = "origin.example" }}\n{CHECK}')
        wait_until(lambda: len(origin.log) >= 2)
        self.assertEqual(len({self.guest().conn for _ in range(3)}), 1)
        self.assertEqual({ip_of(conn.peer) for conn in origin.connections.values()}, {"127.0.0.2"})

