"""bench/scenarios.py - what bench/compare measures."""
import dataclasses

GROUPS = ("Layer 4", "HTTP/1.1", "HTTP/1.1: routes, heads and logs", "Crowds and rates", "Memory", "TLS 1.3")
SIZES = {"128B": 128, "1KiB": 1 << 10, "16KiB": 16 << 10, "256KiB": 256 << 10, "1MiB": 1 << 20}
CLIENTS = (1, 64, 1000)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One row of a table. `expect` counts the body bytes of an answer (layer 4: all of its bytes)."""

    name: str
    group: str
    connections: int
    expect: int = 128
    mode: str = "http"            # of the balancer: http | tcp
    echo: bool = False            # raw bytes to the echo port instead of HTTP
    prefix: str = ""              # of the path
    host: str = "bench.example.com"
    fields: tuple[tuple[str, str], ...] = ()
    post: int = 0                 # bytes of a request body
    reconnect: bool = False       # a new client connection for every request
    idle: int = 0                 # further connections that stay open
    rate: int = 0                 # requests a second; 0: as fast as the answers come
    wrk: bool = True              # driven by wrk, else by bench_load
    hosts: int = 0                # rules in the balancer's configuration
    prefixes: int = 0
    access_log: bool = False
    tls: str = ""                 # the server's key: rsa (2048 bits) | ecdsa (P-256); "": clear text
    resume: bool = False          # with --reconnect: sessions are resumed
    over: str = ""                # the scenario whose cost this one is also compared with
    memory: bool = False          # measures the memory of the idle connections, not requests
    full: bool = False            # only with --full

    def has_rules(self) -> bool:
        """Then there is no catch-all beside them: a request that no rule takes is refused."""
        return self.hosts > 0 or self.prefixes > 0

    def is_bare(self) -> bool:
        """Nothing but messages that are moved: no TLS, rules, logs, nor memory."""
        return not (self.tls or self.has_rules() or self.access_log or self.memory)

    def path(self) -> str:
        return f"{self.prefix}/{self.expect}"

    def all_fields(self) -> list[tuple[str, str]]:
        closing = [("Connection", "close")] if self.reconnect else []
        return [("Host", self.host), *self.fields, *closing]

    def request(self) -> bytes:
        """The bytes a client sends."""
        if self.echo:
            return b"e" * self.expect
        head = f"{'POST' if self.post else 'GET'} {self.path()} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.all_fields())
        if self.post:
            head += f"Content-Length: {self.post}\r\n"
        return head.encode() + b"\r\n" + b"p" * self.post


def echo(name: str, **more) -> Scenario:
    return Scenario(name, GROUPS[0], 64, expect=64, mode="tcp", echo=True, wrk=False, **more)


def keep_alive() -> list[Scenario]:
    """Every size with every number of clients; those outside the usual set need --full."""
    usual = {("128B", 1), ("128B", 1000)} | {(size, 64) for size in SIZES}
    return [Scenario(f"h1-{size}-c{clients}", GROUPS[1], clients, expect=length,
                     full=(size, clients) not in usual)
            for size, length in SIZES.items() for clients in CLIENTS]


def new_connections() -> list[Scenario]:
    """The same with a new client connection for every request; the usual one has its place in ALL."""
    return [Scenario(f"h1-new-connection-{size}-c{clients}", GROUPS[1], clients, expect=length, reconnect=True, full=True)
            for size, length in SIZES.items() for clients in CLIENTS
            if size != "1MiB" and (size, clients) != ("128B", 64)]


def layer4() -> list[Scenario]:
    """HTTP that is relayed at layer 4: every size with every number of clients, kept and new connections."""
    return [Scenario(f"l4-{'new-connection-' if new else ''}{size}-c{clients}", GROUPS[0], clients, expect=length,
                     mode="tcp", reconnect=new, full=True)
            for new in (False, True) for size, length in SIZES.items() for clients in CLIENTS if size != "1MiB"]


def tls(name: str, key: str, **more) -> Scenario:
    return Scenario(f"tls-{name}-c64", GROUPS[5], 64, tls=key, **more)


def handshakes(name: str, key: str, **more) -> Scenario:
    """A new connection for every request of 128 B: what it costs is the handshake, nearly all of it."""
    return tls(name, key, reconnect=True, wrk=False, **more)


PLAIN = "h1-128B-c64"
# 40 fields with Host, a head of 6 KiB.
FORTY = tuple((f"X-Bench-Field-{i:02}", "v" * 133) for i in range(39))

ALL = [
    echo("l4-64B-c64"),
    echo("l4-new-connection-c64", reconnect=True),
    Scenario("l4-1MiB-c64", GROUPS[0], 64, expect=1 << 20, mode="tcp"),
    *layer4(),
    *keep_alive(),
    Scenario("h1-new-connection-c64", GROUPS[1], 64, reconnect=True),
    *new_connections(),
    Scenario("h1-post-10KiB-c64", GROUPS[1], 64, post=10 << 10),
    Scenario("h1-40-headers-c64", GROUPS[2], 64, fields=FORTY),
    Scenario("h1-500-hosts-c64", GROUPS[2], 64, hosts=500, host="h499.example.com", over=PLAIN),
    Scenario("h1-1000-prefixes-c64", GROUPS[2], 64, prefixes=1000, prefix="/prefix/999",
             over=PLAIN),
    Scenario("h1-access-log-c64", GROUPS[2], 64, access_log=True, over=PLAIN),
    Scenario("h1-idle-9900-active-100", GROUPS[3], 100, idle=9900, wrk=False),
    Scenario("h1-5000-per-second-c64", GROUPS[3], 64, rate=5000, wrk=False),
    Scenario("memory-idle-10000", GROUPS[4], 0, idle=10_000, wrk=False, memory=True),
    Scenario("memory-idle-tls-10000", GROUPS[4], 0, idle=10_000, wrk=False, memory=True,
             tls="ecdsa"),
    tls("rsa-128B", "rsa"),
    tls("ecdsa-128B", "ecdsa"),
    *[tls(f"ecdsa-{size}", "ecdsa", expect=SIZES[size]) for size in ("16KiB", "256KiB", "1MiB")],
    handshakes("full-rsa", "rsa"),
    handshakes("full-ecdsa", "ecdsa"),
    handshakes("resumed-ecdsa", "ecdsa", resume=True),
]
SMOKE = ("l4-64B-c64", PLAIN, "h1-new-connection-c64", "tls-ecdsa-128B-c64", "tls-full-rsa-c64",
         "tls-resumed-ecdsa-c64")
