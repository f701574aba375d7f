"""Which route takes a request, and what it does with it."""
from support import Case, ok, raw


class Routes(Case):
    def test_host_path_method_and_header_in_file_order(self):
        names = ["exact", "wild", "prefix", "regex", "method", "header", "rest"]
        matches = ['host = "www.example.com", path = "/exact"', 'host = "*.tenant.example.com"',
                   'path_prefix = ["/api/", "/v1/"]', 'path_regex = "/user/[0-9]+"', 'method = ["DELETE", "PUT"]',
                   'header = { x-env = "beta", x-any = true }', ""]
        routes = "".join(f'[[routes]]\nname = "{n}"\nmatch = {{ {m} }}\nrespond = {{ status = 200, body = "{n}" }}\n'
                         for n, m in zip(names, matches))
        routes = routes.replace("match = {  }\n", "")
        _, port = self.http(self.origin(), routes=routes + '[[routes]]\nname = "app"\nupstream = "app"\n')
        client = self.client(port)

        def route(path="/", host="other", method="GET", fields=""):
            client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
            return client.response().body.decode()
        self.assertEqual(route("/exact", "WWW.Example.COM:8080"), "exact")
        self.assertEqual(route("/exact"), "rest")
        self.assertEqual(route("/exact2", "www.example.com"), "rest")
        self.assertEqual(route("/", "a.b.tenant.example.com"), "wild")
        self.assertEqual(route("/", "tenant.example.com"), "rest")
        self.assertEqual(route("/api/x"), "prefix")
        self.assertEqual(route("/v1/"), "prefix")
        self.assertEqual(route("/api"), "rest")
        self.assertEqual(route("/user/42?x"), "regex")
        self.assertEqual(route("/user/42/x"), "rest")
        self.assertEqual(route(method="DELETE"), "method")
        self.assertEqual(route("/api/", method="DELETE"), "prefix")  # The first in the file wins.
        self.assertEqual(route(fields="X-Env: beta\r\nX-Any: 1\r\n"), "header")
        self.assertEqual(route(fields="X-Env: beta\r\n"), "rest")

    def test_redirects_answers_and_no_route(self):
        _, port = self.http(self.origin(), routes='''[[routes]]
name = "https"
match = { path_prefix = "/secure" }
redirect = { scheme = "https", status = 301 }
[[routes]]
name = "teapot"
match = { path = "/tea" }
respond = { status = 418, body = "short and stout", content_type = "text/x-tea" }
[[routes]]
name = "no"
match = { path = "/no" }
reject = { status = 403 }
[[routes]]
name = "app"
match = { path = "/app" }
upstream = "app"
''')
        client = self.client(port)
        response = client.get("/secure/x?y=1")
        self.assertEqual((response.status, response.get("location")), (301, "https://test/secure/x?y=1"))
        response = client.get("/tea")
        self.assertEqual((response.status, response.body, response.get("content-type")),
                         (418, b"short and stout", "text/x-tea"))
        self.assertEqual(client.get("/no").status, 403)
        self.assertEqual(client.get("/nowhere").status, 404)
        head = client.get("/tea", "HEAD")
        self.assertEqual((head.status, head.get("content-length")), (418, "15"))
        self.assertEqual(client.get("/app").status, 200)  # Still the same connection.

    def test_weights_share_the_work(self):
        a, b = self.origin(lambda h, body: ok(b"a")), self.origin(lambda h, body: ok(b"b"))
        port_of = {o: o.port for o in (a, b)}
        _, port = self.http(a, rest="", routes='[[routes]]\nname = "w"\nupstream = "weighted"\n'
                            '[upstreams.weighted]\nservers = [{ name = "a", address = "127.0.0.1:%d", weight = 300 },'
                            ' { name = "b", address = "127.0.0.1:%d", weight = 100 }]\n' % (port_of[a], port_of[b]))
        client = self.client(port)
        got = [client.get().body for _ in range(40)]
        self.assertEqual((got.count(b"a"), got.count(b"b")), (30, 10))

    def test_hash_keeps_a_client_on_its_server(self):
        origins = [self.origin(lambda h, body, n=n: ok(b"%d" % n)) for n in range(4)]
        _, port = self.http(*origins, upstream='balance = { algorithm = "hash", key = "client.ip" }')
        answers = {raw(port, b"GET / HTTP/1.0\r\n\r\n")[-1:] for _ in range(10)}
        self.assertEqual(len(answers), 1)
