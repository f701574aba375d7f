"""Control at run time: the admin socket, ringctl, and servers that are taken out under load."""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time

from support import RINGWAY, Balancer, Case, free_port, metrics, ok, wait_until

RINGCTL = str(pathlib.Path(RINGWAY).with_name("ringctl"))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


class Admin(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "admin.sock")

    def serve(self, *origins, rest: str = "", **more) -> tuple[Balancer, int]:
        return self.http(*origins, rest=f'[admin]\nsocket = "{self.path}"\n{rest}', **more)

    def ringctl(self, *words: str, code: int = 0, path: str | None = None) -> str:
        """Both outputs of the command, which must end with `code`."""
        done = subprocess.run([RINGCTL, "--socket", path or self.path, *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def json(self, *words: str) -> dict:
        return json.loads(self.ringctl("--json", *words))

    def server(self, name: str) -> dict:
        return self.json("server", f"app/{name}")

    def call(self, method: str, target: str, body=None) -> tuple[int, dict]:
        connection = UnixConnection(self.path)
        connection.request(method, target, body=body)
        answer = connection.getresponse()
        data = json.loads(answer.read())
        connection.close()
        return answer.status, data


class Lifecycle(Admin):
    def under_load(self, command: list[str], shards: int):
        """Takes s1 out while wrk runs: no request reaches it after the command has returned, its idle
        connections go at once, what runs there finishes, no client sees an error; then it comes back."""
        # Some answers take longer than the command, so that requests are in flight when it comes.
        count = {"n": 0}

        def slow(head, body):
            count["n"] += 1
            if count["n"] % 50 == 0:
                time.sleep(0.2)
            return ok(b"x")
        stays, leaves = self.origin(), self.origin(slow)
        balancer, port = self.serve(stays, leaves, shards=shards)
        load = subprocess.Popen(["wrk", "-t2", "-c32", "-d80s", f"http://127.0.0.1:{port}/"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(lambda: load.poll() is None and load.kill())
        for _ in range(3):
            before = len(leaves.requests)
            wait_until(lambda: len(leaves.requests) > before + 100)
            self.ringctl("server", "app/s1", *command)
            # Python's origin counts a request when its thread gets to it, a moment after it came: what it
            # has been sent by now is bounded by its open connections, and afterwards nothing moves.
            wait_until(lambda: not leaves.open)
            after = len(leaves.requests)
            other = len(stays.requests)
            wait_until(lambda: len(stays.requests) > other + 200)
            self.assertEqual(len(leaves.requests), after)
            self.assertEqual(self.connections_to(leaves.port), 0)
            state = self.server("s1")
            self.assertEqual((state["removable"], state["idle"], state["busy"]), (True, 0, 0))
            self.ringctl("server", "app/s1", "enable")
        load.send_signal(signal.SIGINT)  # It ends with its report.
        out = load.communicate(timeout=30)[0]
        self.assertEqual(load.returncode, 0, out)
        self.assertNotIn("Non-2xx", out)
        self.assertNotIn("Socket errors", out)
        wait_until(lambda: balancer.log().count("audit uid") == 6)

    @staticmethod
    def connections_to(port: int) -> int:
        listing = subprocess.run(["ss", "-Htn", "state", "established", f"dst 127.0.0.1:{port}"],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return len(listing.stdout.splitlines())

    def test_maintenance_under_load_one_shard(self):
        self.under_load(["maintenance"], 1)

    def test_drain_with_wait_under_load_two_shards(self):
        self.under_load(["drain", "--wait", "10"], 2)

    def test_after_the_acknowledgement_no_request_starts(self):
        """The origin stamps every request's arrival; none that came over an exchange begun later has a stamp
        after the command's return: each client asks one thing at a time and notes when it began."""
        stamps = []

        def stamp(head, body):
            stamps.append(int(re.search(rb"GET /(\d+)", head)[1]))
            return ok(b"x")
        balancer, port = self.serve(self.origin(), self.origin(stamp), shards=2)
        running, numbers, answers = [True], iter(range(1, 10**9)), [0]
        lock = threading.Lock()

        def ask():
            client = self.client(port)
            while running[0]:
                with lock:
                    number = next(numbers)
                if client.get(f"/{number}").status != 200:
                    return  # The numbers below then stand still.
                with lock:
                    answers[0] += 1
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            wait_until(lambda before=len(stamps): len(stamps) > before + 10)
            self.ringctl("server", "app/s1", "maintenance")
            with lock:
                first_after = next(numbers)  # Whatever gets a higher number was asked afterwards.
                seen = answers[0]
            wait_until(lambda least=seen + 200: answers[0] > least)
            self.assertEqual([number for number in stamps if number > first_after], [])
            self.ringctl("server", "app/s1", "enable")
        running[0] = False
        for thread in threads:
            thread.join(20)

    def test_running_requests_finish_and_wait_tells_when(self):
        release = threading.Event()

        def answer(head, body):
            release.wait(20)
            return ok(b"late")
        origin = self.origin(answer)
        _, port = self.serve(origin)
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(origin.requests) == 1)
        out = self.ringctl("server", "app/s0", "maintenance", "--wait", "1", code=1)
        self.assertIn("not empty after 1 s", out)
        self.assertFalse(self.server("s0")["removable"])
        # Nothing else is left: a clear 503 rather than a request for the drained server.
        self.assertEqual(self.client(port).get().status, 503)
        done = []
        waiter = threading.Thread(target=lambda: done.append(self.ringctl("server", "app/s0", "--wait", "20")))
        waiter.start()
        release.set()
        self.assertEqual(client.response().body, b"late")
        waiter.join(30)
        self.assertEqual(len(done), 1)
        self.assertTrue(self.server("s0")["removable"])
        wait_until(lambda: not origin.open)
        self.ringctl("server", "app/s0", "--wait", "5")
        self.ringctl("server", "app/s0", "enable")
        self.assertEqual(client.get().status, 200)
        self.assertIn("has no end", self.ringctl("server", "app/s0", "--wait", "5", code=1))

    def test_enabling_ends_a_wait(self):
        release = threading.Event()
        self.addCleanup(release.set)
        origin = self.origin(lambda head, body: release.wait(20) and ok(b"x"))
        _, port = self.serve(origin)
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(origin.requests) == 1)
        answers = []
        waiter = threading.Thread(target=lambda: answers.append(
            self.call("PATCH", "/v1/servers/app/s0?wait=60", '{"state": "drain"}')))
        waiter.start()
        wait_until(lambda: self.server("s0")["state"] == "drain")
        self.ringctl("server", "app/s0", "enable")
        waiter.join(20)
        self.assertEqual(answers[0][0], 409)

    def test_a_connection_being_made_delays_the_acknowledgement(self):
        """A server whose listen queue is full takes no connection and refuses none."""
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        self.addCleanup(full.close)
        fillers = []
        for _ in range(8):  # More than its queue takes; the rest hangs in connecting.
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
            self.addCleanup(filler.close)
        _, port = self.serve(full.getsockname()[1], upstream='timeouts = { connect = "700ms" }\nretry = { attempts = "off" }')
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: self.server("s0")["connecting"] == 1)
        self.ringctl("server", "app/s0", "drain")
        # Acknowledged only when nothing is connecting any more.
        self.assertEqual(self.server("s0")["connecting"], 0)
        self.assertEqual(client.response().status, 503)

    def test_weight_and_limits_are_overrides_over_reloads_until_the_file_changes_them(self):
        first, second = self.origin(), self.origin()
        balancer, port = self.serve(first, second)
        self.ringctl("server", "app/s1", "weight", "0")
        self.ringctl("server", "app/s0", "max-requests", "50")
        self.ringctl("server", "app/s0", "max-connections", "off")
        client = self.client(port)
        for _ in range(20):
            client.get()
        self.assertEqual((len(first.requests), len(second.requests)), (20, 0))
        balancer.reload()
        for _ in range(20):
            client.get()
        self.assertEqual((len(first.requests), len(second.requests)), (40, 0))
        self.assertEqual(self.server("s0")["max_requests"], 50)
        self.assertEqual(self.server("s0")["overrides"], {"max_requests": {"configured": "off"},
                                                          "max_connections": {"configured": "off"}})
        self.assertRegex(self.ringctl("servers"), r"s1 .* 0\* ")
        text = balancer.path.read_text()
        balancer.reload(text.replace(f"127.0.0.1:{second.port}\"", f"127.0.0.1:{second.port}\", weight = 50"))
        self.assertEqual(self.server("s1")["weight"], 50)
        self.assertEqual(self.server("s1")["overrides"], {})
        self.assertEqual(self.server("s0")["max_requests"], 50)
        wait_until(lambda: re.search(r"audit configuration 3: server app/s1: .*overrules", balancer.log()))
        self.ringctl("server", "app/s0", "reset")
        self.assertEqual(self.server("s0")["overrides"], {})

    def test_a_configured_state_holds_from_the_start_and_enable_overrides_it(self):
        page = free_port()
        first, second = self.origin(), self.origin()
        port = free_port()
        self.balancer = Balancer(self, f'''version = 1
[process]
shards = 1
[engine]
kind = "{self.engine}"
[listeners.web]
bind = "127.0.0.1:{port}"
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
health = {{ type = "tcp", interval = "50ms", timeout = "40ms", fast_interval = "50ms", fall = 1 }}
servers = [{{ name = "s0", address = "127.0.0.1:{first.port}" }},
           {{ name = "s1", address = "127.0.0.1:{second.port}", state = "maintenance" }}]
[metrics]
prometheus = "127.0.0.1:{page}"
[admin]
socket = "{self.path}"
''')
        client = self.client(port)
        for _ in range(10):
            client.get()
        self.assertEqual(len(second.requests), 0)
        self.assertEqual(self.server("s1")["health"], "unchecked")
        # Checked servers show connections of their own; one in maintenance shows none.
        wait_until(lambda: first.connections >= 3)
        self.assertEqual(second.connections, 0)
        def admin_states():
            return {label: metrics(page)[f'ringway_server_admin_state{{upstream="app",server="s1",state="{label}"}}']
                    for label in ("ready", "drain", "maintenance")}
        self.assertEqual(admin_states(), {"ready": 0, "drain": 0, "maintenance": 1})
        self.ringctl("server", "app/s1", "enable")
        self.assertEqual(admin_states(), {"ready": 1, "drain": 0, "maintenance": 0})
        wait_until(lambda: second.connections >= 2)
        wait_until(lambda: client.get().status == 200 and len(second.requests) > 0)
        self.assertEqual(self.server("s1")["health"], "up")

    def test_a_reload_is_acknowledged_when_no_request_goes_to_a_removed_server(self):
        first, second = self.origin(), self.origin()
        balancer, port = self.serve(first, second, shards=2)
        client = self.client(port)
        for _ in range(10):
            client.get()
        self.assertGreater(len(second.requests), 0)
        text = balancer.path.read_text()
        balancer.path.write_text(re.sub(r', \{ name = "s1".*?\}', "", text))
        self.assertEqual(self.json("reload"), {"generation": 2, "acknowledged": True})
        before = len(second.requests)
        for _ in range(20):
            self.assertEqual(client.get().status, 200)
        self.assertEqual(len(second.requests), before)
        wait_until(lambda: not second.open)
        self.assertIn('no server "s1"', self.ringctl("server", "app/s1", code=1))


class Api(Admin):
    def test_every_command_shows_something_true(self):
        balancer, port = self.serve(self.origin(), self.origin(), shards=2)
        client = self.client(port)
        for _ in range(6):
            client.get()
        servers = self.json("servers", "app")["servers"]
        self.assertEqual([s["server"] for s in servers], ["s0", "s1"])
        self.assertEqual(sum(s["requests"] for s in servers), 6)
        table = self.ringctl("servers").splitlines()
        self.assertTrue(table[0].startswith("UPSTREAM  SERVER  ADDRESS"))
        self.assertEqual(len(table), 3)
        self.assertNotIn("\x1b", "".join(table))
        pools = self.json("pools")["pools"]
        self.assertEqual(len(pools), 4)  # two servers on two shards
        self.assertEqual({(p["shard"], p["server"]) for p in pools}, {(0, "s0"), (0, "s1"), (1, "s0"), (1, "s1")})
        self.assertEqual(sum(p["connections"]["idle_safe"] + p["connections"]["idle_unproven"] for p in pools), 2)
        self.assertEqual(sum(p["got"]["safe"] + p["got"]["unproven"] + p["got"]["borrowed"] for p in pools), 4)
        self.assertIn("IDLE_SAFE", self.ringctl("pools", "app"))
        shards = self.json("shards")["shards"]
        self.assertEqual([s["shard"] for s in shards], [0, 1])
        self.assertEqual(sum(s["clients"] for s in shards), 1)
        self.assertEqual(sum(s["requests"] for s in shards), 6)
        self.assertGreater(min(s["counters"]["turns"] for s in shards), 0)
        self.assertIn("ENGINE", self.ringctl("shards"))
        self.assertIn('ringway_server_requests_total{upstream="app",server="s0"} 3', self.ringctl("metrics"))
        self.assertEqual(self.json("version")["pid"], balancer.process.pid)
        self.assertEqual(self.json("config")["generation"], 1)
        self.assertIn("generation", self.ringctl("config"))

    def test_a_reload_that_fails_shows_the_diagnostics_and_changes_nothing(self):
        balancer, port = self.serve(self.origin())
        text = balancer.path.read_text()
        balancer.path.write_text(text.replace("shards", "shrads"))
        out = self.ringctl("reload", code=1)
        self.assertIn("did you mean `shards`", out)
        self.assertIn("stays", out)
        status, body = self.call("POST", "/v1/reload")
        self.assertEqual((status, body["diagnostics"][0]["code"]), (422, "E0104"))
        self.assertEqual(self.json("config")["generation"], 1)
        self.assertEqual(self.json("config")["reloads_failed"], 2)
        self.assertEqual(self.client(port).get().status, 200)
        balancer.path.write_text(text)
        self.assertIn("generation", self.ringctl("reload"))
        self.assertEqual(self.json("config")["generation"], 2)
        wait_until(lambda: balancer.log().count("audit uid") == 3)  # The log has a thread of its own.

    def test_wrong_arguments_are_told_and_end_with_1(self):
        self.serve(self.origin())
        for words in (["server", "app/s0", "enabel"], ["server", "app/s0", "weight"], ["server", "app"],
                      ["server", "app/s0", "weight", "many"], ["server", "app/s0", "weight", "1001"],
                      ["server", "app/s0", "weight", "-1"], ["server", "app/s0", "enable", "5"],
                      ["server", "app/s0", "max-requests", "0"], ["server", "app/s0", "drain", "--wait", "x"],
                      ["server", "app/s0", "enable", "--wait", "1"], ["server", "app/nope", "drain"],
                      ["server", "ap/s0", "drain"], ["servers", "nope"], ["pools", "nope"], ["nope"], [],
                      ["servers", "app", "more"], ["server"]):
            with self.subTest(words=words):
                self.assertGreater(len(self.ringctl(*words, code=1)), 20)
        self.assertIn('did you mean "app"?', self.ringctl("server", "ap/s0", "drain", code=1))
        self.assertEqual(self.server("s0")["overrides"], {})
        self.assertIn("Exit codes", self.ringctl("--help"))
        self.assertIn("maintenance", self.ringctl("server", "--help"))
        self.assertIn("No such file", self.ringctl("servers", code=2, path=self.path + "x"))

    def test_requests_that_are_wrong_get_an_error_that_helps(self):
        self.serve(self.origin())
        target = "/v1/servers/app/s0"
        for method, where, body, status in (
                ("GET", "/", None, 404), ("GET", "/v1/server", None, 404), ("DELETE", target, None, 405),
                ("POST", "/v1/servers", "{}", 405), ("GET", "/v1/reload", None, 405),
                ("PATCH", target, "", 400), ("PATCH", target, "{", 400), ("PATCH", target, "[]", 400),
                ("PATCH", target, "{}", 400), ("PATCH", target, '{"state": "of"}', 400),
                ("PATCH", target, '{"state": "drain", "wieght": 1}', 400), ("PATCH", target, '{"weight": 1.5}', 400),
                ("PATCH", target, '{"weight": -1}', 400), ("PATCH", target, '{"weight": "off"}', 400),
                ("PATCH", target + "?wait=-1", '{"state": "drain"}', 400),
                ("PATCH", target + "?wit=1", '{"state": "drain"}', 400),
                ("GET", "/v1/servers?upstream=nope", None, 404), ("GET", "/v1/servers?x", None, 400),
                ("GET", "/v1/servers/app", None, 400), ("GET", "/v1/servers/app/%zz", None, 400),
                ("GET", "/v1/servers/app/nope", None, 404), ("GET", "/v1/shards?x=1", None, 400)):
            with self.subTest(method=method, where=where, body=body):
                got, answer = self.call(method, where, body)
                self.assertEqual(got, status, answer)
                self.assertTrue(answer["error"])
        connection = UnixConnection(self.path)
        connection.request("PATCH", target, body="x" * 20_000)
        self.assertEqual(connection.getresponse().status, 413)
        connection.close()
        self.assertEqual(self.server("s0")["overrides"], {})

    def test_names_may_hold_anything(self):
        origin = self.origin()
        name = 'a/b %25 "ü" ?x=1&#'
        port = free_port()
        Balancer(self, f'''version = 1
[engine]
kind = "{self.engine}"
[listeners.web]
bind = "127.0.0.1:{port}"
[[routes]]
name = "all"
upstream = "app"
[upstreams.app]
servers = [{{ name = '{name}', address = "127.0.0.1:{origin.port}" }}]
[admin]
socket = "{self.path}"
''')
        self.assertEqual(self.json("server", f"app/{name}", "drain")["state"], "drain")
        self.assertEqual(self.json("servers")["servers"][0]["server"], name)

    def test_two_admins_at_once_and_one_that_is_stuck(self):
        balancer, port = self.serve(self.origin(), self.origin(), shards=2)
        stuck = []
        for text in (b"", b"GET /v1/ser", b"PATCH /v1/servers/app/s0 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
                     b"GET /v1/metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 200):  # asks much and never reads
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.path)
            client.setblocking(False)
            try:
                client.send(text)
            except BlockingIOError:
                pass
            stuck.append(client)
            self.addCleanup(client.close)
        failures = []

        def admin(server: str, weight: int):
            for i in range(20):
                status, body = self.call("PATCH", f"/v1/servers/app/{server}", json.dumps({"weight": weight + i}))
                if status != 200 or body["weight"] != weight + i:
                    failures.append((status, body))
        admins = [threading.Thread(target=admin, args=(f"s{i}", 100 * (i + 1))) for i in range(2)]
        for thread in admins:
            thread.start()
        for thread in admins:
            thread.join(60)
        self.assertEqual(failures, [])
        self.assertEqual([self.server(s)["weight"] for s in ("s0", "s1")], [119, 219])
        wait_until(lambda: balancer.log().count(" audit uid") == 40)
        self.assertIn(f"audit uid {os.getuid()} pid {os.getpid()}: server app/s1: weight 100 -> 200", balancer.log())

    def test_more_clients_than_there_is_room_for_are_turned_away(self):
        self.serve(self.origin())
        clients = []
        for _ in range(40):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(20)
            client.connect(self.path)
            clients.append(client)
            self.addCleanup(client.close)
        wait_until(lambda: any(self.ended(client) for client in clients))
        for client in clients:
            client.close()
        wait_until(lambda: self.answers())

    @staticmethod
    def ended(client: socket.socket) -> bool:
        client.setblocking(False)
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def answers(self) -> bool:
        return subprocess.run([RINGCTL, "--socket", self.path, "version"], stdin=subprocess.DEVNULL,
                              capture_output=True, check=False, timeout=60).returncode == 0

    def test_a_client_that_closes_its_side_first_still_gets_its_answer(self):
        self.serve(self.origin())
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self.path)
        body = b'{"weight": 7}'
        client.sendall(b"PATCH /v1/servers/app/s0 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        client.shutdown(socket.SHUT_WR)
        data = b""
        while part := client.recv(65536):
            data += part
        client.close()
        self.assertIn(b'"weight": 7', data)


class Socket(Admin):
    def mode(self, path: str | None = None) -> int:
        return stat.S_IMODE(os.stat(path or self.path).st_mode)

    def test_mode_reload_and_end(self):
        balancer, _ = self.serve(self.origin())
        self.assertEqual(self.mode(), 0o600)
        text = balancer.path.read_text()
        balancer.reload(text + 'socket_mode = "0660"\n')
        self.assertEqual(self.mode(), 0o660)
        other = self.path + "2"
        balancer.reload(text.replace(self.path, other))
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(self.mode(other), 0o600)
        self.ringctl("version", path=other)
        # The one who reloads away the socket that he talks to gets his answer.
        balancer.path.write_text(text)
        self.assertIn("generation", self.ringctl("reload", path=other))
        self.assertFalse(os.path.exists(other))
        wait_until(lambda: balancer.log().count("info reloaded") == 3)
        os.unlink(self.path)  # Somebody cleaned up: a reload brings it back.
        balancer.reload()
        self.ringctl("version")
        balancer.reload(text.replace(f'[admin]\nsocket = "{self.path}"', ""))
        self.assertFalse(os.path.exists(self.path))
        self.ringctl("version", code=2)
        balancer.reload(text)
        self.assertEqual(balancer.stop(), 0)
        self.assertFalse(os.path.exists(self.path))

    def test_the_file_of_a_dead_process_is_replaced_and_a_live_one_is_an_error(self):
        first, _ = self.serve(self.origin())
        second = Balancer(self, first.path.read_text().replace("bind = \"127.0.0.1:", f"bind = \"127.0.0.1:{free_port()}\" #"),
                          wait=False)
        self.assertEqual(second.process.wait(20), 1)
        self.assertIn(f"admin.socket cannot bind {self.path}: Address already in use", second.log())
        self.ringctl("version")  # Still the first one's.
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(20)
        first.process.returncode = 0  # We did it.
        self.assertTrue(os.path.exists(self.path))
        third, _ = self.serve(self.origin())
        self.assertEqual(self.json("version")["pid"], third.process.pid)

    def test_a_path_that_cannot_be_bound_names_path_and_reason(self):
        self.path = os.path.join(self.folder.name, "none", "admin.sock")
        balancer, _ = self.http(self.origin())
        text = balancer.path.read_text()
        balancer.reload(text + f'[admin]\nsocket = "{self.path}"\n')
        self.assertIn(f"admin.socket cannot bind {self.path}: No such file or directory", balancer.log())
        broken = Balancer(self, balancer.path.read_text().replace(
            "bind = \"127.0.0.1:", f"bind = \"127.0.0.1:{free_port()}\" #"), wait=False)
        self.assertEqual(broken.process.wait(20), 1)
        self.assertIn(f"admin.socket cannot bind {self.path}: No such file or directory", broken.log())
        # A plain file is not replaced.
        plain = pathlib.Path(self.folder.name) / "plain"
        plain.write_text("precious")
        balancer.reload(text + f'[admin]\nsocket = "{plain}"\n')
        self.assertIn(f"admin.socket cannot bind {plain}", balancer.log())
        self.assertEqual(plain.read_text(), "precious")
