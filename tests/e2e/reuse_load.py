"""tests/e2e/reuse_load.py - a crowd on two upstreams, one with private connections, while servers change."""
import threading

from reuse_support import KEEP, ReuseCase
from support import wait_until


class Crowd:
    """Clients in threads that ask without a pause; a POST that fails is an error like any other."""

    def __init__(self, case: ReuseCase, upstreams: list[str], clients: int = 6):
        self.case, self.running, self.errors = case, True, []
        self.visitors = [case.visitor() for _ in range(clients)]
        self.threads = [threading.Thread(target=self.run, args=(visitor, upstreams[i % len(upstreams)]), daemon=True)
                        for i, visitor in enumerate(self.visitors)]
        for thread in self.threads:
            thread.start()

    def run(self, visitor, upstream: str):
        while self.running:
            try:
                answer = visitor.ask("?size=100", "POST", b"body", upstream=upstream)
                if answer.status != 200:
                    self.errors.append(answer.status)
            except (OSError, EOFError, AssertionError) as problem:
                self.errors.append(repr(problem))
                return

    def more(self, count: int = 100):
        """Lets so many further requests pass."""
        wanted = len(self.case.answers) + count
        wait_until(lambda: len(self.case.answers) >= wanted or self.errors)

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join(20)
        self.case.assertEqual(self.errors, [])


class UnderLoad(ReuseCase):
    counts_exact = closes_exact = False  # Counters of a server that left are gone with it.

    def start(self):
        """Upstreams "own" (private connections) and "app" on the same origins, and a crowd on both."""
        self.both = [self.reporting() for _ in range(2)]
        self.balance(*self.upstreams(self.both), shards=2)
        self.crowd = Crowd(self, ["own", "app"])
        self.crowd.more()

    def upstreams(self, origins) -> list[str]:
        return [self.upstream("own", f'reuse = "never"\n{KEEP}', origins),
                self.upstream("app", f'reuse = "always"\n{KEEP}', origins)]

    def hold(self, origin, upstream: str):
        """A request in hand at this origin."""
        while True:
            visitor = self.visitor()
            token = visitor.begin("stall", upstream=upstream)
            wait_until(lambda: any(o.attempts(token) for o in self.both))
            if origin.attempts(token):
                return visitor, token
            self.both[1 - self.both.index(origin)].release(token)
            visitor.end()
            visitor.leave()

    def assert_left(self, origin, held):
        """Nothing new comes, what was in hand ends well, all connections go."""
        wait_until(lambda: origin.established == len(held))  # Idle ones are gone, private ones too.
        before = len(origin.log)
        self.crowd.more()
        self.assertEqual(len(origin.log), before)
        for visitor, token in held:
            origin.release(token)
            self.assertEqual(visitor.end().status, 200)
        wait_until(lambda: origin.established == 0)
