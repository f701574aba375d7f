"""tests/e2e/support.py - the real program, real origins and byte-exact clients for end-to-end tests."""
import json
import os
import pathlib
import random
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

RINGWAY = os.environ.get("RINGWAY", "build/tools/ringway")


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def address_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


RESERVED: list[socket.socket] = []  # by this process, while it lives


def free_port() -> int:
    """A TCP port nobody listens on, and nobody takes before it is used.

    Below the range from which connections get theirs, or one of them might be there first. Other test
    processes see that it is taken by the UDP port of the same number.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as bounds:
        end = int(bounds.read().split()[0])
    for _ in range(1000):
        port = random.randrange(min(10_240, end // 2), end)
        with socket.socket() as probe:
            mark = socket.socket(type=socket.SOCK_DGRAM)
            try:
                mark.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
                continue
        RESERVED.append(mark)
        return port
    raise AssertionError("no free port")


def accepts(port: int) -> bool:
    """Somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # It came between the last accept and the end of the listening.
        pass
    return True


def wait_until(condition, seconds: float = 20):
    """Waits for something that must come to be true; the bound only turns a hang into a failure."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError("it did not happen")
        time.sleep(0.02)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return received + b"<RESET>"
        if not part:
            return received
        received += part


def cut(connection: socket.socket):
    """Ends it with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_broken(connection: socket.socket, seconds: float = 20) -> bool:
    """Waits until a reset has come. Behind the peer's FIN reading does not show it."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(mask & select.POLLERR for _, mask in poll.poll(seconds * 1000))


def raw(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """Sends exactly these bytes and returns everything until the balancer closes."""
    with socket.create_connection((host, port), timeout=20) as client:
        client.sendall(request)
        return read_all(client)


class Response:
    def __init__(self, head: bytes, body: bytes):
        lines = head.decode("latin-1").split("\r\n")
        self.version, status, self.reason = (lines[0].split(" ", 2) + [""])[:3]
        self.status = int(status)
        self.fields = [(n.lower(), v.strip()) for n, v in (l.split(":", 1) for l in lines[1:] if l)]
        self.body = body
        self.trailers: list[tuple[str, str]] = []

    def get(self, name: str):
        return next((v for n, v in self.fields if n == name), None)


class Client:
    """A keep-alive client that reads responses strictly by their framing."""

    def __init__(self, port: int, host: str = "127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=20)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def send(self, data: bytes):
        self.socket.sendall(data)

    def more(self):
        part = self.socket.recv(65536)
        if not part:
            raise EOFError(f"closed; unread: {self.buffer[:200]!r}")
        self.buffer += part

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def response(self, method: str = "GET") -> Response:
        response = Response(self.until(b"\r\n\r\n"), b"")
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        if (response.get("transfer-encoding") or "") == "chunked":
            while size := int(self.until(b"\r\n"), 16):
                response.body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            while line := self.until(b"\r\n"):
                name, value = line.decode().split(":", 1)
                response.trailers.append((name.lower(), value.strip()))
        elif response.get("content-length") is not None:
            response.body = self.exactly(int(response.get("content-length")))
        else:
            response.body = self.buffer + read_all(self.socket)
            self.buffer = b""
        return response

    def get(self, path: str = "/", method: str = "GET", fields: str = "") -> Response:
        self.send(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n".encode())
        return self.response(method)


class Origin:
    """A scriptable HTTP/1.1 origin. `answer(head, body) -> bytes` makes the raw response; it may return
    None to close, or an Exchange-like generator is not needed: tests close over what they need."""

    def __init__(self, answer=None, port: int = 0, host: str = "127.0.0.1"):
        self.answer = answer or self.default
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.open: set[socket.socket] = set()
        self.listener = socket.create_server((host, port), family=family_of(host), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.address = address_text(host, self.port)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.add(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket):
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    part = connection.recv(65536)
                    if not part:
                        return
                    buffer += part
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                body, buffer = self.read_body(connection, head, buffer)
                self.requests.append((head, body))
                reply = self.answer(head, body)
                if reply is None:
                    return
                close = reply.endswith(b"<CLOSE>")
                connection.sendall(reply.removesuffix(b"<CLOSE>"))
                if close:
                    return
        except OSError:
            pass
        finally:
            self.open.discard(connection)
            connection.close()

    @staticmethod
    def read_body(connection, head: bytes, buffer: bytes) -> tuple[bytes, bytes]:
        lower = head.lower()
        if match := re.search(rb"\r\ncontent-length: *(\d+)", lower):
            while len(buffer) < int(match[1]):
                buffer += connection.recv(65536)
            return buffer[:int(match[1])], buffer[int(match[1]):]
        if b"\r\ntransfer-encoding: chunked" not in lower:
            return b"", buffer
        body = b""
        while True:
            while b"\r\n" not in buffer:
                buffer += connection.recv(65536)
            line, buffer = buffer.split(b"\r\n", 1)
            size = int(line, 16)
            if size == 0:
                while not buffer.startswith(b"\r\n") and b"\r\n\r\n" not in buffer:
                    buffer += connection.recv(65536)
                trailers, buffer = (b"", buffer[2:]) if buffer.startswith(b"\r\n") else buffer.split(b"\r\n\r\n", 1)
                return body + (b"|" + trailers if trailers else b""), buffer
            while len(buffer) < size + 2:
                buffer += connection.recv(65536)
            body, buffer = body + buffer[:size], buffer[size + 2:]

    @staticmethod
    def default(head: bytes, body: bytes) -> bytes:
        return ok(head + b"\n\n" + body)

    def drop_connections(self):
        for connection in list(self.open):
            connection.shutdown(socket.SHUT_RDWR)

    def stop(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # Wakes accept(); close() alone would not.
        except OSError:
            pass
        self.listener.close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve_each(listener: socket.socket, serve):
    """Calls serve(connection) in a thread of its own for each that comes, until the listener is closed."""
    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


def ok(body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), fields) + body


class Balancer:
    """`ringway run` on a configuration of the test; stopped, and judged, by Case's clean-up."""

    def __init__(self, case: unittest.TestCase, text: str, wait: bool = True, env: dict[str, str] | None = None):
        self.case = case
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name) / "ringway.toml"
        self.path.write_text(text)
        self.log_path = pathlib.Path(self.folder.name) / "log"
        self.log_file = open(self.log_path, "wb")
        self.process = subprocess.Popen([RINGWAY, "run", str(self.path)], stdout=self.log_file,
                                        stderr=self.log_file, env=os.environ | (env or {}))
        case.addCleanup(self.finish)
        if wait:
            wait_until(lambda: "listening on" in self.log() or self.process.poll() is not None)
            case.assertIsNone(self.process.poll(), self.log())

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def reload(self, text: str | None = None):
        if text is not None:
            self.path.write_text(text)
        before = len(re.findall(r"(?:info|error) reload", self.log()))
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(re.findall(r"(?:info|error) reload", self.log())) > before)

    def rss_kib(self) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def finish(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)  # The second one does not wait for anybody.
                self.process.wait(timeout=10)
        self.log_file.close()
        log = self.log()
        self.folder.cleanup()
        self.case.assertNotRegex(log, r"\.(h|cc):\d+: check failed")
        for sign in ("AddressSanitizer", "LeakSanitizer", "runtime error", "ThreadSanitizer"):
            self.case.assertNotIn(sign, log)
        self.case.assertIn(self.process.returncode, (0, 1, 71), log)


class Case(unittest.TestCase):
    """Engines to run on: RINGWAY_ENGINE, or io_uring; RINGWAY_RECEIVE, or readiness."""
    engine = os.environ.get("RINGWAY_ENGINE", "auto")
    receive = os.environ.get("RINGWAY_RECEIVE", "auto")

    def origin(self, answer=None, port: int = 0, host: str = "127.0.0.1") -> Origin:
        origin = Origin(answer, port, host)
        self.addCleanup(origin.stop)
        return origin

    def http(self, *origins: Origin | int, listener: str = "", upstream: str = "", routes: str | None = None,
             rest: str = "", shards: int = 1, host: str = "127.0.0.1") -> tuple[Balancer, int]:
        """One HTTP listener before one upstream "app" of these origins, or ports of such."""
        port = free_port()
        addresses = [o.address if isinstance(o, Origin) else f"127.0.0.1:{o}" for o in origins]
        servers = ", ".join(f'{{ name = "s{i}", address = "{one}" }}' for i, one in enumerate(addresses))
        if routes is None:
            routes = '[[routes]]\nname = "all"\nupstream = "app"\n'
        text = (f'version = 1\n[process]\nshards = {shards}\nmax_connections = 20000\ndrain_timeout = "5s"\n'
                f'[engine]\nkind = "{self.engine}"\nreceive = "{self.receive}"\n[listeners.web]\nbind = "{address_text(host, port)}"\n{listener}\n'
                f'{routes}[upstreams.app]\nservers = [{servers}]\n{upstream}\n{rest}\n')
        return Balancer(self, text), port

    def client(self, port: int, host: str = "127.0.0.1") -> Client:
        client = Client(port, host)
        self.addCleanup(client.close)
        return client


def metrics(port: int) -> dict[str, float]:
    text = raw(port, b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.split("\r\n\r\n", 1)[1].splitlines() if line and not line.startswith("#")}


def json_lines(path) -> list[dict]:
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
