"""Bodies, windows and ends of HTTP/2 streams in front of HTTP/1.1 origins."""
import base64
import functools
import hashlib
import re
import shutil
import socket
import subprocess
import unittest

import h2client as h2
from h2client import CANCEL, FLOW_CONTROL_ERROR, NO_ERROR, PROTOCOL_ERROR, data, rst_stream
from h2_support import H2Case, Peer, differs
from support import ok, wait_until

MIB = 1 << 20


@functools.cache
def content(size: int, seed: int = 1) -> bytes:
    """Bytes in which every shift and swap shows."""
    return b"".join((i * 2654435761 * seed & 0xFFFFFFFF).to_bytes(4, "big") for i in range(size // 4))


def length_of(head: bytes) -> int:
    return int(re.search(rb"content-length: *(\d+)", head.lower())[1])


def stalls(peer: Peer, connection: socket.socket, head: bytes, rest: bytes):
    """Never answers; notices when the balancer leaves. Anything but /stall is answered."""
    if b" /stall" not in head.split(b"\r\n")[0]:
        connection.sendall(ok(b"served"))
        return True
    peer.until_end(connection)


class Bodies(H2Case):
    def test_1_mib_both_ways_under_small_windows(self):
        port = self.serve(self.origin(lambda head, body: ok(body)), listener='h2 = { stream_window = "64KiB" }')
        whole = content(MIB)
        for window, piece in ((1000, 16384), (65535, 1000), (MIB, 16384)):
            with self.subTest(window=window, piece=piece):
                client = self.connect(port, (h2.INITIAL_WINDOW, window))
                stream = client.request(method="POST", end=False)
                client.body(stream, whole, piece=piece)
                self.assertEqual(client.response(stream).body, whole)

    def test_chunked_and_endless_bodies_arrive_whole(self):
        whole = content(MIB)

        def answer(head, body):
            if b" /chunked " in head:
                return (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
                    b"%x\r\n" % len(whole[at:at + 7777]) + whole[at:at + 7777] + b"\r\n" for at in range(0, MIB, 7777)) +
                    b"0\r\n\r\n")
            return b"HTTP/1.0 200 OK\r\n\r\n" + whole + b"<CLOSE>"
        client = self.connect(self.serve(self.origin(answer)))
        for path in ("/chunked", "/endless", "/chunked"):
            self.assertEqual(client.get(path).body, whole)

    def test_larger_frames_only_if_the_client_takes_them(self):
        whole = content(MIB)
        port = self.serve(self.origin(lambda head, body: ok(whole)))
        for size in (16384, 65536):  # The oracle counts.
            client = self.connect(port, (h2.MAX_FRAME_SIZE, size), (h2.INITIAL_WINDOW, MIB))
            self.assertEqual(client.get().body, whole)

    @differs(haproxy="GOAWAY when a stream ends with padding")
    def test_padding_counts_for_windows_and_is_given_back(self):
        client = self.connect(self.serve(self.origin(lambda head, body: ok(body))))
        stream = client.request(method="POST", end=False)
        for _ in range(4096):  # 1 MiB of padding: it does not fit into any window unless it is given back.
            client.wait(lambda: client.send_window > 300 and stream.send_window > 300)
            client.send(h2.frame(h2.DATA, h2.PADDED, stream.id, b"\xffx" + bytes(255)))
            client.send_window -= 257
            stream.send_window -= 257
        client.body(stream, b"end")
        self.assertEqual(client.response(stream).body, b"x" * 4096 + b"end")

    @differs(haproxy="DATA behind its own reset is GOAWAY")
    def test_what_is_sent_on_a_refused_stream_is_given_back(self):
        """Else the window of the connection leaks away."""
        client = self.connect(self.serve(self.origin(lambda head, body: ok(body))))
        for _ in range(50):
            client.wait(lambda: client.send_window >= 16384)
            stream = client.stream()
            client.send(h2.headers(stream.id, h2.get(path=""), end=False), data(stream.id, bytes(16384)))  # Malformed.
            client.send_window -= 16384
        client.ping()
        stream = client.request(method="POST", end=False)
        whole = content(MIB)
        client.body(stream, whole)
        self.assertEqual(client.response(stream).body, whole)

    def test_both_directions_at_once(self):
        """An origin that answers while it reads: bytes go back before the request has ended."""
        def script(peer, connection, head, rest):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            left = length_of(head) - len(rest)
            while True:
                if rest:
                    connection.sendall(b"%x\r\n" % len(rest) + rest + b"\r\n")
                if not left:
                    break
                rest = connection.recv(65536)
                left -= len(rest)
            connection.sendall(b"0\r\n\r\n")
            return True
        client = self.connect(self.serve(self.peer(script)))
        stream = client.request("/", "POST", [("content-length", "40")], end=False)
        for i in range(10):
            client.body(stream, b"%04d" % i, end=i == 9)
            client.wait(lambda: len(stream.body) == 4 * i + 4)
        self.assertEqual(client.response(stream).body, b"".join(b"%04d" % i for i in range(10)))

    def test_100_streams_at_once(self):
        port = self.serve(self.origin(lambda head, body: ok(head.split(b" ")[1] + b"|" + body)))
        client = self.connect(port)
        for turn in range(3):
            streams = [client.request(f"/{turn}/{i}", "POST", end=False) for i in range(100)]
            for i, stream in enumerate(streams):
                client.body(stream, b"first%d," % i, end=False)
            for i, stream in reversed(list(enumerate(streams))):
                client.body(stream, content(3000, i + 1))
            for i, stream in enumerate(streams):
                self.assertEqual(client.response(stream).body, b"/%d/%d|first%d," % (turn, i, i) + content(3000, i + 1))

    @unittest.skipUnless(shutil.which("h2load"), "needs h2load")
    def test_h2load(self):
        port = self.serve(self.origin())
        url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}/"
        said = subprocess.run(["h2load", "-n", "2000", "-c", "10", "-m", "20", url], capture_output=True, timeout=60).stdout
        self.assertIn(b"2000 succeeded, 0 failed, 0 errored", said)


class Windows(H2Case):
    def test_a_slow_reader_of_one_stream_does_not_stop_the_others(self):
        whole = content(8 * MIB)
        port = self.serve(self.origin(lambda head, body: ok(whole if b" /big " in head else body or b"small")))
        client = self.connect(port, grow=False)
        client.give(0, 100 * MIB)
        slow = [client.request("/big") for _ in range(3)]
        client.wait(lambda: all(len(s.body) == 65535 for s in slow))
        for _ in range(50):
            self.assertEqual(client.get().body, b"small")
        stream = client.request("/", "POST", end=False)
        client.body(stream, content(MIB // 2))
        client.give(stream.id, MIB)
        self.assertEqual(client.response(stream).body, content(MIB // 2))
        for stream in slow:
            self.assertFalse(stream.done)
            client.give(stream.id, 8 * MIB)
            self.assertEqual(client.response(stream).body, whole)

    def fill(self, client, stream):
        """Sends as much as the windows allow, until nothing more is taken."""
        calm = 0
        while calm < 5 and not stream.done:
            size = min(16384, client.send_window, stream.send_window)
            calm = 0 if size > 0 else calm + 1
            if size > 0:
                client.body(stream, bytes(size), end=False)
            client.ping()

    def others_go_on_beside(self, count: int):
        """`count` uploads whose origin does not read, filled as far as they go, beside one that is served."""
        peer = self.peer(stalls_reading, receive_buffer=4096)
        client = self.connect(self.serve(peer))
        stuck = [client.request("/stall", "POST", end=False) for _ in range(count)]
        for stream in stuck:
            self.fill(client, stream)
        stream = client.request("/", "POST", [("content-length", str(MIB))], end=False)
        client.body(stream, content(MIB))
        self.assertEqual(client.response(stream).body, b"%d" % MIB)
        self.assertEqual([s.done for s in stuck], [False] * count)
        client.send(*(rst_stream(s.id) for s in stuck))
        self.assertEqual(client.get("/").body, b"0")

    @differs(haproxy="one stuck stream stops the connection")
    def test_an_origin_that_does_not_read_stops_one_stream_only(self):
        self.others_go_on_beside(1)

    @differs(haproxy="one stuck stream stops the connection")
    def test_several_origins_that_do_not_read_stop_their_streams_only(self):
        self.others_go_on_beside(5)

    @differs(haproxy="one stuck stream stops the connection")
    def test_data_beyond_the_window_is_refused(self):
        """To an origin that does not read, at most the window and what sockets hold can be taken."""
        peer = self.peer(stalls_reading, receive_buffer=4096)
        client = self.connect(self.serve(peer))
        stream = client.request("/stall", "POST", end=False)
        for _ in range(64 * MIB // 16384):
            if not client.send(data(stream.id, bytes(16384))) or client.goaway or stream.done or client.eof:
                break
            client.drain()
        self.refused(client, FLOW_CONTROL_ERROR, stream=stream, after_reset=(FLOW_CONTROL_ERROR, h2.STREAM_CLOSED))

    @differs(haproxy="its time-out is another key")
    def test_a_client_that_takes_nothing_is_let_go(self):
        port = self.serve(self.origin(lambda head, body: ok(content(MIB) if b"/big" in head else b"small")),
                          listener='timeouts = { client_idle = "300ms" }')
        client = self.connect(port, grow=False)
        client.give(0, MIB)
        stream = client.request("/big")
        client.wait(lambda: stream.done or client.goaway)
        self.assertFalse(stream.ended)
        if not client.goaway:
            self.assertEqual(client.get().body, b"small")

    def test_header_tables_of_many_sizes(self):
        fields = b"".join(b"X-%d: %d\r\n" % (i, i * i) for i in range(40))
        port = self.serve(self.origin(lambda head, body: ok(b"hi", fields)))
        for size in (0, 40, 100, 4096, 65536):
            client = self.connect(port, (h2.HEADER_TABLE_SIZE, size))
            for _ in range(5):
                stream = client.get()
                self.assertEqual([v for n, v in stream.fields if n.startswith("x-")], [str(i * i) for i in range(40)])


def stalls_reading(peer: Peer, connection: socket.socket, head: bytes, rest: bytes):
    """/stall: reads nothing more until the test says so. Else reads the body and answers with its length."""
    if b" /stall" in head.split(b"\r\n")[0]:
        peer.go.wait()
        return False
    size, got = length_of(head) if b"ontent-" in head else 0, len(rest)
    while got < size:
        got += len(connection.recv(1 << 16))
    connection.sendall(ok(b"%d" % got))
    return True


class Ends(H2Case):
    def test_a_reset_by_the_client_reaches_the_origin(self):
        peer = self.peer(stalls)
        client = self.connect(self.serve(peer))
        for fields, end in (([], True), ([("content-length", "100")], False)):
            before = peer.ends
            stream = client.request("/stall", "GET" if end else "POST", fields, end)
            if not end:
                client.body(stream, b"begun", end=False)
            other = client.request("/stall")
            wait_until(lambda: sum(b" /stall" in h for h in peer.heads) == 2 + before)
            client.send(rst_stream(stream.id))
            wait_until(lambda: peer.ends == before + 1)
            self.assertFalse(other.done)
            self.assertEqual(client.get("/").body, b"served")
            client.send(rst_stream(other.id))
            wait_until(lambda: peer.ends == before + 2)

    def test_a_reset_in_the_middle_of_an_answer(self):
        def script(peer, connection, head, rest):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(1000))
            try:
                while True:
                    connection.sendall(bytes(65536))
            except OSError:
                peer.ends += 1
                raise
        peer = self.peer(script)
        client = self.connect(self.serve(peer))
        stream = client.request()
        client.wait(lambda: len(stream.body) > 200_000)
        client.send(rst_stream(stream.id))
        wait_until(lambda: peer.ends == 1)
        client.ping()  # What came before this answer was under way.
        seen = len(stream.body)
        client.ping()
        self.assertEqual(len(stream.body), seen)

    def test_a_client_that_leaves_ends_all_its_streams(self):
        peer = self.peer(stalls)
        client = self.connect(self.serve(peer))
        for _ in range(20):
            client.request("/stall")
        wait_until(lambda: len(peer.heads) == 20)
        client.close()
        wait_until(lambda: peer.ends == 20)

    @differs(haproxy="a cut answer ends with END_STREAM")
    def test_an_origin_that_dies_in_its_answer_is_a_reset(self):
        beginnings = {
            "/length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart",
            "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            "/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\npart",
            "/trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nx-t: 1\r\n",
            "/nonsense": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
        }

        def script(peer, connection, head, rest):
            if (path := head.split(b" ")[1].decode()) in beginnings:
                connection.sendall(beginnings[path])
                return path == "/nonsense"
            connection.sendall(ok(b"served"))
            return True
        client = self.connect(self.serve(self.peer(script)))
        for path in beginnings:
            with self.subTest(path):
                stream = client.request(path)
                self.assert_cut(client, stream)
                self.assertIn(stream.reset, (h2.INTERNAL_ERROR, CANCEL, h2.CONNECT_ERROR, PROTOCOL_ERROR))
                self.assertEqual(client.get("/").body, b"served")  # The others live.

    @differs(haproxy="REFUSED_STREAM")
    def test_an_origin_that_dies_before_its_answer_is_502(self):
        client = self.connect(self.serve(self.peer(lambda peer, connection, head, rest: False)))
        for method in ("GET", "POST"):
            self.assertEqual(client.get("/", method).status, 502)
        client.ping()

    def test_an_early_answer_ends_the_upload(self):
        """RFC 9113 8.1: a complete answer, then RST_STREAM with NO_ERROR asks to send no more; or the rest is swallowed."""
        def script(peer, connection, head, rest):
            if b"POST" in head:
                connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnever")
                peer.until_end(connection)
                return False
            connection.sendall(ok(b"served"))
            return True
        client = self.connect(self.serve(self.peer(script)))
        for _ in range(3):
            stream = client.request("/", "POST", [("content-length", str(4 * MIB))], end=False)
            client.body(stream, bytes(1000), end=False)
            client.response(stream)
            self.assertEqual((stream.status, bytes(stream.body)), (403, b"never"))
            client.ping()
            if stream.reset is None:  # Then it has to take the rest.
                client.body(stream, bytes(4 * MIB - 1000))
            self.assertIn(stream.reset, (None, NO_ERROR, CANCEL))
            self.assertEqual(client.get("/").body, b"served")

    def test_a_goaway_of_the_client_lets_streams_end(self):
        def script(peer, connection, head, rest):
            peer.go.wait()
            connection.sendall(ok(b"late"))
            return True
        peer = self.peer(script)
        client = self.connect(self.serve(peer))
        streams = [client.request() for _ in range(3)]
        wait_until(lambda: len(peer.heads) == 3)
        client.send(h2.frame(h2.GOAWAY, 0, 0, bytes(8)))
        peer.go.set()
        for stream in streams:
            self.assertEqual(bytes(client.response(stream).body), b"late")

    def test_resets_free_their_places(self):
        """MAX_CONCURRENT_STREAMS counts what is open, not what was."""
        peer = self.peer(stalls)
        client = self.connect(self.serve(peer, listener='h2 = { max_streams = 10, max_resets = "1000/1s" }'))
        for turn in range(5):
            streams = [client.request("/stall") for _ in range(10)]
            wait_until(lambda: sum(b" /stall" in h for h in peer.heads) == 10 * (turn + 1))
            client.send(*(rst_stream(s.id) for s in streams))
            wait_until(lambda: peer.ends == 10 * (turn + 1))
            self.assertEqual(client.get("/").body, b"served")


class WebSockets(H2Case):
    """RFC 8441, where it is announced: SETTINGS_ENABLE_CONNECT_PROTOCOL is a promise to browsers."""

    def setUp(self):
        super().setUp()

        def script(peer, connection, head, rest):
            path, key = head.split(b" ")[1], re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", head)
            if path != b"/chat" or not key or not re.search(rb"(?i)\r\nupgrade: *websocket", head):
                connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno" if path == b"/refused" else ok(b"plain"))
                return True
            accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\nhello")
            try:
                while part := connection.recv(65536):
                    connection.sendall(part)
            finally:
                peer.ends += 1  # By a reset, too.
            return False
        self.peer_ = self.peer(script)
        self.client_ = self.connect(self.serve(self.peer_))
        if self.client_.theirs.get(8) != 1:
            self.skipTest("RFC 8441 is not announced")

    def open(self, path: str):
        return self.client_.raw_request([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path),
                                         (":authority", "test"), ("sec-websocket-version", "13")], end=False)

    def test_a_tunnel_both_ways_beside_other_streams(self):
        client, stream = self.client_, self.open("/chat")
        client.wait(lambda: len(stream.body) == 5)
        self.assertEqual((stream.status, bytes(stream.body)), (200, b"hello"))
        client.body(stream, content(MIB), end=False)
        client.wait(lambda: len(stream.body) == 5 + MIB)
        self.assertEqual(stream.body[5:], content(MIB))
        self.assertEqual(client.get("/").body, b"plain")
        client.send(data(stream.id, b"", True))
        wait_until(lambda: self.peer_.ends == 1)
        client.wait(lambda: stream.done)
        self.assertEqual(client.get("/").body, b"plain")

    def test_a_reset_ends_the_tunnel(self):
        client, stream = self.client_, self.open("/chat")
        client.wait(lambda: stream.body)
        client.send(rst_stream(stream.id))
        wait_until(lambda: self.peer_.ends == 1)

    def test_a_server_that_refuses_has_its_status_passed_on(self):
        stream = self.open("/refused")
        self.client_.wait(lambda: stream.fields)
        self.assertEqual(stream.status, 403)

    @differs(haproxy="passes the 200 on")
    def test_without_a_101_there_is_no_tunnel(self):
        """200 is how HTTP/2 says that there is one."""
        stream = self.open("/plain")
        self.client_.wait(lambda: stream.fields or stream.done)
        self.assertFalse(200 <= stream.status < 300, stream.status)


class BodiesOverTls(Bodies):
    tls = True


class WindowsOverTls(Windows):
    tls = True


class EndsOverTls(Ends):
    tls = True


class WebSocketsOverTls(WebSockets):
    tls = True


class BodiesByEpoll(Bodies):
    engine = "epoll"


class EndsByMultishot(Ends):
    receive = "multishot"
