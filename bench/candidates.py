"""bench/candidates.py - how each balancer is configured, and the command that starts it.

Every writer gets the scenario, the port to listen on, the origin's port and a folder of its own, and
returns the command, or raises an OSError. All have one thread unless more are asked for, keep server
connections, and log only where asked to.
"""
import dataclasses
import functools
import pathlib
import resource
import shutil
import subprocess
from collections.abc import Callable

from answers import answer_bytes
from scenarios import Scenario

FLOOR = "floor"  # bench/floor.cc: no balancer, what the others' cost is compared with
CLIENTS_MAX = 12_000  # connections that a balancer must be willing to hold


@dataclasses.dataclass(frozen=True)
class Candidate:
    name: str
    program: str
    write: Callable[[Scenario, int, int, pathlib.Path], list[str]]
    modes: tuple[str, ...]
    version: str
    bare: bool = False  # only moves bytes

    def can(self, scenario: Scenario) -> bool:
        """Whether it takes part in that row."""
        return scenario.mode in self.modes and (scenario.is_bare() or not self.bare)


CIPHER = "TLS_AES_128_GCM_SHA256"  # what Ringway prefers, so for all
CERTIFICATE = "certificate.pem"  # chain and key, in the folder of a scenario with TLS


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def ringway(program: str, engine: str, threads: int = 1):
    def write(scenario: Scenario, port: int, origin: int, folder: pathlib.Path) -> list[str]:
        rules = [f'match = {{ host = "h{i}.example.com" }}' for i in range(scenario.hosts)]
        rules += [f'match = {{ path_prefix = "/prefix/{i}/" }}' for i in range(scenario.prefixes)]
        routes = "".join(f'[[routes]]\nname = "r{i}"\n{rule}\nupstream = "origin"\n'
                         for i, rule in enumerate(rules or [""]))
        log = f'[logs.access]\noutput = "file:{folder}/access.log"\n' if scenario.access_log else ""
        pool = "pool = { reuse = \"always\", max_idle_per_server = 2048 }\n" if scenario.mode == "http" else ""
        tls = f'''[tls.profiles.public]
certificates = "bench"
min_version = "1.3"
[tls.certificates]
bench = {{ pem = "{folder / CERTIFICATE}" }}
''' if scenario.tls else ""
        path = folder / "ringway.toml"
        path.write_text(f"""version = 1
[process]
shards = {threads}
max_connections = {CLIENTS_MAX}
[engine]
kind = "{engine}"
[listeners.front]
bind = "127.0.0.1:{port}"
protocol = "{scenario.mode}"
{'tls = "public"' if scenario.tls else ""}
{routes}
[upstreams.origin]
protocol = "{scenario.mode}"
servers = [{{ address = "127.0.0.1:{origin}" }}]
{pool}{log}{tls}""")
        return [program, "run", str(path)]
    return write


def write_haproxy(threads: int, scenario: Scenario, port: int, origin: int, folder: pathlib.Path) -> list[str]:
    # Many rules are a map here, looked up in a tree: what its manual advises.
    (folder / "hosts.map").write_text(
        "".join(f"h{i}.example.com origin\n" for i in range(scenario.hosts)))
    (folder / "prefixes.map").write_text(
        "".join(f"/prefix/{i}/ origin\n" for i in range(scenario.prefixes)))
    rules = ""
    if scenario.hosts:
        rules = f"  use_backend %[req.hdr(host),lower,map_str({folder}/hosts.map)]\n"
    if scenario.prefixes:
        rules = f"  use_backend %[path,map_beg({folder}/prefixes.map)]\n"
    http = scenario.mode == "http"
    tls = f"ssl crt {folder / CERTIFICATE} ssl-min-ver TLSv1.3 alpn http/1.1" if scenario.tls else ""
    (folder / "haproxy.cfg").write_text(f"""global
  nbthread {threads}
  no strict-limits
  maxconn {CLIENTS_MAX}
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
  ssl-default-bind-ciphersuites {CIPHER}
  {"log stdout format raw local0" if scenario.access_log else ""}
defaults
  mode {scenario.mode}
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  {"log global" if scenario.access_log else "no log"}
  {"option httplog" if scenario.access_log else ""}
frontend front
  bind 127.0.0.1:{port} backlog 8192 {tls}
  maxconn {CLIENTS_MAX}
{rules or "  default_backend origin"}
backend origin
  {"http-reuse always" if http else ""}
  server origin 127.0.0.1:{origin} maxconn {CLIENTS_MAX}
""")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def haproxy(threads: int = 1):
    return functools.partial(write_haproxy, threads)


def nginx(scenario: Scenario, port: int, origin: int, folder: pathlib.Path) -> list[str]:
    module = stream_module()
    load = f"load_module {module};\n" if scenario.mode == "tcp" and module else ""
    body = nginx_stream(port, origin) if scenario.mode == "tcp" else nginx_http(
        scenario, port, origin, folder)
    (folder / "nginx.conf").write_text(f"""{load}worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_rlimit_nofile {file_limit()};
events {{ worker_connections {min(2 * CLIENTS_MAX, file_limit())}; }}
{body}""")
    return ["nginx", "-c", str(folder / "nginx.conf")]


def nginx_stream(port: int, origin: int) -> str:
    return f"""stream {{
  server {{ listen 127.0.0.1:{port} backlog=8192; proxy_pass 127.0.0.1:{origin}; tcp_nodelay on; }}
}}
"""


def nginx_http(scenario: Scenario, port: int, origin: int, folder: pathlib.Path) -> str:
    forever = 1_000_000_000  # requests on one connection
    log = f"access_log {folder}/access.log combined buffer=64k;" if scenario.access_log else (
        "access_log off;")
    temporary = " ".join(f"{kind}_temp_path {folder}/t-{kind};" for kind in (
        "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    servers = "".join(
        f"  server {{ listen 127.0.0.1:{port}; server_name h{i}.example.com;"
        " location / { proxy_pass http://origin; } }\n" for i in range(scenario.hosts))
    places = "".join(f"    location /prefix/{i}/ {{ proxy_pass http://origin; }}\n"
                     for i in range(scenario.prefixes))
    tls = (f"ssl_certificate {folder / CERTIFICATE}; ssl_certificate_key {folder / CERTIFICATE};"
           f" ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {CIPHER};") if scenario.tls else ""
    return f"""http {{
  {log}
  {temporary}
  keepalive_requests {forever};
  keepalive_timeout 120s;
  large_client_header_buffers 8 32k;
  client_body_buffer_size 64k;
  server_names_hash_max_size 4096;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 512;
    keepalive_requests {forever};
  }}
  server {{
    listen 127.0.0.1:{port} default_server backlog=8192{" ssl" if scenario.tls else ""};
    {tls}
{places}    location / {{ {"return 404" if scenario.has_rules() else "proxy_pass http://origin"}; }}
  }}
{servers}}}
"""


def floor(program: str):
    def write(scenario: Scenario, port: int, origin: int, _folder: pathlib.Path) -> list[str]:
        words = [program, "--port", str(port), "--origin", str(origin)]
        if scenario.mode == "tcp":
            return [*words, "--mode", "l4"]
        # It parses nothing, so it is told where messages end.
        request = scenario.request()
        return [*words, "--mode", "l7", "--request", str(len(request)), "--answer",
                str(answer_bytes(origin, request)), "--close", str(int(scenario.reconnect))]
    return write


def stream_module() -> str:
    """The path of nginx's stream module; empty when it is not installed (it is not in nginx-light)."""
    for folder in ("/usr/lib/nginx/modules", "/usr/share/nginx/modules"):
        path = pathlib.Path(folder) / "ngx_stream_module.so"
        if path.exists():
            return str(path)
    return ""


def first_line(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return next(iter((done.stdout + done.stderr).splitlines()), "").strip()


def installed(ringway_program: str, floor_program: str, threads: int = 1) -> dict[str, Candidate]:
    """All candidates that can be started here, by name, in the order of the tables."""
    found = []
    if shutil.which(ringway_program):
        version = first_line([ringway_program, "--version"])
        found += [Candidate(name, ringway_program, ringway(ringway_program, engine, threads),
                            ("http", "tcp"), version)
                  for name, engine in (("ringway", "auto"), ("ringway-io_uring", "io_uring"),
                                       ("ringway-epoll", "epoll"))]
    if shutil.which("haproxy"):
        found.append(Candidate("haproxy", "haproxy", haproxy(threads), ("http", "tcp"),
                               first_line(["haproxy", "-v"])))
    if shutil.which("nginx"):
        modes = ("http", "tcp") if stream_module() else ("http",)
        found.append(Candidate("nginx", "nginx", nginx, modes, first_line(["nginx", "-v"])))
    if shutil.which(floor_program):
        found.append(Candidate(FLOOR, floor_program, floor(floor_program), ("http", "tcp"),
                               "bench/floor", bare=True))
    return {candidate.name: candidate for candidate in found}
