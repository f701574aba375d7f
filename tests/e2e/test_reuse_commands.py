"""Servers taken out and brought back by ringctl under load (E13), and what it shows of pools."""
import json
import pathlib
import subprocess
import tempfile
import threading

import support
from reuse_load import UnderLoad
from reuse_support import KEEP, Names, ReuseCase
from support import wait_until

RINGCTL = str(pathlib.Path(support.RINGWAY).with_name("ringctl"))


class Ringctl(ReuseCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = f"{folder.name}/admin"

    def admin_table(self) -> str:
        return f'[admin]\nsocket = "{self.socket}"\n'

    def command(self, *words: str) -> str:
        done = subprocess.run([RINGCTL, "--socket", self.socket, *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stdout}{done.stderr}")
        return done.stdout


class Pools(Ringctl):
    def shown(self) -> list[dict]:
        return json.loads(self.command("--json", "pools"))["pools"]

    @staticmethod
    def sums(pools: list[dict], part: str) -> dict[str, int]:
        """What is not 0, over all shards."""
        names = {name for pool in pools for name in pool[part]}
        return {name: count for name in names if (count := sum(pool[part].get(name, 0) for pool in pools))}

    def test_where_every_connection_is_and_why_others_went(self):
        origin = self.reporting()
        self.balance(self.upstream("app", f'reuse = "aggressive"\nshare = "shard"\nkey = ["request.host"]\n{KEEP}', [origin]),
                     self.admin_table(), shards=2)
        hosts = ["a.example", "a.example", "b.example"]
        visitors = [self.visitor() for _ in hosts]
        tokens = [visitor.begin("stall", host=host) for visitor, host in zip(visitors, hosts)]
        wait_until(lambda: len(origin.in_flight) == 3)
        for visitor, token in zip(visitors[:2], tokens):
            origin.release(token)
            visitor.end()
        guest = self.visitor()
        guest.ask("ntlm", host="a.example")  # A first request: what served one only is not for it.
        pools = self.shown()
        self.assertEqual([(p["shard"], p["upstream"], p["server"]) for p in pools], [(0, "app", "s0"), (1, "app", "s0")])
        self.assertEqual(self.sums(pools, "connections"), {"idle_unproven": 2, "busy": 1, "private_idle": 1})
        self.assertEqual(self.sums(pools, "got"), {"fresh": 4})
        self.assertEqual(sum(self.sums(pools, "missed").values()), 4)
        self.assertEqual(self.sums(pools, "closed"), {})
        keys = [entry for pool in pools for entry in pool["keys"] if entry["key"] != "default"]
        for host, wanted in (("a.example", (3, 2)), ("b.example", (1, 0))):
            mine = [entry for entry in keys if host in entry["key"]]
            self.assertEqual((sum(e["connections"] for e in mine), sum(e["idle"] for e in mine)), wanted)
        self.assertRegex(self.command("pools", "app"), r"(?m)^ *[01] +app +s0 .*a\.example.* idle=[12]$")

        origin.close_idle()
        wait_until(lambda: self.sums(self.shown(), "closed") == {"server_idle": 3})
        origin.release(tokens[2])
        visitors[2].end()
        self.command("server", "app/s0", "drain")
        self.assertEqual(self.sums(self.shown(), "closed"), {"server_idle": 3, "service": 1})

    def test_limits_their_units_on_each_shard_and_what_blocks_a_removal(self):
        origin = self.reporting()
        self.balance(self.upstream("app", f"max_connections_per_server = 9\nmax_idle_per_server = 5\n{KEEP}",
                                   [(origin, "max_requests = 7")]), self.admin_table(), shards=2)
        visitor = self.visitor()
        token = visitor.begin("stall")
        wait_until(lambda: origin.in_flight)
        pools = self.shown()
        self.assertEqual([pool["limits"] for pool in pools], [{"requests": 7, "connections": 9, "idle": 5}] * 2)
        units = self.sums(pools, "leases")
        self.assertEqual((units["requests_used"], units["connections_used"], units.get("idle_used", 0)), (1, 1, 0))
        self.assertTrue(1 <= units["requests_held"] <= 7 and 1 <= units["connections_held"] <= 9)
        self.assertEqual(self.sums(pools, "blocks_removal"), {"requests": 1, "connections": 1})
        self.assertRegex(self.command("servers"), r"(?m)^app +s0 .* requests=1 busy=1$")
        self.command("server", "app/s0", "maintenance")
        origin.release(token)
        self.assertEqual(visitor.end().status, 200)
        wait_until(lambda: " removable" in self.command("servers"))
        self.assertEqual(self.sums(self.shown(), "blocks_removal"), {})


class Commands(UnderLoad, Ringctl):
    def upstreams(self, origins) -> list[str]:
        return [*super().upstreams(origins), self.admin_table()]

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
