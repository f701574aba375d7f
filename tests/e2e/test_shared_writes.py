"""No cache line is written by two shards for each request, nor written by one and read by another.

Each load is a number of requests; a line that moved between shards more often than twice in a hundred of them fails the
test, unless all that was found to move it has a reason that is named here."""
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

from h2_origin import HTTP2, H2Origin
from h2client import H2
from shared_writes import LIBRARY, Recorder
from support import Balancer, Case, Client, free_port, ok, serve_each
from test_tls import Authority


class Echo:
    """Sends back what comes."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        serve_each(self.listener, self.serve)

    @staticmethod
    def serve(connection: socket.socket):
        with connection:
            while part := connection.recv(65536):
                connection.sendall(part)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


CLIENTS = 8
WARM_UP, ROUNDS = 10, 75
LEAST = 0.02  # moves of a line per request that count

# What may move a line, and how often per request, or per second where it does not depend on requests.
LENT = r"ringway::BorrowHints::"           # a shard has, or has no more, connections to lend: each 50 times a second
LEASES = r"ringway::Budget|ringway::Mailbox::"  # units of a limit that is used up go from shard to shard
ACCEPTS = r"ringway::Worker::(accept|clients_everywhere|uncount_client)\b|ringway::Mailbox::"  # the load of all shards
LENT_PER_SECOND, LEASES_PER_REQUEST, ACCEPTS_PER_CLIENT = 400, 4, 4


@unittest.skipUnless(LIBRARY.exists(), "only in a build with -Db_sanitize=thread")
class SharedWrites(Case):
    def serve(self, shards: int, limit: int = 1000):
        """Routes by path: /NAME goes to upstream NAME."""
        self.web, self.l4, self.tls = free_port(), free_port(), free_port()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        authority = Authority(pathlib.Path(folder.name))
        certificate, key = authority.issue("test", "test")
        self.context = ssl.create_default_context(cafile=str(authority.ca))
        origins = [self.origin(lambda head, body: ok(b"x" * 128)) for _ in range(2)]
        many = [H2Origin(lambda connection, stream, fields, body: connection.answer(stream, b"x" * 128)) for _ in range(2)]
        echoes = [Echo() for _ in range(2)]
        for one in many + echoes:
            self.addCleanup(one.stop)

        def upstream(name: str, servers, more: str = "", pool: str = 'share = "shard"', route: str = '"web", "tls"') -> str:
            listed = ", ".join(f'{{ address = "127.0.0.1:{one.port}", max_requests = {limit} }}' for one in servers)
            match = f'match = {{ path_prefix = "/{name}" }}\n' if route != '"l4"' else ""
            return (f'[[routes]]\nname = "{name}"\nlisteners = [{route}]\n{match}upstream = "{name}"\n'
                    f'[upstreams.{name}]\nservers = [{listed}]\n{more}\n'
                    + (f'[upstreams.{name}.pool]\n{pool}\n' if pool else ""))

        self.recorder = Recorder(self)
        self.balancer = Balancer(
            self, f'''version = 1
[process]
shards = {shards}
max_connections = 1000
drain_timeout = "5s"
[engine]
kind = "{self.engine}"
receive = "{self.receive}"
busy_poll = "off"
[listeners.web]
bind = "127.0.0.1:{self.web}"
[listeners.tls]
bind = "127.0.0.1:{self.tls}"
tls = "public"
[listeners.l4]
protocol = "tcp"
bind = "127.0.0.1:{self.l4}"
[tls.profiles.public]
certificates = ["test"]
[tls.certificates]
test = {{ cert = "{certificate}", key = "{key}" }}
{upstream("shard", origins)}
{upstream("borrow", origins, pool='share = "borrow"')}
{upstream("h2", many, HTTP2, pool="")}
{upstream("l4", echoes, 'protocol = "tcp"', pool="", route='"l4"')}
[logs.access]
output = "file:{folder.name}/access"
''', env=self.recorder.env)

    def http1(self, path: str, tls: bool = False):
        clients = [Client(self.tls if tls else self.web) for _ in range(CLIENTS)]
        if tls:
            for client in clients:
                client.socket = self.context.wrap_socket(client.socket, server_hostname="test")

        def ask():
            for client in clients:
                client.send(f"GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            for client in clients:
                self.assertEqual(client.response().status, 200)
        return clients, ask

    def http2(self, path: str):
        clients = [H2(self.web) for _ in range(CLIENTS)]

        def ask():
            streams = [client.request("/" + path) for client in clients]
            for client, stream in zip(clients, streams):
                self.assertEqual(client.response(stream).status, 200)
        return clients, ask

    def messages(self):
        clients = [Client(self.l4) for _ in range(CLIENTS)]

        def ask():
            for client in clients:
                client.send(b"x" * 64)
            for client in clients:
                client.exactly(64)
        return clients, ask

    @staticmethod
    def anew(make):
        """The load of `make`, by clients that come for one request each."""
        def ask():
            clients, once = make()
            once()
            for client in clients:
                client.close()
        return [], ask

    def judge(self, name: str, load, reason: str, per_request: float = 0, per_second: float = 0, others: float = LEAST,
              rounds: int = ROUNDS):
        """No line moves more often than that by what has a `reason`, nor more often than `others` per request without."""
        clients, ask = load
        for _ in range(WARM_UP):
            ask()
        began = time.monotonic()
        lines = self.recorder.record(lambda: [ask() for _ in range(rounds)])
        seconds, requests = time.monotonic() - began, rounds * CLIENTS
        for client in clients:
            client.close()
        self.assertGreater(sum(writes > requests for writes in self.recorder.writes), 1, f"{name}: one shard did it all")
        pid = self.balancer.process.pid
        moved = [line for line in lines if line.moves > LEAST * requests]
        names = self.recorder.symbols(pid, set().union(*(line.code for line in moved)))
        wrong = [line for line in moved
                 if line.moves > (per_request * requests + per_second * seconds
                                  if all(re.search(reason, names[code]) for code in line.code) else others * requests)]
        if os.environ.get("RINGWAY_SHARED_WRITES"):
            print(f"\n{name}: {requests} requests in {seconds:.2f} s, {sum(line.moves for line in lines)} moves of {len(lines)} "
                  f"lines\n{self.recorder.explain(pid, moved, requests)}")
        if wrong:
            self.fail(f"{name}:\n{self.recorder.explain(pid, wrong, requests)}")

    def judge_requests(self, loads: dict):
        for name, load in loads.items():
            self.judge(name, load(), LENT, per_second=LENT_PER_SECOND)

    def test_requests_on_two_shards(self):
        self.serve(2)
        self.judge_requests({"HTTP/1.1": lambda: self.http1("shard"), "HTTP/1.1, borrow": lambda: self.http1("borrow"),
                             "HTTP/1.1 to HTTP/2": lambda: self.http1("h2"), "TLS": lambda: self.http1("shard", tls=True),
                             "HTTP/2 to HTTP/1.1": lambda: self.http2("shard"), "HTTP/2": lambda: self.http2("h2"),
                             "layer 4": self.messages})

    def test_requests_on_four_shards(self):
        self.serve(4)
        self.judge_requests({"HTTP/1.1, borrow": lambda: self.http1("borrow"), "HTTP/2": lambda: self.http2("h2"),
                             "layer 4": self.messages})

    def test_requests_that_use_up_a_limit(self):
        # 8 clients, 6 requests at once: counting exactly takes a shared counter; nothing else may move.
        self.serve(2, limit=3)
        self.judge("HTTP/1.1", self.http1("shard"), LEASES, per_request=LEASES_PER_REQUEST)
        self.judge("HTTP/2", self.http2("h2"), LEASES, per_request=LEASES_PER_REQUEST)

    def test_a_client_for_each_request(self):
        # `others`: a shard frees what control gave it, and uses that memory again, beside what others read.
        self.serve(2)
        for name, load in {"HTTP/1.1": lambda: self.http1("shard"), "layer 4": self.messages}.items():
            self.judge(name, self.anew(load), ACCEPTS, per_request=ACCEPTS_PER_CLIENT, others=0.5, rounds=40)

    def test_the_recorder_sees_what_moves(self):
        recorder = Recorder(self)
        with subprocess.Popen([LIBRARY.parent / "known_sharing"], env=os.environ | recorder.env, text=True, bufsize=1,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            words = program.stdout.readline().split()
            at = {name: int(place, 16) for name, place in zip(words[::2], words[1::2])}

            def run():
                program.stdin.write("go\n")
                self.assertEqual(program.stdout.readline(), "done\n")
            lines = {line.address: line for line in recorder.record(run)}
            names = recorder.symbols(program.pid, lines[at["turn"]].code)
            program.stdin.write("end\n")
        turns = 1000
        self.assertEqual(lines[at["turn"]].takes[:2], [turns - 1, turns])
        self.assertTrue(all("known.cc" in name for name in names.values()), names)
        self.assertEqual((lines[at["read"]].takes[:2], lines[at["read"]].fetches[:2]), ([0, 0], [0, turns]))
        self.assertEqual(lines[at["copied"]].writes[:2], [turns, turns])
        self.assertEqual(lines[at["copied"]].takes[:2], [turns - 1, turns])
        self.assertEqual(set(lines), {at["turn"], at["read"], at["copied"]})  # Not what each writes for itself.
