"""tests/e2e/reporting_origin.py - an HTTP/1.1 origin that says which connection carried which request.

Every answer names its connection (X-Conn, unique over all origins of a process), the request's place on it
(X-Req), the peer (X-Peer) and the origin (X-Server), and echoes the request's X-Token in a field and in every
byte of the body. The same is in `log` and `connections`, together with the client's tag (X-Client), so that
who shared a connection is decided here and not by what the balancer says. What the connection began with is said
too: over TLS the name that was asked for, its protocol and whether the session was resumed (X-Sni, X-Alpn,
X-Resumed), behind a PROXY header whom that names (X-Pp-Src).

All I/O is on one thread, which answers in the order of arrival. A test calls the methods of ReportingOrigin
from its own thread. Commands are the path of a request; without one it is answered at once:

  /close-after[?how=fin|rst]   "Connection: close" and a close; with `how` the close is not announced
  /fin-idle?ms=N               closes when it was idle for N ms since the answer
  /rst-before-response         reads the request, resets; only the first time it sees the token
  /read-then-fin               reads the request, closes; only the first time it sees the token
  /unsolicited?kind=K[&ms=N]   N ms after the answer, unless another request came first, sends K of INJECTIONS
  /stall                       answers when release(token) says so
  /trickle?at=N                the head and N bytes, the rest when release(token) says so
  /early[?status=N]            answers as soon as the head was read; what follows is read and dropped
  /ntlm[?scheme=S&status=N]    N (401, 407) with a challenge of scheme S, unless the request answers it
  /excess?kind=K               an answer and K of INJECTIONS in one segment
  /keepalive-hint?timeout=S&max=N  Keep-Alive: timeout=S, max=N; closes after S idle seconds
  /slow?ms=N                   answers after N ms
  any, with size=N             a body of N bytes; with chunked=1 in chunks
"""
import asyncio
import contextlib
import dataclasses
import itertools
import socket
import ssl
import struct
import threading
import time
import urllib.parse

INJECTIONS = {
    "bytes": b"\x00\x01\x02\x03",
    "line": b"\r\n",
    "408": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "response": b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Token: injected\r\n\r\ninjected",
}
TCP_ESTABLISHED = 1
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_numbers = itertools.count(1)


def body_of(token: str, size: int) -> bytes:
    """A body of `size` bytes that no other token has; 0 means the token once."""
    unit = token.encode() + b"."
    return (unit * (size // len(unit) + 1))[:size] if size else token.encode()


def note_names(context: ssl.SSLContext):
    """Connections of this server's context know what they were asked for: `asked_name`, None without a name."""
    def note(tls, name, _):
        tls.asked_name = name
    context.sni_callback = note


def proxy_header(data: bytes) -> tuple[int, str] | None:
    """Length of the PROXY header that `data` begins with, and the source that it names; None: more must come."""
    if data.startswith(b"PROXY "):
        line, end, _ = data.partition(b"\r\n")
        words = line.decode().split(" ")
        return (len(line) + 2, f"{words[2]}:{words[4]}") if end else None
    if len(data) < 16 or len(data) < 16 + int.from_bytes(data[14:16], "big"):
        return None
    assert data.startswith(PROXY_SIGNATURE), data[:40]
    size, family = (4, socket.AF_INET) if data[13] >> 4 == 1 else (16, socket.AF_INET6)
    port = int.from_bytes(data[16 + 2 * size:18 + 2 * size], "big")
    return 16 + int.from_bytes(data[14:16], "big"), f"{socket.inet_ntop(family, data[16:16 + size])}:{port}"


@dataclasses.dataclass
class Seen:
    """One request as it reached the origin: written when its head was read."""
    conn: str
    req: int
    server: str
    method: str
    command: str
    fields: dict[str, str]
    at: float
    complete: bool = False  # its body too was read
    answered: bool = False  # the last byte of an answer was handed to the kernel

    @property
    def token(self) -> str:
        return self.fields.get("x-token", "")

    @property
    def client(self) -> str:
        return self.fields.get("x-client", "")

    @property
    def key(self) -> tuple[str, str]:
        """What may not differ between two requests on one connection."""
        return self.server, self.fields.get("x-upstream", "")


class Conn(asyncio.Protocol):
    """One accepted connection, kept after its end as a record of it."""

    def __init__(self, origin: "ReportingOrigin"):
        self.origin = origin
        self.name = f"{origin.name}-{next(_numbers)}"
        self.seen: list[Seen] = []
        self.requests = 0
        self.closed_by = ""  # "fin" or "rst" of the peer, "origin"; empty while it is open
        self.busy = False    # a request is in hand
        self.overlaps = 0    # requests that came while another was in hand: never by a sound balancer
        self.buffer = b""
        self.doom = ""       # "fin" or "rst": what the next request gets instead of an answer
        self.body_left = 0   # bytes of the request's body to come; -1: chunked
        self.waiting = None  # a release: what to do, and the request
        self.timer = None
        self.private_from = None  # index in `seen` of the request that made it private
        self.proxy_header = b""   # what it began with, if the origin wants such a header
        self.proxy_source = ""
        self.told: list[str] = []  # fields of every answer: what the connection began with
        self.sni = None           # the name that TLS was asked for
        self.resumed = False

    # What tests read.
    @property
    def open(self) -> bool:
        return not self.closed_by

    @property
    def clients(self) -> set[str]:
        return {seen.client for seen in self.seen}

    def established(self) -> bool:
        """By the kernel: false from the moment the peer's FIN or RST came, though we may not have read it."""
        if not self.open:
            return False
        try:
            return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED
        except OSError:
            return False

    # asyncio
    def connection_made(self, transport):
        self.transport = transport
        self.socket = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}"
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.sni, self.resumed = getattr(tls, "asked_name", None), tls.session_reused
            self.told = [f"X-Sni: {self.sni or ''}", f"X-Alpn: {tls.selected_alpn_protocol() or ''}",
                         f"X-Resumed: {int(self.resumed)}"]
        self.origin.opened(self)

    def connection_lost(self, problem):
        self.cancel_timer()
        self.closed_by = self.closed_by or ("rst" if problem else "fin")
        self.origin.open_conns.discard(self)
        self.origin.note_in_flight(self, False)

    def eof_received(self):
        self.closed_by = self.closed_by or "fin"
        return False  # Closes the transport.

    def data_received(self, data: bytes):
        self.buffer += data
        if self.origin.proxied and not self.proxy_header and not self.take_proxy_header():
            return
        while self.buffer and self.open:
            if self.body_left:
                if not self.read_body():
                    return
            elif self.busy:
                self.overlaps += 1
                return
            elif b"\r\n\r\n" not in self.buffer:
                return
            else:
                head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
                self.on_head(head)

    def take_proxy_header(self) -> bool:
        """False: more must come."""
        header = proxy_header(self.buffer)
        if header is None:
            return False
        length, self.proxy_source = header
        self.proxy_header, self.buffer = self.buffer[:length], self.buffer[length:]
        self.told.append(f"X-Pp-Src: {self.proxy_source}")
        return True

    def read_body(self) -> bool:
        """Takes what there is of the body. False: more must come."""
        if self.body_left < 0:
            if not self.buffer.endswith(b"0\r\n\r\n"):  # Chunks are dropped: the balancer never pipelines.
                return False
            self.buffer = b""
            self.body_left = 0
        else:
            taken = min(self.body_left, len(self.buffer))
            self.buffer, self.body_left = self.buffer[taken:], self.body_left - taken
            if self.body_left:
                return False
        self.current.complete = True
        if self.busy:
            self.act(self.current)
        return True

    def on_head(self, head: bytes):
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        url = urllib.parse.urlsplit(target)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.cancel_timer()
        self.requests += 1
        seen = Seen(self.name, self.requests, self.origin.name, method, url.path.strip("/").split("/")[-1],
                    fields, time.monotonic())
        if self.origin.keeps_log:
            self.seen.append(seen)
            self.origin.log.append(seen)
        self.current = seen
        self.busy = True
        self.origin.note_in_flight(self, True)
        self.note_login(fields.get("authorization", ""))
        self.note_login(fields.get("proxy-authorization", ""))
        chunked = "chunked" in fields.get("transfer-encoding", "").lower()
        self.body_left = -1 if chunked else int(fields.get("content-length", 0))
        seen.complete = not self.body_left
        if seen.command == "early":
            self.answer(seen, status=int(self.query.get("status", 403)))
        elif not self.body_left:
            self.act(seen)

    def note_login(self, value: str):
        if value.lower().startswith(("ntlm", "nego")) and self.private_from is None:
            self.private_from = len(self.seen) - 1

    # What a request gets.
    def act(self, seen: Seen):
        """The whole request is here."""
        if self.doom:
            self.close(self.doom)
            return
        getattr(self, "do_" + seen.command.replace("-", "_"), self.answer)(seen)

    def do_close_after(self, seen: Seen):
        how = self.query.get("how", "")
        self.answer(seen, [] if how else ["Connection: close"])
        self.close(how or "fin")

    def do_fin_idle(self, seen: Seen):
        self.answer(seen)
        self.later(float(self.query["ms"]) / 1000, lambda: self.close("fin"))

    def do_rst_before_response(self, seen: Seen):
        self.answer(seen) if self.origin.attempts(seen.token) > 1 else self.close("rst")

    def do_read_then_fin(self, seen: Seen):
        self.answer(seen) if self.origin.attempts(seen.token) > 1 else self.close("fin")

    def do_unsolicited(self, seen: Seen):
        self.answer(seen)
        self.later(float(self.query.get("ms", 0)) / 1000,
                   lambda: self.transport.write(INJECTIONS[self.query["kind"]]))

    def do_stall(self, seen: Seen):
        self.waiting = (seen.token, lambda: self.answer(seen))

    def do_trickle(self, seen: Seen):
        whole = self.message(seen, [], 200)
        cut = whole.index(b"\r\n\r\n") + 4 + int(self.query["at"])
        self.transport.write(whole[:cut])
        self.waiting = (seen.token, lambda: self.finish(seen, whole[cut:]))

    def do_ntlm(self, seen: Seen):
        scheme, status = self.query.get("scheme", "NTLM"), int(self.query.get("status", 401))
        name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
        if seen.fields.get("authorization") or seen.fields.get("proxy-authorization"):
            self.answer(seen)
            return
        self.note_login(scheme)
        self.answer(seen, ['%s: Basic realm="x"' % name] * ("also" in self.query) + [f"{name}: {scheme}"], status)

    def do_excess(self, seen: Seen):
        self.finish(seen, self.message(seen, [], 200) + INJECTIONS[self.query["kind"]])

    def do_keepalive_hint(self, seen: Seen):
        hints = [f"{name}={self.query[name]}" for name in ("timeout", "max") if name in self.query]
        self.answer(seen, ["Keep-Alive: " + ", ".join(hints)])
        if "timeout" in self.query:
            self.later(float(self.query["timeout"]), lambda: self.close("fin"))

    def do_slow(self, seen: Seen):
        asyncio.get_running_loop().call_later(float(self.query["ms"]) / 1000, lambda: self.answer(seen))

    def answer(self, seen: Seen, extra=(), status: int = 200):
        self.finish(seen, self.message(seen, extra, status))

    def message(self, seen: Seen, extra, status: int) -> bytes:
        body = body_of(seen.token, int(self.query.get("size", 0)))
        lines = [f"HTTP/1.1 {status} X", f"X-Conn: {self.name}", f"X-Req: {seen.req}", f"X-Peer: {self.peer}",
                 f"X-Server: {self.origin.name}", f"X-Token: {seen.token}", *self.told, *extra]
        if "chunked" not in self.query:
            lines.append(f"Content-Length: {len(body)}")
            framed = body
        else:
            lines.append("Transfer-Encoding: chunked")
            framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in
                              (body[at:at + 1000] for at in range(0, len(body), 1000))) + b"0\r\n\r\n"
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if seen.method == "HEAD" else framed)

    def finish(self, seen: Seen, data: bytes):
        if not self.open:
            return
        self.busy = False
        seen.answered = True
        self.origin.note_in_flight(self, False)
        self.transport.write(data)
        if self.buffer:
            asyncio.get_running_loop().call_soon(self.data_received, b"")

    def close(self, how: str):
        self.closed_by = self.closed_by or "origin"
        if how == "rst":
            with contextlib.suppress(OSError):  # Over TLS we may learn later that it is closed.
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def later(self, seconds: float, do):
        """Unless another request comes before."""
        self.timer = asyncio.get_running_loop().call_later(seconds, do)

    def cancel_timer(self):
        if self.timer:
            self.timer.cancel()
            self.timer = None


class ReportingOrigin:
    """One origin on a loopback address. All attributes may be read at any time; methods act before they return.

    `context`: it speaks TLS. `proxied`: each connection has to begin with a PROXY header."""

    def __init__(self, name: str = "origin", port: int = 0, host: str = "127.0.0.1", keeps_log: bool = True,
                 context: ssl.SSLContext | None = None, proxied: bool = False):
        self.name, self.port, self.host = name, port, host
        self.context, self.proxied = context, proxied
        if context is not None:
            note_names(context)
        self.keeps_log = keeps_log  # False for loads: then only Conn.requests counts, and commands need no token
        self.log: list[Seen] = []
        self.connections: dict[str, Conn] = {}  # all there ever were, by name, in the order of accepting
        self.open_conns: set[Conn] = set()
        self.peak = 0            # the most connections that were established at one moment
        self.peak_in_flight = 0  # the most requests in hand at one moment
        self.in_flight: set[Conn] = set()
        self.tokens: dict[str, int] = {}
        self.thawed = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.restart()

    # What tests ask.
    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def established(self) -> int:
        return sum(conn.established() for conn in list(self.open_conns))

    @property
    def idle(self) -> int:
        return sum(conn.established() and not conn.busy for conn in list(self.open_conns))

    def attempts(self, token: str) -> int:
        """How often a request with this token reached the origin."""
        return sum(seen.token == token for seen in self.log)

    def of(self, token: str) -> list[Seen]:
        return [seen for seen in self.log if seen.token == token]

    # What tests do to it.
    def call(self, do):
        """Runs do() on the origin's thread and returns what it returns."""
        async def run():
            return do()
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def release(self, token: str):
        self.call(lambda: self.release_where(lambda waiting: waiting == token))

    def release_all(self):
        self.call(lambda: self.release_where(lambda waiting: True))

    def release_where(self, matches):
        for conn in list(self.open_conns):
            if conn.waiting and matches(conn.waiting[0]):
                (_, act), conn.waiting = conn.waiting, None
                act()

    def close_idle(self, how: str = "fin"):
        """Closes every connection that has no request in hand."""
        self.call(lambda: [conn.close(how) for conn in list(self.open_conns) if not conn.busy])

    def doom(self, how: str = "fin"):
        """Every connection that exists now will be closed instead of answering its next request."""
        self.call(lambda: [setattr(conn, "doom", how) for conn in self.open_conns])

    def inject(self, conn: str, kind: str):
        self.call(lambda: self.connections[conn].transport.write(INJECTIONS[kind]))

    def kill(self, how: str = "rst"):
        """As a process that is killed: the port is closed, every connection reset (or ended)."""
        def die():
            self.server.close()
            for conn in list(self.open_conns):
                conn.close(how)
        self.call(die)

    def restart(self):
        """On the same port as before."""
        async def listen():
            for attempt in range(200):  # A client may have the port as its own for a moment.
                try:
                    return await self.loop.create_server(lambda: Conn(self), self.host, self.port, backlog=4096,
                                                         reuse_address=True, ssl=self.context)
                except OSError:
                    if attempt == 199:
                        raise
                    await asyncio.sleep(0.05)
        self.server = asyncio.run_coroutine_threadsafe(listen(), self.loop).result(20)
        self.port = self.server.sockets[0].getsockname()[1]

    def freeze(self):
        """As a stopped process: the kernel still accepts connections and bytes, nobody answers."""
        self.thawed = threading.Event()
        self.loop.call_soon_threadsafe(self.thawed.wait)

    def thaw(self):
        if self.thawed:
            self.thawed.set()
            self.thawed = None

    def stop(self):
        self.thaw()
        if self.loop.is_running():
            self.kill()
            self.call(lambda: self.loop.call_soon(self.loop.stop))
            self.thread.join(20)
            self.loop.close()

    # On the origin's thread.
    def opened(self, conn: Conn):
        self.connections[conn.name] = conn
        self.open_conns.add(conn)
        if len(self.open_conns) > self.peak:
            # Those that the kernel calls established now were all so when this one was accepted, or it
            # would not: what is counted did exist at one moment, whatever we have not read yet.
            self.peak = max(self.peak, sum(other.established() for other in self.open_conns))

    def note_in_flight(self, conn: Conn, begins: bool):
        (self.in_flight.add if begins else self.in_flight.discard)(conn)
        self.peak_in_flight = max(self.peak_in_flight, len(self.in_flight))
