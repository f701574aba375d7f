"""Health checks over HTTP/2: Debian's nghttpd, gRPC health servers by raw frames, handshakes that nobody terminates."""
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import h2client as h2
from h2_origin import HTTP2, H2Origin
from h2_support import H2Case
from support import free_port, wait_until
from test_tls import Authority

QUICK = 'rise = 1, fall = 1, interval = "50ms", fast_interval = "50ms", down_interval = "50ms", timeout = "2s"'


def message(status: int) -> bytes:
    """A length-prefixed HealthCheckResponse."""
    return b"\0\0\0\0\x02\x08" + bytes([status])


class Health(H2Case):
    def checked(self, port: int, check: str, upstream: str = HTTP2, initial: str = "down"):
        """A balancer before a server at `port` on 127.0.0.1; `up` and `down` wait for the verdict."""
        self.balancer, self.front = self.http(port, upstream=f"{upstream}\nhealth = {{ {check}, {QUICK}, initial = '{initial}' }}\n")

        def saw(verdict: str, reason: str):
            wait_until(lambda: verdict in self.last() and reason in self.last())
        return saw

    def last(self) -> str:
        """The last verdict's line, or nothing."""
        lines = [line for line in self.balancer.log().splitlines() if "is up" in line or "is down" in line]
        return lines[-1] if lines else ""

    def nghttpd(self, *words: str) -> tuple[int, pathlib.Path]:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root, port = pathlib.Path(folder.name), free_port()
        (root / "healthz").write_text("all is fine\n")
        server = subprocess.Popen(["nghttpd", "-a", "127.0.0.1", "-d", str(root), str(port), *words],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def stop():
            server.terminate()
            server.wait(timeout=20)
        self.addCleanup(stop)
        return port, root

    @unittest.skipUnless(shutil.which("nghttpd"), "needs nghttpd")
    def test_nghttpd_in_clear(self):
        port, _ = self.nghttpd("--no-tls")
        saw = self.checked(port, 'type = "http", path = "/healthz", expect = { body = "fine" }')
        saw("is up", "body matches")
        self.assertEqual(self.client(self.front).get("/healthz").status, 200)
        saw = self.checked(port, 'type = "http", path = "/healthz", expect = { body = "bad" }', initial="up")
        saw("is down", "body does not contain")
        saw = self.checked(port, 'type = "http", path = "/none"', initial="up")
        saw("is down", "status 404, expected 200-299")
        self.assertEqual(self.client(self.front).get("/healthz").status, 503)

    @unittest.skipUnless(shutil.which("nghttpd"), "needs nghttpd")
    def test_nghttpd_over_tls(self):
        """h2 alone or by choice; and a handshake alone, of an upstream that speaks no TLS itself."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        authority = Authority(pathlib.Path(folder.name))
        certificate, key = authority.issue("origin", "origin.example")
        port, _ = self.nghttpd(str(key), str(certificate))
        for versions in ('["h2"]', '["h2", "http/1.1"]'):
            with self.subTest(versions=versions):
                saw = self.checked(port, 'type = "http", path = "/healthz"',
                                   f'http_versions = {versions}\ntls = {{ ca = "{authority.ca}", sni = "origin.example" }}')
                saw("is up", "status 200")
        self.checked(port, 'type = "http"', f'{HTTP2}\ntls = {{ ca = "{authority.ca}", sni = "other.example" }}')
        self.assertEqual(self.client(self.front).get("/healthz").status, 503)
        saw = self.checked(port, 'type = "tls", tls = { verify = false }', "")
        saw("is up", "connected, with TLS")

    def test_grpc(self):
        """Each verdict of the protocol, for a service; and a connection that is closed."""
        state = {"answer": lambda connection, stream: None}
        asked = []

        def script(connection, stream, fields, body):
            asked.append((fields[":method"], fields[":path"], fields["content-type"], fields["te"], body))
            state["answer"](connection, stream)

        def answers(status: int, code: str = "0"):
            def answer(connection, stream):
                connection.answer(stream, message(status), [("content-type", "application/grpc")], trailers=[("grpc-status", code)])
            return answer

        def trailers_only(connection, stream):
            connection.answer(stream, fields=[("content-type", "application/grpc"), ("grpc-status", "12"),
                                              ("grpc-message", "no such method")])

        def reset(connection, stream):
            connection.send(h2.rst_stream(stream, h2.INTERNAL_ERROR))
        state["answer"] = answers(1)
        origin = H2Origin(script)
        self.addCleanup(origin.stop)
        saw = self.checked(origin.port, 'type = "grpc", service = "shop.Orders"')
        saw("is up", "SERVING")
        self.assertEqual(asked[0], ("POST", "/grpc.health.v1.Health/Check", "application/grpc", "trailers",
                                    b"\0\0\0\0\x0d\x0a\x0bshop.Orders"))
        for answer, reason in ((answers(2), "NOT_SERVING"), (answers(0), "UNKNOWN"), (answers(1, "14"), "grpc-status 14 (UNAVAILABLE)"),
                               (trailers_only, "grpc-status 12 (UNIMPLEMENTED): no such method"), (reset, "INTERNAL_ERROR"),
                               (lambda connection, stream: connection.socket.shutdown(2), "closed before a response")):
            with self.subTest(reason=reason):
                state["answer"] = answer
                saw("is down", reason)
                state["answer"] = answers(1)
                saw("is up", "SERVING")


if __name__ == "__main__":
    unittest.main()
