"""Servers taken out and brought back by ringctl under load (E13)."""
import pathlib
import subprocess
import tempfile
import threading

import support
from reuse_load import UnderLoad
from reuse_support import Names
from support import wait_until

RINGCTL = str(pathlib.Path(support.RINGWAY).with_name("ringctl"))


class Commands(UnderLoad):
    def start(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = f"{folder.name}/admin"
        super().start()

    def upstreams(self, origins) -> list[str]:
        return [*super().upstreams(origins), f'[admin]\nsocket = "{self.socket}"\n']

    def command(self, *words: str) -> str:
        done = subprocess.run([RINGCTL, "--socket", self.socket, *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stdout}{done.stderr}")
        return done.stdout

    def both_upstreams(self, *words: str):
        for upstream in ("own", "app"):
            self.command("server", f"{upstream}/s0", *words)

    def gauges(self, name: str) -> int:
        return self.counters().sum(Names.CONNECTIONS, server=name)

    def test_maintenance_under_load(self):
        self.start()
        first, second = self.both
        held = [self.hold(first, "own"), self.hold(first, "app")]
        self.both_upstreams("maintenance")
        self.assert_left(first, held)
        wait_until(lambda: self.gauges("s0") == 0)
        old = set(first.connections)
        self.both_upstreams("enable")
        wait_until(lambda: first.established > 0)
        self.crowd.more()
        self.assertTrue({conn.name for conn in first.open_conns} - old)
        self.assertFalse({conn.name for conn in first.open_conns} & old)
        self.crowd.stop()

    def test_maintenance_waits_for_what_is_in_hand(self):
        self.start()
        first, _ = self.both
        visitor, token = self.hold(first, "app")
        done = []
        waiting = threading.Thread(target=lambda: done.append(self.command(
            "server", "app/s0", "maintenance", "--wait", "20")), daemon=True)
        waiting.start()
        self.crowd.more()
        self.assertEqual(done, [])
        first.release(token)
        self.assertEqual(visitor.end().status, 200)
        waiting.join(20)
        self.assertEqual(len(done), 1)
        self.crowd.stop()

    def test_twenty_turns_of_maintenance_lose_nothing(self):
        self.start()
        for _ in range(20):
            self.both_upstreams("maintenance")
            self.crowd.more(20)
            self.both_upstreams("enable")
            self.crowd.more(20)
        self.crowd.stop()

    def test_a_drained_server_keeps_its_clients(self):
        """Drain: no new work, but a client with a private connection there may go on until it leaves."""
        self.start()
        first, _ = self.both
        held = [self.hold(first, "app")]
        self.both_upstreams("drain")
        for visitor, token in held:
            first.release(token)
            self.assertEqual(visitor.end().status, 200)
        wait_until(lambda: self.counters().sum(Names.CONNECTIONS, upstream="app", server="s0") == 0)
        self.crowd.stop()
