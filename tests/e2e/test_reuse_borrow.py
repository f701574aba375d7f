"""Connections that move from one shard to another: the same rules hold for them as for a shard's own.

The kernel spreads the clients over 8 shards, so that nearly every request finds its own shard without an idle
connection and another one with some. A connection may be lent when it was idle for a while (20 ms)."""
import time

from reuse_support import KEEP, Names, ReuseCase
from support import wait_until

SPREAD = {"shards": 8, "listener": 'accept = "reuseport"'}


class Borrow(ReuseCase):
    def pool(self, mode: str, more: str = "") -> str:
        return f'reuse = "{mode}"\nshare = "borrow"\n{more}\n{KEEP}'

    def pace(self):
        """Long enough for what is idle to be lent; if it is not, nothing here fails but assert_borrowed()."""
        time.sleep(0.03)

    def borrowed(self) -> int:
        return self.counters().sum(Names.REUSE, how=Names.BORROWED)

    def test_one_connection_serves_all_shards(self):
        [origin] = self.app(self.pool("always"), **SPREAD)
        for _ in range(40):
            self.guest("?size=5000", "POST", b"body" * 100)
            self.pace()
        self.assertLessEqual(len(origin.connections), 4)
        self.assertGreater(self.borrowed(), 10)

    def no_first_request_borrows(self, mode: str, method: str):
        """All that is idle served one request only, so that the mode lets no first request have it."""
        self.app(self.pool(mode), **SPREAD)
        for _ in range(30):
            self.assertEqual(self.guest("", method, b"body" if method == "POST" else None).req, 1)
            self.pace()
        self.assertEqual(self.borrowed(), 0)

    def test_safe_lets_no_first_request_borrow(self):
        self.no_first_request_borrows("safe", "GET")

    def test_aggressive_lets_no_first_request_borrow_an_unproven_one(self):
        self.no_first_request_borrows("aggressive", "GET")

    def test_auto_lets_no_first_request_borrow_that_cannot_be_repeated(self):
        self.no_first_request_borrows("auto", "POST")

    def test_auto_lets_first_requests_borrow_that_can_be(self):
        [origin] = self.app(self.pool("auto"), **SPREAD)
        for _ in range(40):
            self.guest()
            self.pace()
        self.assertLessEqual(len(origin.connections), 4)

    def test_never_borrows_nothing(self):
        self.no_first_request_borrows("never", "GET")

    def test_later_requests_borrow_in_every_mode(self):
        [origin] = self.app(self.pool("safe"), **SPREAD)
        for _ in range(40):
            visitor = self.visitor()
            visitor.local()
            visitor.ask()
            visitor.leave()
            self.pace()
        self.assertLessEqual(len(origin.connections), 4)

    def test_a_borrowed_one_that_is_dead_costs_a_get_nothing(self):
        self.counts_exact = False
        for how in ("fin", "rst"):
            self.dead(how, "GET", None)

    def test_a_borrowed_one_that_is_dead_costs_a_post_a_502_and_is_not_repeated(self):
        self.counts_exact = False
        self.dead("fin", "POST", b"body")

    def dead(self, how: str, method: str, body):
        origin = self.reporting(f"{how}-{method}")
        self.balance(self.upstream("app", self.pool("always"), [origin]), **SPREAD)
        for i in range(30):
            self.guest()
            self.pace()
            origin.doom(how)
            answer = self.guest("", method, body)
            attempts = origin.of(answer.token)
            if method == "GET":
                self.assertEqual(answer.status, 200, f"{how}, {i}: {attempts}")
            else:
                self.assertEqual(len(attempts), 1)
                self.assertEqual(answer.status, 502 if attempts[0].req > 1 else 200)
        self.assertGreater(self.borrowed(), 5)
        self.balancer.stop()

    def test_one_that_ends_while_it_could_be_lent_is_not(self):
        self.counts_exact = False
        [origin] = self.app(self.pool("always"), **SPREAD)
        for i in range(40):
            self.guest(f"fin-idle?ms={(15, 20, 25, 30)[i % 4]}")
            self.pace()
            self.assertEqual(self.guest().status, 200)

    def test_bytes_on_one_that_moved_are_nobodys_answer(self):
        self.counts_exact = False
        [origin] = self.app(self.pool("always"), **SPREAD)
        for _ in range(20):
            name = self.guest().conn
            self.pace()
            name = self.guest().conn  # Most likely on another shard.
            origin.inject(name, "response")
            self.wait_closed(name)
            self.assertEqual(self.guest().status, 200)

    def test_limits_of_a_connection_move_with_it(self):
        self.app(self.pool("always", "max_requests_per_connection = 3"), **SPREAD)
        reqs = []
        for _ in range(30):
            reqs.append(self.guest().req)
            self.pace()
        self.assertEqual(set(reqs), {1, 2, 3})
        self.assertGreater(self.borrowed(), 5)

    def test_a_hint_of_the_server_moves_with_it(self):
        [origin] = self.app(self.pool("always", 'idle_timeout = "10m"'), **SPREAD)
        self.guest("keepalive-hint?timeout=2")
        self.pace()
        for _ in range(5):
            name = self.guest().conn
            self.pace()
        for conn in list(origin.open_conns):  # Those of the hint; others are as they were made.
            if any(seen.command == "keepalive-hint" for seen in conn.seen):
                self.wait_closed(conn.name)
                self.assertEqual(conn.closed_by, "rst")

    def test_caps_hold_while_connections_move(self):
        [origin] = self.app(self.pool("always", "max_connections_per_server = 3"),
                            more='timeouts = { queue = "60s" }', **SPREAD)
        for _ in range(30):
            visitors = [self.visitor() for _ in range(6)]
            for visitor in visitors:
                visitor.begin()
            for visitor in visitors:
                self.assertEqual(visitor.end().status, 200)
                visitor.leave()
            self.pace()
        self.assertLessEqual(origin.peak, 3)

    def test_the_limit_of_idle_ones_holds_while_they_move(self):
        [origin] = self.app(self.pool("always", "max_idle_per_server = 2"), **SPREAD)
        for _ in range(20):
            self.park(4)
            self.pace()
            self.guest()
            wait_until(lambda: origin.established <= 2)

    def test_logins_on_borrowed_connections_stay_private(self):
        self.app(self.pool("always"), **SPREAD)
        for i in range(20):
            self.guest()
            self.pace()
            visitor = self.visitor()
            first = visitor.ask("ntlm") if i % 2 else visitor.ask(fields="Authorization: NTLM TlRMTQ==\r\n")
            self.pace()
            self.assertNotEqual(self.guest().conn, first.conn)
            self.assertEqual(visitor.ask().conn, first.conn)
            visitor.leave()
            self.wait_closed(first.conn)

    def test_a_client_that_leaves_while_its_shard_asks_around(self):
        self.counts_exact = self.closes_exact = False
        self.app(self.pool("always"), **SPREAD)
        for i in range(60):
            self.guest()
            self.pace()
            visitor = self.visitor()
            visitor.begin("?size=20000")
            (visitor.leave if i % 2 else visitor.abort)()
        self.assertEqual(self.guest().status, 200)
