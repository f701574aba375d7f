"""Connections that are no good any more: stale, spoken on while idle, cut short, timed out, gone (E7 to E9, E15 to E17)."""
import pathlib
import random
import socket
import tempfile
import time

import support
from reporting_origin import INJECTIONS
from reuse_support import KEEP, Names, ReuseCase
from support import Balancer, wait_until
from test_reuse_keys import NamesCase

ALWAYS = f'reuse = "always"\n{KEEP}'


class Stale(ReuseCase):
    """E7: the server ends a reused connection when the request arrives, before a byte of an answer."""
    counts_exact = False
    DEATHS = ("read-then-fin", "rst-before-response")
    REPEATED = {"GET": None, "HEAD": None, "OPTIONS": None, "DELETE": None, "PUT": b""}
    NOT_REPEATED = {"POST": b"body", "PATCH": b"body"}

    def test_what_may_be_repeated_is_repeated_once(self):
        [origin] = self.app(KEEP)
        for command in self.DEATHS:
            for method, body in self.REPEATED.items():
                with self.subTest(command=command, method=method):
                    visitor = self.visitor()
                    visitor.ask()
                    answer = visitor.ask(command, method, body)
                    self.assertEqual(answer.status, 200)
                    attempts = origin.of(answer.token)
                    self.assertEqual([seen.req > 1 for seen in attempts], [True, False])
                    self.assertEqual(self.access_of(answer.token)["status"], 200)
        now, tries = self.counters(), len(self.DEATHS) * len(self.REPEATED)
        self.assertEqual(now.sum(Names.RETRIES), tries)
        self.assertEqual(now.sum(Names.OUTCOMES, cause="stale", outcome="answered"), tries)

    def test_what_may_not_is_sent_once_and_answered_with_502_and_a_cause(self):
        [origin] = self.app(KEEP)
        for command in self.DEATHS:
            for method, body in self.NOT_REPEATED.items():
                for chunked in (False, True):
                    with self.subTest(command=command, method=method, chunked=chunked):
                        visitor = self.visitor()
                        visitor.ask()
                        answer = visitor.ask(command, method, body, chunked=chunked)
                        self.assertEqual((answer.status, answer.conn), (502, None))
                        self.assertEqual(origin.attempts(answer.token), 1)
                        line = self.access_of(answer.token)
                        self.assertEqual((line["status"], line["reused"]), (502, True))
                        self.assertTrue(line["cause"])
                        self.assertEqual(visitor.ask().status, 200)  # The client's connection goes on.
        denied = len(self.DEATHS) * len(self.NOT_REPEATED) * 2
        self.assertEqual((self.counters().sum(Names.DENIED % "method"), self.counters().sum(Names.RETRIES)), (denied, 0))

    def test_a_put_with_a_body_is_repeated_whole(self):
        [origin] = self.app(KEEP)
        for command in self.DEATHS:
            for chunked in (False, True):
                with self.subTest(command=command, chunked=chunked):
                    visitor = self.visitor()
                    visitor.ask()
                    answer = visitor.ask(command, "PUT", b"body" * 1000, chunked=chunked)
                    self.assertEqual((answer.status, origin.attempts(answer.token)), (200, 2))
                    self.assertEqual(visitor.ask().status, 200)

    def test_a_put_with_a_body_too_long_to_be_kept_is_not_repeated(self):
        [origin] = self.app(KEEP)
        for command in self.DEATHS:
            for chunked in (False, True):
                with self.subTest(command=command, chunked=chunked):
                    visitor = self.visitor()
                    visitor.ask()
                    answer = visitor.ask(command, "PUT", b"body" * 5000, chunked=chunked)
                    self.assertEqual((answer.status, origin.attempts(answer.token)), (502, 1))
        self.assertEqual(self.counters().sum(Names.DENIED % "body"), len(self.DEATHS) * 2)

    def test_a_fresh_connection_proves_nothing_so_nothing_is_repeated(self):
        [origin] = self.app(KEEP)
        for command in self.DEATHS:
            for method, body in {**self.REPEATED, **self.NOT_REPEATED}.items():
                with self.subTest(command=command, method=method):
                    answer = self.guest(command, method, body)
                    self.assertEqual((answer.status, origin.attempts(answer.token)), (502, 1))

    def all_dead(self, how: str):
        [origin] = self.app(ALWAYS)
        self.assertEqual(len(set(self.park(12))), 12)
        origin.doom(how)
        answer = self.guest()
        self.assertEqual(answer.status, 200)
        attempts = origin.of(answer.token)
        self.assertEqual([seen.req > 1 for seen in attempts], [True, False])  # The first one takes the others along.
        wait_until(lambda: self.counters().sum(Names.CLOSES, reason="stale") == 12)

    def test_all_idle_ones_ended_at_once_cost_one_further_try(self):
        self.all_dead("fin")

    def test_all_idle_ones_reset_at_once_cost_one_further_try(self):
        self.all_dead("rst")

    def test_an_idle_one_that_was_closed_is_not_used(self):
        [origin] = self.app(ALWAYS)
        for how in ("fin", "rst"):
            self.assertEqual(len(set(self.park(5))), 5)
            origin.close_idle(how)
            wait_until(lambda: self.gauge() == 0)
            answer = self.guest(method="POST", body=b"body")
            self.assertEqual((answer.status, answer.req), (200, 1))
            origin.close_idle()
            wait_until(lambda: self.gauge() == 0)

    def test_closing_in_the_very_moment_never_fails_a_get_and_never_doubles_a_post(self):
        [origin] = self.app(ALWAYS)
        rng = random.Random(7)
        visitors = [self.visitor() for _ in range(4)]
        statuses = {"GET": [], "POST": []}
        for _ in range(300):
            visitor = rng.choice(visitors)
            visitor.ask(f"fin-idle?ms={rng.choice((0, 0, 0.1, 0.3, 1))}")
            method = rng.choice(("GET", "POST"))
            answer = visitor.ask("", method, b"body" if method == "POST" else None)
            statuses[method].append(answer.status)
            if method == "POST":
                self.assertLessEqual(origin.attempts(answer.token), 1)
        self.assertEqual(set(statuses["GET"]), {200})
        self.assertLessEqual(set(statuses["POST"]), {200, 502})

    def test_a_server_that_restarts_under_load_loses_no_get(self):
        origins = self.app(ALWAYS, count=2)
        visitors = [self.visitor() for _ in range(8)]
        for i in range(60):
            for visitor in visitors:
                visitor.begin("?size=2000")
            for visitor in visitors:
                visitor.end()
            if i % 20 == 10:  # Between two requests of everybody: all its connections die idle.
                origins[i // 20 % 2].kill("fin" if i > 20 else "rst")
            if i % 20 == 15:
                origins[i // 20 % 2].restart()
        self.assertEqual({answer.status for answer in self.answers}, {200})


class Injected(ReuseCase):
    """E8: bytes that no request asked for never become an answer."""

    def test_bytes_while_idle_close_the_connection_and_are_counted(self):
        [origin] = self.app(ALWAYS)
        for count, kind in enumerate(INJECTIONS, 1):
            with self.subTest(kind=kind):
                name = self.guest().conn
                origin.inject(name, kind)
                self.wait_closed(name)
                answer = self.guest()
                self.assertNotEqual(answer.conn, name)
                self.assertEqual((answer.status, answer.req), (200, 1))
                wait_until(lambda: self.counters().sum(Names.CLOSES, reason=Names.UNSOLICITED) == count)

    def test_bytes_on_an_idle_private_connection(self):
        [origin] = self.app('reuse = "never"')
        visitor = self.visitor()
        for count, kind in enumerate(INJECTIONS, 1):
            name = visitor.ask().conn
            origin.inject(name, kind)
            self.wait_closed(name)
            self.assertEqual(visitor.ask().req, 1)
            origin.close_idle()
            wait_until(lambda: self.gauge() == 0)
            self.assertEqual(self.counters().sum(Names.CLOSES, reason=Names.UNSOLICITED), count)

    def test_bytes_right_behind_an_answer(self):
        self.app(ALWAYS)
        visitor = self.visitor()
        for kind in INJECTIONS:
            with self.subTest(kind=kind):
                name = visitor.ask(f"excess?kind={kind}").conn
                self.wait_closed(name)
                self.assertNotEqual(visitor.ask().conn, name)
                self.assertNotEqual(self.guest().conn, name)

    def test_a_408_of_a_server_that_lost_patience_is_nobodys_answer(self):
        """It races with the next request: which may get no answer (a GET does), never this one."""
        self.counts_exact = False
        [origin] = self.app(KEEP)
        for _ in range(20):
            visitor = self.visitor()
            name = visitor.ask("unsolicited?kind=408&ms=0").conn
            self.wait_closed(name)
            self.assertEqual(visitor.ask().status, 200)


class Cut(ReuseCase):
    """E9: an exchange that did not end on both sides leaves a connection that is never used again."""

    def abandon(self, begin, leave) -> str:
        """A request that its client gives up; the connection it was on."""
        visitor = self.visitor()
        token = begin(visitor)
        wait_until(lambda: any(origin.attempts(token) for origin in self.origins))
        leave(visitor)
        [name] = [seen.conn for origin in self.origins for seen in origin.of(token)]
        return name

    def test_clients_that_leave_in_the_middle(self):
        [origin] = self.app(ALWAYS)
        ways = {
            "before the answer": lambda visitor: visitor.begin("stall"),
            "inside the answer": lambda visitor: visitor.begin("trickle?size=50000&at=20000"),
            "inside chunks": lambda visitor: visitor.begin("trickle?size=50000&at=20000&chunked=1"),
            "inside the request": lambda visitor: visitor.begin("", "POST", b"half", promise=100_000),
        }
        bystander = self.visitor()
        for how, begin in ways.items():
            for leave in ("leave", "abort"):
                with self.subTest(how=how, leave=leave):
                    name = self.abandon(begin, lambda visitor: getattr(visitor, leave)())
                    if leave == "leave" and "inside" in how:
                        origin.release_all()  # An end may be half a close; the next bytes tell.
                    self.wait_closed(name)
                    self.assertIn(self.conn(name).closed_by, ("fin", "rst"))
                    for _ in range(3):
                        self.assertNotEqual(bystander.ask("?size=5000").conn, name)
                        self.assertNotEqual(self.guest("?size=5000").conn, name)
                    origin.release_all()

    def test_an_early_answer_leaves_no_rest_of_the_body_for_others(self):
        [origin] = self.app(ALWAYS)
        for rest in (0, 50_000):
            with self.subTest(rest=rest):
                visitor = self.visitor()
                visitor.begin("early?status=413", "POST", b"x" * 1000, promise=100_000)
                answer = visitor.end()
                self.assertEqual(answer.status, 413)
                try:
                    visitor.client.send(b"x" * rest)  # Still not all.
                except OSError:
                    pass
                for _ in range(3):
                    self.assertNotEqual(self.guest().conn, answer.conn)
                visitor.leave()
                self.wait_closed(answer.conn)

    def test_an_early_answer_whose_body_was_sent_anyway_keeps_order(self):
        [origin] = self.app(ALWAYS)
        for _ in range(20):
            visitor = self.visitor()
            answer = visitor.ask("early?status=403", "POST", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(answer.status, 403)
            self.assertEqual(self.guest().status, 200)
        self.assertEqual([seen for seen in origin.log if seen.command == "smuggled"], [])

    def test_a_crowd_that_comes_and_goes_sees_its_own_bytes_only(self):
        self.counts_exact = self.closes_exact = False  # Who leaves before there is a connection.
        self.app(ALWAYS, count=2, shards=2)
        rng = random.Random(11)
        for _ in range(150):
            visitor = self.visitor()
            for _ in range(rng.randrange(1, 4)):
                size = rng.choice((0, 100, 20_000, 300_000))
                visitor.begin(rng.choice(("", "slow", "trickle")) + f"?size={size}&ms={rng.randrange(3)}"
                              f"&at={size // 2}" + rng.choice(("", "&chunked=1")),
                              *rng.choice((("GET", None), ("POST", b"b" * rng.choice((1, 70_000))))))
                if "trickle" in visitor.pending[0][3] or rng.random() < 0.3:
                    visitor.leave() if rng.random() < 0.5 else visitor.abort()
                    break
                visitor.end()  # (a) is judged here.
            else:
                visitor.leave()


class OverTls(NamesCase):
    """The same with servers that speak TLS, where an end may be told and bytes may be the protocol's own."""

    def app(self, *args, more: str = "", **rest):
        more = self.tls(', sni = "origin.names.example"') + f"\n{more}"
        return super().app(*args, more=more, origin={"context": self.context()}, **rest)


class StaleOverTls(OverTls, Stale):
    pass


class InjectedOverTls(OverTls, Injected):
    pass


class CutOverTls(OverTls, Cut):
    pass


class Hints(ReuseCase):
    """E16: what a server says of its own patience shortens ours."""

    def test_an_idle_connection_is_closed_before_the_server_would(self):
        self.app(ALWAYS)
        answer = self.guest("keepalive-hint?timeout=2")
        self.wait_closed(answer.conn)
        self.assertEqual(self.conn(answer.conn).closed_by, "rst")  # Not by the origin; and no TIME_WAIT stays.

    def test_the_shortest_hint_is_kept_to_as_well(self):
        self.app(ALWAYS)
        visitor = self.visitor()
        answer = visitor.ask("keepalive-hint?timeout=1")
        self.wait_closed(answer.conn)
        self.assertEqual(self.conn(answer.conn).closed_by, "rst")
        self.assertEqual(visitor.ask().req, 1)

    def test_a_patience_that_the_server_only_shows_is_learned(self):
        self.app(f'{ALWAYS}\nidle_timeout = "10m"')
        for closed_by in ("origin", "origin", "rst"):  # Twice at the same age is a habit.
            name = self.guest("fin-idle?ms=1500").conn
            self.wait_closed(name)
            self.assertEqual(self.conn(name).closed_by, closed_by)
            wait_until(lambda: self.gauge() == 0)
        now = self.counters()
        self.assertEqual(now.sum(Names.CLOSES, reason="idle_timeout"), 1)
        self.assertEqual(now.sum("ringway_server_idle_at_close_seconds_count"), 2)
        [learned] = [value for name, _, value in now.values if name == "ringway_server_learned_idle_seconds"]
        self.assertTrue(1.1 <= learned <= 1.5, learned)  # Four fifths of what was seen, which may have come late.

    def test_a_slow_pace_around_the_hint_meets_no_dead_connection(self):
        [origin] = self.app(ALWAYS, shards=1)
        visitors = {pause: self.visitor() for pause in (0.9, 1.1, 1.9, 2.1)}
        due = dict.fromkeys(visitors, 0.0)
        begin = time.monotonic()
        while time.monotonic() < begin + 4.5:
            pause = min(due, key=due.get)
            time.sleep(max(0, begin + due[pause] - time.monotonic()))
            due[pause] += pause
            self.assertEqual(visitors[pause].ask("keepalive-hint?timeout=2", "POST", b"body").status, 200)
        self.assertEqual(self.counters().sum(Names.STALE), 0)

    def test_the_number_of_requests_that_the_server_still_takes_is_kept_to(self):
        self.app(ALWAYS)
        visitor = self.visitor()
        first = visitor.ask("keepalive-hint?timeout=60&max=2")
        conns = [visitor.ask("keepalive-hint?timeout=60&max=1").conn, visitor.ask().conn, visitor.ask().conn]
        self.assertEqual([name == first.conn for name in conns], [True, True, False])
        self.wait_closed(first.conn)


class Outage(ReuseCase):
    """E17: nothing waits on a connection from before its server was down."""
    counts_exact = False
    CHECK = ('health = { type = "http", path = "/", interval = "50ms", fast_interval = "50ms", down_interval = "50ms",'
             ' timeout = "300ms", rise = 2, fall = 2 }')

    def test_a_server_that_fell_silent_and_came_back(self):
        [origin] = self.app(ALWAYS, more=self.CHECK)
        before = set(self.park(5))
        origin.freeze()  # Nobody answers, nothing is reset: a host that is gone.
        wait_until(lambda: " is down" in self.balancer.log())
        wait_until(lambda: self.gauge(state=Names.IDLE) == 0)
        self.assertEqual(self.guest().status, 503)
        origin.thaw()
        wait_until(lambda: " is up" in self.balancer.log())
        answers = [self.guest(method="POST", body=b"body") for _ in range(5)]
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertFalse(before & {answer.conn for answer in answers})
        for name in before:
            self.wait_closed(name)

    def test_a_server_that_was_killed_and_came_back(self):
        [origin] = self.app(ALWAYS, more=self.CHECK)
        for how in ("rst", "fin"):
            before = set(self.park(5))
            downs = self.balancer.log().count(" is down")
            origin.kill(how)
            wait_until(lambda: self.balancer.log().count(" is down") > downs)
            self.assertEqual(self.guest().status, 503)
            origin.restart()
            wait_until(lambda: self.balancer.log().count(" is up") > downs)
            answers = [self.guest(method="POST", body=b"body") for _ in range(5)]
            self.assertEqual({answer.status for answer in answers}, {200})
            self.assertFalse(before & {answer.conn for answer in answers})


class Shortage(ReuseCase):
    """E15: descriptors run out. (Failing allocations and late cancels are the simulator's.)"""
    counts_exact = False
    clients = 40  # max_connections

    @staticmethod
    def limited(case, text: str) -> Balancer:
        """A balancer that may open 120 descriptors."""
        path = support.RINGWAY
        wrapper = case.folder() / "limited"
        wrapper.write_text(f'#!/bin/sh\nulimit -n 120\nexec "{path}" "$@"\n')
        wrapper.chmod(0o755)
        support.RINGWAY = str(wrapper)
        try:
            return Balancer(case, text.replace("max_connections = 10000", f"max_connections = {case.clients}"))
        finally:
            support.RINGWAY = path

    def test_idle_connections_make_room_for_requests(self):
        """Mode "safe": a first request needs a fresh connection, while idle ones hold all that there is: with 40 clients
        the memory for 80 connections, with 200 all descriptors."""
        for clients in (40, 200):
            with self.subTest(clients=clients):
                self.clients = clients
                [origin] = self.app(KEEP, wrap=self.limited)
                for _ in range(200):
                    self.assertEqual(self.guest().status, 200)
                idle = self.gauge(state=Names.IDLE)
                self.assertEqual(self.counters().sum(Names.CLOSES, reason="make_room"), 200 - idle)
                self.assertTrue(60 < idle < 120, idle)  # No more than is needed.
                self.balancer.stop()

    def test_few_descriptors_slow_down_and_recover(self):
        self.app(ALWAYS, wrap=self.limited)
        for _ in range(3):
            visitors = [self.visitor() for _ in range(150)]
            served = 0
            for visitor in visitors:
                try:
                    visitor.client.socket.settimeout(0.02)
                    visitor.begin()
                    served += visitor.end().status == 200
                except (OSError, EOFError):
                    pass
            self.assertGreater(served, 0)
            for visitor in visitors:
                visitor.leave()
            wait_until(lambda: self.recovered())

    def recovered(self) -> bool:
        try:
            return self.guest().status == 200
        except (OSError, EOFError):
            return False

    def folder(self) -> pathlib.Path:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)
