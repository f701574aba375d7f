"""Early data (TLS 1.3 0-RTT, RFC 8470): with openssl s_client, to HTTP/1.1 and HTTP/2, and what servers hear."""
import json
import pathlib
import re
import socket
import subprocess

from h2client import frame
from h2hpack import block
from support import metrics, ok, wait_until
from test_tls import TlsCase, pair

GET = b"GET /%s HTTP/1.1\r\nHost: a.example\r\n%s\r\n"
ON = 'early_data = "safe_methods"'


def heard(head: bytes) -> list[bytes]:
    return re.findall(rb"(?mi)^early-data:.*", head.replace(b"\r", b""))


class Early(TlsCase):
    def start(self, answer=None, profile: str = ON, **more):
        self.asked = self.origin(answer)
        self.balancer, self.port = self.serve(self.asked, pair("ec", self.own("ec", "a.example")), profile, **more)

    def s_client(self, *args: str, text: bytes = b"") -> bytes:
        """Until the balancer closes."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", "a.example", "-tls1_3",
             "-CAfile", str(self.authority.ca), "-ign_eof", "-nocommands", *args], input=text, capture_output=True, timeout=30)
        return done.stdout

    def session(self, *args: str) -> str:
        """Of a connection of its own: `args` must ask for the same ALPN as what resumes it."""
        path = str(self.folder / "session")
        text = GET % (b"first", b"Connection: close\r\n")
        if "h2" in args:
            text = self.h2_request(b"", [(":method", "GET"), (":path", "/first")])
        self.s_client(*args, "-sess_out", path, text=text)
        return path

    def early(self, request: bytes, *args: str, later: bytes = b"", session: str | None = None) -> bytes:
        """Sends `request` as early data, and `later` behind the handshake."""
        data = self.folder / "request"
        data.write_bytes(request)
        session = session or self.session(*args)
        return self.s_client(*args, "-sess_in", session, "-early_data", str(data), text=later)

    @staticmethod
    def h2_request(body: bytes, fields, stream: int = 1, begin: bool = True) -> bytes:
        fields = [*fields, (":scheme", "https"), (":authority", "a.example")]
        text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4) if begin else b""
        text += frame(1, 4 if body else 5, stream, block(fields))
        if body:
            text += frame(0, 1, stream, body)
        return text

    def log(self) -> list[dict]:
        path = pathlib.Path(self.folder / "access.log")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def count(self, name: str) -> float:
        return metrics(self.page)[name]

    def test_a_safe_request_goes_on_at_once_and_servers_are_told(self):
        self.start()
        seen = self.early(GET % (b"early", b""), later=GET % (b"later", b"Connection: close\r\n"))
        self.assertIn(b"Early data was accepted", seen)
        self.assertEqual(seen.count(b"HTTP/1.1 200 OK"), 2)
        heads = [head for head, _ in self.asked.requests]
        self.assertEqual([head.split(b" ")[1] for head in heads], [b"/first", b"/early", b"/later"])
        self.assertEqual([heard(head) for head in heads], [[], [b"Early-Data: 1"], []])
        wait_until(lambda: len(self.log()) == 3)
        self.assertEqual({line["target"]: line.get("early_data") for line in self.log()},
                         {"/first": None, "/early": True, "/later": None})
        self.assertEqual(self.count('ringway_tls_early_data_total{result="accepted"}'), 1)
        self.assertEqual(self.count('ringway_tls_early_data_total{result="rejected"}'), 0)
        self.assertEqual(self.count('ringway_listener_early_requests_total{listener="web"}'), 1)
        self.assertEqual(self.count('ringway_listener_tls_handshakes_total{listener="web"}'), 2)

    def test_the_last_answer_of_a_connection_in_early_data_arrives_whole(self):
        big = b"x" * 300_000
        self.start(lambda head, body: ok(big if b"/early" in head else b""))
        seen = self.early(GET % (b"early", b"Connection: close\r\n"))
        self.assertIn(big, seen)

    def test_off_by_default_and_after_a_reload(self):
        self.start(profile="")
        path = self.session()
        self.assertNotRegex(self.s_client("-sess_in", path, text=GET % (b"a", b"Connection: close\r\n")), rb"Max Early Data: [1-9]")
        self.start()
        session = self.session()
        self.balancer.reload(self.balancer.path.read_text().replace(ON, ""))
        seen = self.early(GET % (b"early", b"Connection: close\r\n"), session=session, later=GET % (b"again", b"Connection: close\r\n"))
        self.assertIn(b"Early data was rejected", seen)
        self.assertEqual([head.split(b" ")[1] for head, _ in self.asked.requests], [b"/first", b"/again"])
        self.assertEqual(self.count('ringway_tls_early_data_total{result="rejected"}'), 1)

    def test_other_requests_wait_for_the_handshake(self):
        self.start()
        for request in (b"POST /early HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
                        b"DELETE /early HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
                        b"GET /early HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"):
            self.asked.requests.clear()
            self.assertIn(b"HTTP/1.1 200 OK", self.early(request))
            head, body = self.asked.requests[-1]
            self.assertTrue(head.startswith(request.split(b" ")[0] + b" /early"))
            self.assertEqual(heard(head), [])
            self.assertEqual(body, b"body" if b"body" in request else b"")

    def test_a_replay_reaches_servers_with_safe_requests_only(self):
        """What was recorded of a client is sent again: the handshake never ends, so nothing else goes on."""
        self.start(listener='timeouts = { tls_handshake = "300ms" }')
        for request, goes_on in ((GET % (b"early", b""), True), (b"DELETE /early HTTP/1.1\r\nHost: a.example\r\n\r\n", False)):
            session = self.session()
            flight = self.record(request, session)
            self.asked.requests.clear()
            failed = self.count('ringway_listener_tls_failures_total{listener="web"}')
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as thief:
                thief.sendall(flight)
                while thief.recv(65536):
                    pass
            wait_until(lambda: self.count('ringway_listener_tls_failures_total{listener="web"}') == failed + 1)
            self.assertEqual([heard(head) for head, _ in self.asked.requests], [[b"Early-Data: 1"]] if goes_on else [])

    def record(self, request: bytes, session: str) -> bytes:
        """The first flight of a client, which is given nothing back."""
        data = self.folder / "request"
        data.write_bytes(request)
        with socket.create_server(("127.0.0.1", 0)) as trap:
            client = subprocess.Popen(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{trap.getsockname()[1]}", "-servername", "a.example", "-tls1_3",
                 "-ign_eof", "-sess_in", session, "-early_data", str(data)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            connection, _ = trap.accept()
            with connection:
                connection.settimeout(20)
                flight = b""
                # A ClientHello, a ChangeCipherSpec, and the record of the early data.
                while self.records(flight) < 3:
                    flight += connection.recv(65536)
            client.wait(timeout=20)
        return flight

    @staticmethod
    def records(flight: bytes) -> int:
        count = 0
        while len(flight) >= 5 and len(flight) >= 5 + int.from_bytes(flight[3:5], "big"):
            flight = flight[5 + int.from_bytes(flight[3:5], "big"):]
            count += 1
        return count

    def test_what_clients_and_servers_say_about_it_is_passed_on(self):
        """RFC 8470 5: a client's own field stays, once; a 425 goes to whoever can send the request again."""
        def answer(head, body):
            if heard(head):
                return b"HTTP/1.1 425 Too Early\r\nContent-Length: 0\r\n\r\n"
            return ok(head)
        self.start(answer)
        seen = self.early(GET % (b"early", b"Early-Data: 1\r\n"), later=GET % (b"again", b"Connection: close, early-data\r\nEarly-Data: 1\r\n"))
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", seen), [b"425", b"425"])
        self.assertEqual([heard(head) for head, _ in self.asked.requests], [[], [b"Early-Data: 1"], [b"Early-Data: 1"]])
        self.asked.requests.clear()
        seen = self.early(GET % (b"early", b""), later=GET % (b"again", b"Connection: close\r\n"))
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", seen), [b"425", b"200"])
        self.assertEqual([head.split(b" ")[1] for head, _ in self.asked.requests], [b"/first", b"/early", b"/again"])

    def test_http2(self):
        self.start(listener='http_versions = ["h2", "http/1.1"]\ntimeouts = { keep_alive = "300ms" }')
        request = (self.h2_request(b"", [(":method", "GET"), (":path", "/early")]) +
                   self.h2_request(b"body", [(":method", "POST"), (":path", "/posted")], stream=3, begin=False) +
                   self.h2_request(b"", [(":method", "DELETE"), (":path", "/gone")], stream=5, begin=False))
        later = self.h2_request(b"", [(":method", "GET"), (":path", "/later")], stream=7, begin=False)
        seen = self.early(request, "-alpn", "h2", later=later)
        self.assertIn(b"Early data was accepted", seen)
        wait_until(lambda: len(self.asked.requests) == 5)
        by_path = {head.split(b" ")[1]: (heard(head), body) for head, body in self.asked.requests}
        self.assertEqual(by_path, {b"/first": ([], b""), b"/early": ([b"Early-Data: 1"], b""), b"/posted": ([], b"body"),
                                   b"/gone": ([], b""), b"/later": ([], b"")})
        self.assertEqual(self.count('ringway_listener_early_requests_total{listener="web"}'), 3)
