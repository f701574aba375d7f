"""Layer 4: TCP, unix sockets, half-close, resets, timeouts, descriptors."""
import os
import pathlib
import resource
import socket
import tempfile
import threading

from support import Balancer, Case, address_text, cut, family_of, free_port, is_broken, read_all, wait_until


class NamedServer:
    """Greets each connection with its name, then closes it."""

    def __init__(self, name: bytes, host: str = "127.0.0.1"):
        self.name = name
        self.listener = socket.create_server((host, 0), family=family_of(host), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.address = address_text(host, self.port)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            client.sendall(self.name)
            client.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def greeting(port: int, host: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, port), timeout=20) as client:
        return read_all(client)


class Tcp(Case):
    def tcp(self, bind: str, servers: list[str], upstream: str = "") -> Balancer:
        listed = ", ".join(f'{{ name = "s{i}", address = "{s}" }}' for i, s in enumerate(servers))
        return Balancer(self, f'version = 1\n[process]\nshards = 1\ndrain_timeout = "2s"\n'
                        f'[engine]\nkind = "{self.engine}"\nreceive = "{self.receive}"\n[listeners.l4]\nprotocol = "tcp"\nbind = "{bind}"\n'
                        f'[[routes]]\nname = "all"\nupstream = "u"\n[upstreams.u]\nprotocol = "tcp"\n'
                        f'servers = [{listed}]\n{upstream}\n')

    def named(self, name: bytes, host: str = "127.0.0.1") -> NamedServer:
        server = NamedServer(name, host)
        self.addCleanup(server.stop)
        return server

    def test_servers_take_turns_and_a_dead_one_is_skipped(self):
        a, b = NamedServer(b"a"), NamedServer(b"b")
        port = free_port()
        self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"])
        self.assertEqual(sorted(greeting(port) for _ in range(4)), [b"a", b"a", b"b", b"b"])
        a.stop()
        self.assertEqual({greeting(port) for _ in range(4)}, {b"b"})
        b.stop()
        self.assertEqual(greeting(port), b"")  # No server left: closed at once.

    def test_ipv6_and_unix_sockets_on_both_sides(self):
        a, b = self.named(b"a"), self.named(b"b", "::1")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path, ports = f"{folder.name}/front", [free_port() for _ in range(3)]
        self.tcp(f"unix:{path}", [a.address])
        self.tcp(f"[::1]:{ports[0]}", [f"unix:{path}"])
        self.assertEqual(greeting(ports[0], "::1"), b"a")
        self.tcp(f"[::1]:{ports[1]}", [b.address])
        self.assertEqual(greeting(ports[1], "::1"), b"b")
        self.tcp(f"127.0.0.1:{ports[2]}", [a.address, b.address])  # One upstream, both families.
        self.assertEqual({greeting(ports[2]) for _ in range(2)}, {b"a", b"b"})

    def test_half_close_and_bytes_both_ways(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def count():  # Answers only after the client's FIN: the half-close must pass.
            connection, _ = listener.accept()
            total = len(read_all(connection))
            connection.sendall(b"%d" % total)
            connection.close()
        threading.Thread(target=count, daemon=True).start()
        port = free_port()
        self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{listener.getsockname()[1]}"])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"x" * 3_000_000)
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(client), b"3000000")

    def test_resets_are_passed_on_in_both_directions(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port = free_port()
        self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{listener.getsockname()[1]}"])
        client = socket.create_connection(("127.0.0.1", port), timeout=20)
        client.sendall(b"hi")
        server, _ = listener.accept()
        server.settimeout(20)
        self.assertEqual(server.recv(2), b"hi")
        cut(server)
        self.assertEqual(read_all(client), b"<RESET>")
        client.close()
        client = socket.create_connection(("127.0.0.1", port), timeout=20)
        client.sendall(b"hi")
        server, _ = listener.accept()
        server.settimeout(20)
        self.assertEqual(server.recv(2), b"hi")
        cut(client)
        self.assertEqual(read_all(server), b"<RESET>")
        server.close()

    def test_a_reset_behind_a_half_close_is_passed_on_though_the_other_side_is_silent(self):
        """Either side ends its half, is silent for a while, and resets. No timeout of the balancer helps."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port = free_port()
        self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{listener.getsockname()[1]}"],
                 'timeouts = { tunnel_idle = "600s", half_closed = "600s" }')
        for ending in ("client", "server"):
            for wait in (True, False):  # Until the half-close has passed through, or not.
                client = socket.create_connection(("127.0.0.1", port), timeout=20)
                client.sendall(b"ask")
                server, _ = listener.accept()
                server.settimeout(20)
                self.assertEqual(server.recv(3), b"ask")
                one, other = (client, server) if ending == "client" else (server, client)
                one.shutdown(socket.SHUT_WR)
                if wait:
                    self.assertEqual(other.recv(1), b"")
                    self.assertFalse(is_broken(other, 0.05))
                cut(one)
                if not wait:  # The reset may have overtaken the FIN.
                    self.assertIn(read_all(other), (b"", b"<RESET>"))
                self.assertTrue(wait is False or is_broken(other))
                with self.assertRaises(OSError):
                    while True:
                        other.sendall(b"nobody reads this" * 1000)
                other.close()

    def test_idle_and_connect_timeouts(self):
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        port = free_port()
        self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{silent.getsockname()[1]}"],
                 'timeouts = { tunnel_idle = "200ms", half_closed = "200ms" }')
        self.assertEqual(greeting(port), b"<RESET>")  # Cut, not ended: a FIN would look complete.
        # A full backlog never answers: the connect times out, and the other server serves.
        full = socket.socket()
        self.addCleanup(full.close)
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
            self.addCleanup(filler.close)
        a = self.named(b"a")
        port = free_port()
        self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{full.getsockname()[1]}", f"127.0.0.1:{a.port}"],
                 'balance = { algorithm = "first" }\ntimeouts = { connect = "200ms" }')
        self.assertEqual(greeting(port), b"a")

    def test_out_of_descriptors_pauses_accepting_and_resumes(self):
        """40 clients against room for about 5: the program survives, and serves those that come later."""
        a, port = self.named(b"a"), free_port()
        balancer = self.tcp(f"127.0.0.1:{port}", [f"127.0.0.1:{a.port}"])
        used = len(os.listdir(f"/proc/{balancer.process.pid}/fd"))
        resource.prlimit(balancer.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for client in idle:
            client.close()
        wait_until(lambda: greeting(port) == b"a")
        self.assertEqual([greeting(port) for _ in range(3)], [b"a"] * 3)
        cpu = pathlib.Path(f"/proc/{balancer.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        self.assertLess(int(cpu[11]) + int(cpu[12]), 200)  # Pausing is not spinning: under 2 s of CPU.


class EpollTwin(Tcp):
    """The same on the other engine."""
    engine = "epoll"


class Multishot(Tcp):
    """The same with bytes that come by completions."""
    receive = "multishot"
