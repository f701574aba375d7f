"""tests/e2e/h2_support.py - a balancer that speaks HTTP/2 to clients, scripted origins, what RFC 9113 lets follow an error.

H2_REFERENCE=nghttpd or =haproxy runs the same tests against that program instead: it tells whether a test is right.
Tests where it is known to be different are marked `differs`."""
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

import h2client as h2
from h2client import H2, Closed, Reset, Stream
from support import Case, Origin, free_port, wait_until
from test_tls import Authority, pair

REFERENCE = os.environ.get("H2_REFERENCE", "")


def differs(**programs: str):
    """Skips the test for the reference of that name; says how that one is different."""
    return unittest.skipIf(REFERENCE in programs, programs.get(REFERENCE, ""))


def test_name(*words: str) -> str:
    return "test_" + "".join(c if c.isalnum() else "_" for c in " ".join(words)).strip("_")


class Peer:
    """An origin by hand: `script(peer, socket, head, rest)` runs once per request head, in its connection's thread.
    True: read another head there. `ends` counts connections that the balancer has ended while a script was reading."""

    def __init__(self, script, receive_buffer: int = 0):
        self.script = script
        self.heads: list[bytes] = []
        self.ends = 0
        self.resets = 0  # Connections that a script saw to be reset.
        self.go = threading.Event()  # For scripts that wait until the test says so.
        self.listener = socket.socket()
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(2 * h2.SECONDS)
            self.open.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket):
        rest = b""
        try:
            with connection:
                while True:
                    while b"\r\n\r\n" not in rest:
                        part = connection.recv(65536)
                        if not part:
                            return
                        rest += part
                    head, rest = rest.split(b"\r\n\r\n", 1)
                    self.heads.append(head)
                    if not self.script(self, connection, head, rest):
                        return
                    rest = b""
        except OSError:
            pass

    def until_end(self, connection: socket.socket) -> bytes:
        """Reads until the balancer ends or resets the connection."""
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
        self.ends += 1
        return received

    def stop(self):
        self.go.set()
        if self.listener.fileno() >= 0:  # A test may have stopped it already.
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class H2Case(Case):
    tls = False
    authority: Authority | None = None

    def peer(self, script, **options) -> Peer:
        peer = Peer(script, **options)
        self.addCleanup(peer.stop)
        return peer

    def serve(self, origin: Origin | Peer, listener: str = "", rest: str = "", **options) -> int:
        """Starts the balancer, or the reference, before `origin`; returns its port."""
        if REFERENCE:
            return self.serve_reference(origin)
        if self.tls:
            certificate = pair("test", self.certificate())
            listener += '\ntls = "public"'
            rest += f'\n[tls.profiles.public]\ncertificates = ["test"]\n[tls.certificates]\n{certificate}\n'
        self.balancer, port = self.http(origin.port, listener=listener, rest=rest, **options)
        return port

    def certificate(self) -> tuple[str, str]:
        if H2Case.authority is None:
            folder = tempfile.TemporaryDirectory()
            H2Case.authority = Authority(pathlib.Path(folder.name))
            H2Case.folder = folder  # Keeps it.
            H2Case.files = H2Case.authority.issue("test", "test")
        return H2Case.files

    def serve_reference(self, origin) -> int:
        port = free_port()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        files = self.certificate() if self.tls else ()
        if REFERENCE == "nghttpd":
            (root / "index.html").write_bytes(b"hello" * 600)
            words = ["nghttpd", "-a", "127.0.0.1", "-d", str(root), "--echo-upload", str(port)]
            words += reversed(files) if self.tls else ["--no-tls"]
        else:
            (root / "all.pem").write_text("".join(pathlib.Path(f).read_text() for f in files))
            extra = f" ssl crt {root}/all.pem alpn h2,http/1.1" if self.tls else ""
            (root / "cfg").write_text(
                "global\n maxconn 4000\n nbthread 1\ndefaults\n mode http\n timeout client 5s\n timeout server 20s\n"
                " timeout connect 2s\n retries 0\n timeout http-request 2s\n option http-no-delay\n option abortonclose\n"
                f"frontend web\n bind 127.0.0.1:{port}{extra}\n default_backend app\n"
                f"backend app\n server s0 127.0.0.1:{origin.port}\n")
            words = ["haproxy", "-db", "-f", str(root / "cfg")]
        assert shutil.which(words[0]), f"no {words[0]}"
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def stop():
            process.terminate()
            process.wait(timeout=20)
        self.addCleanup(stop)

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        wait_until(listens)
        return port

    def context(self, *protocols: str) -> ssl.SSLContext:
        self.certificate()
        context = ssl.create_default_context(cafile=str(H2Case.authority.ca))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def connect(self, port: int, *initial: tuple[int, int], start: bool = True, **options) -> H2:
        """A connection on which SETTINGS were exchanged, unless not `start`."""
        client = H2(port, *initial, context=self.context("h2") if self.tls else None, start=start, **options)
        self.addCleanup(client.close)
        if start:
            client.wait(lambda: client.seen_settings and client.settings_acks)
        return client

    # What may follow an error.

    def refused(self, client: H2, *codes: int, stream: Stream | None = None, status: tuple[int, ...] = (),
                after_reset: tuple[int, ...] = ()) -> str:
        """Waits for the outcome of an error and judges it: the connection ends, with GOAWAY of one of `codes` if it says
        anything; or, for a `stream`, RST_STREAM with one of them, or an answer of one of `status`. Then the connection lives;
        or it ends as well, with GOAWAY of one of `after_reset`, for clients that go on with what was refused."""
        try:
            client.wait(lambda: client.goaway is not None and client.goaway[1] != h2.NO_ERROR or stream is not None and
                        (stream.reset is not None or bool(status) and stream.ended))
        except Closed:
            return "closed"
        if client.goaway is not None and client.goaway[1] != h2.NO_ERROR:
            self.assertIn(client.goaway[1], codes, "code of GOAWAY")
            try:
                while True:  # RFC 9113 5.4.1: then the connection is closed.
                    client.step()
            except Closed:
                pass
            return "goaway"
        if stream.reset is not None:
            self.assertIn(stream.reset, codes, "code of RST_STREAM")
            try:
                client.ping()  # An error of a stream is no error of the connection.
            except Closed:
                self.assertIn(client.goaway and client.goaway[1], after_reset, "it ends the connection")
            return "reset"
        self.assertIn(stream.status, status)
        return "answer"

    def assert_cut(self, client: H2, stream: Stream):
        """The answer was begun and cannot be completed: the client must be able to notice."""
        with self.assertRaises((Reset, Closed)):
            client.response(stream)
        self.assertFalse(stream.ended)


class SharedCase(H2Case):
    """One balancer and one origin for all tests of the class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        owner = cls("keeper")
        owner.addCleanup = cls.addClassCleanup
        cls.origin_ = owner.start_origin()
        cls.port = owner.serve(cls.origin_, **owner.options())

    def keeper(self):
        """What unittest needs to make an instance that is no test."""

    def start_origin(self):
        return self.origin()

    def options(self) -> dict:
        return {}
