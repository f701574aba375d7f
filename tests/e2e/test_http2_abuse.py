"""Attacks by HTTP/2 frames: each ends as RFC 9113 and the configured limits say, while another connection is served.

Volumes are far above any budget that makes sense, so a test does not depend on where exactly it is."""
import collections
import pathlib
import re
import tempfile
import threading
import time

import h2client as h2
import support
from h2client import (COMPRESSION_ERROR, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR,
                      REFUSED_STREAM, STREAM_CLOSED, Closed, block, continuation, data, frame, get, headers, indexed, literal, priority,
                      rst_stream, settings, window_update)
from h2_support import REFERENCE, H2Case, Peer, differs, test_name
from support import free_port, metrics, ok, wait_until

GET = block(get())
STALL = block(get("/stall"))
BIG = block(get("/big"))
POST_STALL = block(get("/stall", "POST"))
CALM = (ENHANCE_YOUR_CALM, PROTOCOL_ERROR) + ((INTERNAL_ERROR,) if REFERENCE else ())
RESETS = 200  # The default of max_resets, within 10 s.
STREAMS = 100  # The default of max_streams.


def answers(peer: Peer, connection, head: bytes, rest: bytes):
    """/stall is never answered, /big is 1 MiB, all else is small."""
    path = head.split(b" ")[1]
    if path == b"/stall":
        peer.until_end(connection)
        return False
    connection.sendall(ok(bytes(1 << 20) if path == b"/big" else b"small"))
    return True


class AbuseCase(H2Case):
    """One attacker, and one good client all the time."""
    TIMEOUTS = 'timeouts = { client_idle = "1s", request_headers = "1s", request_body = "1s", keep_alive = "2s" }'

    def setUp(self):
        super().setUp()
        self.peer_ = self.peer(answers)
        self.times, self.failed, self.over = [], None, threading.Event()  # Seconds that each good request took.

    @property
    def served(self) -> int:
        return len(self.times)

    def attack(self, listener: str = "") -> int:
        """Starts the balancer and the good client; returns the port."""
        self.page = free_port()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.access = pathlib.Path(folder.name) / "access"
        port = self.serve(self.peer_, listener=f"{self.TIMEOUTS}\n{listener}",
                          rest=f'[metrics]\nprometheus = "127.0.0.1:{self.page}"\n[logs.access]\noutput = "file:{self.access}"\n')
        good = self.connect(port)

        def serve():
            try:
                while not self.over.is_set():
                    begun = time.monotonic()
                    assert good.get().status == 200
                    self.times.append(time.monotonic() - begun)
                    self.over.wait(0.005)
            except Exception as error:  # pylint: disable=broad-except
                self.failed = repr(error)
        thread = threading.Thread(target=serve)
        thread.start()

        def finish():
            self.over.set()
            thread.join()
        self.addCleanup(finish)
        self.rss = 0 if REFERENCE else self.balancer.rss_kib()
        return port

    def peace(self, grown_kib: int = 32 * 1024):
        """Afterwards the good client is served still, and new ones are; memory was bounded."""
        before = self.served
        wait_until(lambda: self.served > before + 5 or self.failed)
        self.assertIsNone(self.failed)
        self.assertEqual(self.connect(self.port_).get().status, 200)
        if not REFERENCE and not re.search("asan|tsan", support.RINGWAY):  # They keep what is freed.
            self.assertLess(self.balancer.rss_kib() - self.rss, grown_kib)

    def go_on(self, once):
        """The good client is served while attacks like `once` go on, however long that takes. Its p99 is printed only."""
        before = self.served
        give_up = time.monotonic() + 6 * h2.SECONDS  # Attacker, good client and origin share one interpreter.
        while self.served < before + 10 and not self.failed:
            self.assertLess(time.monotonic(), give_up, "nobody else is served")
            once()
        self.assertIsNone(self.failed)
        times = sorted(self.times[before:])
        print(f"p99 {times[len(times) * 99 // 100] * 1000:.1f} ms of {len(times)} ... ", end="", flush=True)

    def counted(self, name: str, least: int = 1, **labels: str):
        """The attack is in the metrics by its name; returns the number."""
        if REFERENCE:
            return 0
        words = ",".join(f'{key}="{value}"' for key, value in [("listener", "web"), *labels.items()])
        number = metrics(self.page)[f"{name}{{{words}}}"]
        self.assertGreaterEqual(number, least, f"{name} {words}")
        return number

    def flooded(self, *kinds: str):
        """Connections were ended over floods of these kinds and no others; each is in the log and in the metrics."""
        if REFERENCE:
            return
        prefix = 'ringway_listener_http2_floods_total{listener="web",reason="'
        counts = {name[len(prefix):-2]: number for name, number in metrics(self.page).items() if name.startswith(prefix) and number}
        self.assertEqual(set(counts), set(kinds))

        def logged() -> dict[str, int]:
            return collections.Counter(re.findall(r"ended: client 127\.0\.0\.1, listener web, ENHANCE_YOUR_CALM: .*, flood of (\w+)",
                                                  self.balancer.log()))
        wait_until(lambda: logged() == counts)  # The log is written by a thread of its own.

    def logged(self, cause: str):
        """The access log says so of a request."""
        if not REFERENCE:
            wait_until(lambda: f'"cause":"{cause}"' in self.access.read_text())

    def stalled(self) -> int:
        """How many requests of attackers have reached the origin."""
        return sum(b" /stall " in head for head in self.peer_.heads)

    def flood(self, client, parts, codes=CALM, read: bool = True, may_live: bool = False):
        """Sends until the server ends the connection; it has to, before all is said, unless it `may_live`."""
        try:
            for part in parts:
                if not client.send(part, read=read):
                    break
                if read:
                    client.drain()
                if client.goaway or client.eof:
                    break
            if may_live:
                client.ping()
            self.refused(client, *codes) if not may_live or client.goaway else None
        except Closed:
            pass


def run(name: str, kind: str, parts, codes=CALM, read: bool = True, state: bytes = b"", may_live: bool = False,
        initial: tuple = (), **different: str):
    """A flood as a test. `kind`: its name in log and metrics; `parts`: generator of bytes; `state`: what comes before;
    `may_live`: cheap, so it may be taken; `initial`: the attacker's SETTINGS."""
    @differs(**different)
    def test(self):
        self.port_ = self.attack()

        def once():
            client = self.connect(self.port_, *initial, grow=not initial)
            for stream in range(1, 100, 2):
                client.stream(stream).receive_window += 1 << 30 if initial else 0
            client.send(state)
            self.flood(client, parts(), codes, read, may_live)
            client.close()
        once()
        self.assertLessEqual(self.stalled(), RESETS + STREAMS)
        self.go_on(once)
        self.flooded(kind)
        self.peace()
    return test_name(name), test


def repeated(part: bytes, times: int = 200_000):
    """`part` so often, in sends of about 64 KiB."""
    at_once = max(1, 65536 // len(part))
    return lambda: (part * at_once for _ in range(times // at_once))


class Floods(AbuseCase):
    """Frames that cost the server more than the client."""


OPEN = headers(1, POST_STALL, end=False)
BEGUN = headers(1, STALL, end_headers=False)
for name_, test_ in (
        run("CONTINUATION without end", "continuation", repeated(continuation(1, literal("x", "y" * 1000), False), 20_000),
            CALM + (COMPRESSION_ERROR,), state=BEGUN),
        run("CONTINUATION of one byte", "continuation", lambda: (continuation(1, b"\x82", False) * 1000 for _ in range(200)),
            CALM + (COMPRESSION_ERROR,), state=BEGUN),
        run("CONTINUATION of nothing", "continuation", repeated(continuation(1, b"", False)), state=BEGUN,
            haproxy="takes them until its time-out"),
        run("PING that nobody reads", "ping", repeated(frame(h2.PING, 0, 0, bytes(8)), 2_000_000), read=False),
        run("SETTINGS that nobody reads", "settings", repeated(settings((4, 65535)), 2_000_000), read=False),
        run("SETTINGS of nothing", "settings", repeated(settings(), 2_000_000), read=False),
        run("SETTINGS that resize all windows", "settings", repeated(settings((4, 1)) + settings((4, 65535)), 2_000_000), read=False,
            state=b"".join(headers(i, STALL) for i in range(1, 100, 2)), haproxy="ends it after a time-out only"),
        run("PRIORITY", "priority", repeated(priority(1, 3)), nghttpd="takes them", haproxy="takes them"),
        run("PRIORITY_UPDATE", "priority", repeated(frame(0x10, 0, 0, h2.number(1) + b"u=1")), state=headers(1, STALL),
            nghttpd="takes them", haproxy="takes them"),
        run("GOAWAY", "goaway", repeated(frame(h2.GOAWAY, 0, 0, bytes(8))), nghttpd="takes them", haproxy="takes them"),
        run("WINDOW_UPDATE of the connection", "window_update", repeated(window_update(0, 1)), haproxy="takes them", nghttpd="takes them"),
        run("WINDOW_UPDATE of a stream", "window_update", repeated(window_update(1, 1)), state=headers(1, STALL),
            haproxy="takes them", nghttpd="takes them"),
        # CVE-2019-9511: each byte of window makes a frame of one byte.
        run("WINDOW_UPDATE that dribbles", "window_update", repeated(window_update(1, 1)), state=headers(1, BIG),
            initial=((h2.INITIAL_WINDOW, 0),), haproxy="takes them", nghttpd="takes them"),
        run("WINDOW_UPDATE that dribbles on many streams", "window_update",
            repeated(b"".join(window_update(i, 1) for i in range(1, 100, 2))),
            state=b"".join(headers(i, BIG) for i in range(1, 100, 2)), initial=((h2.INITIAL_WINDOW, 0),),
            haproxy="takes them", nghttpd="takes them"),
        run("SETTINGS that dribble", "settings", lambda: (settings((4, i)) * 100 for i in range(1, 30_000)), state=headers(1, BIG),
            initial=((h2.INITIAL_WINDOW, 0),), haproxy="takes them", nghttpd="takes them"),
        run("DATA of nothing", "empty_data", repeated(data(1)), CALM + (STREAM_CLOSED,), state=OPEN, haproxy="takes them", nghttpd="takes them"),
        run("DATA of padding only", "empty_data", repeated(frame(h2.DATA, h2.PADDED, 1, b"\0")), CALM + (STREAM_CLOSED, FLOW_CONTROL_ERROR),
            state=OPEN, may_live=True),
        run("frames of unknown type", "unknown_frame", repeated(frame(0xFA, 0, 0, b"x")), may_live=True),
        run("RST_STREAM of a closed stream", "late_reset", repeated(rst_stream(1)), CALM + (STREAM_CLOSED,), state=headers(1, GET),
            may_live=True)):
    setattr(Floods, name_, test_)


class Resets(AbuseCase):
    """Streams that cost the origin a request and the client nothing."""

    @differs(haproxy="2.6 has no limit of resets")
    def test_rapid_reset(self):
        self.port_ = self.attack()
        client = self.connect(self.port_)
        ids = range(1, 40_001, 2)
        for i in ids:
            client.stream(i)
        self.flood(client, (b"".join(headers(i, STALL) + rst_stream(i) for i in ids[at:at + 500]) for at in range(0, 20_000, 500)))
        self.assertLessEqual(self.stalled(), RESETS + STREAMS)
        wait_until(lambda: self.peer_.ends >= self.stalled())
        self.flooded("resets")
        self.peace()

    @differs(haproxy="2.6 has no limit of resets")
    def test_rapid_reset_by_many_connections_one_after_the_other(self):
        """None of them costs more than the first."""
        self.port_ = self.attack()
        turns = 0

        def once():
            nonlocal turns
            turns += 1
            client = self.connect(self.port_)
            ids = range(1, 4001, 2)
            for i in ids:
                client.stream(i)
            self.flood(client, [b"".join(headers(i, STALL) + rst_stream(i) for i in ids)])
            client.close()
        for _ in range(5):
            once()
        self.go_on(once)
        self.assertLessEqual(self.stalled(), turns * (RESETS + STREAMS))
        self.flooded("resets")
        self.peace()

    @differs(haproxy="another configuration", nghttpd="another configuration")
    def test_the_configured_limit_of_resets_counts(self):
        self.port_ = self.attack('h2 = { max_resets = "20/10s" }')
        client = self.connect(self.port_)
        for _ in range(15):
            client.send(rst_stream(client.request("/stall").id))
        self.assertEqual(client.get().status, 200)
        for _ in range(15):
            client.send(rst_stream(client.request("/stall").id))
        self.refused(client, ENHANCE_YOUR_CALM)
        self.flooded("resets")
        self.peace()

    @differs(haproxy="another configuration", nghttpd="another configuration")
    def test_resets_within_the_limit_are_forgotten(self):
        self.port_ = self.attack('h2 = { max_resets = "20/1s" }')
        client = self.connect(self.port_)
        for turn in range(2):
            if turn:
                time.sleep(1.3)  # The period, and what a window that slides in steps may add.
            for _ in range(12):
                client.send(rst_stream(client.request("/stall").id))
            self.assertEqual(client.get().status, 200)
        self.flooded()
        self.peace()


# "Made you reset" (CVE-2025-8671): the client behaves such that the server resets. Each is what follows a request.
MADE = {
    "WINDOW_UPDATE of 0": lambda i: headers(i, STALL) + window_update(i, 0),
    "WINDOW_UPDATE above 2^31-1": lambda i: headers(i, STALL) + window_update(i, 2**31 - 1) * 2,
    "DATA on half-closed": lambda i: headers(i, STALL) + data(i, b"x"),
    "HEADERS on half-closed": lambda i: headers(i, STALL) + headers(i, STALL),
    "PRIORITY of 4": lambda i: headers(i, STALL) + frame(h2.PRIORITY, 0, i, bytes(4)),
    "trailers that are malformed": lambda i: headers(i, POST_STALL, end=False) + headers(i, literal("X-Upper", "1")),
    "trailers that do not end": lambda i: headers(i, POST_STALL, end=False) + headers(i, literal("x", "1"), end=False),
    "DATA beyond content-length": lambda i: headers(i, POST_STALL + literal("content-length", "1"), end=False) + data(i, b"xx"),
    "malformed requests": lambda i: headers(i, block(get("", "POST"))),
    "more streams than allowed": lambda i: headers(i, STALL),
}
MANY = "more streams than allowed"


NOT_COUNTED = ("WINDOW_UPDATE above 2^31-1", "trailers that are malformed", "DATA beyond content-length")  # By nghttpd.


def made(name: str, attack):
    @differs(haproxy="2.6 has no limit of resets", **{"nghttpd": "does not count these"} if name in NOT_COUNTED else {})
    def test(self):
        self.port_ = self.attack()
        client = self.connect(self.port_)
        ids = range(1, 20_001, 2)
        for i in ids:
            client.stream(i)
        self.flood(client, (b"".join(map(attack, ids[at:at + 100])) for at in range(0, 10_000, 100)),
                   CALM + (STREAM_CLOSED, FLOW_CONTROL_ERROR, REFUSED_STREAM, h2.FRAME_SIZE_ERROR))
        self.assertLessEqual(self.stalled(), RESETS + STREAMS)
        client.close()
        wait_until(lambda: self.peer_.ends >= self.stalled())
        self.flooded("streams" if name == MANY else "resets")
        if name == MANY:
            self.counted("ringway_listener_http2_refused_streams_total", RESETS)
        self.peace()
    return test


for name_, attack_ in MADE.items():
    setattr(Resets, test_name("made you reset", name_), made(name_, attack_))


class Heads(AbuseCase):
    """Small blocks that are large when decoded, and heads that do not end."""

    def refuses_head(self, fragment: bytes, first: bytes = b"", times: int = 20, floods: tuple[str, ...] = ()):
        """Every such head is refused, as an answer, a reset, or with the connection, as one of `floods`; none reaches the
        origin."""
        self.port_ = self.attack()
        for _ in range(times):
            client = self.connect(self.port_)
            if first:
                client.response(client.raw_request(first))
            stream = client.stream()
            pieces = [fragment[at:at + 16384] for at in range(0, len(fragment), 16384)]
            last = len(pieces) - 1
            client.send(headers(stream.id, pieces[0], end_headers=not last),
                        *(continuation(stream.id, p, i + 1 == last) for i, p in enumerate(pieces[1:])))
            self.refused(client, *CALM, COMPRESSION_ERROR, h2.FRAME_SIZE_ERROR, REFUSED_STREAM, INTERNAL_ERROR, stream=stream,
                         status=(400, 431), after_reset=CALM)
            client.close()
        self.assertEqual(self.stalled(), 0)
        self.flooded(*floods)
        self.peace()

    def test_hpack_bomb(self):
        """An entry of 4,000 bytes, named 16,000 times: 64 MB out of 16 KB."""
        self.refuses_head(STALL + indexed(62) * 16_000, first=GET + literal("x-big", "b" * 3900, 0x40), floods=("header_bomb",))

    def test_hpack_bomb_of_cookie_crumbs(self):
        """They are one field in the end, but each costs as one."""
        self.refuses_head(STALL + indexed(62) * 16_000, first=GET + literal("cookie", "a", 0x40))

    def test_hpack_bomb_of_static_entries(self):
        self.refuses_head(STALL + indexed(16) * 16_000)

    @differs(nghttpd="knows no count")
    def test_fields_of_nothing(self):
        self.refuses_head(STALL + literal("x", "") * 10_000)

    @differs(nghttpd="ends the connection behind its answer")
    def test_a_head_above_the_limit_in_many_frames(self):
        self.refuses_head(STALL + b"".join(literal(f"x-{i}", "v" * 4000) for i in range(50)), floods=("continuation",))

    def test_table_updates_without_end(self):
        """Each changes the table, none is a field."""
        self.port_ = self.attack()
        client = self.connect(self.port_)
        for _ in range(200):
            stream = client.stream()
            if not client.send(headers(stream.id, (b"\x20" + h2.integer(4096, 5, 0x20)) * 3000 + GET)) or client.goaway:
                break
            try:
                client.wait(lambda: stream.done or client.goaway)
            except Closed:
                break
        self.peace()

    def unfinished(self, *parts: bytes, start: bool = True, drip: bytes = b""):
        """The server ends a connection on which this was said and no more, or `drip` again and again."""
        self.port_ = self.attack()
        client = self.connect(self.port_, start=start)
        client.send(*parts)
        give_up = time.monotonic() + h2.SECONDS
        while drip and not client.eof and not client.goaway:
            self.assertLess(time.monotonic(), give_up)
            client.send(drip)
            time.sleep(0.05)  # That is the attack.
            client.drain()
        self.refused_or_goaway(client)
        self.peace()

    def refused_or_goaway(self, client):
        try:
            client.wait(lambda: client.goaway)
        except (Closed, h2.Violation):  # Before SETTINGS it may be HTTP/1 that ends.
            pass
        client.until_end()

    @differs(nghttpd="has no such time-out")
    def test_headers_never_finished(self):
        self.unfinished(headers(1, STALL, end_headers=False))

    def test_headers_dripping(self):
        self.unfinished(headers(1, STALL, end_headers=False), drip=continuation(1, literal("x", "y"), False))

    @differs(nghttpd="has no such time-out")
    def test_half_a_frame_of_headers(self):
        self.unfinished(headers(1, STALL)[:-5])

    @differs(nghttpd="has no such time-out")
    def test_half_a_frame_header(self):
        self.unfinished(b"\0\0")

    def test_half_a_preface(self):
        self.unfinished(h2.PREFACE[:18], start=False)

    def test_a_preface_and_no_settings(self):
        self.unfinished(h2.PREFACE, start=False)


class Holds(AbuseCase):
    """Streams that are opened and then held."""

    @differs(haproxy="its time-out is another key", nghttpd="has no such time-out")
    def test_streams_with_a_window_of_0_are_let_go(self):
        self.port_ = self.attack()
        attackers = [self.connect(self.port_, (h2.INITIAL_WINDOW, 0)) for _ in range(3)]
        streams = [(client, client.request("/big")) for client in attackers for _ in range(STREAMS)]
        for client, stream in streams:
            try:
                client.wait(lambda: stream.done or client.goaway)
            except Closed:
                continue
            self.assertFalse(stream.ended)
        self.counted("ringway_listener_http2_stalled_streams_total", sum(stream.reset is not None for _, stream in streams))
        self.flooded()
        self.logged("the client stopped reading")
        self.peace()

    @differs(haproxy="its time-out is another key", nghttpd="has no such time-out")
    def test_a_stream_whose_window_opens_by_bytes_is_let_go(self):
        """Slowly enough for the limit of control frames: but a byte now and then is no progress."""
        self.port_ = self.attack()
        client = self.connect(self.port_, (h2.INITIAL_WINDOW, 0), grow=False)
        streams = [client.request("/big") for _ in range(10)]
        give_up = time.monotonic() + h2.SECONDS
        while not all(s.done for s in streams):
            self.assertLess(time.monotonic(), give_up)
            for stream in streams:
                if not stream.done:
                    client.give(stream.id, 1)
            client.ping()
            time.sleep(0.1)
        self.assertEqual([s.reset for s in streams], [h2.CANCEL] * 10)
        self.counted("ringway_listener_http2_stalled_streams_total", 10)
        self.flooded()
        self.logged("the client stopped reading")
        self.peace()

    @differs(haproxy="its time-out is another key", nghttpd="has no such time-out")
    def test_a_window_that_drips_is_no_reason_to_stay_for_ever(self):
        """100 streams of 1 MiB, with a connection window that stays at 0: nothing can move, whatever else is said."""
        self.port_ = self.attack()
        client = self.connect(self.port_, (h2.INITIAL_WINDOW, 1 << 20), grow=False)
        streams = [client.request("/big") for _ in range(STREAMS)]
        give_up = time.monotonic() + h2.SECONDS
        try:
            while not client.goaway and not all(s.done for s in streams):
                self.assertLess(time.monotonic(), give_up)
                client.ping()
                time.sleep(0.05)
        except Closed:
            pass
        self.assertFalse(any(s.ended for s in streams[1:]))
        self.peace()

    def test_more_streams_than_allowed_at_once(self):
        self.port_ = self.attack()
        client = self.connect(self.port_)
        streams = [client.stream() for _ in range(150)]
        client.send(*(headers(s.id, STALL) for s in streams))
        client.ping() if self.outlives(client, lambda: sum(s.reset is not None for s in streams) >= 50) else None
        for stream in streams:
            self.assertIn(stream.reset, (None, REFUSED_STREAM, PROTOCOL_ERROR))
        self.assertEqual(self.counted("ringway_listener_http2_refused_streams_total", 0 if REFERENCE else 50), 0 if REFERENCE else 50)
        self.flooded()
        self.assertLessEqual(self.stalled(), STREAMS)
        self.peace()

    def outlives(self, client, condition) -> bool:
        """True: it came to be; False: the connection was ended instead."""
        try:
            client.wait(lambda: condition() or client.goaway)
        except Closed:
            return False
        return client.goaway is None or client.goaway[1] == NO_ERROR

    @differs(haproxy="its time-out is another key", nghttpd="has no such time-out")
    def test_bodies_that_stall_are_ended(self):
        self.port_ = self.attack()
        client = self.connect(self.port_)
        streams = [client.raw_request(POST_STALL + literal("content-length", "5"), end=False) for _ in range(20)]
        for stream in streams:
            client.send(data(stream.id, b"x"))
        self.outlives(client, lambda: all(s.done for s in streams))
        self.assertIsNone(next((s for s in streams if s.ended and s.status != 408), None))
        wait_until(lambda: self.peer_.ends == self.stalled())
        self.peace()

    @differs(haproxy="another configuration", nghttpd="another configuration")
    def test_connections_are_counted_and_leave_no_trace(self):
        """300 connections that leave in the middle of everything."""
        self.port_ = self.attack()
        for i in range(300):
            client = h2.H2(self.port_)
            client.send(headers(1, STALL), headers(3, STALL, end_headers=False), bytes(i % 9))
            client.close()
        wait_until(lambda: self.peer_.ends == self.stalled())
        self.peace()


class ResetsOverTls(Resets):
    tls = True
