"""Servers that change or leave under load, by reload (E13)."""
from reuse_load import UnderLoad
from reuse_support import KEEP
from support import wait_until


class Changes(UnderLoad):
    def test_a_server_that_a_reload_removes(self):
        self.start()
        first, second = self.both
        held = [self.hold(first, "own"), self.hold(first, "app")]
        text = self.balancer.path.read_text()
        gone = f'{{ name = "s0", address = "127.0.0.1:{first.port}" }}, '
        self.assertEqual(text.count(gone), 2)
        self.balancer.reload(text.replace(gone, ""))
        self.assert_left(first, held)
        self.crowd.stop()

    def test_a_server_whose_address_a_reload_changes(self):
        self.start()
        first, _ = self.both
        held = [self.hold(first, "own"), self.hold(first, "app")]
        new = self.reporting("s0")
        self.balancer.reload(self.balancer.path.read_text().replace(f":{first.port}\"", f":{new.port}\""))
        self.assert_left(first, held)
        self.assertGreater(len(new.log), 0)
        self.crowd.stop()

    def test_reloads_that_change_nothing_close_nothing(self):
        self.start()
        before = {conn.name for origin in self.both for conn in origin.open_conns}
        for _ in range(5):
            self.balancer.reload()
            self.crowd.more(50)
        self.assertEqual({conn.name for origin in self.both for conn in origin.open_conns if conn.name in before}, before)
        self.crowd.stop()

    def test_a_reload_to_never_closes_what_was_shared(self):
        [origin] = self.app(f'reuse = "always"\n{KEEP}', shards=2)
        self.park(6)
        self.balancer.reload(self.balancer.path.read_text().replace('"always"', '"never"'))
        self.never.add("app")
        wait_until(lambda: origin.established == 0)
        for _ in range(4):
            self.assertEqual(self.guest().req, 1)

    def test_max_idle_lowered_by_a_reload(self):
        [origin] = self.app(f'max_idle_per_server = 100\n{KEEP}', shards=2)
        self.park(20)
        wait_until(lambda: origin.idle == 20)
        self.balancer.reload(self.balancer.path.read_text().replace("max_idle_per_server = 100", "max_idle_per_server = 4"))
        for _ in range(3):
            self.assertEqual(self.visitor().ask().status, 200)
        wait_until(lambda: origin.established <= 4)
