"""Reloads of very many certificates: all or none of them, and the control thread does its other work meanwhile."""
import json
import pathlib
import signal
import threading

from support import metrics, wait_until
from test_admin import UnixConnection
from test_tls import TlsCase

COUNT = 3000
CHECKS = 'ringway_server_checks_total{upstream="app",server="s0",result="passed"}'


class ManyCertificates(TlsCase):
    """All files have one of two certificates for one name: which of them is served tells which files are in force."""

    def setUp(self):
        super().setUp()
        self.directory = self.folder / "tenants"
        self.directory.mkdir()
        self.sets = [self.authority.issue(f"set{i}", "a.example") for i in range(3)]
        self.write(0)
        self.balancer, self.port = self.serve(
            self.origin(), f'tenants = {{ directory = "{self.directory}", watch = false }}', shards=1,
            upstream='health = { type = "tcp", interval = "10ms", fast_interval = "10ms", timeout = "10ms" }',
            rest=f'[admin]\nsocket = "{self.folder}/admin.sock"\n')
        self.shared = self.context()

    def write(self, number: int, key: int | None = None):
        """All pairs anew, of set `number`; the last one with the key of set `key`."""
        cert, right = (pathlib.Path(file).read_bytes() for file in self.sets[number])
        for i in range(COUNT):
            self.put(f"t{i:04}.pem", cert)
            self.put(f"t{i:04}.key", right)
        if key is not None:
            self.put(f"t{COUNT - 1:04}.key", pathlib.Path(self.sets[key][1]).read_bytes())

    def put(self, name: str, data: bytes):
        hidden = self.directory / f".{name}"
        hidden.write_bytes(data)
        hidden.rename(self.directory / name)

    def shown(self) -> str:
        client = self.connect(self.port, "a.example", self.shared)
        try:
            return self.serial(client)
        finally:
            client.close()

    def call(self, method: str, target: str) -> tuple[int, dict]:
        connection = UnixConnection(f"{self.folder}/admin.sock")
        connection.request(method, target)
        answer = connection.getresponse()
        data = json.loads(answer.read())
        connection.close()
        return answer.status, data

    def state(self) -> tuple[int, bool]:
        _, data = self.call("GET", "/v1/config")
        return data["generation"], data["reloading"]

    def ask_for_reload(self) -> threading.Thread:
        """By POST, in a thread of its own; `answer` is what it got."""
        self.answer = None

        def run():
            self.answer = self.call("POST", "/v1/reload")
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        return thread

    def test_other_work_goes_on_while_it_loads_and_another_one_comes_behind_it(self):
        before = self.shown()
        self.write(1)
        thread = self.ask_for_reload()
        checks: list[float] = []  # How many were made, whenever it was seen loading.
        while (state := self.state())[0] == 1:
            if not state[1]:
                self.assertFalse(checks, "it began and ended without another configuration")
                continue
            shown, seen = self.shown(), metrics(self.page)
            if self.state() != (1, True):
                break
            self.assertEqual(shown, before)  # None of the new ones.
            self.assertEqual(seen["ringway_reload_running"], 1)
            checks.append(seen[CHECKS])
            if len(checks) == 1:
                # What is asked for now is another file than what is being loaded.
                self.balancer.path.write_text(self.balancer.path.read_text().replace('name = "all"', 'name = "every"'))
                self.balancer.process.send_signal(signal.SIGHUP)
        self.assertGreater(len(checks), 1)
        self.assertGreater(checks[-1], checks[0])
        thread.join()
        self.assertEqual(self.answer[0], 200)
        wait_until(lambda: self.state() == (3, False))
        self.assertNotEqual(self.shown(), before)
        wait_until(lambda: self.balancer.log().count("info reloaded: configuration") == 2)
        self.assertEqual(metrics(self.page)["ringway_reload_running"], 0)
        print(f"asked {len(checks)} times while it was loading, {checks[-1] - checks[0]:.0f} checks meanwhile", end=" ")

    def test_one_that_is_no_good_at_the_end_changes_nothing_or_is_left_out(self):
        """In a directory it is left out; named by the configuration, it stops all."""
        self.write(1, key=2)
        self.assertEqual(self.call("POST", "/v1/reload")[0], 200)
        after = self.shown()
        wait_until(lambda: f"t{COUNT - 1:04}.key: the private key does not match" in self.balancer.log())
        text = self.balancer.path.read_text()
        self.write(0)
        self.balancer.path.write_text(
            text.replace('["tenants"]', '["tenants", "one"]')
                .replace("[tls.certificates]\n", f'[tls.certificates]\none = {{ cert = "{self.sets[0][0]}", key = "{self.sets[2][1]}" }}\n'))
        status, data = self.call("POST", "/v1/reload")
        self.assertEqual(status, 422)
        self.assertIn("does not match", data["error"])
        self.assertEqual(self.state(), (2, False))
        self.assertEqual(self.shown(), after)  # Not one of the 3,000 good ones before it.
        self.balancer.path.write_text(text)
        self.assertEqual(self.call("POST", "/v1/reload")[0], 200)
        self.assertNotEqual(self.shown(), after)

    def test_an_end_while_it_loads(self):
        self.write(1)
        thread = self.ask_for_reload()
        wait_until(lambda: self.state()[1])
        self.assertEqual(self.balancer.stop(), 0)
        thread.join()
        self.assertEqual(self.answer[0], 422)
        self.assertIn("draining", self.answer[1]["error"])
        self.assertNotIn("info reloaded", self.balancer.log())
