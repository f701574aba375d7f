"""HTTP/2 clients that others have written: python3-h2 here; curl and nghttp are in test_http2_messages.py."""
import pathlib
import socket
import sys
import unittest

from h2_support import H2Case
from support import ok

DEBIAN = "/usr/lib/python3/dist-packages"  # python3-h2 belongs to Debian's Python, and this may be another one.
try:
    import h2.config
except ImportError:
    if pathlib.Path(DEBIAN, "h2").is_dir():
        sys.path.append(DEBIAN)
try:
    import h2.config
    import h2.connection
    import h2.errors
    import h2.events
    import h2.settings
except ImportError:
    h2 = None


@unittest.skipUnless(h2, "needs python3-h2")
class PythonH2(H2Case):
    """h2 checks what it receives itself: whatever breaks RFC 9113 raises in receive_data()."""

    def start(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port))
        if self.tls:
            context = self.context("h2")
            self.socket = context.wrap_socket(self.socket, server_hostname="test")
            self.assertEqual(self.socket.selected_alpn_protocol(), "h2")
        self.addCleanup(self.socket.close)
        self.socket.settimeout(30)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, dict[str, str]] = {}
        self.over: dict[int, str] = {}
        self.trailers: dict[int, list] = {}
        self.uploads: dict[int, bytes] = {}
        self.pings = 0
        self.flush(connection)
        return connection

    def flush(self, connection):
        for stream, rest in list(self.uploads.items()):
            while rest and (size := min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size, len(rest))):
                connection.send_data(stream, rest[:size], end_stream=size == len(rest))
                rest = rest[size:]
            self.uploads[stream] = rest
            if not rest:
                del self.uploads[stream]
        self.socket.sendall(connection.data_to_send())

    def ask(self, connection, path: str, *fields, method: str = "GET", body: bytes = b"") -> int:
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, [(":method", method), (":scheme", "https" if self.tls else "http"), (":authority", "test"),
                                         (":path", path), *fields], end_stream=not body)
        self.bodies[stream] = b""
        if body:
            self.uploads[stream] = body
        self.flush(connection)
        return stream

    def until(self, connection, done):
        while not done():
            received = self.socket.recv(65536)
            self.assertTrue(received, "the connection has ended")
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    self.heads[event.stream_id] = dict(event.headers)
                elif isinstance(event, h2.events.TrailersReceived):
                    self.trailers[event.stream_id] = list(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.over[event.stream_id] = "ended"
                elif isinstance(event, h2.events.StreamReset):
                    self.over[event.stream_id] = f"reset {event.error_code}"
                elif isinstance(event, h2.events.PingAckReceived):
                    self.pings += 1
                elif isinstance(event, h2.events.ConnectionTerminated):
                    self.fail(f"GOAWAY {event.error_code}")
            self.flush(connection)

    def echo(self, head: bytes, body: bytes) -> bytes:
        if b"/chunked" in head.split(b"\r\n")[0]:
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
        return ok(body or head.split(b" ")[1])

    def test_many_at_once_with_bodies(self):
        port = self.serve(self.origin(self.echo))
        connection = self.start(port)
        bodies = {self.ask(connection, "/", method="POST", body=bytes([i]) * (1 + 40_000 * i)): bytes([i]) * (1 + 40_000 * i)
                  for i in range(20)}
        self.until(connection, lambda: len(self.over) == len(bodies))
        for stream, body in bodies.items():
            self.assertEqual((self.over[stream], self.heads[stream][":status"]), ("ended", "200"))
            self.assertEqual(self.bodies[stream], body)

    def test_heads_trailers_resets_and_pings(self):
        port = self.serve(self.origin(self.echo))
        connection = self.start(port)
        large = [(f"x-{i}", "v" * 900) for i in range(30)]  # More than one frame: CONTINUATION.
        streams = [self.ask(connection, "/chunked"), self.ask(connection, "/large", *large),
                   self.ask(connection, "/head", method="HEAD")]
        self.until(connection, lambda: all(stream in self.over for stream in streams))
        self.assertEqual([self.heads[stream][":status"] for stream in streams], ["200"] * 3)
        self.assertEqual([self.bodies[stream] for stream in streams], [b"hello", b"/large", b""])
        self.assertEqual(self.trailers[streams[0]], [("x-sum", "1")])
        given_up = self.ask(connection, "/given-up")
        connection.reset_stream(given_up, h2.errors.ErrorCodes.CANCEL)
        connection.ping(b"12345678")
        self.flush(connection)
        self.until(connection, lambda: self.pings == 1)
        last = self.ask(connection, "/last")
        self.until(connection, lambda: last in self.over)
        self.assertEqual(self.bodies[last], b"/last")

    def test_windows_that_move(self):
        """Streams may start with 1 byte, and a change reaches those that are open (RFC 9113 6.9.2)."""
        origin = self.origin(lambda head, body: ok(b"x" * 50_000))
        port = self.serve(origin)
        connection = self.start(port)
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1})
        streams = [self.ask(connection, f"/{i}") for i in range(5)]
        self.until(connection, lambda: all(stream in self.heads for stream in streams))
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 60_000})
        self.flush(connection)
        self.until(connection, lambda: all(stream in self.over for stream in streams))
        self.assertEqual({len(self.bodies[stream]) for stream in streams}, {50_000})


class PythonH2OverTls(PythonH2):
    tls = True


if __name__ == "__main__":
    unittest.main()
