"""Which engine each thread gets, who is told when it is not the best one, and where shards run."""
import itertools
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

from support import RINGWAY, Case, Client, free_port, metrics, wait_until


@unittest.skipIf(os.getuid() != 0, "needs root to become somebody else")
class LockedMemory(Case):
    """As a user without privileges, whose rings count against the limit of locked memory."""
    users = itertools.count(100_000 + os.getpid() % 100_000 * 100)  # A ring that has ended may count a little longer.

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        os.chmod(cls.folder.name, 0o755)
        cls.binary = f"{cls.folder.name}/ringway"
        shutil.copy(RINGWAY, cls.binary)

    def limited(self, limit_bytes: int):
        """What the child does before it becomes ringway."""
        user = next(self.users)

        def prepare():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit_bytes, limit_bytes))
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        return prepare

    def test_io_uring_refused_is_exit_71(self):
        done = subprocess.run([self.binary, "tcp", "--engine=io_uring", "127.0.0.1:0", "127.0.0.1:1"],
                              capture_output=True, text=True, timeout=30, preexec_fn=self.limited(1024))
        self.assertEqual(done.returncode, 71, done.stderr)
        self.assertIn("LimitMEMLOCK", done.stderr)

    def serve(self, limit_bytes: int) -> tuple[str, list[str]]:
        """Runs two shards with "auto", has a request answered; returns the log and each shard's engine."""
        port, page = free_port(), free_port()
        origin = self.origin()
        config, log = pathlib.Path(f"{self.folder.name}/toml"), pathlib.Path(f"{self.folder.name}/log")
        config.write_text(f'version = 1\n[process]\nshards = 2\nmax_connections = 100\n[engine]\nkind = "auto"\n'
                          f'[listeners.web]\nbind = "127.0.0.1:{port}"\n[[routes]]\nname = "all"\nupstream = "app"\n'
                          f'[upstreams.app]\nservers = [{{ address = "{origin.address}" }}]\n'
                          f'[metrics]\nprometheus = "127.0.0.1:{page}"\n')
        with open(log, "wb") as output:
            process = subprocess.Popen([self.binary, "run", str(config)], stdout=output, stderr=output,
                                       preexec_fn=self.limited(limit_bytes))
        try:
            wait_until(lambda: "metrics on" in log.read_text() or process.poll() is not None)
            self.assertIsNone(process.poll(), log.read_text())
            clients = [Client(port) for _ in range(4)]  # Accepting is balanced: each shard has some.
            for client in clients:
                self.assertEqual([client.get().status for _ in range(3)], [200] * 3)
                client.close()
            values = metrics(page)
            engines = [next(engine for engine in ("io_uring", "epoll")
                            if f'ringway_engine_info{{shard="{i}",engine="{engine}"}}' in values) for i in range(2)]
            for _ in range(2):  # At once.
                process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=20), 0, log.read_text())
        finally:
            process.kill()
            process.wait(timeout=20)
        return log.read_text(), engines

    def test_auto_without_any_ring_is_epoll_and_says_so_once(self):
        log, engines = self.serve(1024)
        self.assertEqual(engines, ["epoll", "epoll"])
        self.assertEqual(log.count("using epoll"), 1, log)
        self.assertRegex(log, r"warning shards 0, 1 and control: using epoll: io_uring_setup: .*LimitMEMLOCK")
        self.assertIn("info started: 2 shard(s), engine epoll\n", log)

    def test_auto_with_too_few_rings_names_those_without(self):
        """The control thread's ring comes first, then the shards': somewhere between none and all is room for some."""
        seen = set()
        for kib in range(32, 512, 16):
            log, engines = self.serve(kib << 10)
            seen.add(tuple(engines))
            told = re.findall(r"warning (.*): using epoll: io_uring_setup: .*LimitMEMLOCK", log)
            without = [str(i) for i, engine in enumerate(engines) if engine == "epoll"]
            shards = ("shards " if len(without) > 1 else "shard ") + ", ".join(without) if without else ""
            allowed = [[shards + " and control"], [shards]] if shards else [["control"], []]
            self.assertIn(told, allowed, log)
            if engines == ["io_uring", "io_uring"]:
                break
            if len(set(engines)) == 2:
                self.assertIn("engine io_uring (1 shard), epoll (1 shard)\n", log)
        self.assertIn(("io_uring", "io_uring"), seen)
        self.assertIn(("io_uring", "epoll"), seen)


class Pinning(Case):
    def cpus_of_shards(self, pid: int) -> dict[str, set[int]]:
        found = {}
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            if name.startswith("shard-"):
                found[name] = os.sched_getaffinity(int(task.name))
        return found

    def test_a_shard_per_core_is_pinned_to_a_cpu_of_its_own(self):
        balancer, _ = self.http(self.origin(), shards='"auto"')
        shards = self.cpus_of_shards(balancer.process.pid)
        self.assertIn(f"started: {len(shards)} shard(s)", balancer.log())
        self.assertEqual(sorted(shards), sorted(f"shard-{i}" for i in range(len(shards))))
        self.assertEqual({len(cpus) for cpus in shards.values()}, {1}, shards)
        used = set().union(*shards.values())
        self.assertEqual(len(used), len(shards))
        self.assertLessEqual(used, os.sched_getaffinity(0))

    def test_more_shards_than_cpus_are_not_pinned(self):
        allowed = os.sched_getaffinity(0)
        balancer, _ = self.http(self.origin(), shards=len(allowed) + 1)
        shards = self.cpus_of_shards(balancer.process.pid)
        self.assertEqual(list(shards.values()), [allowed] * (len(allowed) + 1))

    def test_process_cpus_says_where(self):
        last = max(os.sched_getaffinity(0))
        balancer, _ = self.http(self.origin(), shards=f'1\ncpus = "{last}"')
        self.assertEqual(self.cpus_of_shards(balancer.process.pid), {"shard-0": {last}})
