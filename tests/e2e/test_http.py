"""HTTP/1.1 as both sides see it."""
import socket
import threading
import time

from support import Case, Client, cut, is_broken, ok, raw, read_all, wait_until


class Messages(Case):
    def test_keep_alive_and_reuse_of_the_server_connection(self):
        origin = self.origin()
        _, port = self.http(origin)
        client = self.client(port)
        for i in range(5):
            self.assertEqual(client.get(f"/{i}").status, 200)
        self.assertEqual((origin.connections, len(origin.requests)), (1, 5))

    def test_ipv6_on_either_side_and_on_both(self):
        for client_host in ("127.0.0.1", "::1"):
            for server_host in ("127.0.0.1", "::1"):
                with self.subTest(client=client_host, server=server_host):
                    origin = self.origin(host=server_host)
                    _, port = self.http(origin, host=client_host, listener="forwarded = true")
                    client = self.client(port, client_host)
                    for _ in range(3):
                        self.assertEqual(client.get().status, 200)
                    self.assertEqual(origin.connections, 1)
                    head = origin.requests[-1][0].decode()
                    self.assertIn(f"X-Forwarded-For: {client_host}\r\n", head + "\r\n")
                    named = f'for="[{client_host}]"' if client_host == "::1" else f"for={client_host}"
                    self.assertIn(named, head)

    def test_pipelined_requests_are_answered_in_order(self):
        _, port = self.http(self.origin(lambda head, body: ok(head.split(b" ")[1])))
        client = self.client(port)
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(50)))
        self.assertEqual([client.response().body for _ in range(50)], [b"/%d" % i for i in range(50)])

    def test_a_request_in_one_byte_pieces(self):
        origin = self.origin(lambda head, body: ok(body))
        _, port = self.http(origin)
        client = self.client(port)
        for byte in b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        self.assertEqual(client.response().body, b"abc")

    def test_large_bodies_both_ways_and_framings(self):
        origin = self.origin(lambda head, body: ok(body))
        _, port = self.http(origin)
        block = bytes(range(256)) * 8192  # 2 MiB
        for framing in ("length", "chunked"):
            client = self.client(port)

            def send(client=client, framing=framing):
                if framing == "length":
                    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(block) + block)
                    return
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(block), 50_000):
                    part = block[at:at + 50_000]
                    client.send(b"%x\r\n" % len(part) + part + b"\r\n")
                client.send(b"0\r\n\r\n")

            sender = threading.Thread(target=send)
            sender.start()
            self.assertEqual(client.response().body, block)
            sender.join()

    def test_chunked_answers_and_trailers(self):
        answer = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                  b"4;ext=1\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\nContent-Length: 5\r\n\r\n")
        origin = self.origin(lambda head, body: answer)
        _, port = self.http(origin)
        client = self.client(port)
        for _ in range(2):
            response = client.get()
            self.assertEqual(response.body, b"wikipedia")
            self.assertEqual(response.trailers, [("x-sum", "9")])  # Framing fields never pass in trailers.
        self.assertEqual(origin.connections, 1)

    def test_request_trailers_reach_the_origin(self):
        origin = self.origin()
        _, port = self.http(origin)
        client = self.client(port)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n")
        client.response()
        self.assertEqual(origin.requests[0][1], b"hi|X-T: 1")

    def test_answers_until_close_become_chunked_and_the_client_stays(self):
        _, port = self.http(self.origin(lambda head, body: b"HTTP/1.0 200 OK\r\n\r\nuntil close<CLOSE>"))
        client = self.client(port)
        for _ in range(2):
            response = client.get()
            self.assertEqual((response.body, response.get("transfer-encoding")), (b"until close", "chunked"))

    def test_head_204_and_304_have_no_body(self):
        def answer(head, body):
            if head.startswith(b"HEAD"):
                return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
            status = head.split(b" ")[1].strip(b"/")
            return b"HTTP/1.1 %s X\r\nETag: \"a\"\r\n\r\n" % status
        origin = self.origin(answer)
        _, port = self.http(origin)
        client = self.client(port)
        response = client.get("/", "HEAD")
        self.assertEqual((response.status, response.get("content-length")), (200, "1000"))
        self.assertEqual(client.get("/204").status, 204)
        self.assertEqual(client.get("/304").status, 304)
        self.assertEqual(origin.connections, 1)

    def test_interim_responses_pass_and_100_continue_works(self):
        def answer(head, body):
            return b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"final")
        _, port = self.http(self.origin(answer))
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(client.response().status, 103)
        self.assertEqual(client.response().body, b"final")
        old = raw(port, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")  # HTTP/1.0 knows no 1xx.
        self.assertTrue(old.startswith(b"HTTP/1.1 200"), old)

    def test_an_answer_before_the_end_of_the_request(self):
        """The origin refuses after the head; the client sees the answer though it is still sending."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def refuse():
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
            time.sleep(0.2)
            connection.close()
        threading.Thread(target=refuse, daemon=True).start()
        _, port = self.http(listener.getsockname()[1])
        client = self.client(port)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100_000)
        response = client.response()
        self.assertEqual((response.status, response.body), (403, b"no"))
        self.assertEqual(response.get("connection"), "close")

    def test_a_client_that_half_closes_inside_an_answer_and_resets_ends_it_at_once(self):
        """The server is silent meanwhile, and no timeout is near; likewise in a tunnel."""
        for head in (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
                     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n",
                     b"HTTP/1.1 200 OK\r\n\r\n",
                     b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"):
            with self.subTest(head=head):
                listener = socket.create_server(("127.0.0.1", 0))
                self.addCleanup(listener.close)
                _, port = self.http(listener.getsockname()[1], upstream='timeouts = { server_idle = "600s", '
                                    'tunnel_idle = "600s", half_closed = "600s" }')
                client = self.client(port)
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
                server, _ = listener.accept()
                self.addCleanup(server.close)
                server.settimeout(20)
                self.assertIn(b"GET / ", server.recv(65536))
                server.sendall(head + b"part")
                client.until(b"part")
                client.socket.shutdown(socket.SHUT_WR)
                self.assertFalse(is_broken(server, 0.05))  # Half a close is none: it gets its answer.
                cut(client.socket)
                if head.startswith(b"HTTP/1.1 101"):
                    self.assertTrue(is_broken(server))  # Behind the half-close that was passed on.
                else:
                    self.assertIn(read_all(server), (b"", b"<RESET>"))

    def test_http_1_0_clients(self):
        origin = self.origin(lambda head, body: ok(b"old"))
        _, port = self.http(origin)
        self.assertTrue(raw(port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nold"))
        client = self.client(port)
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            self.assertEqual(client.response().get("connection"), "keep-alive")
        chunked = self.origin(lambda h, b: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        _, port = self.http(chunked)
        answer = raw(port, b"GET / HTTP/1.0\r\n\r\n")
        self.assertNotIn(b"chunked", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nhi"), answer)


class Fields(Case):
    def seen(self, request: bytes, listener: str = "") -> str:
        origin = self.origin()
        _, port = self.http(origin, listener=listener)
        client = self.client(port)
        client.send(request)
        self.assertEqual(client.response().status, 200)
        return origin.requests[0][0].decode()

    def test_hop_by_hop_and_nominated_fields_end_here(self):
        head = self.seen(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\n"
                         b"Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip, trailers\r\nX-Kept: 1\r\n\r\n").lower()
        for gone in ("x-secret", "keep-alive", "proxy-connection", "gzip"):
            self.assertNotIn(gone, head)
        self.assertIn("x-kept: 1", head)

    def test_forwarding_fields_replace_what_a_client_claims(self):
        request = b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        head = self.seen(request)
        self.assertIn("X-Forwarded-For: 127.0.0.1", head)
        self.assertNotIn("6.6.6.6", head)
        self.assertIn("X-Forwarded-Proto: http", head)
        self.assertIn("X-Forwarded-Host: shop.example", head)
        head = self.seen(request, 'trusted_proxies = ["127.0.0.0/8"]')
        self.assertIn("X-Forwarded-For: 6.6.6.6, 127.0.0.1", head)
        self.assertIn("for=127.0.0.1", self.seen(request, "forwarded = true"))

    def test_absolute_form_names_the_host(self):
        head = self.seen(b"GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.assertTrue(head.startswith("GET /x?y HTTP/1.1\r\nHost: a.example\r\n"), head)

    def test_header_edits_and_rewrites(self):
        origin = self.origin(lambda head, body: ok(head, b"Server: x\r\n"))
        _, port = self.http(origin, routes='''[[routes]]
name = "all"
match = { path_prefix = "/v1/" }
upstream = "app"
rewrite = { strip_prefix = "/v1" }
request_headers = { set = { "x-set" = "1" }, remove = ["x-debug"] }
response_headers = { add = { "x-added" = "2" }, remove = ["server"] }
''')
        client = self.client(port)
        response = client.get("/v1/users?q=1", fields="X-Debug: 1\r\n")
        self.assertTrue(response.body.startswith(b"GET /users?q=1 HTTP/1.1\r\n"), response.body)
        self.assertIn(b"x-set: 1", response.body)
        self.assertNotIn(b"x-debug", response.body.lower())
        self.assertEqual((response.get("x-added"), response.get("server")), ("2", None))


class Upgrades(Case):
    def start_echo(self) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def echo():
            connection, _ = listener.accept()
            self.head = connection.recv(65536)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello")
            while part := connection.recv(65536):
                connection.sendall(part)
            connection.close()
        threading.Thread(target=echo, daemon=True).start()
        return listener.getsockname()[1]

    def test_a_101_makes_a_tunnel_both_ways(self):
        _, port = self.http(self.start_echo())
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        self.assertEqual(client.response().status, 101)
        self.assertEqual(client.exactly(5), b"hello")
        block = b"t" * 300_000
        client.send(block)
        self.assertEqual(client.exactly(len(block)), block)
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.socket.recv(1), b"")
        self.assertIn(b"Upgrade: echo", self.head)

    def test_without_a_101_there_is_no_tunnel(self):
        origin = self.origin(lambda head, body: ok(b"no upgrade here"))
        _, port = self.http(origin)
        client = self.client(port)
        # What follows is the next request, not tunnelled bytes.
        client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
                    b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual([client.response().status for _ in range(2)], [200, 200])
        wait_until(lambda: len(origin.requests) == 2)

    def test_h2c_is_never_forwarded(self):
        origin = self.origin()
        _, port = self.http(origin)
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                    b"HTTP2-Settings: AAAA\r\n\r\n")
        self.assertEqual(client.response().status, 200)
        self.assertNotIn(b"h2c", origin.requests[0][0].lower())
        self.assertNotIn(b"http2-settings", origin.requests[0][0].lower())


class Framing(Case):
    BAD = [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET relative HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    BAD_BODIES = [b"3\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"g\r\n\r\n", b"00000000000000003\r\nabc\r\n0\r\n\r\n",
                  b"3;" + b"e" * 5000 + b"\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n"]

    def test_smuggling_forms_are_refused_and_never_reach_the_origin(self):
        origin = self.origin()
        balancer, port = self.http(origin)
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        for request in self.BAD:
            with self.subTest(request=request):
                answer = raw(port, request + smuggled)
                self.assertRegex(answer.split(b"\r\n")[0].decode(), "^HTTP/1.1 (400|501|505) ")
                self.assertIn(b"\r\nConnection: close\r\n", answer)
                self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.assertEqual(origin.requests, [])
        wait_until(lambda: balancer.log().count("request refused: client 127.0.0.1") == len(self.BAD))

    def test_malformed_chunks_are_refused(self):
        origin = self.origin()
        _, port = self.http(origin)
        for body in self.BAD_BODIES:
            with self.subTest(body=body[:20]):
                answer = raw(port, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
                             + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertEqual([r for r in origin.requests if b"smuggled" in r[0]], [])

    def test_limits_have_their_status(self):
        _, port = self.http(self.origin(), listener='limits = { header_bytes = "4KiB", headers = 10, uri_bytes = "1KiB",'
                            ' body_bytes = "10KiB" }\ntimeouts = { request_headers = "300ms", request_body = "300ms" }')
        get = b"GET / HTTP/1.1\r\nHost: a\r\n"
        for status, request in {
            431: get + b"X: " + b"v" * 5000 + b"\r\n\r\n",
            414: b"GET /" + b"u" * 1500 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            413: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n",
            408: get + b"X: never ends",
        }.items():
            with self.subTest(status=status):
                answer = raw(port, request)
                self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer)
                self.assertIn(b"%d " % status, answer.split(b"\r\n\r\n", 1)[1])  # The body says so, too.
        answer = raw(port, get + b"".join(b"X-%d: 1\r\n" % i for i in range(20)) + b"\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 431 "), answer)
        answer = raw(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nstalls")
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
        chunks = b"".join(b"1000\r\n" + b"c" * 4096 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
        answer = raw(port, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)


class EpollTwin(Messages):
    """The same messages on the other engine."""
    engine = "epoll"


class Multishot(Messages):
    """The same messages by completions instead of readiness."""
    receive = "multishot"
