"""Operating it: failures, health, reload, drain, logs, metrics, the command line."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from support import (RINGWAY, Balancer, Case, Client, accepts, free_port, json_lines, metrics, ok, raw,
                     wait_until)


class Load:
    """Keep-alive clients in threads that count answers and everything that is not a 200."""

    def __init__(self, port: int, clients: int = 8):
        self.port, self.running = port, True
        self.answers, self.errors = 0, []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        client = Client(self.port)
        while self.running:
            try:
                response = client.get()
                if response.status != 200:
                    self.errors.append(response.status)
                self.answers += 1
                if response.get("connection") == "close":
                    client.close()
                    client = Client(self.port)
            except (OSError, EOFError) as problem:
                self.errors.append(repr(problem))
                client.close()
                try:
                    client = Client(self.port)
                except OSError:
                    time.sleep(0.02)
        client.close()

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join(20)


class Failures(Case):
    def test_a_refused_connect_goes_to_the_next_server_and_none_left_is_503(self):
        good = self.origin()
        _, port = self.http(free_port(), good)
        client = self.client(port)
        self.assertEqual([client.get().status for _ in range(4)], [200] * 4)
        good.stop()
        wait_until(lambda: client.get().status == 503)
        self.assertIn(b"503", client.get().body)

    def test_malformed_answers_are_502_and_the_connection_is_not_used_again(self):
        bad = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", b"garbage\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b"HTTP/1.1 101 Hi\r\n\r\n",
               b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"]
        for answer in bad:
            with self.subTest(answer=answer):
                origin = self.origin(lambda head, body, a=answer: a)
                _, port = self.http(origin)
                client = self.client(port)
                self.assertEqual(client.get().status, 502)
                self.assertEqual(client.get().status, 502)
                self.assertEqual(origin.connections, 2)

    def test_bytes_behind_an_answer_discard_the_connection(self):
        origin = self.origin(lambda head, body: ok(b"a") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        _, port = self.http(origin)
        client = self.client(port)
        self.assertEqual([client.get().body for _ in range(3)], [b"a"] * 3)
        self.assertEqual(origin.connections, 3)

    def test_a_cut_answer_is_visible_to_the_client(self):
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort<CLOSE>"
        _, port = self.http(self.origin(lambda head, body: cut))
        answer = raw(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(answer.endswith(b"<RESET>") or len(answer) < 1000, answer)
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n<CLOSE>"
        _, port = self.http(self.origin(lambda head, body: chunked))
        answer = raw(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertNotIn(b"\r\n0\r\n", answer)

    def test_silence_is_504_and_a_close_without_answer_502(self):
        _, port = self.http(self.origin(lambda head, body: time.sleep(5) or None),
                            upstream='timeouts = { response_headers = "200ms" }')
        self.assertEqual(self.client(port).get().status, 504)
        _, port = self.http(self.origin(lambda head, body: None))
        self.assertEqual(self.client(port).get().status, 502)

    def test_a_stale_idle_connection_costs_a_get_nothing_and_a_post_is_not_repeated(self):
        """The origin closes an idle connection in the moment the next request comes: reads it, closes."""
        state = {"stale": False}

        def answer(head, body):
            if state["stale"]:
                state["stale"] = False
                return None
            return ok(b"fine")
        origin = self.origin(answer)
        _, port = self.http(origin)
        client = self.client(port)
        self.assertEqual(client.get().status, 200)
        state["stale"] = True
        self.assertEqual(client.get().status, 200)
        state["stale"] = True
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        self.assertEqual(client.response().status, 502)
        self.assertEqual(sum(1 for head, _ in origin.requests if head.startswith(b"POST")), 1)

    def test_origins_die_and_return_under_load(self):
        ports = [free_port(), free_port()]
        origins = [self.origin(port=port) for port in ports]
        _, port = self.http(*ports, upstream='health = { type = "tcp", interval = "100ms", fast_interval = "50ms",'
                            ' down_interval = "50ms", timeout = "500ms", rise = 1, fall = 1 }')
        load = Load(port)
        for _ in range(3):
            for i in range(2):
                wait_until(lambda before=load.answers: load.answers > before + 50)
                origins[i].stop()
                wait_until(lambda before=load.answers: load.answers > before + 50)
                origins[i] = self.origin(port=ports[i])
                wait_until(lambda origin=origins[i]: len(origin.requests) > 10)  # It takes part again.
        load.stop()
        # Requests that were in the origin's hands when it died are lost; nothing else may be.
        self.assertEqual([e for e in load.errors if e not in (502,)], [])
        self.assertLess(len(load.errors), load.answers / 10)


class Health(Case):
    CHECK = ('health = { type = "http", path = "/healthz", interval = "50ms", fast_interval = "20ms",'
             ' down_interval = "50ms", timeout = "500ms", rise = 2, fall = 2, expect = { status = ["200-299"],'
             ' body = "fine" } }')

    def test_http_checks_take_a_server_out_and_bring_it_back(self):
        state = {"body": b"fine"}

        def answer(head, body):
            return ok(state["body"] if b"/healthz" in head else b"answer")
        sick = self.origin(answer)
        balancer, port = self.http(sick, upstream=self.CHECK)
        client = self.client(port)
        wait_until(lambda: len(sick.requests) > 2)
        self.assertEqual(client.get().status, 200)
        state["body"] = b"broken"
        wait_until(lambda: "app/s0" in balancer.log() and "is down" in balancer.log())
        self.assertIn('body does not contain "fine"', balancer.log())
        self.assertEqual(client.get().status, 503)
        state["body"] = b"fine"
        wait_until(lambda: "is up" in balancer.log())
        self.assertEqual(client.get().status, 200)

    def test_initially_down_servers_wait_for_their_first_verdict(self):
        gate = threading.Event()

        def answer(head, body):
            if b"/healthz" in head and not gate.is_set():
                return b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
            return ok(b"fine")
        balancer, port = self.http(self.origin(answer),
                                   upstream=self.CHECK.replace("rise = 2", 'rise = 2, initial = "down"'))
        self.assertEqual(self.client(port).get().status, 503)
        gate.set()
        wait_until(lambda: "is up" in balancer.log())
        self.assertEqual(self.client(port).get().status, 200)


class Reload(Case):
    def test_twenty_reloads_under_load_lose_nothing(self):
        origins = [self.origin(), self.origin()]
        balancer, port = self.http(*origins, shards=2)
        text = balancer.path.read_text()
        load = Load(port)
        for i in range(20):
            wait_until(lambda before=load.answers: load.answers > before + 10)
            balancer.reload(text.replace("[upstreams.app]", f'[upstreams.app]\nretry = {{ attempts = {1 + i % 3} }}'))
        load.stop()
        self.assertEqual(load.errors, [])
        self.assertIn("configuration 21", balancer.log())

    def test_an_invalid_file_changes_nothing(self):
        balancer, port = self.http(self.origin())
        balancer.reload("version = 1\nnonsense = true\n")
        self.assertIn("reload failed", balancer.log())
        self.assertIn("nonsense", balancer.log())
        self.assertEqual(self.client(port).get().status, 200)

    def test_a_busy_port_changes_nothing(self):
        balancer, port = self.http(self.origin())
        with socket.create_server(("127.0.0.1", 0)) as holder:
            busy = holder.getsockname()[1]
            balancer.reload(balancer.path.read_text() + f'[listeners.second]\nbind = "127.0.0.1:{busy}"\n')
        self.assertIn("Address already in use", balancer.log())
        self.assertEqual(self.client(port).get().status, 200)

    def test_listeners_and_servers_come_and_go_and_counters_stay(self):
        first, second = self.origin(lambda h, b: ok(b"1")), self.origin(lambda h, b: ok(b"2"))
        admin = free_port()
        balancer, port = self.http(first, rest=f'[metrics]\nprometheus = "127.0.0.1:{admin}"')
        client = self.client(port)
        self.assertEqual(client.get().body, b"1")
        extra = free_port()
        text = balancer.path.read_text()
        balancer.reload(text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{port}\", \"127.0.0.1:{extra}")
                        .replace('bind = "', 'bind = ["').replace(f'{extra}"', f'{extra}"]')
                        .replace(str(first.port), str(second.port)))
        self.assertEqual(self.client(extra).get().body, b"2")
        self.assertEqual(client.get().body, b"2")  # The same connection, the new server.
        self.assertEqual(metrics(admin)['ringway_listener_requests_total{listener="web"}'], 3)
        balancer.reload(text)
        wait_until(lambda: not accepts(extra))
        self.assertEqual(client.get().body, b"1")


class Drain(Case):
    def test_sigterm_finishes_what_runs_and_exits_0(self):
        release = threading.Event()
        origin = self.origin(lambda head, body: release.wait(20) and ok(b"late"))
        balancer, port = self.http(origin)
        idle, busy = self.client(port), self.client(port)
        busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(origin.requests) == 1)
        balancer.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in balancer.log())
        with self.assertRaises(OSError):
            wait_until(lambda: not socket.create_connection(("127.0.0.1", port)).close())
            for _ in range(100):
                socket.create_connection(("127.0.0.1", port)).close()
                time.sleep(0.02)
        release.set()
        response = busy.response()
        self.assertEqual((response.body, response.get("connection")), (b"late", "close"))
        idle.close()
        self.assertEqual(balancer.process.wait(20), 0)

    def test_the_drain_is_bounded(self):
        origin = self.origin(lambda head, body: time.sleep(30) or ok(b"never"))
        balancer, port = self.http(origin)
        balancer.path.write_text(balancer.path.read_text().replace('"5s"', '"300ms"'))
        balancer.reload()
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(origin.requests) == 1)
        self.assertEqual(balancer.stop(), 0)
        self.assertIn("drain timeout: closing 1 connection", balancer.log())


class Observing(Case):
    def test_access_log_lines_and_metrics_add_up(self):
        admin = free_port()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        balancer, port = self.http(self.origin(lambda h, b: ok(b"x" * 100)), shards=2,
                                   rest=f'[metrics]\nprometheus = "127.0.0.1:{admin}"\n'
                                        f'[logs.access]\noutput = "file:{folder.name}/access"\n')
        for _ in range(5):
            client = self.client(port)
            client.get("/a?b", fields='User-Agent: "quoted\\\r\n')
            client.get("/c")
        raw(port, b"BROKEN\r\n\r\n")
        wait_until(lambda: pathlib.Path(f"{folder.name}/access").read_text().count("\n") == 11)
        lines = json_lines(f"{folder.name}/access")
        self.assertEqual(sorted(line["status"] for line in lines), [200] * 10 + [501])
        good = next(line for line in lines if line.get("target") == "/a?b")
        self.assertEqual((good["user_agent"], good["route"], good["upstream"], good["server"], good["listener"]),
                         ('"quoted\\', "all", "app", "s0", "web"))
        values = metrics(admin)
        self.assertEqual(values['ringway_listener_requests_total{listener="web"}'], 10)
        self.assertEqual(values['ringway_listener_responses_total{listener="web",class="2xx"}'], 10)
        self.assertEqual(values['ringway_server_requests_total{upstream="app",server="s0"}'], 10)
        self.assertEqual(values['ringway_listener_rejected_heads_total{listener="web"}'], 1)
        # SIGHUP opens the file again, so that logrotate may move it away.
        os.rename(f"{folder.name}/access", f"{folder.name}/old")
        balancer.reload()
        self.client(port).get()
        wait_until(lambda: os.path.exists(f"{folder.name}/access") and
                   pathlib.Path(f"{folder.name}/access").read_text().count("\n") == 1)

    def test_64_clients_on_8_shards_are_spread_evenly(self):
        admin = free_port()
        _, port = self.http(self.origin(), shards=8, rest=f'[metrics]\nprometheus = "127.0.0.1:{admin}"')
        clients = [self.client(port) for _ in range(64)]
        for client in clients:
            self.assertEqual(client.get().status, 200)
        values = metrics(admin)
        shards = [values[f'ringway_shard_connections{{shard="{i}"}}'] for i in range(8)]
        self.assertEqual(sum(shards), 64)
        self.assertLessEqual(max(shards), 1.3 * 8, shards)


class CommandLine(unittest.TestCase):
    def run_it(self, *words: str, **more) -> subprocess.CompletedProcess:
        return subprocess.run([RINGWAY, *words], capture_output=True, text=True, timeout=30, **more)

    def test_version_help_engine_and_usage(self):
        self.assertRegex(self.run_it("--version").stdout, r"^ringway \d+\.\d+\.\d+\n$")
        self.assertIn("EXIT STATUS", self.run_it("--help").stdout)
        self.assertIn('engine.kind = "auto" uses: ', self.run_it("engine").stdout)
        for words in ([], ["nonsense"], ["run"], ["tcp"], ["tcp", "127.0.0.1:0"], ["tcp", "--engine=x", "a", "b"],
                      ["tcp", "127.0.0.1:0", "nonsense"], ["check"], ["check", "--nonsense", "x"], ["explain", "E9"]):
            with self.subTest(words=words):
                done = self.run_it(*words)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn("ringway", done.stderr)

    def test_check_says_all_errors_with_their_places(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('version = 1\n[listeners.web]\nbind = "127.0.0.1:1"\nmaxconn = 5\n[[routes]]\nname = "a"\n'
                       'upstream = "aip"\n[upstreams.api]\nservers = [{ address = "127.0.0.1:2" }]\n'
                       'timeouts = { connect = 2 }\n')
            file.flush()
            for command in ("check", "run"):
                done = self.run_it(command, file.name)
                text = done.stdout + done.stderr
                self.assertEqual(done.returncode, 1)
                self.assertIn("did you mean `max_connections`?", text)
                self.assertIn(f"{file.name}:4:1", text)
                self.assertIn('did you mean "api"?', text)
                self.assertIn("a duration needs a unit", text)
                self.assertIn("3 errors", text)
            self.assertEqual(len(json.loads(self.run_it("check", "--json", file.name).stdout)["diagnostics"]), 3)
            code = re.search(r"error\[(E\d+)\]", text)[1]
            self.assertEqual(self.run_it("explain", code).returncode, 0)

    def test_a_busy_port_says_which_listener_and_where(self):
        with socket.create_server(("127.0.0.1", 0)) as holder, tempfile.NamedTemporaryFile("w") as file:
            at = f"127.0.0.1:{holder.getsockname()[1]}"
            file.write(f'version = 1\n[listeners.web]\nbind = "{at}"\n[[routes]]\nname = "a"\nupstream = "u"\n'
                       '[upstreams.u]\nservers = [{ address = "127.0.0.1:2" }]\n')
            file.flush()
            done = self.run_it("run", file.name)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f'listener "web" cannot bind {at}: Address already in use ({file.name}:3:', done.stderr)

    def test_the_demo_answers_curl_counts_and_drains(self):
        process = subprocess.Popen([RINGWAY, "demo"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        text = ""

        def read_until(pattern: str) -> re.Match:
            nonlocal text
            while not (found := re.search(pattern, text, re.M)):
                line = process.stderr.readline()
                self.assertTrue(line, text)
                text += line
            return found
        url = read_until(r"^  curl (http://127\.0\.0\.1:(\d+)/)$")
        port = int(url[2])
        read_until(f"^  wrk -c 64 -d 5 {re.escape(url[1])}$")
        answer = subprocess.run(["curl", "-sS", "--max-time", "5", url[1]], capture_output=True, text=True, check=True)
        self.assertEqual(answer.stdout, "Hello from Ringway\n")
        client, busy = Client(port), Client(port)
        self.addCleanup(client.close)
        self.addCleanup(busy.close)
        for _ in range(12):  # Three origins in turn: from the fourth on a connection is there.
            self.assertEqual(client.get().body, b"Hello from Ringway\n")
        live = read_until(r"^(\d+) requests/s, 2 client connections, ([1-9]\d*) idle to servers,"
                          r" (?!0\.0 )(\d+\.\d) % reused *$")
        self.assertGreater(int(live[1]), 0)
        busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not accepts(port))
        self.assertIsNone(process.poll())  # It waits for the request that has begun.
        busy.send(b"\r\n")
        self.assertEqual(busy.response().body, b"Hello from Ringway\n")
        self.assertEqual(process.wait(timeout=20), 0)
        text += process.stderr.read()
        self.assertIn("ringway demo: stopped", text)
        self.assertNotIn("drain timeout", text)

    def test_every_command_has_help(self):
        manual = self.run_it("--help").stdout
        self.assertEqual(manual, self.run_it("-h").stdout)
        for word in ("HTTP/2", "TLS", "layer 4", "SEE ALSO\n    ringctl"):
            self.assertIn(word, manual)
        for words in (["run"], ["check"], ["check", "--json"], ["explain"], ["schema"], ["engine"], ["demo"], ["tcp"],
                      ["tcp", "--engine=epoll"]):
            self.assertIn(f"    ringway {words[0]}", manual)
            for flag in ("--help", "-h"):
                with self.subTest(words=[*words, flag]):
                    done = self.run_it(*words, flag)
                    self.assertEqual((done.returncode, done.stderr), (0, ""))
                    self.assertTrue(done.stdout.startswith(f"usage: ringway {words[0]}"), done.stdout)
                    self.assertGreater(done.stdout.count("\n"), 2)
        done = self.run_it("check", "--nonsense")  # Wrong usage names the right one of that command.
        self.assertEqual(done.returncode, 2)
        self.assertIn("usage: ringway check [--json] [--strict] FILE\n", done.stderr)

    def test_strict_makes_a_warning_exit_2(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            good = ('version = 1\n[listeners.web]\nbind = "127.0.0.1:1"\n[[routes]]\nname = "a"\nupstream = "u"\n'
                    '[upstreams.u]\nservers = [{ address = "127.0.0.1:2" }]\n')
            warned = good + '[upstreams.unused]\nservers = [{ address = "127.0.0.1:3" }]\n'
            wrong = good + "[nonsense]\n"
            for text, plain, strict in ((good, 0, 0), (warned, 0, 2), (wrong, 1, 1)):
                file.seek(0)
                file.truncate()
                file.write(text)
                file.flush()
                self.assertEqual(self.run_it("check", file.name).returncode, plain, text)
                done = self.run_it("check", "--strict", file.name)
                self.assertEqual(done.returncode, strict, text)
                self.assertEqual("W0402" in done.stdout, text is warned)

    def test_a_file_of_10000_lines_is_checked(self):
        lines = ["version = 1", "[listeners.web]", 'bind = "127.0.0.1:1"']
        for i in range(1400):
            lines += ["[[routes]]", f'name = "r{i}"', f'match = {{ host = "h{i}.example", path_prefix = "/p{i}/" }}',
                      f'upstream = "u{i}"', f"[upstreams.u{i}]", f'servers = [{{ address = "127.0.0.1:{i + 1000}" }}]',
                      f'timeouts = {{ connect = "{i % 9 + 1}s" }}', "# One of many."]
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            for fault, code in (("", 0), ('bogus = 1', 1)):
                lines[9002] = fault or lines[9002]
                file.seek(0)
                file.write("\n".join(lines) + "\n")
                file.truncate()
                file.flush()
                done = self.run_it("check", "--strict", file.name)
                self.assertEqual(done.returncode, code, done.stdout[:2000])
            self.assertIn(f"{file.name}:9003:1", done.stdout)
