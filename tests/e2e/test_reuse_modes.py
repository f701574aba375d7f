"""Which request may use which server connection: servers, modes, private connections (E1 to E4)."""
import random

from reuse_support import KEEP, Names, ReuseCase
from support import free_port, wait_until


class Servers(ReuseCase):
    """E1: a connection is never used for another server than the one it was made to."""

    def test_one_client_one_connection_per_server_ordinals_without_gaps(self):
        self.app(KEEP, count=2)
        visitor = self.visitor()
        answers = [visitor.ask() for _ in range(20)]
        for origin in self.origins:
            mine = [answer for answer in answers if answer.server == origin.name]
            self.assertEqual([answer.req for answer in mine], list(range(1, 11)))
            self.assertEqual({self.access_of(answer.token)["server"] for answer in mine}, {origin.name})
            self.assertEqual(len(origin.connections), 1)

    def test_a_server_that_refuses_does_not_shift_the_others(self):
        dead = self.reporting("dead", free_port())
        dead.kill()
        live = [self.reporting(), self.reporting()]
        self.balance(self.upstream("app", KEEP, [live[0], dead, live[1]]))
        visitors = [self.visitor() for _ in range(3)]
        for i in range(30):
            answer = visitors[i % 3].ask()
            self.assertEqual((answer.status, self.access_of(answer.token)["server"]), (200, answer.server))
        self.assertEqual({answer.server for answer in self.answers}, {origin.name for origin in live})

    def test_a_server_that_dies_between_two_requests_does_not_mix_up_the_others(self):
        self.counts_exact = False
        origins = self.app(KEEP, count=3)
        visitor = self.visitor()
        for i in range(30):
            if i == 10:
                origins[1].kill()
            if i == 20:
                origins[1].restart()
            answer = visitor.ask()
            self.assertEqual((answer.status, self.access_of(answer.token)["server"]), (200, answer.server))


class Modes(ReuseCase):
    """E2: the table of modes. Unproven: served one request so far. Proven: served a second one."""
    NEW, UNPROVEN, PROVEN = "new", "unproven", "proven"
    # (mode, first request of its client, what is idle) -> what the request gets
    FIRST = {
        "safe": {"": NEW, "u": NEW, "p": NEW, "up": NEW},
        "aggressive": {"": NEW, "u": NEW, "p": PROVEN, "up": PROVEN},
        "always": {"": NEW, "u": UNPROVEN, "p": PROVEN, "up": PROVEN},
    }
    LATER = {"": NEW, "u": UNPROVEN, "p": PROVEN, "up": UNPROVEN}  # in every mode
    IDEMPOTENT = {"GET": True, "HEAD": True, "PUT": True, "DELETE": True, "POST": False, "PATCH": False}

    def expected(self, mode: str, first: bool, idle: str, method: str) -> str:
        if not first:
            return self.LATER[idle]
        if mode == "auto":  # Like "always" for what Ringway can repeat, like "safe" for the rest.
            mode = "always" if self.IDEMPOTENT[method] else "safe"
        return self.FIRST[mode][idle]

    def test_every_row_of_the_table(self):
        rows = [(mode, first, idle, method) for mode in ("safe", "aggressive", "always", "auto")
                for first in (True, False) for idle in ("", "u", "p", "up")
                for method in (self.IDEMPOTENT if mode == "auto" else ("GET", "POST"))]
        origin = self.reporting()
        self.balance(*(self.upstream(f"u{i}", f'reuse = "{row[0]}"\n{KEEP}', [origin]) for i, row in enumerate(rows)))
        for i, (mode, first, idle, method) in enumerate(rows):
            with self.subTest(mode=mode, first=first, idle=idle, method=method):
                upstream = f"u{i}"
                helpers = [self.visitor() for _ in idle]
                conns = dict.fromkeys(self.park(len(idle), upstream, helpers), self.UNPROVEN)
                self.assertEqual(len(conns), len(idle))
                if "p" in idle:
                    conns[helpers[0].ask(upstream=upstream).conn] = self.PROVEN
                self.assertEqual(len(conns), len(idle))
                visitor = self.visitor()
                if not first:
                    visitor.local()
                answer = visitor.ask(method=method, body=b"" if method in ("POST", "PATCH") else None, upstream=upstream)
                self.assertEqual(conns.get(answer.conn, self.NEW), self.expected(mode, first, idle, method))
                self.assertEqual(answer.req, {self.NEW: 1, self.UNPROVEN: 2, self.PROVEN: 3}[
                    conns.get(answer.conn, self.NEW)])

    def test_requests_of_http2_are_never_first_ones(self):
        """Their client knows which of them the server has looked at."""
        rows = [(mode, method) for mode in ("safe", "aggressive", "always", "auto") for method in ("GET", "POST")]
        origin = self.reporting()
        self.balance(*(self.upstream(f"u{i}", f'reuse = "{row[0]}"\n{KEEP}', [origin]) for i, row in enumerate(rows)))
        for i, (mode, method) in enumerate(rows):
            with self.subTest(mode=mode, method=method):
                [unproven] = self.park(1, f"u{i}")
                answer = self.http2_visitor().ask(method=method, upstream=f"u{i}")
                self.assertEqual((answer.conn, answer.req), (unproven, 2))

    def test_a_first_request_with_a_body_that_may_be_too_long_to_be_kept_gets_a_connection_of_its_own(self):
        self.app(f'reuse = "auto"\n{KEEP}')
        self.guest()
        self.assertEqual(self.guest(method="PUT", body=b"body" * 5000).req, 1)
        self.assertEqual(self.guest(method="PUT", body=b"body", chunked=True).req, 1)
        self.assertEqual(self.guest(method="PUT", body=b"body").req, 2)
        self.assertEqual(self.guest().req, 3)

    def test_a_length_of_0_is_no_body(self):
        self.app(f'reuse = "auto"\n{KEEP}')
        self.guest()
        self.assertEqual(self.guest(method="DELETE", body=b"").req, 2)
        self.assertEqual(self.guest(method="POST", body=b"").req, 1)

    def test_a_crowd_keeps_to_the_rules(self):
        modes = ("never", "safe", "aggressive", "always", "auto")
        origins = [self.reporting(), self.reporting()]
        self.balance(*(self.upstream(mode, f'reuse = "{mode}"\n{KEEP}', origins) for mode in modes), shards=2)
        rng = random.Random(3)
        for mode in modes:
            firsts = self.crowd(mode, rng)
            reqs = {answer.req for answer in firsts}
            if mode in ("never", "safe"):
                self.assertEqual(reqs, {1}, mode)
            elif mode == "aggressive":
                self.assertNotIn(2, reqs, mode)
            self.assertGreater(max(reqs), 2 if mode not in ("never", "safe") else 0, mode)

    def crowd(self, mode: str, rng: random.Random) -> list:
        """Clients that come, have up to two requests under way each, and leave. Their first answers."""
        firsts, here = [], []
        for _ in range(400):
            if len(here) < 8 and rng.random() < 0.3:
                here.append(self.visitor())
            if not here:
                continue
            visitor = rng.choice(here)
            if visitor.pending:
                answer = visitor.end()
                if answer.token.split(".")[0] not in {first.client for first in firsts}:
                    firsts.append(answer)
                if rng.random() < 0.2:
                    visitor.leave()
                    here.remove(visitor)
            else:
                visitor.begin(rng.choice(["", "?size=3000", "slow?ms=1", "?size=30000&chunked=1"]),
                              *rng.choice([("GET", None), ("POST", b"body" * 10)]), upstream=mode)
        for visitor in here:
            if visitor.pending:
                visitor.end()
        return firsts


class Never(ReuseCase):
    """E3: reuse = "never": a client has its own connections, and keeps them while it is there."""

    def test_no_connection_serves_two_clients_or_two_upstreams(self):
        origin = self.reporting()
        self.balance(self.upstream("own", f'reuse = "never"\n{KEEP}', [origin]),
                     self.upstream("all", f'reuse = "always"\n{KEEP}', [origin]))
        visitors = [self.visitor() for _ in range(2)]
        own = {}
        for i in range(10):
            for visitor in visitors:
                answer = visitor.ask(upstream="own")
                self.assertEqual(answer.conn, own.setdefault(visitor.tag, answer.conn))
                self.assertEqual(answer.req, i + 1)
                self.assertNotIn(visitor.ask(upstream="all").conn, own.values())
        self.assertEqual(len(set(own.values())), 2)

        visitors[0].leave()
        self.wait_closed(own["c0"])
        self.assertEqual(visitors[1].ask(upstream="own").conn, own["c1"])
        self.assertNotIn(self.guest(upstream="own").conn, own.values())
        self.assertNotIn(self.guest(upstream="all").conn, own.values())

    def test_a_client_keeps_one_connection_per_server(self):
        self.app(f'reuse = "never"\n{KEEP}', count=5)
        visitor = self.visitor()
        rounds = [[visitor.ask().conn for _ in range(5)] for _ in range(3)]
        self.assertEqual(len(set(rounds[0])), 5)
        self.assertEqual(rounds[1], rounds[0])
        self.assertEqual(rounds[2], rounds[0])
        self.assertEqual(self.gauge(state="private_idle"), 5)
        self.assertEqual(self.counters().by(Names.RESERVED, "reason"), {"reuse_never": 5})

    def test_requests_at_once_of_one_client(self):
        """HTTP/2: each has a connection of its own, all are the client's, and go with it."""
        [origin] = self.app(f'reuse = "never"\n{KEEP}')
        visitor, other = self.http2_visitor(), self.http2_visitor()
        begun = [visitor.begin("stall") for _ in range(3)]
        wait_until(lambda: len(origin.in_flight) == 3)
        self.assertNotIn(other.ask().conn, [seen.conn for seen in origin.log[:3]])
        origin.release_all()
        own = {visitor.end(one).conn for one in begun}
        self.assertEqual(len(own), 3)
        for _ in range(5):
            self.assertIn(visitor.ask().conn, own)
            self.assertNotIn(other.ask().conn, own)
        visitor.leave()
        for name in own:
            self.wait_closed(name)
        self.assertEqual(other.ask().req, 7)

    def test_a_client_of_more_servers_than_can_be_kept_is_still_served_alone(self):
        self.app(f'reuse = "never"\n{KEEP}', count=31)  # Odd: the two come to every server in turn.
        first, second = self.visitor(), self.visitor()
        for _ in range(100):
            self.assertEqual((first.ask().status, second.ask().status), (200, 200))

    def test_a_client_that_aborts_takes_its_connection_along(self):
        self.counts_exact = False
        [origin] = self.app(f'reuse = "never"\n{KEEP}')
        visitor = self.visitor()
        name = visitor.ask().conn
        token = visitor.begin("stall")
        wait_until(lambda: origin.attempts(token))
        visitor.abort()
        self.wait_closed(name)
        self.assertNotEqual(self.guest().conn, name)


class Logins(ReuseCase):
    """E4: NTLM and Negotiate authenticate a connection, not a request: it belongs to one client from then on."""
    POOL = f'reuse = "always"\n{KEEP}'

    def assert_private(self, visitor, name: str):
        """Nobody else gets the connection, its client does, and it goes when the client goes."""
        others = [self.visitor() for _ in range(3)]
        for other in others:
            for _ in range(2):
                self.assertNotEqual(other.ask().conn, name)
        for _ in range(3):
            answer = visitor.ask()
            self.assertEqual(answer.conn, name)
        visitor.leave()
        self.wait_closed(name)
        self.assertNotEqual(self.guest().conn, name)

    def test_challenges(self):
        self.app(self.POOL)
        for command in ("ntlm?scheme=NTLM", "ntlm?scheme=ntlm", "ntlm?scheme=Negotiate", "ntlm?scheme=NEGOTIATE",
                        "ntlm?scheme=Nego2", "ntlm?scheme=Negotiate%20YII=", "ntlm?scheme=NTLM&also=1",
                        "ntlm?scheme=NTLM&status=407", "ntlm?scheme=Negotiate&status=407",
                        "ntlm?scheme=Nego2&status=407&also=1"):
            with self.subTest(command=command):
                visitor = self.visitor()
                visitor.ask()
                answer = visitor.ask(command)
                self.assertIn(answer.status, (401, 407))
                self.assert_private(visitor, answer.conn)

    def test_a_login_in_the_first_request_without_a_challenge(self):
        self.app(self.POOL)
        for field in ("Authorization: NTLM TlRMTVNTUAAB", "Authorization: Negotiate YII=", "authorization: nego2 YII=",
                      "Proxy-Authorization: NTLM TlRMTVNTUAAB", "Proxy-Authorization: negotiate YII="):
            with self.subTest(field=field):
                visitor = self.visitor()
                # The balancer may use a shared connection for it, or a fresh one; not share it afterwards.
                answer = visitor.ask(fields=f"{field}\r\n")
                self.assertEqual(answer.status, 200)
                self.assert_private(visitor, answer.conn)

    def test_a_login_among_requests_at_once(self):
        """HTTP/2 to the client: one of its requests gets the connection with the login, the others get others."""
        [origin] = self.app(self.POOL)
        visitor, other = self.http2_visitor(), self.visitor()
        for command, fields in (("ntlm", ()), ("", [("authorization", "Negotiate YII=")])):
            with self.subTest(command=command):
                name = visitor.ask(command, fields=fields).conn
                begun = [visitor.begin("stall") for _ in range(3)]
                wait_until(lambda: len(origin.in_flight) == 3)
                self.assertNotEqual(other.ask().conn, name)
                origin.release_all()
                self.assertEqual([visitor.end(one).conn for one in begun].count(name), 1)
                self.assertEqual(visitor.ask().conn, name)
                self.assertNotEqual(other.ask().conn, name)
                visitor.leave()
                self.wait_closed(name)
                visitor = self.http2_visitor()

    def test_other_logins_share(self):
        self.app(self.POOL)
        name = self.guest("ntlm?scheme=Basic").conn
        for field in ("Authorization: Basic TlRMTQ==", "Authorization: Bearer NTLM", "X-Authorization: NTLM abc"):
            self.assertEqual(self.guest(fields=f"{field}\r\n").conn, name)

    def test_challenges_of_two_clients_on_connections_that_were_shared(self):
        """200, 200, 401, 401: what was shared before becomes the second client's own."""
        self.app(self.POOL)
        first, second = self.visitor(), self.visitor()
        name = first.ask().conn
        self.assertEqual(second.ask().conn, name)
        self.assertEqual(first.ask("ntlm").conn, name)
        other = second.ask("ntlm").conn
        self.assertNotEqual(other, name)
        for _ in range(3):
            self.assertEqual((first.ask().conn, second.ask().conn), (name, other))
        self.assert_private(first, name)
        self.assert_private(second, other)

    def test_the_client_returns_to_the_server_that_knows_it(self):
        self.app(self.POOL, count=3)
        visitor = self.visitor()
        answer = visitor.ask("ntlm")
        for _ in range(6):
            again = visitor.ask(fields="Authorization: NTLM TlRMTVNTUAAD\r\n")
            self.assertEqual((again.server, again.conn), (answer.server, answer.conn))
        self.guest(fields="Authorization: NTLM TlRMTVNTUAAD\r\n")
        self.assertEqual(self.counters().by(Names.RESERVED, "reason"), {"challenge": 1, "login": 1})

    def test_a_handshake_that_the_server_closes_starts_again_alone(self):
        self.app(self.POOL)
        visitor = self.visitor()
        name = visitor.ask("ntlm").conn
        self.conn(name).origin.call(lambda: self.conn(name).close("fin"))
        wait_until(lambda: self.gauge(state=Names.PRIVATE) == 0)
        self.assertNotEqual(visitor.ask("ntlm").conn, name)
