"""TLS under load: certificates that are replaced, and storms of handshakes. Established traffic goes on."""
import pathlib
import threading
import time

from support import metrics, wait_until
from test_tls import TlsCase, pair

WAITS = "ringway_tls_handshake_wait_seconds"


class Load(TlsCase):
    def loop(self, what) -> list:
        """Repeats `what()` in a thread until stop(). Returns a list that holds how often it was done."""
        done = [0]

        def run():
            try:
                while not self.ended.is_set():
                    what()
                    done[0] += 1
            except Exception as error:  # noqa: BLE001  (any failure is one)
                self.errors.append(error)
        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()
        return done

    def setUp(self):
        super().setUp()
        self.ended = threading.Event()
        self.threads: list[threading.Thread] = []
        self.errors: list[Exception] = []
        self.addCleanup(self.stop)

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def ask(self, client):
        if client.get().status != 200:
            raise RuntimeError("not a 200")

    def fresh(self, port: int):
        """A connection of its own, which is closed again."""
        client = self.connect(port, "a.example", self.shared)
        self.ask(client)
        client.close()

    def shown(self, port: int) -> str:
        """The serial number of what is served."""
        client = self.connect(port, "a.example", self.shared)
        self.ask(client)
        try:
            return self.serial(client)
        finally:
            client.close()

    def test_a_replaced_pair_is_served_within_two_seconds_and_loses_nothing(self):
        directory = self.folder / "tenants"
        directory.mkdir()
        pairs = [self.authority.issue(f"a{i}", "a.example") for i in range(6)]

        def put(number: int):
            for source, end in zip(pairs[number], ("pem", "key")):
                hidden = directory / f".a.{end}"
                hidden.write_bytes(pathlib.Path(source).read_bytes())
                hidden.rename(directory / f"a.{end}")
        put(0)
        balancer, port = self.serve(self.origin(), f'tenants = {{ directory = "{directory}" }}')
        self.shared = self.context()
        kept = [self.connect(port, "a.example", self.shared) for _ in range(3)]
        counts = [self.loop(lambda client=client: self.ask(client)) for client in kept]
        counts += [self.loop(lambda: self.fresh(port)) for _ in range(3)]
        longest = 0.0
        for number in range(1, len(pairs)):
            before = self.shown(port)
            put(number)
            changed = time.monotonic()
            wait_until(lambda: self.errors or self.shown(port) != before)
            longest = max(longest, time.monotonic() - changed)
            # Everybody goes on with it.
            seen = [count[0] for count in counts]
            wait_until(lambda: self.errors or all(count[0] > then + 5 for count, then in zip(counts, seen)))
        (directory / "b.pem").write_text("".join(pathlib.Path(file).read_text() for file in self.authority.issue("b", "b.example")))
        wait_until(lambda: metrics(self.page)["ringway_certificate_reloads_total"] >= len(pairs))
        self.assertEqual(self.connect(port, "b.example").get().status, 200)
        self.stop()
        self.assertEqual(self.errors, [])
        counted = metrics(self.page)
        self.assertEqual(counted["ringway_certificate_reload_failures_total"], 0)
        self.assertEqual(counted['ringway_listener_tls_failures_total{listener="web"}'], 0)
        print(f"{sum(count[0] for count in counts)} requests, {len(pairs) - 1} changes, the slowest served after {longest:.2f} s", end=" ")

    def test_a_storm_of_handshakes_does_not_starve_established_traffic(self):
        """One shard, five handshakes a second: who wants more waits, and a client that is there already goes on meanwhile."""
        balancer, port = self.serve(self.origin(), pair("ec", self.own("ec", "a.example")), 'handshakes_per_shard = "5/s"', shards=1)
        self.shared = self.context()
        established = self.connect(port, "a.example")
        self.ask(established)
        storm = [self.loop(lambda: self.fresh(port)) for _ in range(8)]

        def handshakes() -> int:
            return sum(count[0] for count in storm)
        wait_until(lambda: handshakes() > 0 or self.errors)
        first, answers = handshakes(), 0
        while handshakes() < first + 15 and not self.errors:
            self.ask(established)
            answers += 1
        begun = handshakes() - first
        self.stop()
        self.assertEqual(self.errors, [])
        # It never stands behind those who wait.
        self.assertGreater(answers, 5 * begun)
        seen = metrics(self.page)
        total = handshakes() + 1
        self.assertEqual(seen[f"{WAITS}_count"], total)
        at_once = seen[WAITS + '_bucket{le="0.001"}']
        self.assertGreater(total - at_once, total / 2)
        self.assertEqual(seen['ringway_listener_tls_failures_total{listener="web"}'], 0)
        print(f"{answers} answers beside {begun} handshakes, {total - at_once:.0f} of {total} waited", end=" ")
