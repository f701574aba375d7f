"""What keeps connections to a server apart: its address, PROXY headers, pool.key (E5), names of TLS (E6)."""
import random
import socket
import ssl
import threading
import unittest

import h2client as h2
from h2_origin import Connection, H2Origin
from h2client import H2
from reuse_support import KEEP, Names, ReuseCase
from support import Case, free_port, metrics, wait_until
from test_tls import TlsCase

ALWAYS = f'reuse = "always"\n{KEEP}'
PROXIED = 'proxy_protocol = { accept = "required", from = ["127.0.0.0/8"] }'  # of a listener
REASONS = ("reuse_never", "login", "challenge", "proxy_header")  # to be private


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        return True
    except OSError:
        return False


class Addresses(ReuseCase):
    """E5: where a connection goes to."""

    def test_distinct_addresses_never_share_and_equal_ones_do(self):
        first, second = self.app(ALWAYS, count=2)
        conns = [self.guest().conn for _ in range(20)]
        self.assertEqual(len(set(conns)), 2)
        self.assertEqual((len(first.connections), len(second.connections)), (1, 1))

    def test_servers_that_differ_in_address_or_port_alone(self):
        first = self.reporting()
        others = [self.reporting(port=first.port, host=host) for host in ("127.0.0.2", "::1") if ":" not in host or has_ipv6()]
        self.balance(self.upstream("app", ALWAYS, [first, *others, self.reporting()]))
        for _ in range(20):
            answer = self.guest()
            self.assertEqual(self.access_of(answer.token)["server"], answer.server)
        self.assertEqual([len(origin.connections) for origin in self.origins], [1] * len(self.origins))


class Clients(ReuseCase):
    """E5: what pool.key adds of the request, and the PROXY header that a connection begins with."""

    def of(self, source: str, port: int):
        """A visitor who comes from there, as the balancer in front says."""
        visitor = self.visitor()
        family, there = ("TCP6", "2001:db8::1") if ":" in source else ("TCP4", "198.51.100.1")
        visitor.client.send(f"PROXY {family} {source} {there} {port} 443\r\n".encode())
        return visitor

    def test_hosts_as_part_of_the_key(self):
        self.app(f'{ALWAYS}\nkey = ["request.host"]')
        conns = {}
        for host in ("a.example", "b.example", "A.example", "a.example") * 5:
            conns.setdefault(host.lower(), set()).add(self.guest(host=host).conn)
        self.assertEqual({host: len(names) for host, names in conns.items()}, {"a.example": 1, "b.example": 1})
        self.assertFalse(conns["a.example"] & conns["b.example"])

    def test_the_clients_address_as_part_of_the_key(self):
        """All ports of a client are one key, and so are the two ways to write an IPv4 address."""
        self.app(f'{ALWAYS}\nkey = ["client.ip"]', listener=PROXIED)
        conns = {}
        sources = ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::7", "2001:db8::8", "2001:db8:0::7")
        for port, source in enumerate(sources * 4, 1000):
            visitor = self.of(source, port)
            key = source.removeprefix("::ffff:").replace(":0:", ":")
            conns.setdefault(key, set()).add(visitor.ask().conn)
            visitor.leave()
        self.assertEqual([len(names) for names in conns.values()], [1] * 4)
        self.assertEqual(len(set.union(*conns.values())), 4)

    def test_both_as_parts_of_the_key(self):
        self.app(f'{ALWAYS}\nkey = ["client.ip", "request.host"]', listener=PROXIED)
        conns = {}
        for port in range(1000, 1003):
            for source in ("192.0.2.1", "192.0.2.2"):
                for host in ("a.example", "b.example"):
                    visitor = self.of(source, port)
                    conns.setdefault((source, host), set()).add(visitor.ask(host=host).conn)
                    visitor.leave()
        self.assertEqual([len(names) for names in conns.values()], [1] * 4)
        self.assertEqual(len(set.union(*conns.values())), 4)

    def test_equal_headers_share_and_distinct_ones_never_do(self):
        """Other address, other port, other TLV: another connection. The same header on another client connection, as
        a balancer in front sends it that makes several for one client: the same one. What has an identifier of its own
        (unique_id) is its client connection's, and ends with it."""
        versions = {"v1": 'send_proxy_protocol = "v1"', "v2": 'send_proxy_protocol = "v2"\nsend_proxy_tlvs = ["crc32c"]',
                    "tlv": 'send_proxy_protocol = "v2"\nsend_proxy_tlvs = ["unique_id", "crc32c"]'}
        origin = self.reporting(proxied=True)
        self.balance(*(self.upstream(name, ALWAYS, [origin], more) for name, more in versions.items()), listener=PROXIED)
        sources = [("192.0.2.1", 1000), ("192.0.2.1", 1001), ("192.0.2.2", 1000), ("2001:db8::7", 1000), ("192.0.2.1", 1000)]
        visitors = [(self.of(*source), "%s:%d" % source) for source in sources]
        own = {}
        for _ in range(3):
            for visitor, source in visitors:
                for upstream in versions:
                    answer = visitor.ask(upstream=upstream)
                    user = visitor.tag if upstream == "tlv" else source
                    self.assertEqual(answer.conn, own.setdefault((user, upstream), answer.conn))
                    self.assertEqual(answer.response.get("x-pp-src"), source)
        self.assertEqual(len(own), 2 * 4 + 5)
        self.assertEqual(len(set(own.values())), len(own))
        headers = {self.conn(own[visitor.tag, "tlv"]).proxy_header for visitor, _ in visitors}
        self.assertEqual(len(headers), len(visitors))  # The identifiers differ where all else is equal.
        for visitor, _ in visitors:
            visitor.leave()
        for visitor, source in visitors:
            self.wait_closed(own[visitor.tag, "tlv"])
        again = self.of(*sources[0])
        for upstream in versions:
            answer = again.ask(upstream=upstream)
            self.assertEqual(answer.response.get("x-pp-src"), visitors[0][1])
            if upstream == "tlv":
                self.assertNotIn(answer.conn, own.values())
            else:
                self.assertEqual(answer.conn, own[visitors[0][1], upstream])

    def test_at_once_equal_headers_have_a_connection_each(self):
        origin = self.reporting(proxied=True)
        self.balance(self.upstream("app", ALWAYS, [origin], 'send_proxy_protocol = "v2"'), listener=PROXIED)
        visitors = [self.of("192.0.2.1", 1000) for _ in range(4)]
        names = self.park(4, visitors=visitors)
        self.assertEqual(len(set(names)), 4)
        self.assertIn(self.of("192.0.2.1", 1000).ask().conn, names)
        self.assertNotIn(self.of("192.0.2.1", 1001).ask().conn, names)
        self.assertEqual({conn.proxy_source for conn in origin.connections.values()}, {"192.0.2.1:1000", "192.0.2.1:1001"})

    def test_a_header_that_others_may_have_is_no_reason_to_be_private(self):
        """Only the mode is, here; the first upstream shares, and the third is private for its header."""
        cases = {"shared": (ALWAYS, '"v1"'), "mode": ('reuse = "never"', '"v1"'), "header": (ALWAYS, '"v2"\nsend_proxy_tlvs = ["unique_id"]')}
        origin = self.reporting(proxied=True)
        self.balance(*(self.upstream(name, pool, [origin], f"send_proxy_protocol = {version}")
                       for name, (pool, version) in cases.items()), listener=PROXIED)
        visitor = self.of("192.0.2.1", 1000)
        for name in cases:
            visitor.ask(upstream=name)
        counters = self.counters()
        for name, reason in (("shared", None), ("mode", "reuse_never"), ("header", "proxy_header")):
            got = {r: counters.sum(Names.RESERVED, upstream=name, reason=r) for r in REASONS}
            self.assertEqual(got, {r: int(r == reason) for r in REASONS})

    def test_the_header_of_a_clients_own_ends_is_its_alone(self):
        """Nobody else could use the connection, so it is not left idle when the client goes; clients who take turns keep
        theirs, however few requests run at once."""
        origin = self.reporting(proxied=True)
        self.balance(self.upstream("app", 'reuse = "always"', [origin], 'send_proxy_protocol = "v1"'))
        visitors = [self.visitor() for _ in range(6)]
        rounds = [[visitor.ask().conn for visitor in visitors] for _ in range(3)]
        self.assertEqual(rounds[1:], rounds[:1] * 2)
        self.assertEqual(len(set(rounds[0])), len(visitors))
        self.assertEqual(self.gauge(state=Names.IDLE), 0)
        visitors[0].leave()
        self.wait_closed(rounds[0][0])
        self.assertEqual(len(origin.open_conns), len(visitors) - 1)

    def test_clients_behind_a_balancer_who_take_turns_keep_their_connections(self):
        """With the default limits, and one request at a time: one idle connection per header."""
        origin = self.reporting(proxied=True)
        self.balance(self.upstream("app", 'reuse = "always"', [origin], 'send_proxy_protocol = "v2"'), listener=PROXIED)
        visitors = [self.of("192.0.2.1", 1000 + number) for number in range(6)]
        rounds = [[visitor.ask().conn for visitor in visitors] for _ in range(3)]
        self.assertEqual(rounds[1:], rounds[:1] * 2)
        self.assertEqual(len(set(rounds[0])), len(visitors))


class NamesCase(TlsCase):
    """Origins whose certificate is for every name under .names.example."""
    VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

    def context(self, version=None, protocols=()) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("origin", "*.names.example"))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def tls(self, more: str = "") -> str:
        """TOML of an upstream: what is spoken to its servers."""
        return f'tls = {{ ca = "{self.authority.ca}"{more} }}'


def name_of(host: str) -> str:
    return host.partition(":")[0].rstrip(".").lower()


class TlsNames(NamesCase, ReuseCase):
    """E6: the name that a TLS connection was made with."""
    HOSTS = ("a.names.example", "b.names.example", "A.Names.Example", "a.names.example:8080", "b.names.example.")
    CHECK = ('health = { type = "http", path = "/", host = "check.names.example", interval = "50ms", fast_interval = "50ms",'
             ' timeout = "5s" }')

    def start(self, pool: str = ALWAYS, version=None, sni: str = "", more: str = ""):
        [origin] = self.app(pool, origin={"context": self.context(version)}, more=f"{self.tls(sni)}\n{more}")
        return origin

    def assert_apart(self, origin):
        """Requests came under the name that their connection was made with."""
        for conn in list(origin.connections.values()):
            names = {name_of(seen.fields["host"]) for seen in conn.seen}
            self.assertEqual(names, {conn.sni and name_of(conn.sni)} if conn.seen else set())

    def crowd(self, hosts, rounds: int = 20):
        """Visitors that ask for these hosts, all at once, again and again."""
        rng = random.Random(5)
        visitors = [self.visitor() for _ in range(6)]
        for _ in range(rounds):
            asked = [rng.choice(hosts) for _ in visitors]
            for visitor, host in zip(visitors, asked):
                visitor.begin(rng.choice(("", "?size=20000", "slow?ms=1")), host=host)
            for visitor, host in zip(visitors, asked):
                answer = visitor.end()
                self.assertEqual(answer.status, 200, answer.response.body)
                self.assertEqual(name_of(answer.response.get("x-sni")), name_of(host))

    def test_names_of_requests_interleave_and_connections_do_not(self):
        for version in self.VERSIONS:
            with self.subTest(version=version.name):
                origin = self.start(f"{ALWAYS}\nmax_requests_per_connection = 5", version)
                self.crowd(self.HOSTS)
                self.assert_apart(origin)
                self.assertGreater(sum(conn.resumed for conn in origin.connections.values()), 0)
                self.balancer.stop()

    def test_equal_names_share(self):
        origin = self.start()
        names = {self.guest(host=host).conn for host in (*self.HOSTS[::-1], *self.HOSTS)}
        self.assertEqual(names, set(origin.connections))
        self.assertEqual(len(names), 2)

    def test_no_session_is_resumed_under_another_name(self):
        """haproxy 5702009c8. The first connection of a name has no session to resume, whatever other names have; the
        second one has the first one's."""
        for version in self.VERSIONS:
            with self.subTest(version=version.name):
                origin = self.start(version=version)
                for number in range(8):
                    host = f"n{number}.names.example"
                    self.guest(host=host)
                    first, second = self.visitor(), self.visitor()
                    token = first.begin("stall", host=host)
                    wait_until(lambda: origin.attempts(token))
                    second.ask(host=host)  # The first connection is in use.
                    origin.release(token)
                    first.end()
                    conns = [conn for conn in origin.connections.values() if conn.sni == host]
                    self.assertEqual([conn.resumed for conn in conns], [False, True])
                self.balancer.stop()

    def test_checks_have_a_name_of_their_own(self):
        for version in self.VERSIONS:
            with self.subTest(version=version.name):
                origin = self.start(version=version, more=self.CHECK)
                wait_until(lambda: len(origin.log) >= 5)  # Their sessions could be resumed by now.
                for host in self.HOSTS[:2]:
                    self.assertEqual(self.guest(host=host).response.get("x-resumed"), "0")
                self.crowd(self.HOSTS)
                checks = len(origin.log)
                wait_until(lambda: len(origin.log) >= checks + 5)
                self.assert_apart(origin)
                checks = [conn for conn in origin.connections.values() if self.is_check(conn)]
                self.assertEqual({conn.sni for conn in checks}, {"check.names.example"})
                others = [conn for conn in origin.connections.values() if conn.seen and not self.is_check(conn)]
                self.assertNotIn("check.names.example", {conn.sni for conn in others})
                self.balancer.stop()

    def test_a_configured_name_is_shared_by_all_hosts(self):
        origin = self.start(sni=', sni = "fixed.names.example"')
        for host in self.HOSTS:
            self.assertEqual(self.guest(host=host).response.get("x-sni"), "fixed.names.example")
        self.assertEqual(len(origin.connections), 1)

    def test_a_configured_name_and_hosts_as_part_of_the_key(self):
        origin = self.start(f'{ALWAYS}\nkey = ["request.host"]', sni=', sni = "fixed.names.example"')
        conns = {host: {self.guest(host=host).conn for _ in range(3)} for host in ("a.names.example", "b.names.example")}
        self.assertEqual([len(names) for names in conns.values()], [1, 1])
        self.assertEqual(len(origin.connections), 2)
        self.assertEqual({conn.sni for conn in origin.connections.values()}, {"fixed.names.example"})


class NamesOverHttp2(NamesCase, Case):
    """E6 with servers that speak HTTP/2: requests for one name share a connection, at once; those for two never do."""
    TWO = ("a.names.example", "b.names.example")
    CHOICES = ('["h2"]', '["h2", "http/1.1"]')

    def setUp(self):
        super().setUp()
        self.clients: list[H2] = []

    def start(self, script=None, *settings, pool: str = ALWAYS, choice: str = '["h2"]', sni: str = "", more: str = "",
              version=None) -> H2Origin:
        origin = H2Origin(script or self.answer, *settings, context=self.context(version, ["h2"]))
        self.addCleanup(origin.stop)
        self.page = free_port()
        self.balancer, self.port = self.http(
            origin.port, upstream=f"http_versions = {choice}\n{self.tls(sni)}\n{more}\n[upstreams.app.pool]\n{pool}",
            rest=f'[metrics]\nprometheus = "127.0.0.1:{self.page}"\n')
        return origin

    @staticmethod
    def answer(connection: Connection, stream: int, fields: dict, body: bytes):
        connection.answer(stream, fields[":authority"].encode(), [("x-sni", connection.name or "")])

    def ask(self, client, host: str):
        """One request of an HTTP/1.1 or HTTP/2 client."""
        if isinstance(client, H2):
            answer = client.get(authority=host)
        else:
            client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = client.response()
        self.assertEqual((answer.status, name_of(bytes(answer.body).decode())), (200, name_of(host)))
        self.assertEqual(name_of(answer.get("x-sni")), name_of(host))

    def http2_client(self) -> H2:
        client = H2(self.port)
        self.addCleanup(client.close)
        self.clients.append(client)
        return client

    def stop(self):
        """Before the end of the test. Clients go first: the balancer waits for those of HTTP/2 to take their leave."""
        for client in self.clients:
            client.close()
        self.balancer.stop()

    def connections(self, origin: H2Origin) -> dict[str, list[Connection]]:
        """By name; each carried requests for it only."""
        found: dict[str, list[Connection]] = {}
        for connection in origin.connections:
            asked = {name_of(fields[":authority"]) for fields in connection.requests.values()}
            if not asked:  # A check's that the end of the test has cut.
                continue
            self.assertEqual(asked, {name_of(connection.name)})
            found.setdefault(name_of(connection.name), []).append(connection)
        return found

    def test_names_of_requests_interleave_and_connections_do_not(self):
        for choice in self.CHOICES:
            with self.subTest(choice=choice):
                origin = self.start(choice=choice)
                clients = [self.client(self.port), self.http2_client(), self.client(self.port), self.http2_client()]
                for _ in range(5):
                    for client in clients:
                        for host in TlsNames.HOSTS:
                            self.ask(client, host)
                found = self.connections(origin)
                self.assertEqual({name: len(conns) for name, conns in found.items()}, dict.fromkeys(self.TWO, 1))
                self.stop()

    def test_requests_at_once(self):
        """Those for names without a connection wait for the one of their name, too."""
        for choice in self.CHOICES:
            with self.subTest(choice=choice):
                origin = self.start(choice=choice)
                for _ in range(3):
                    client = self.http2_client()
                    hosts = [f"n{number % 4}.names.example" for number in range(40)]
                    streams = [client.request(authority=host) for host in hosts]
                    for stream, host in zip(streams, hosts):
                        answer = client.response(stream)
                        self.assertEqual((bytes(answer.body).decode(), answer.get("x-sni")), (host, host))
                found = self.connections(origin)
                self.assertEqual(set(found), set(hosts))
                if choice == self.CHOICES[0]:  # By ALPN, nobody knows before the first answer that one is enough.
                    self.assertEqual([len(conns) for conns in found.values()], [1] * 4)
                self.stop()

    def test_no_session_is_resumed_under_another_name(self):
        release = threading.Event()

        def script(connection, stream, fields, body):
            if fields[":path"] == "/wait":
                release.wait(20)
            self.answer(connection, stream, fields, body)
        for version in self.VERSIONS:
            with self.subTest(version=version.name):
                origin = self.start(script, (h2.MAX_STREAMS, 1), version=version)
                client = self.http2_client()
                for number in range(4):
                    host = f"n{number}.names.example"
                    release.clear()
                    self.ask(client, host)
                    waits = client.request("/wait", authority=host)
                    wait_until(lambda: origin.connections[-1].ids[-1:] == [3])
                    self.ask(client, host)  # The first connection takes one at a time.
                    release.set()
                    client.response(waits)
                    self.assertEqual([conn.resumed for conn in self.connections(origin)[host]], [False, True])
                self.stop()

    def test_checks_have_a_name_of_their_own(self):
        origin = self.start(more=TlsNames.CHECK)
        wait_until(lambda: len(origin.connections) >= 5)
        clients = [self.client(self.port), self.http2_client()]
        for _ in range(5):
            for client in clients:
                for host in TlsNames.HOSTS:
                    self.ask(client, host)
        before = len(origin.connections)
        wait_until(lambda: len(origin.connections) >= before + 3)
        self.stop()
        found = self.connections(origin)
        self.assertEqual(set(found), {*self.TWO, "check.names.example"})
        self.assertEqual([(len(found[name]), found[name][0].resumed) for name in self.TWO], [(1, False)] * 2)

    def test_a_configured_name_is_shared_by_all_hosts(self):
        for choice in self.CHOICES:
            with self.subTest(choice=choice):
                origin = self.start(choice=choice, sni=', sni = "fixed.names.example"')
                clients = [self.client(self.port), self.http2_client()]
                for client in clients:
                    for host in self.TWO:
                        if isinstance(client, H2):
                            answer = client.get(authority=host)
                        else:
                            client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                            answer = client.response()
                        self.assertEqual((bytes(answer.body).decode(), answer.get("x-sni")), (host, "fixed.names.example"))
                self.assertEqual(len(origin.connections), 1)
                self.stop()


if __name__ == "__main__":
    unittest.main()
