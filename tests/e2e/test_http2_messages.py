"""HTTP/2 requests as an HTTP/1.1 origin sees them, its answers as an HTTP/2 client sees them, and what never gets through."""
import shutil
import subprocess
import unittest

import h2client as h2
from h2client import INTERNAL_ERROR, PROTOCOL_ERROR, data, get, headers
from h2_support import H2Case, Reset, SharedCase, differs, test_name
from support import Client, free_port, ok, raw, wait_until

REFUSED = (400, 405, 414, 431, 501, 505)


def lines(head: bytes, name: str) -> list[str]:
    """The values of a field in an HTTP/1 head."""
    return [line.split(":", 1)[1].strip() for line in head.decode("latin-1").split("\r\n")[1:]
            if line.split(":", 1)[0].lower() == name]


class EchoCase(SharedCase):
    """The origin answers with the head and the body that it got."""

    def start_origin(self):
        return self.origin(lambda head, body: ok(b"") if head.startswith(b"HEAD") else ok(head + b"\n\n" + body))

    def seen(self, client, fields, body: bytes | None = None) -> tuple[bytes, bytes]:
        stream = client.raw_request(fields, end=body is None)
        if body is not None:
            client.body(stream, body)
        client.response(stream)
        self.assertEqual(stream.status, 200, stream.body)
        head, _, got = bytes(stream.body).partition(b"\n\n")
        return head, got


class Requests(EchoCase):
    def test_a_request_is_an_http1_request_to_the_origin(self):
        client = self.connect(self.port)
        head, _ = self.seen(client, get("/x/y?q=1&r=%20") + [("x-one", "1"), ("x-two", ""), ("x-one", "2")])
        self.assertTrue(head.startswith(b"GET /x/y?q=1&r=%20 HTTP/1.1\r\n"), head)
        self.assertEqual(lines(head, "host"), ["test"])
        self.assertEqual(",".join(lines(head, "x-one")).replace(" ", ""), "1,2")
        self.assertEqual(lines(head, "x-two"), [""])
        self.assertNotIn(b"\r\n:", head)
        for name in ("content-length", "transfer-encoding"):
            self.assertEqual(lines(head, name), [])

    @differs(haproxy="adds no X-Forwarded")
    def test_forwarding_fields_are_those_of_http1(self):
        head, _ = self.seen(self.connect(self.port), get() + [("x-forwarded-for", "6.6.6.6")])
        self.assertEqual(lines(head, "x-forwarded-for"), ["127.0.0.1"])
        self.assertEqual(lines(head, "x-forwarded-proto"), ["https" if self.tls else "http"])
        self.assertEqual(lines(head, "x-forwarded-host"), ["test"])

    def test_many_requests_share_one_origin_connection(self):
        client = self.connect(self.port)
        before = self.origin_.connections
        for i in range(30):
            self.seen(client, get(f"/{i}"))
        self.assertLessEqual(self.origin_.connections, before + 1)

    def test_authority_becomes_host(self):
        pseudo = get()[:3]
        for name, fields, host in (
                ("authority", [(":authority", "a.example:8080")], "a.example:8080"),
                ("host", [("host", "a.example")], "a.example"),
                ("both", [(":authority", "a.example"), ("host", "a.example")], "a.example"),
                ("IPv6", [(":authority", "[::1]:8080")], "[::1]:8080")):
            with self.subTest(name):
                head, _ = self.seen(self.connect(self.port), pseudo + fields)
                self.assertEqual(lines(head, "host"), [host])

    def test_hosts_that_differ_never_meet(self):
        pseudo = get()[:3]
        for name, fields, hosts in (
                ("differ", [(":authority", "a.example"), ("host", "b.example")], [["a.example"]]),
                ("three", [(":authority", "a.example"), ("host", "a.example"), ("host", "b.example")], [["a.example"]]),
                ("empty", [(":authority", "")], [[""]])):
            with self.subTest(name):
                client = self.connect(self.port)
                stream = client.raw_request(pseudo + fields)
                client.wait(lambda: stream.done or client.goaway)
                if stream.status == 200:
                    self.assertIn(lines(bytes(stream.body), "host"), hosts)
                else:
                    self.refused(client, PROTOCOL_ERROR, stream=stream, status=REFUSED)

    def test_cookie_crumbs_are_one_line(self):
        crumbs = [("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]
        head, _ = self.seen(self.connect(self.port), get() + crumbs)
        self.assertEqual(lines(head, "cookie"), ["a=1; b=2; c=3; d=4"])

    def test_te_trailers_is_allowed_and_fields_of_the_next_hop_are_ours(self):
        head, _ = self.seen(self.connect(self.port), get() + [("te", "trailers")])
        self.assertIn(lines(head, "te"), ([], ["trailers"]))

    def test_bodies_with_and_without_a_length(self):
        client = self.connect(self.port)
        post = get(method="POST")
        head, body = self.seen(client, post + [("content-length", "5")], b"hello")
        self.assertEqual((body, lines(head, "content-length"), lines(head, "transfer-encoding")), (b"hello", ["5"], []))
        head, body = self.seen(client, post, b"hello")
        self.assertEqual((body, lines(head, "content-length"), lines(head, "transfer-encoding")), (b"hello", [], ["chunked"]))
        for fields in (post, post + [("content-length", "0")]):  # Ended by its HEADERS.
            head, body = self.seen(client, fields)
            self.assertEqual((body, lines(head, "transfer-encoding")), (b"", []))
            self.assertIn(lines(head, "content-length"), ([], ["0"]) if fields is post else (["0"],))
        for fields in (post, post + [("content-length", "0")]):  # Ended by empty DATA.
            head, body = self.seen(client, fields, b"")
            self.assertEqual(body, b"")
        head, body = self.seen(client, get() + [("content-length", "3")], b"get")
        self.assertEqual((body, lines(head, "content-length")), (b"get", ["3"]))

    def test_trailers_of_requests_reach_the_origin(self):
        client = self.connect(self.port)
        stream = client.raw_request(get(method="POST"), end=False)
        client.send(data(stream.id, b"hi"), headers(stream.id, [("x-sum", "9"), ("x-two", "2")]))
        body = bytes(client.response(stream).body).partition(b"\n\n")[2].lower()
        self.assertTrue(body.startswith(b"hi|"), body)
        self.assertEqual(sorted(body[3:].replace(b" ", b"").split(b"\r\n")), [b"x-sum:9", b"x-two:2"])

    def test_trailers_behind_a_body_with_a_length_do_no_harm(self):
        client = self.connect(self.port)
        stream = client.raw_request(get(method="POST") + [("content-length", "2")], end=False)
        client.send(data(stream.id, b"hi"), headers(stream.id, [("x-sum", "9")]))
        self.assertTrue(bytes(client.response(stream).body).partition(b"\n\n")[2].startswith(b"hi"))
        self.seen(client, get())

    def test_options_of_the_whole_server(self):
        head, _ = self.seen(self.connect(self.port), get("*", "OPTIONS"))
        self.assertTrue(head.startswith(b"OPTIONS * HTTP/1.1\r\n"), head)

    def test_http1_on_the_same_port(self):
        client = Client(self.port)
        self.addCleanup(client.close)
        if self.tls:
            client.socket = self.context("http/1.1").wrap_socket(client.socket, server_hostname="test")
            self.assertEqual(client.socket.selected_alpn_protocol(), "http/1.1")
        self.assertEqual([client.get().status for _ in range(2)], [200, 200])

    def test_what_is_announced(self):
        client = self.connect(self.port)
        self.assertEqual(client.theirs[h2.MAX_STREAMS], 100)
        self.assertGreaterEqual(client.theirs[h2.INITIAL_WINDOW], 16384)
        self.assertEqual(client.theirs[8], 1)  # SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441).
        if not self.tls:
            return
        self.assertEqual(client.socket.selected_alpn_protocol(), "h2")
        client = h2.H2(self.port, context=self.context("http/1.1", "h2"))  # The server's order counts.
        self.addCleanup(client.close)
        self.assertEqual(client.socket.selected_alpn_protocol(), "h2")
        self.assertEqual(client.get().status, 200)

    @unittest.skipUnless(shutil.which("curl") and shutil.which("nghttp"), "needs curl and nghttp")
    def test_curl_and_nghttp(self):
        url = f"{'https' if self.tls else 'http'}://localhost:{self.port}/"
        how = "--http2" if self.tls else "--http2-prior-knowledge"
        done = subprocess.run(["curl", "-sSk4", how, "-w", "%{http_version}", "-d", "x" * 100_000, url], capture_output=True,
                              timeout=30)
        self.assertEqual((done.returncode, done.stdout[-100_001:]), (0, b"x" * 100_000 + b"2"), done.stderr)
        done = subprocess.run(["nghttp", "-y", "-m", "20", url.replace("localhost", "127.0.0.1")], capture_output=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout.count(b"GET / HTTP/1.1")), (0, 20), done.stderr)


# ---- What must not get through ----

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LINE_BREAKERS = {"CRLF": "\r\n", "CR": "\r", "LF": "\n", "NUL": "\0"}
BAD: dict[str, list] = {}  # Name -> fields.
DIFFERENT: dict[str, dict] = {}


def bad(name: str, fields, **different: str):
    assert name not in BAD
    BAD[name] = fields
    DIFFERENT[name] = different


def replaced(index: int, value: str) -> list:
    """GET with another value of one pseudo-header field."""
    return [(n, value if i == index else v) for i, (n, v) in enumerate(get())]


for word, mark in LINE_BREAKERS.items():
    bad(f"path with {word}", replaced(2, f"/ HTTP/1.1{mark}Host: x{mark}{mark}{SMUGGLED}"))
    bad(f"path that ends with {word}", replaced(2, f"/{mark}"))
    bad(f"method with {word}", replaced(0, f"GET / HTTP/1.1{mark}Host: x{mark}{mark}GET"))
    bad(f"authority with {word}", replaced(3, f"x{mark}x-smuggled: 1"))
    bad(f"scheme with {word}", replaced(1, f"http{mark}x-smuggled: 1"))
    bad(f"name with {word}", get() + [(f"x{mark}x-smuggled", "1")])
    bad(f"name with colon and {word}", get() + [(f"x: 1{mark}x-smuggled", "1")])
    bad(f"value with {word}", get() + [("x", f"1{mark}x-smuggled: 1")])
    bad(f"value that begins with {word}", get() + [("x", f"{mark}1")])
    bad(f"value that ends with {word}", get() + [("x", f"1{mark}")])
    bad(f"cookie with {word}", get() + [("cookie", f"a=1{mark}x-smuggled: 1")])
    bad(f"host with {word}", get()[:3] + [("host", f"x{mark}x-smuggled: 1")])
for word, path in {"space": "/ HTTP/1.1", "tab": "/\tx", "DEL": "/\x7f", "fragment": "/#f", "no slash": "smuggled",
                   "high bytes": "/\xe9", "star for GET": "*"}.items():
    # RFC 9113 8.3.1: absolute-path and query of a URI; RFC 3986 has no such bytes in them.
    bad(f"path with {word}", replaced(2, path), haproxy="takes some" if word in ("star for GET", "no slash", "high bytes") else "")
bad("absolute URI as path", replaced(2, "http://x/smuggled"), haproxy="takes it")
for word, method in {"space": "GET /smuggled", "tab": "GET\t", "nothing": "", "colon": "GET:", "high bytes": "G\xe9T"}.items():
    bad(f"method with {word}", replaced(0, method))
for word, authority in {"space": "a b", "slash": "a/smuggled", "user": "user@a", "fragment": "a#b", "question": "a?b",
                        "comma": "a,b", "high bytes": "\xe9"}.items():
    bad(f"authority with {word}", replaced(3, authority), haproxy="takes it")
for word, name in {"space": "x y", "trailing space": "x ", "colon": "x:", "nothing": "", "upper case": "X-Smuggled",
                   "DEL": "x\x7f", "high bytes": "x\xe9", "parenthesis": "x(", "tab": "x\t", "comma": "x,y"}.items():
    bad(f"name with {word}", get() + [(name, "1")], haproxy="COMPRESSION_ERROR" if word == "nothing" else "")
for word, value in {"leading space": " 1", "trailing space": "1 ", "leading tab": "\t1"}.items():
    bad(f"value with {word}", get() + [("x", value)], haproxy="takes it")  # RFC 9113 8.2.1.
for word, field in {"connection": ("connection", "close"), "connection that nominates": ("connection", "x-a"),
                    "keep-alive": ("keep-alive", "1"), "proxy-connection": ("proxy-connection", "close"),
                    "transfer-encoding": ("transfer-encoding", "chunked"), "upgrade": ("upgrade", "h2c"),
                    "te gzip": ("te", "gzip"), "te list": ("te", "trailers, chunked"), "te chunked": ("te", "chunked")}.items():
    bad(f"connection-specific {word}", get() + [field])
for word, value in {"plus": "+5", "list": "5, 5", "minus": "-5", "hex": "0x5", "nothing": "", "huge": "9" * 20, "space": "5 5",
                    "letters": "five", "fraction": "5.0"}.items():
    bad(f"content-length {word}", get(method="POST") + [("content-length", value)],
        haproxy="joins equal values" if word == "list" else "")
bad("content-length twice, different", get(method="POST") + [("content-length", "5"), ("content-length", "6")])
bad("content-length twice, equal", get(method="POST") + [("content-length", "0"), ("content-length", "0")], haproxy="joins them")
bad("CONNECT", [(":method", "CONNECT"), (":authority", "x:443")], haproxy="passes it on")
bad("CONNECT with a path", replaced(0, "CONNECT"))
bad("CONNECT of a protocol that is not offered", get(method="CONNECT") + [(":protocol", "connect-ip")], haproxy="passes it")
bad("protocol without CONNECT", get() + [(":protocol", "websocket")], haproxy="passes it")
bad("host twice", get()[:3] + [("host", "a.example"), ("host", "b.example")], haproxy="takes the first")
bad("no host at all", get()[:3], haproxy="sends HTTP/1.1 without Host")


def each_bad(cls):
    for name, fields in BAD.items():
        def test(self, fields=fields):
            self.judge(fields)
        different = {k: v for k, v in DIFFERENT[name].items() if v}
        setattr(cls, test_name(name), differs(**different)(test))
    return cls


@each_bad
class Smuggling(EchoCase):
    """Each is refused: a reset with PROTOCOL_ERROR, an answer, or the end of the connection. The origin sees nothing."""

    def judge(self, fields):
        client = self.connect(self.port)
        before = len(self.origin_.requests)
        self.refused(client, PROTOCOL_ERROR, stream=client.raw_request(fields), status=REFUSED)
        other = self.connect(self.port)
        self.assertEqual(other.get().status, 200)
        self.assertEqual([head for head, _ in self.origin_.requests[before:] if not head.startswith(b"GET / HTTP/1.1\r\n")], [])
        self.assertEqual(len(self.origin_.requests), before + 1)

    @differs(haproxy="DATA behind its own reset is GOAWAY")
    def test_a_second_request_cannot_hide_in_a_body(self):
        hidden = SMUGGLED.encode()
        for name, fields, sent in (
                ("chunked", [("transfer-encoding", "chunked")], b"0\r\n\r\n" + hidden),
                ("short length", [("content-length", "0")], hidden),
                ("shorter length", [("content-length", "5")], b"hello" + hidden),
                ("long length", [("content-length", "500")], hidden)):
            with self.subTest(name):
                client = self.connect(self.port)
                stream = client.stream()
                client.send(headers(stream.id, get(method="POST") + fields, end=False), data(stream.id, sent, True))
                self.refused(client, PROTOCOL_ERROR, INTERNAL_ERROR, stream=stream, status=REFUSED)
        # A body without a length may hold anything: to the origin it is a body.
        head, body = self.seen(self.connect(self.port), get(method="POST"), b"0\r\n\r\n" + hidden)
        self.assertEqual(body, b"0\r\n\r\n" + hidden)
        self.assertEqual([h for h, _ in self.origin_.requests if b"smuggled" in h], [])

    def test_trailers_are_checked_as_fields_are(self):
        for name, field in (("LF", ("x", "1\nx-smuggled: 1")), ("name", ("x\r\ny", "1")), ("upper case", ("X-Y", "1")),
                            ("pseudo", (":path", "/"))):
            with self.subTest(name):
                client = self.connect(self.port)
                stream = client.raw_request(get(method="POST"), end=False)
                client.send(data(stream.id, b"hi"), headers(stream.id, [field]))
                self.refused(client, PROTOCOL_ERROR, INTERNAL_ERROR, stream=stream, status=REFUSED)
        self.assertEqual([body for _, body in self.origin_.requests if b"x-smuggled" in body], [])

    @differs(haproxy="passes all trailers")
    def test_trailers_that_frame_or_route_do_not_pass(self):
        client = self.connect(self.port)
        stream = client.raw_request(get(method="POST"), end=False)
        client.send(data(stream.id, b"hi"), headers(stream.id, [("content-length", "9"), ("x-t", "1"), ("host", "b")]))
        try:
            body = bytes(client.response(stream).body).partition(b"\n\n")[2].lower()
        except Reset as reset:
            self.assertEqual(reset.code, PROTOCOL_ERROR)
            return
        self.assertEqual(body.replace(b" ", b""), b"hi|x-t:1")


# ---- Answers ----

class Answers(H2Case):
    def answered(self, reply: bytes, method: str = "GET", *initial):
        """The stream after this answer of the origin."""
        client = self.connect(self.serve(self.origin(lambda head, body: reply)), *initial)
        return client.get("/", method)

    @differs(haproxy="passes what Connection names")
    def test_fields_are_lower_case_and_those_of_the_hop_stay_there(self):
        stream = self.answered(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-UPPER: Yes\r\nConnection: keep-alive, X-Hop\r\n"
                               b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nhi")
        self.assertEqual((stream.status, stream.get("x-upper"), bytes(stream.body)), (200, "Yes", b"hi"))
        self.assertEqual([v for n, v in stream.fields if n == "set-cookie"], ["a=1", "b=2"])
        self.assertEqual(stream.get("content-length"), "2")
        self.assertIsNone(stream.get("x-hop"))

    def test_head_204_and_304_have_no_body(self):
        def answer(head, body):
            if head.startswith(b"HEAD"):
                return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
            return b"HTTP/1.1 %s X\r\nETag: \"a\"\r\n\r\n" % head.split(b" ")[1].strip(b"/")
        origin = self.origin(answer)
        client = self.connect(self.serve(origin))
        for method, path, status in (("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/", 200)):
            stream = client.get(path, method)
            self.assertEqual((stream.status, bytes(stream.body), stream.reset), (status, b"", None))
            if method == "HEAD":
                self.assertEqual(stream.get("content-length"), "1000")
        self.assertEqual(origin.connections, 1)

    def test_interim_answers_are_passed_on(self):
        stream = self.answered(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 2 + ok(b"hi"))
        self.assertEqual([(dict(f)[":status"], dict(f)["link"]) for f in stream.informational], [("103", "</a.css>")] * 2)
        self.assertEqual((stream.status, bytes(stream.body)), (200, b"hi"))

    def test_expect_100_continue(self):
        def script(peer, connection, head, rest):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            while len(rest) < 4:
                rest += connection.recv(100)
            connection.sendall(ok(rest))
            return True
        client = self.connect(self.serve(self.peer(script)))
        stream = client.request("/", "POST", [("expect", "100-continue"), ("content-length", "4")], end=False)
        client.wait(lambda: stream.informational or stream.done)
        self.assertEqual(dict(stream.informational[0])[":status"], "100")
        client.body(stream, b"body")
        self.assertEqual(bytes(client.response(stream).body), b"body")

    def test_trailers_of_answers(self):
        stream = self.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                               b"4\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\nGrpc-Status: 0\r\n\r\n")
        self.assertEqual(bytes(stream.body), b"wikipedia")
        self.assertEqual(stream.trailers, [("x-sum", "9"), ("grpc-status", "0")])

    def test_an_answer_without_body_but_with_trailers(self):
        stream = self.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: 5\r\n\r\n")
        self.assertEqual((bytes(stream.body), stream.trailers), (b"", [("grpc-status", "5")]))

    def test_an_answer_until_close_and_an_empty_one(self):
        stream = self.answered(b"HTTP/1.0 200 OK\r\n\r\nuntil close<CLOSE>")
        self.assertEqual(bytes(stream.body), b"until close")
        stream = self.answered(ok(b""))
        self.assertEqual((stream.status, bytes(stream.body)), (200, b""))

    @differs(haproxy="takes no head above 16 KiB")
    def test_a_head_that_needs_continuation(self):
        many = b"".join(b"X-Field-%d: %s\r\n" % (i, b"%x" % (i * 7919) * 200) for i in range(20))
        stream = self.answered(ok(b"hi", many))
        self.assertEqual([v for n, v in stream.fields if n.startswith("x-field-")], [f"{i * 7919:x}" * 200 for i in range(20)])

    @differs(haproxy="chooses its statuses otherwise")
    def test_answers_that_no_client_may_see_are_502(self):
        for reply in (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", b"HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n", b"nonsense\r\n\r\n",
                      b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
                      b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
            with self.subTest(reply):
                self.assertEqual(self.answered(reply).status, 502)

    def test_no_origin_is_an_answer(self):
        origin = self.origin()
        client = self.connect(self.serve(origin))
        origin.stop()
        for _ in range(2):
            self.assertIn(client.get().status, (502, 503))
        client.ping()


class AnswersOverTls(Answers):
    tls = True


class RequestsOverTls(Requests):
    tls = True


class SmugglingOverTls(Smuggling):
    tls = True


# ---- The listener's settings ----

class Listener(H2Case):
    @differs(haproxy="another configuration")
    def test_limits_are_answers_on_the_stream(self):
        origin = self.origin()
        port = self.serve(origin, listener='limits = { header_bytes = "4KiB", headers = 10, uri_bytes = "1KiB", body_bytes ='
                          ' "10KiB" }\ntimeouts = { request_body = "300ms" }')
        client = self.connect(port)
        long, many = [("x-long", "v" * 5000)], [(f"x-{i}", "1") for i in range(20)]
        for name, status, stream in (
                ("long field", 431, lambda: client.request(fields=long)),
                ("many fields", 431, lambda: client.request(fields=many)),
                ("many crumbs", 431, lambda: client.request(fields=[("cookie", "a=1")] * 20)),
                ("long path", 414, lambda: client.request("/" + "u" * 1500)),
                ("long body", 413, lambda: client.request("/", "POST", [("content-length", "20000")], end=False))):
            with self.subTest(name):
                answer = client.response(stream())
                self.assertEqual(answer.status, status)
                self.assertIn(str(status).encode(), answer.body)  # The body says so, too.
        self.assertEqual(origin.requests, [])
        with self.subTest("body that grows"):
            stream = client.request("/", "POST", end=False)
            client.body(stream, bytes(20000))
            client.wait(lambda: stream.done)
            self.assertEqual(stream.status, 413)
        with self.subTest("body that stalls"):
            stream = client.request("/", "POST", [("content-length", "100")], end=False)
            client.send(data(stream.id, b"stalls"))
            self.assertEqual(client.response(stream).status, 408)
        self.assertEqual(client.get().status, 200)  # All on one connection.

    @differs(haproxy="another configuration")
    def test_settings_follow_the_configuration(self):
        for listener, streams, window in (('h2 = { max_streams = 7, stream_window = "64KiB" }', 7, 64 << 10), ("", 100, 256 << 10)):
            client = self.connect(self.serve(self.origin(), listener=listener))
            self.assertEqual(client.theirs[h2.MAX_STREAMS], streams)
            self.assertLessEqual(client.theirs[h2.INITIAL_WINDOW], window)  # It may grow up to that.
            stream = client.request(method="POST", end=False)
            client.body(stream, bytes(window // 2), end=False)
            client.ping()
            self.assertLessEqual(stream.send_window, window)

    @differs(haproxy="another configuration")
    def test_http_versions(self):
        port = self.serve(self.origin(), listener='http_versions = ["http/1.1"]')
        answer = raw(port, h2.PREFACE + h2.settings())
        self.assertTrue(not answer or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"), answer)
        self.assertEqual(self.client(port).get().status, 200)
        port = self.serve(self.origin(), listener='http_versions = ["h2"]')
        self.assertEqual(self.connect(port).get().status, 200)
        self.assertNotIn(b" 200 ", raw(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").split(b"\r\n")[0])

    @differs(haproxy="another configuration")
    def test_routes_and_answers_of_our_own(self):
        port = self.serve(self.origin(), routes='''[[routes]]
name = "moved"
match = { path_prefix = "/moved", host = "a.example" }
redirect = { scheme = "https", status = 301 }
[[routes]]
name = "put"
match = { method = "PUT" }
respond = { status = 200, body = "put" }
[[routes]]
name = "no"
match = { path = "/no" }
reject = { status = 403 }
[[routes]]
name = "app"
match = { path = "/app" }
upstream = "app"
''')
        client = self.connect(port)
        moved = client.get("/moved/x?y=1", authority="A.example:8080")
        self.assertEqual((moved.status, moved.get("location").lower()), (301, "https://a.example/moved/x?y=1"))
        self.assertEqual(client.get("/moved/x", authority="b.example").status, 404)
        put = client.get("/", "PUT")
        self.assertEqual((put.status, bytes(put.body)), (200, b"put"))
        stream = client.request("/", "PUT", end=False)  # The answer does not wait for the body.
        self.assertEqual(bytes(client.response(stream).body), b"put")
        for path, method, status in (("/no", "GET", 403), ("/app", "GET", 200), ("/nowhere", "GET", 404), ("/no", "HEAD", 403)):
            stream = client.get(path, method)
            self.assertEqual((stream.status, not stream.body), (status, method == "HEAD"))

    @differs(haproxy="another configuration")
    def test_draining_ends_with_goaway_and_finishes_what_runs(self):
        def script(peer, connection, head, rest):
            peer.go.wait()
            connection.sendall(ok(b"late"))
        peer = self.peer(script)
        client = self.connect(self.serve(peer))
        stream = client.request()
        wait_until(lambda: peer.heads)
        self.balancer.process.terminate()
        client.wait(lambda: client.goaway)
        self.assertEqual(client.goaway[1], h2.NO_ERROR)
        self.assertGreaterEqual(client.goaway[0], stream.id)
        peer.go.set()
        self.assertEqual(bytes(client.response(stream).body), b"late")
        client.until_end()
        self.assertEqual(self.balancer.process.wait(20), 0)

    @differs(haproxy="another configuration")
    def test_a_reload_keeps_the_connection(self):
        client = self.connect(self.serve(self.origin()))
        self.assertEqual(client.get().status, 200)
        self.balancer.reload()
        self.assertEqual(client.get().status, 200)
        self.assertIsNone(client.goaway)

    @differs(haproxy="another configuration")
    def test_a_listener_that_a_reload_removes_says_goodbye(self):
        port = self.serve(self.origin())
        client = self.connect(port)
        self.assertEqual(client.get().status, 200)
        text = self.balancer.path.read_text()
        self.balancer.reload(text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"))
        self.assertEqual(client.get().status, 200)  # Nothing is lost.
        client.wait(lambda: client.goaway)
        client.until_end()

    @differs(haproxy="another configuration")
    def test_an_idle_connection_ends_with_goaway(self):
        client = self.connect(self.serve(self.origin(), listener='timeouts = { keep_alive = "300ms" }'))
        client.get()
        client.wait(lambda: client.goaway)
        self.assertEqual(client.goaway[1], h2.NO_ERROR)
        client.until_end()
