"""tests/e2e/test_http2_grpc.py - what gRPC clients get from the balancer itself, by raw frames."""
from h2_support import H2Case, differs

GRPC = [("content-type", "application/grpc+proto"), ("te", "trailers")]


@differs(haproxy="makes error pages", nghttpd="is no proxy")
class Errors(H2Case):
    def assert_grpc(self, stream, code: str, message: str):
        """A response without messages: one HEADERS frame, which ends the stream."""
        self.assertEqual((stream.status, bytes(stream.body)), (200, b""))
        self.assertEqual(stream.get("content-type"), "application/grpc")
        self.assertEqual(stream.get("grpc-status"), code)
        self.assertIn(message, stream.get("grpc-message"))

    def test_a_server_that_ends_without_an_answer_is_unavailable(self):
        client = self.connect(self.serve(self.peer(lambda peer, connection, head, rest: False)))
        self.assert_grpc(client.get("/a.B/C", "POST", GRPC), "14", "server")
        plain = client.get("/a.B/C", "POST", [("content-type", "application/json")])
        self.assertEqual((plain.status, plain.get("grpc-status")), (502, None))

    def test_no_server_is_unavailable(self):
        peer = self.peer(lambda peer, connection, head, rest: False)
        client = self.connect(self.serve(peer))
        peer.stop()
        self.assert_grpc(client.get("/a.B/C", "POST", GRPC), "14", "")
        self.assertIn(client.get("/a.B/C", "POST").status, (502, 503))
