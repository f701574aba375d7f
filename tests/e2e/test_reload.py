"""Reloads beside connections that last: sessions of layer 4, tunnels, WebSocket streams. None may be closed."""
import base64
import os
import socket
import threading
import time

from h2_support import H2Case
from support import Balancer, Client, accepts, free_port, ok, wait_until
from test_http2_websocket import echo, open_websocket

UPGRADE = (b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n")


class Mover:
    """Sends pieces through an echo for as long as it is let, and compares what comes back."""

    def __init__(self, name: str, there_and_back):
        self.name, self.there_and_back = name, there_and_back
        self.turns, self.running, self.problem = 0, True, ""
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.running:
            piece = os.urandom(3000) * 3
            try:
                if self.there_and_back(piece) != piece:
                    self.problem = "other bytes came back"
            except Exception as problem:  # Whatever it is, the session did not live on.
                self.problem = repr(problem)
            if self.problem:
                return
            self.turns += 1
            time.sleep(0.001)

    def stop(self):
        self.running = False
        self.thread.join(20)


class LongLived(H2Case):
    def start_echo(self) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve():
            connection, _ = listener.accept()
            while part := connection.recv(65536):
                connection.sendall(part)
        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[1]

    def open_tunnel(self, port: int) -> Client:
        client = self.client(port)
        client.send(UPGRADE)
        self.assertEqual(client.response().status, 101)
        self.assertEqual(client.exactly(5), b"hello")
        return client

    def session_mover(self, port: int) -> Mover:
        client = self.client(port)

        def there_and_back(piece: bytes) -> bytes:
            client.send(piece)
            return client.exactly(len(piece))
        return Mover("layer 4", there_and_back)

    def tunnel_mover(self, port: int) -> Mover:
        client = self.open_tunnel(port)

        def there_and_back(piece: bytes) -> bytes:
            client.send(piece)
            return client.exactly(len(piece))
        return Mover("tunnel", there_and_back)

    def stream_mover(self, port: int) -> Mover:
        client = self.connect(port)
        stream = open_websocket(client)
        client.wait(lambda: len(stream.body) == 5)

        def there_and_back(piece: bytes) -> bytes:
            del stream.body[:]
            client.body(stream, piece, end=False)
            client.wait(lambda: len(stream.body) >= len(piece))
            return bytes(stream.body)
        return Mover("WebSocket over HTTP/2", there_and_back)

    def test_20_reloads_beside_a_session_a_tunnel_and_a_websocket_stream(self):
        """A server of their own upstreams and another listener come and go meanwhile."""
        peer, second = self.peer(echo), self.origin()
        raw_port = self.start_echo()
        web, l4, extra = free_port(), free_port(), free_port()

        def text(more: bool, attempts: int) -> str:
            app = f', {{ name = "s1", address = "127.0.0.1:{second.port}" }}' if more else ""
            raw = f', {{ name = "s1", address = "127.0.0.1:{second.port}" }}' if more else ""
            return (f'version = 1\n[process]\nshards = 2\n[engine]\nkind = "{self.engine}"\nreceive = "{self.receive}"\n'
                    f'[listeners.web]\nbind = "127.0.0.1:{web}"\n'
                    f'[listeners.l4]\nprotocol = "tcp"\nbind = "127.0.0.1:{l4}"\n'
                    + (f'[listeners.extra]\nbind = "127.0.0.1:{extra}"\n' if more else "") +
                    '[[routes]]\nname = "app"\nupstream = "app"\n[[routes]]\nname = "raw"\nupstream = "raw"\n'
                    f'[upstreams.app]\nservers = [{{ name = "s0", address = "127.0.0.1:{peer.port}" }}{app}]\n'
                    f'retry = {{ attempts = {attempts} }}\n'
                    '[upstreams.raw]\nprotocol = "tcp"\n'
                    f'servers = [{{ name = "s0", address = "127.0.0.1:{raw_port}" }}{raw}]\n')

        balancer = Balancer(self, text(False, 1))
        movers = [self.session_mover(l4), self.tunnel_mover(web), self.stream_mover(web)]
        for i in range(20):
            more = i % 2 == 0
            before = [mover.turns for mover in movers]
            balancer.reload(text(more, 1 + i % 3))
            wait_until(lambda: accepts(extra) == more)
            # Two: one may have been under way.
            wait_until(lambda: all(mover.problem or mover.turns > turns + 1 for mover, turns in zip(movers, before)))
            self.assertEqual([(mover.name, mover.problem) for mover in movers if mover.problem], [])
        for mover in movers:
            mover.stop()
            self.assertEqual(mover.problem, "", mover.name)
        log = balancer.log()
        self.assertEqual(log.count("reloaded"), 20)
        self.assertIn("reloaded: configuration 2: added listener extra; changed upstreams app, raw\n", log)
        self.assertIn("reloaded: configuration 3: removed listener extra; changed upstreams app, raw\n", log)
        balancer.reload()
        self.assertIn("reloaded: configuration 22: nothing changed\n", balancer.log())
        self.assertEqual(peer.ends, 0)

    def test_300_websockets_stay_while_another_upstream_changes(self):
        """None is closed, and the memory of the process stays as it was."""
        sockets = self.peer(echo)
        first, second = self.origin(lambda head, body: ok(b"1")), self.origin(lambda head, body: ok(b"2"))
        routes = ('[[routes]]\nname = "sockets"\nmatch = { path = "/chat" }\nupstream = "sockets"\n'
                  '[[routes]]\nname = "all"\nupstream = "app"\n')
        balancer, port = self.http(first, shards=2, routes=routes, rest='[upstreams.sockets]\nservers = '
                                   f'[{{ name = "s0", address = "127.0.0.1:{sockets.port}" }}]\n')
        clients = [self.open_tunnel(port) for _ in range(300)]

        def all_move(piece: bytes):
            for client in clients:
                client.send(piece)
            for client in clients:
                self.assertEqual(client.exactly(len(piece)), piece)

        text = balancer.path.read_text()
        other = self.client(port)
        self.assertEqual(other.get().body, b"1")
        all_move(b"before" * 100)
        before = balancer.rss_kib()
        for i in range(20):
            at = second if i % 2 == 0 else first
            balancer.reload(text.replace(f":{first.port}\"", f":{at.port}\"").replace(
                "[upstreams.app]", f"[upstreams.app]\nretry = {{ attempts = {1 + i % 3} }}"))
            wait_until(lambda: other.get().body == (b"2" if at is second else b"1"))
            all_move(b"%d" % i * 500)
        growth = balancer.rss_kib() / before - 1
        print(f"{before} KiB, {growth:+.1%} ... ", end="", flush=True)
        if "asan" not in os.environ["RINGWAY"] and "tsan" not in os.environ["RINGWAY"]:
            self.assertLess(growth, 0.05)
        self.assertEqual(sockets.ends, 0)
        self.assertEqual(balancer.log().count("reloaded"), 20)


class Listeners(H2Case):
    def test_the_log_names_new_listeners_only(self):
        balancer, port = self.http(self.origin())
        text = balancer.path.read_text()
        more = free_port()

        def lines() -> list[str]:
            return [line.rsplit("listening on ", 1)[1] for line in balancer.log().splitlines() if "listening on " in line]
        self.assertEqual(lines(), [f"127.0.0.1:{port}"])
        balancer.reload(text)
        balancer.reload(text + f'[listeners.more]\nbind = "127.0.0.1:{more}"\n')
        balancer.reload(text + f'[listeners.more]\nbind = "127.0.0.1:{more}"\nbacklog = 100\n')
        self.assertEqual(lines(), [f"127.0.0.1:{port}", f"127.0.0.1:{more}"])
        balancer.reload(text)
        balancer.reload(text + f'[listeners.more]\nbind = "127.0.0.1:{more}"\n')
        self.assertEqual(lines(), [f"127.0.0.1:{port}", f"127.0.0.1:{more}", f"127.0.0.1:{more}"])
