"""How many server connections there are, and for how long (E11, E12, E14, and each limit by itself)."""
import re
import subprocess
import time

from reporting_origin import ReportingOrigin
from reuse_support import KEEP, Names, ReuseCase
from support import wait_until


class Idle(ReuseCase):
    """E11: a burst, then silence."""

    def burst(self, clients: int):
        """So many requests in hand at once, and all answered."""
        visitors = [self.visitor() for _ in range(clients)]
        for visitor in visitors:
            visitor.begin("stall")
        wait_until(lambda: len(self.origins[0].in_flight) == clients)
        self.origins[0].release_all()
        for visitor in visitors:
            self.assertEqual(visitor.end().status, 200)
        return visitors

    def cap(self, limit: int, clients: int, shards: int):
        [origin] = self.app(f'max_idle_per_server = {limit}\nidle_timeout = "1s"\n{KEEP}', shards=shards)
        for _ in range(2):
            self.burst(clients)
            self.assertEqual(origin.peak, clients)
            wait_until(lambda: origin.established <= limit)
            first = origin.established
            self.assertGreater(first, 0)  # Some are kept.
            counts = {origin.established for _ in range(200) if not time.sleep(0.001)}
            self.assertLessEqual(max(counts), first)
            wait_until(lambda: origin.established == 0 and self.gauge() == 0)
        self.assertEqual(self.time_waits(), 0)
        closes = self.counters().by(Names.CLOSES, "reason")
        self.assertEqual(sum(closes.values()), 2 * clients)

    def test_one_idle_connection_over_64_shards(self):
        self.cap(1, 60, 64)

    def test_as_many_as_shards_but_one(self):
        self.cap(15, 60, 16)

    def test_more_than_shards(self):
        self.cap(40, 60, 16)

    def test_what_the_load_does_not_need_goes_before_its_time(self):
        [origin] = self.app('idle_timeout = "10m"')
        self.burst(16)
        # Half of the excess at each round of the purge; the first rounds still remember the burst.
        wait_until(lambda: origin.established <= 8)
        self.assertGreater(self.counters().sum(Names.CLOSES, reason="unneeded"), 0)
        self.assertEqual(self.time_waits(), 0)


class Limits(ReuseCase):
    def test_idle_timeout(self):
        self.app(f'idle_timeout = "50ms"\n{KEEP}')
        names = self.park(5)
        for name in names:
            self.wait_closed(name)
            self.assertEqual(self.conn(name).closed_by, "rst")
        self.assertEqual(self.counters().by(Names.REFUSED, "reason"), {})
        self.assertEqual(self.counters().sum(Names.CLOSES, reason="idle_timeout"), 5)

    def test_max_age_ends_an_idle_connection(self):
        self.app(f'max_age = "300ms"\nidle_timeout = "10m"\n{KEEP}')
        self.wait_closed(self.guest().conn)
        self.assertEqual(self.counters().sum(Names.CLOSES, reason="age_max"), 1)

    def test_max_age_ends_a_busy_connection_after_its_request(self):
        [origin] = self.app(f'max_age = "300ms"\nidle_timeout = "10m"\n{KEEP}')
        visitor = self.visitor()
        token = visitor.begin("stall")
        wait_until(lambda: origin.attempts(token))
        time.sleep(0.4)
        origin.release(token)
        old = visitor.end()
        self.assertEqual(old.status, 200)
        self.wait_closed(old.conn)
        self.assertNotEqual(visitor.ask().conn, old.conn)
        self.assertGreaterEqual(self.counters().sum(Names.CLOSES, reason="age_max"), 1)

    def test_max_requests_per_connection(self):
        limits = (1, 3)
        origin = self.reporting()
        self.balance(*(self.upstream(f"n{limit}", f'reuse = "always"\nmax_requests_per_connection = {limit}\n{KEEP}',
                                     [origin]) for limit in limits))
        for limit in limits:
            reqs = [self.guest(upstream=f"n{limit}").req for _ in range(7)]
            self.assertEqual(reqs, [i % limit + 1 for i in range(7)])
            wait_until(lambda: self.counters().by(Names.REFUSED, "reason", upstream=f"n{limit}") == {
                "requests_max": 7 // limit})

    def test_warm_connections_stand_before_the_first_request_and_are_held(self):
        self.reopens, self.counts_exact = True, False
        [origin] = self.app('reuse = "always"\nwarm = 6', shards=4)
        wait_until(lambda: origin.established == 6)
        self.assertEqual((len(origin.connections), origin.log), (6, []))
        before = set(origin.connections)
        for _ in range(10):
            self.assertIn(self.guest().conn, before)
        origin.close_idle()
        wait_until(lambda: origin.established == 6 and not before & {conn.name for conn in origin.open_conns})

    def test_warm_counts_per_server(self):
        self.reopens = True
        origins = self.app("warm = 1", count=3, shards=2)
        wait_until(lambda: [origin.established for origin in origins] == [1, 1, 1])


class OneRequestClients(ReuseCase):
    """E12: clients that come for one request, one after the other, so that each shard needs one connection."""
    SPREAD = 'accept = "reuseport"'  # The kernel's hash chooses the shard: all of them take part.

    def few(self, mode: str):
        [origin] = self.app(f'reuse = "{mode}"\nshare = "shard"\nidle_timeout = "10m"', shards=4, listener=self.SPREAD)
        peers = set()
        for i in range(400):
            answer = self.guest()
            self.assertEqual(answer.status, 200)
            if i < 200:
                peers.add(answer.response.get("x-peer"))
        self.assertLessEqual(len(origin.connections), 4)
        self.assertLessEqual({conn.peer for conn in origin.open_conns}, peers)  # No new source port any more.
        self.assertEqual(self.time_waits(), 0)

    def test_always_needs_one_connection_per_shard(self):
        self.few("always")

    def test_auto_needs_one_connection_per_shard(self):
        self.few("auto")

    def test_safe_reuses_nothing_and_keeps_little(self):
        [origin] = self.app('idle_timeout = "10m"', shards=4, listener=self.SPREAD)
        for _ in range(400):
            self.assertEqual(self.guest().req, 1)
        self.assertEqual(len(origin.connections), 400)
        # A shard keeps what its load needed at once, one, and its floor, one.
        wait_until(lambda: origin.established <= 8)
        self.assertEqual(self.time_waits(), 0)

    def test_safe_keeps_no_more_than_the_limit_whatever_the_floor(self):
        [origin] = self.app(f'idle_timeout = "10m"\nmax_idle_per_server = 10\n{KEEP}', shards=4, listener=self.SPREAD)
        for _ in range(100):
            self.guest()
        wait_until(lambda: origin.established <= 10)


class Caps(ReuseCase):
    """E14: limits over all shards are exact, and nobody starves under them."""

    def overload(self, limit: int, shards: int, listener: str = "", clients: int = 40, rounds: int = 4, mode="always"):
        [origin] = self.app(f'reuse = "{mode}"\nmax_connections_per_server = {limit}\n{KEEP}',
                            more='timeouts = { queue = "60s" }', shards=shards, listener=listener)
        visitors = [self.visitor() for _ in range(clients)]
        # Longer than it takes to send them all, where nearly all of them must be under way at once.
        ms = 200 if limit > clients / 3 else 1
        for _ in range(rounds):
            for visitor in visitors:
                visitor.begin(f"slow?ms={ms}&size=500")
            for visitor in visitors:
                self.assertEqual(visitor.end().status, 200)
        self.assertLessEqual(origin.peak, limit)
        self.assertLessEqual(origin.peak_in_flight, limit)
        if limit < clients:
            self.assertGreater(self.queued(), 0)
            now = self.counters()
            self.assertGreater(now.sum("ringway_server_limit_refills_total", limit="connections"), 0)
            self.assertGreater(now.sum("ringway_server_limit_wait_seconds_count"), 0)

    def queued(self) -> int:
        return self.counters().sum("ringway_upstream_queued_total", upstream="app")

    def test_one_connection_for_16_shards(self):
        self.overload(1, 16, rounds=2)

    def test_fewer_connections_than_shards(self):
        self.overload(4, 16)

    def test_one_less_than_shards(self):
        self.overload(15, 16)

    def test_as_many_as_shards(self):
        self.overload(16, 16)

    def test_twice_as_many_as_shards(self):
        self.overload(32, 16)

    def test_shards_of_unequal_load(self):
        self.overload(4, 16, 'accept = "reuseport"')

    def test_private_connections_count_and_their_clients_do_not_block_each_other_for_ever(self):
        """More clients than connections, each with its own: one must leave before the next gets one."""
        [origin] = self.app(f'reuse = "never"\nmax_connections_per_server = 3\n{KEEP}',
                            more='timeouts = { queue = "60s" }', shards=4)
        visitors = [self.visitor() for _ in range(12)]
        for visitor in visitors:
            visitor.begin()
        answered = []
        for _ in range(12):  # The order is the shards'; at most three hold a connection.
            visitor = self.next_readable([v for v in visitors if v.pending])
            answered.append(visitor.end().status)
            visitor.leave()
        self.assertEqual(answered, [200] * 12)
        self.assertLessEqual(origin.peak, 3)

    @staticmethod
    def next_readable(visitors):
        import select
        ready, _, _ = select.select([v.client.socket for v in visitors], [], [], 20)
        assert ready, "nobody is served"
        return next(v for v in visitors if v.client.socket is ready[0])

    def test_idle_ones_of_other_shards_make_room(self):
        """Mode safe: each of these needs a fresh connection while the limit is full of idle ones elsewhere."""
        [origin] = self.app(f'max_connections_per_server = 2\nshare = "shard"\n{KEEP}', shards=8, listener='accept = "reuseport"')
        for _ in range(100):
            answer = self.guest()
            self.assertEqual((answer.status, answer.req), (200, 1))
        self.assertLessEqual(origin.peak, 2)

    def test_requests_in_flight_to_each_server(self):
        origins = self.app(f'reuse = "always"\n{KEEP}', count=2, servers="max_requests = 3", shards=4,
                           more='timeouts = { queue = "60s" }')
        visitors = [self.visitor() for _ in range(30)]
        for _ in range(4):
            for visitor in visitors:
                visitor.begin("slow?ms=2")
            for visitor in visitors:
                self.assertEqual(visitor.end().status, 200)
        for origin in origins:
            self.assertLessEqual(origin.peak_in_flight, 3)
            self.assertGreater(len(origin.log), 0)


class Queue(ReuseCase):
    """Waiting for a server that has as much as it may."""

    def full(self, more: str, waiting: int):
        """One connection, in hand, and so many waiting clients. -> (origin, holder, waiters)."""
        [origin] = self.app(f'reuse = "always"\nmax_connections_per_server = 1\n{KEEP}', more=more)
        holder = self.visitor("holder")
        token = holder.begin("stall")
        wait_until(lambda: origin.attempts(token))
        waiters = []
        for i in range(waiting):
            waiters.append(self.visitor(f"w{i}"))
            waiters[-1].begin()
            wait_until(lambda: self.waiting() == i + 1)
        return origin, holder, waiters

    def waiting(self) -> int:
        return self.counters().sum("ringway_upstream_queued", upstream="app")

    def test_first_come_first_served(self):
        origin, holder, waiters = self.full('timeouts = { queue = "60s" }', 10)
        self.assertEqual(len(origin.log), 1)
        origin.release_all()
        self.assertEqual(holder.end().status, 200)
        self.assertEqual([waiter.end().status for waiter in waiters], [200] * 10)
        self.assertEqual([seen.client for seen in origin.log[1:]], [waiter.tag for waiter in waiters])
        line = self.access_of(origin.log[-1].token)
        self.assertGreater(line["queue_us"], 0)

    def test_a_full_queue_refuses_at_once_and_says_why(self):
        origin, holder, waiters = self.full('queue = { max = 3 }\ntimeouts = { queue = "60s" }', 3)
        refused = self.guest()
        self.assertEqual((refused.status, refused.conn), (503, None))
        line = self.access_of(refused.token)
        self.assertIn("queue", line["cause"])
        origin.release_all()
        self.assertEqual([visitor.end().status for visitor in [holder, *waiters]], [200] * 4)

    def test_no_queue_at_all(self):
        origin, holder, _ = self.full('queue = { max = 0 }\ntimeouts = { queue = "60s" }', 0)
        self.assertEqual(self.guest().status, 503)
        origin.release_all()
        self.assertEqual(holder.end().status, 200)
        self.assertEqual(self.guest().status, 200)

    def test_who_waits_too_long_gets_503_and_a_cause(self):
        origin, holder, waiters = self.full('timeouts = { queue = "300ms" }', 2)
        for waiter in waiters:
            answer = waiter.end()
            self.assertEqual((answer.status, answer.conn), (503, None))
            self.assertTrue(self.access_of(answer.token)["cause"])
        self.assertEqual(self.waiting(), 0)
        origin.release_all()
        self.assertEqual([holder.end().status, waiters[0].ask().status], [200, 200])

    def test_who_leaves_while_waiting_is_not_served_and_blocks_nobody(self):
        origin, holder, waiters = self.full('timeouts = { queue = "60s" }', 4)
        waiters[0].leave()
        waiters[2].abort()
        wait_until(lambda: self.waiting() == 2)
        origin.release_all()
        self.assertEqual([visitor.end().status for visitor in (holder, waiters[1], waiters[3])], [200] * 3)
        self.assertEqual([seen.client for seen in origin.log], ["holder", "w1", "w3"])

    def test_a_waiter_gets_the_place_of_a_client_that_gave_up(self):
        self.counts_exact = False
        origin, holder, waiters = self.full('timeouts = { queue = "60s" }', 2)
        holder.abort()
        self.assertEqual([waiter.end().status for waiter in waiters], [200] * 2)
        self.assertEqual(origin.peak, 1)

    def test_a_waiter_gets_the_place_of_a_connection_that_died(self):
        self.counts_exact = False
        origin, holder, waiters = self.full('timeouts = { queue = "60s" }', 2)
        origin.call(lambda: [conn.close("rst") for conn in list(origin.open_conns)])
        self.assertEqual(holder.end().status, 502)
        self.assertEqual([waiter.end().status for waiter in waiters], [200] * 2)
        self.assertEqual(origin.peak, 1)


class Figures(ReuseCase):
    """What many shards cost in reuse. bench/reuse prints the same beside haproxy."""
    counts_exact = False  # The origins keep no log.

    def light(self, name: str) -> ReportingOrigin:
        origin = ReportingOrigin(name, keeps_log=False)
        self.origins.append(origin)
        self.addCleanup(origin.stop)
        return origin

    def load_of_wrk(self, more: str) -> tuple[float, int]:
        """64 keep-alive clients, 16 shards, two servers that take 10 ms. -> reuse, most connections at once.

        Before servers that answer at once, now the one and now the other would have nearly all requests waiting,
        and 128 connections would be of use."""
        origins = [self.light("s0"), self.light("s1")]
        self.balance(self.upstream("app", "", origins, more), shards=16)
        done = subprocess.run(["wrk", "-t1", "-c64", "-d2s", f"http://127.0.0.1:{self.port}/app/slow?ms=10"],
                              capture_output=True, text=True, timeout=60, check=True)
        self.assertNotRegex(done.stdout, "Non-2xx|Socket errors")
        conns = [conn for origin in origins for conn in origin.connections.values()]
        requests = sum(conn.requests for conn in conns)
        self.assertGreaterEqual(requests, int(re.search(r"(\d+) requests in", done.stdout)[1]))
        reuse, peak = 1 - len(conns) / requests, sum(origin.peak for origin in origins)
        print(f"{reuse:.2%} of {requests}, {peak} at once ... ", end="", flush=True)
        return reuse, peak

    def test_16_shards_2_servers_64_clients_in_turn(self):
        reuse, peak = self.load_of_wrk("")
        self.assertGreaterEqual(reuse, 0.98)
        # Each shard goes round by itself, so that its 4 clients may all be at one server, then at the other.
        self.assertLessEqual(peak, 2 * 64)

    def test_16_shards_2_servers_64_clients_to_the_least_loaded(self):
        reuse, peak = self.load_of_wrk('balance = { algorithm = "least_requests" }')
        self.assertGreaterEqual(reuse, 0.98)
        self.assertLessEqual(peak, 1.5 * 64)

    def test_10_requests_a_second_over_16_shards_with_borrowing(self):
        [origin] = self.app('reuse = "always"\nshare = "borrow"', shards=16, listener='accept = "reuseport"')
        for _ in range(60):
            self.assertEqual(self.guest().status, 200)
            time.sleep(0.1)
        reuse = 1 - len(origin.connections) / len(origin.log)
        print(f"{reuse:.0%}, {len(origin.connections)} made ... ", end="", flush=True)
        self.assertGreaterEqual(reuse, 0.9)
