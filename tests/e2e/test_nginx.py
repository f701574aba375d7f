"""With Debian's nginx as origin and wrk as client."""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from support import Case, free_port, json_lines, metrics, wait_until


@unittest.skipUnless(shutil.which("nginx") and shutil.which("wrk"), "needs nginx and wrk")
class Nginx(Case):
    def nginx(self, port: int) -> subprocess.Popen:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        root.chmod(0o755)
        (root / "file").write_bytes(bytes(range(256)) * 4096)
        temp = "".join(f"{kind}_temp_path {root}/t-{kind};"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (root / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; keepalive_requests 1000000; {temp} gzip on; gzip_types *; default_type text/plain;\n"
            f"server {{ listen 127.0.0.1:{port} reuseport; root {root}; location = / {{ return 200 hello; }} }} }}\n")
        process = subprocess.Popen(["nginx", "-c", f"{root}/nginx.conf"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)

        def stop():  # The whole group: a master that was killed leaves its workers behind.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(timeout=20)
        self.addCleanup(stop)
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        return process

    def wrk(self, port: int, path: str = "/", seconds: int = 3) -> subprocess.Popen:
        return subprocess.Popen(["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"],
                                stdout=subprocess.PIPE, text=True)

    def test_curl_gets_files_whole_compressed_and_by_range(self):
        port = free_port()
        self.nginx(port)
        _, front = self.http(port)
        whole = bytes(range(256)) * 4096
        for words, expected in (([], whole), (["--compressed"], whole), (["-r", "100-199"], whole[100:200])):
            got = subprocess.run(["curl", "-sS", "--max-time", "20", *words, f"http://127.0.0.1:{front}/file"],
                                 capture_output=True, check=True).stdout
            self.assertEqual(got, expected)

    def test_20_reloads_under_wrk_without_an_error(self):
        """A server and a listener come and go, by themselves and together; a third thing changes every time."""
        ports, extra = [free_port(), free_port()], free_port()
        for port in ports:
            self.nginx(port)
        balancer, front = self.http(ports[0], shards=2)
        text = balancer.path.read_text()
        load = self.wrk(front, seconds=6)
        for i in range(20):
            now = text.replace("[upstreams.app]", f"[upstreams.app]\nretry = {{ attempts = {1 + i % 3} }}")
            if i % 2 == 0:
                now = now.replace("servers = [", f'servers = [{{ name = "more", address = "127.0.0.1:{ports[1]}" }}, ')
            if i % 4 < 2:
                now += f'[listeners.extra]\nbind = "127.0.0.1:{extra}"\n'
            balancer.reload(now)
            if i % 4 == 0:
                self.assertEqual(self.client(extra).get().body, b"hello")
        said = load.communicate(timeout=60)[0]
        self.assertNotIn("Socket errors", said)
        self.assertNotIn("Non-2xx", said)
        self.assertGreater(int(re.search(r"(\d+) requests in", said)[1]), 100)
        self.assertEqual(balancer.log().count("reloaded"), 20)

    def test_an_origin_is_killed_stays_dead_and_comes_back_under_wrk(self):
        """GETs that a killed server had in hand are repeated, the other server takes all while it is dead, and the
        first one gets its share again. Each step follows what was seen. What is lost is what the dying server's
        kernel had accepted without a process that would ever look at it: on a fresh connection the end says
        that the server fails on this request, which is not tried on others. That is at most one for each client."""
        ports, page, kills, clients = [free_port(), free_port()], free_port(), 2, 32
        access = tempfile.NamedTemporaryFile()
        self.addCleanup(access.close)
        doomed = self.nginx(ports[0])
        self.nginx(ports[1])
        balancer, front = self.http(*ports, upstream='health = { type = "tcp", interval = "100ms", fast_interval = "50ms",'
                                    ' down_interval = "100ms", timeout = "500ms", fall = 1, rise = 1 }',
                                    rest=f'[metrics]\nprometheus = "127.0.0.1:{page}"\n'
                                    f'[logs.access]\noutput = "file:{access.name}"\n', shards=2)

        def served(server: int) -> float:
            values = metrics(page)
            return sum(value for name, value in values.items() if f'server="s{server}"' in name
                       and name.startswith("ringway_server_requests_total"))

        def gets(server: int, more: int):
            before = served(server)
            wait_until(lambda: served(server) > before + more)
        load = self.wrk(front, seconds=80)
        self.addCleanup(load.kill)
        for round in range(kills):
            gets(0, 500)  # So that its connections have been used before.
            os.killpg(doomed.pid, signal.SIGKILL)
            wait_until(lambda: balancer.log().count("is down") == round + 1)
            while_dead = served(0)
            gets(1, 1000)
            self.assertEqual(served(0), while_dead)
            doomed = self.nginx(ports[0])
            wait_until(lambda: balancer.log().count("is up") == round + 1)
            gets(0, 500)
        self.assertIsNone(load.poll(), "the load ended too early")
        load.send_signal(signal.SIGINT)  # It says what it has seen.
        said = load.communicate(timeout=60)[0]
        self.assertNotIn("Socket errors", said)
        self.assertGreater(int(re.search(r"(\d+) requests in", said)[1]), 4000)
        lost = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        seen = int(lost[1]) if lost else 0
        self.assertLessEqual(seen, kills * clients)
        balancer.stop()
        failed = [line for line in json_lines(access.name) if line["status"] not in (200, 499)]  # 499: when wrk ended.
        self.assertEqual(len(failed), seen)
        for line in failed:
            self.assertEqual((line["status"], line["server"], line["reused"], line["cause"]),
                             (502, "s0", False, "the server closed before a response"))

    def test_an_origin_is_killed_under_wrk_and_the_other_takes_over(self):
        ports = [free_port(), free_port()]
        doomed = self.nginx(ports[0])
        self.nginx(ports[1])
        balancer, front = self.http(*ports, upstream='health = { type = "tcp", interval = "100ms",'
                                    ' fast_interval = "50ms", timeout = "500ms", fall = 1 }')
        load = self.wrk(front, seconds=4)
        os.killpg(doomed.pid, signal.SIGKILL)
        wait_until(lambda: "is down" in balancer.log())
        said = load.communicate(timeout=60)[0]
        self.assertNotIn("connect", re.search(r"Socket errors:.*", said + "Socket errors:")[0])
        self.assertGreater(int(re.search(r"(\d+) requests in", said)[1]), 1000)
        lost = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        self.assertLessEqual(int(lost[1]) if lost else 0, 32)  # At most what was in its hands.
