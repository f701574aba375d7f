"""tests/e2e/reuse_support.py - clients, configuration and the oracles that every test of connection reuse runs.

A ReuseCase starts reporting origins and one balancer before them. Its visitors are clients with a tag; every
request carries a token of its own. tearDown() judges the whole test by what the origins saw:
  (a) every answer belongs to its request, in a field and in every byte of the body
  (b) a connection carried requests of one server and one upstream only
  (c) a private connection carried one client only
  (d) an answer names the connection and ordinal under which the origin logged its request; no two answers name
      the same; a client sees ordinals of one connection grow; no connection carried two requests at once
  (e) the balancer's counters are the origins' own counts
  (f) when the clients and the origins have closed, all gauges are 0 and every descriptor is back; it exits with 0
"""
import dataclasses
import itertools
import json
import os
import pathlib
import re
import secrets
import socket
import struct
import subprocess
import tempfile

from h2client import H2, Stream
from reporting_origin import ReportingOrigin, body_of
from support import Balancer, Case, Client, Response, free_port, metrics, wait_until


class Names:
    """What the metrics are called, in one place."""
    CONNECTIONS = "ringway_server_connections"
    REUSE = "ringway_server_reuse_total"
    MISSES = "ringway_server_reuse_misses_total"
    CLOSES = "ringway_server_closes_total"
    STALE = "ringway_server_stale_total"
    IDLE_TIMES = "ringway_server_idle_at_reuse_seconds_count"
    RETRIES = "ringway_upstream_retries_stale_total"
    TRIES_AGAIN = "ringway_upstream_retries_total"
    OUTCOMES = "ringway_upstream_retry_outcomes_total"
    RESERVED = "ringway_server_private_total"
    REFUSED = "ringway_server_park_refused_total"
    DENIED = "ringway_upstream_retries_denied_%s_total"  # method, body
    FRESH = "fresh"
    UNSOLICITED = "unsolicited"
    UNSEEN = ("connect", "lent")  # reasons that no origin can have seen: never made, moved to another shard
    BORROWED = "borrowed"
    IDLE = ("idle_unproven", "idle_safe")
    PRIVATE = ("private_busy", "private_idle")
    NOT_ESTABLISHED = ("connecting", "closing")


KEEP = "min_idle_per_shard = 10000"  # The purge of what the load does not need leaves all alone.


class Counters:
    """One scrape."""

    def __init__(self, port: int):
        self.values = [(re.match(r"[^{]+", name)[0], dict(re.findall(r'(\w+)="([^"]*)"', name)), value)
                       for name, value in metrics(port).items()]

    def sum(self, family: str, **labels) -> int:
        """Over all samples of the family that have these labels; a tuple is any of its values."""
        def has(present):
            return all(present.get(name) in (wanted if isinstance(wanted, tuple) else (wanted,))
                       for name, wanted in labels.items())
        found = [(present, value) for name, present, value in self.values if name == family]
        assert found, f"no metric {family}"
        return int(sum(value for present, value in found if has(present)))

    def by(self, family: str, label: str, **labels) -> dict[str, int]:
        return {value: count for value in {present.get(label) for name, present, _ in self.values if name == family}
                if (count := self.sum(family, **{label: value}, **labels))}


@dataclasses.dataclass
class Answer:
    client: str
    token: str
    upstream: str
    response: Response | Stream

    def __post_init__(self):
        self.status = self.response.status
        self.conn = self.response.get("x-conn")  # None: the balancer itself answered
        self.req = int(self.response.get("x-req") or 0)
        self.server = self.response.get("x-server")


class Visitor:
    """A keep-alive client with a tag of its own."""

    def __init__(self, case: "ReuseCase", tag: str, port: int):
        self.case, self.tag = case, tag
        self.client = Client(port)
        self.client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = []

    def ask(self, *args, **more) -> Answer:
        self.begin(*args, **more)
        return self.end()

    def begin(self, command: str = "", method: str = "GET", body: bytes | None = None, upstream: str = "app",
              fields: str = "", chunked: bool = False, promise: int = 0, host: str = "test") -> str:
        """Sends a request and returns its token. `promise`: so many bytes more than `body` are announced."""
        token = f"{self.tag}.{next(self.case.numbers)}.{secrets.token_hex(6)}"
        target = f"/{upstream}/{command}{'&' if '?' in command else '?'}t={token}"
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nX-Client: {self.tag}\r\nX-Token: {token}\r\n{fields}"
        data = b""
        if chunked:
            head += "Transfer-Encoding: chunked\r\n"
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif body is not None:
            head += f"Content-Length: {len(body) + promise}\r\n"
            data = body
        self.pending.append((token, upstream, method, command))
        self.client.send(head.encode() + b"\r\n" + data)
        return token

    def end(self) -> Answer:
        """The answer of the oldest request that has none."""
        token, upstream, method, command = self.pending.pop(0)
        answer = Answer(self.tag, token, upstream, self.client.response(method))
        if answer.conn:
            size = re.search(r"[?&]size=(\d+)", command)
            whole = b"" if method == "HEAD" else body_of(token, int(size[1]) if size else 0)
            self.case.assertEqual((answer.response.get("x-token"), answer.response.body), (token, whole))  # (a)
        self.case.answers.append(answer)
        return answer

    def local(self):
        """A first request that needs no server, so that the next one is not the first any more."""
        self.case.assertEqual(self.client.get("/local").body, b"local")

    def leave(self):
        self.client.close()

    def abort(self):
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


class Http2Visitor:
    """The same over HTTP/2, with as many requests at once as it likes: end() takes what begin() has given."""

    def __init__(self, case: "ReuseCase", tag: str, port: int):
        self.case, self.tag = case, tag
        self.client = H2(port)

    def ask(self, *args, **more) -> Answer:
        return self.end(self.begin(*args, **more))

    def begin(self, command: str = "", method: str = "GET", upstream: str = "app", fields=()) -> tuple[str, str, Stream]:
        token = f"{self.tag}.{next(self.case.numbers)}.{secrets.token_hex(6)}"
        target = f"/{upstream}/{command}{'&' if '?' in command else '?'}t={token}"
        return token, upstream, self.client.request(target, method, [("x-client", self.tag), ("x-token", token), *fields])

    def end(self, begun: tuple[str, str, Stream]) -> Answer:
        token, upstream, stream = begun
        answer = Answer(self.tag, token, upstream, self.client.response(stream))
        if answer.conn:
            self.case.assertEqual((stream.get("x-token"), bytes(stream.body)), (token, token.encode()))  # (a)
        self.case.answers.append(answer)
        return answer

    def leave(self):
        self.client.close()


class ReuseCase(Case):
    counts_exact = True   # (e) False: attempts may fail before the origin sees them
    closes_exact = True   # (e) False: a server with all its counters may leave
    reopens = False       # (f) False: the balancer opens connections without a request (warm)

    def setUp(self):
        self.numbers = itertools.count(1)
        self.answers: list[Answer] = []
        self.visitors: list[Visitor | Http2Visitor] = []
        self.origins: list[ReportingOrigin] = []
        self.never: set[str] = set()  # upstreams with reuse = "never"
        self.balancer = None

    def reporting(self, name: str | None = None, port: int = 0, **options) -> ReportingOrigin:
        origin = ReportingOrigin(name or f"s{len(self.origins)}", port, **options)
        self.origins.append(origin)
        self.addCleanup(origin.stop)
        return origin

    def upstream(self, name: str, pool: str, servers, more: str = "") -> str:
        """TOML of an upstream and its route: /NAME/ is its prefix. `servers`: origins, or (origin, TOML) pairs."""
        if '"never"' in pool:
            self.never.add(name)
        pairs = [server if isinstance(server, tuple) else (server, "") for server in servers]
        listed = ", ".join(f'{{ name = "{o.name}", address = "{o.address}"{", " + extra if extra else ""} }}'
                           for o, extra in pairs)
        return (f'[[routes]]\nname = "{name}"\nmatch = {{ path_prefix = "/{name}/" }}\nupstream = "{name}"\n'
                f'rewrite = {{ strip_prefix = "/{name}" }}\nrequest_headers = {{ set = {{ "x-upstream" = "{name}" }} }}\n'
                f'[upstreams.{name}]\nservers = [{listed}]\n{more}\n[upstreams.{name}.pool]\n{pool}\n')

    def balance(self, *upstreams: str, shards: int = 1, listener: str = "", process: str = "", wrap=None) -> Balancer:
        """Starts the balancer. Purging of what the load does not need is left to tests that mean it: see KEEP."""
        self.port, self.admin = free_port(), free_port()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.access = pathlib.Path(folder.name) / "access"
        spin = 'busy_poll = "off"\n' if shards > 2 else ""
        text = (f'version = 1\n[process]\nshards = {shards}\nmax_connections = 10000\ndrain_timeout = "5s"\n{process}\n'
                f'[engine]\nkind = "{self.engine}"\nreceive = "{self.receive}"\n{spin}'
                f'[listeners.web]\nbind = "127.0.0.1:{self.port}"\n{listener}\n'
                f'[[routes]]\nname = "local"\nmatch = {{ path = "/local" }}\nrespond = {{ body = "local" }}\n'
                + "".join(upstreams) +
                f'[metrics]\nprometheus = "127.0.0.1:{self.admin}"\n[logs.access]\noutput = "file:{self.access}"\n')
        self.earlier = self.time_wait_rows()
        self.balancer = (wrap or Balancer)(self, text)
        self.settled_fds = self.fds()
        return self.balancer

    def app(self, pool: str = "", count: int = 1, more: str = "", servers: str = "", origin: dict | None = None,
            **rest) -> list[ReportingOrigin]:
        """The usual set-up: one upstream "app" before `count` origins; `servers`: TOML for each, `more`: for the upstream,
        `origin`: options of reporting()."""
        origins = [self.reporting(**(origin or {})) for _ in range(count)]
        self.balance(self.upstream("app", pool, [(origin, servers) for origin in origins], more), **rest)
        return origins

    def visitor(self, tag: str | None = None) -> Visitor:
        visitor = Visitor(self, tag or f"c{len(self.visitors)}", self.port)
        self.visitors.append(visitor)
        self.addCleanup(visitor.leave)
        return visitor

    def http2_visitor(self) -> Http2Visitor:
        visitor = Http2Visitor(self, f"c{len(self.visitors)}", self.port)
        self.visitors.append(visitor)
        self.addCleanup(visitor.leave)
        return visitor

    def guest(self, *args, **more) -> Answer:
        """One request of a client that comes for it and leaves."""
        visitor = self.visitor()
        answer = visitor.ask(*args, **more)
        visitor.leave()
        return answer

    def counters(self) -> Counters:
        return Counters(self.admin)

    def gauge(self, **labels) -> int:
        return self.counters().sum(Names.CONNECTIONS, **labels)

    def conn(self, name: str):
        return next(o.connections[name] for o in self.origins if name in o.connections)

    def wait_closed(self, name: str):
        wait_until(lambda: not self.conn(name).open)

    def access_of(self, token: str) -> dict:
        """The line of the access log."""
        found = []

        def written():
            found[:] = [line for line in self.access.read_text().splitlines() if token in line]
            return found
        wait_until(written)
        self.assertEqual(len(found), 1)
        return json.loads(found[0])

    def time_waits(self) -> int:
        """Connections between the balancer and the origins that are in TIME_WAIT."""
        ports = {origin.port for origin in self.origins}
        return sum(bool(ends & ports) and not ends & {self.port, self.admin}  # A client may have had that port.
                   for ends in (self.time_wait_rows() - self.earlier))

    @staticmethod
    def time_wait_rows() -> set[frozenset[int]]:
        rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {frozenset((int(row[1][-4:], 16), int(row[2][-4:], 16))) for row in rows if row[3] == "06"}

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.balancer.process.pid}/fd"))

    def park(self, count: int, upstream: str = "app", visitors=None) -> list[str]:
        """Makes `count` idle connections, by requests that are in hand at once; their names, the one used last first.

        As the first requests of new clients they use nothing that is idle in mode "safe"."""
        visitors = visitors or [self.visitor() for _ in range(count)]
        tokens = []
        for visitor in visitors:
            tokens.append(visitor.begin("stall", upstream=upstream))
            wait_until(lambda: any(origin.attempts(tokens[-1]) for origin in self.origins))
        names = []
        for token, visitor in zip(tokens, visitors):
            for origin in self.origins:
                origin.release(token)
            names.insert(0, visitor.end().conn)
        return names

    # The oracles.
    def tearDown(self):
        result = self._outcome.result
        if self.balancer is None or any(self in (test, getattr(test, "test_case", None))
                                        for test, _ in result.failures + result.errors):
            return  # What failed already is not judged again.
        for origin in self.origins:
            origin.thaw()
            origin.release_all()
        self.judge_sharing()
        self.judge_answers()
        if self.balancer.process.poll() is None:
            self.judge_counters()
            self.judge_end()

    def judge_sharing(self):
        for conn in (conn for origin in self.origins for conn in origin.connections.values()):
            # Health checks have no tag; they use connections of their own.
            self.assertLessEqual(len({seen.key for seen in conn.seen}), 1, f"(b) {conn.name}: {conn.seen}")
            self.assertEqual(conn.overlaps, 0, f"(d) {conn.name}")
            first = 0 if conn.seen and conn.seen[0].key[1] in self.never else conn.private_from
            if first is not None:
                tags = {seen.client for seen in conn.seen[first:]}
                self.assertEqual(len(tags), 1, f"(c) {conn.name} is private and carried {tags}")

    def judge_answers(self):
        logged = {seen.token: seen for origin in self.origins for seen in origin.log}  # the last attempt wins
        latest: dict[tuple[str, str], int] = {}
        for answer in self.answers:
            if answer.conn is None:
                continue
            seen = logged[answer.token]
            self.assertEqual((answer.conn, answer.req, answer.server), (seen.conn, seen.req, seen.server), "(d)")
            self.assertGreater(answer.req, latest.get((answer.client, answer.conn), 0), "(d)")
            latest[answer.client, answer.conn] = answer.req
        named = [(answer.conn, answer.req) for answer in self.answers if answer.conn]
        self.assertEqual(len(named), len(set(named)), "(d) two answers of one request")

    def judge_counters(self):
        def agree():
            """The balancer may learn of a close after the origin, so both sides come to agree."""
            now = self.counters()
            self.difference = []
            everything = now.by(Names.CONNECTIONS, "state")
            held = sum(count for state, count in everything.items() if state not in Names.NOT_ESTABLISHED)
            closed = now.by(Names.CLOSES, "reason")
            gone = sum(count for reason, count in closed.items() if reason not in Names.UNSEEN)
            real = [c for o in self.origins for c in o.connections.values() if not self.is_check(c)]
            established = sum(conn.established() for conn in real)
            if held != established or sum(everything.values()) != held:
                self.difference.append(f"{everything} but {established} established")
            if self.closes_exact and gone + held != len(real):
                self.difference.append(f"closed {closed}, {held} held, but {len(real)} were accepted")
            if self.counts_exact:
                how = now.by(Names.REUSE, "how")
                fresh = how.pop(Names.FRESH, 0)
                reqs = [seen.req for o in self.origins for seen in o.log if seen.client]
                wanted = (sum(req == 1 for req in reqs), sum(req > 1 for req in reqs))
                if (fresh, sum(how.values())) != wanted:
                    self.difference.append(f"{fresh} fresh, {how} but origins saw {wanted}")
            if now.sum(Names.OUTCOMES) != now.sum(Names.TRIES_AGAIN):
                self.difference.append(f"outcomes {now.by(Names.OUTCOMES, 'outcome')} of "
                                       f"{now.sum(Names.TRIES_AGAIN)} tries")
            was_idle = now.sum(Names.REUSE, how=("safe", "unproven", "session"))
            if now.sum(Names.IDLE_TIMES) != was_idle:
                self.difference.append(f"{now.sum(Names.IDLE_TIMES)} idle times of {was_idle} reused")
            return not self.difference
        try:
            wait_until(agree)
        except AssertionError:
            self.fail(f"(e) {'; '.join(self.difference)}")

    @staticmethod
    def is_check(conn) -> bool:
        return bool(conn.seen) and not any(seen.client for seen in conn.seen)

    def judge_end(self):
        for visitor in self.visitors:
            visitor.leave()
        try:
            wait_until(lambda: self.gauge(state=Names.PRIVATE) == 0)
            if not self.reopens:
                for origin in self.origins:
                    origin.close_idle()
                wait_until(lambda: self.gauge() == 0 and self.fds() <= self.settled_fds)
        except AssertionError:
            links = subprocess.run(["ls", "-l", f"/proc/{self.balancer.process.pid}/fd"], capture_output=True, text=True)
            self.fail(f"(f) {self.counters().by(Names.CONNECTIONS, 'state')}, {self.fds()} descriptors after "
                      f"{self.settled_fds}:\n{links.stdout}")
        self.assertEqual(self.balancer.stop(), 0, "(f)")
        wait_until(lambda: sum(origin.established for origin in self.origins) == 0)
