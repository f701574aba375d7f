"""bench/scenarios.py - what bench/compare measures, and how each candidate is configured for it."""
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# wrk prints one JSON object behind RESULT; latencies in milliseconds.
LUA = """
@REQUEST@
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT{"requests":%d,"rps":%f,"p50":%f,"p99":%f,"p999":%f,"errors":%d}',
    summary.requests, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
POST = 'wrk.method = "POST"; wrk.body = string.rep("p", 10240)'
HEADERS_40 = ("for i = 1, 40 do wrk.headers['X-Header-' .. i] = string.rep('v', 128) end")


def h1(path: str, connections: int, **more) -> dict:
    return {"mode": "http", "path": path, "connections": connections, **more}


def l4(path: str, connections: int, **more) -> dict:
    # nginx-light has no stream module, so nginx sits layer 4 out.
    return {"mode": "tcp", "path": path, "connections": connections, "without": ["nginx"], **more}


SCENARIOS = {
    "l4 128B c64": l4("/128", 64),
    "l4 16KiB c64": l4("/16k", 64),
    "l4 1MiB c64": l4("/1m", 64),
    "l4 new connection c64": l4("/128", 64, headers=["Connection: close"]),
    "h1 128B c1": h1("/128", 1),
    "h1 128B c64": h1("/128", 64),
    "h1 128B c1000": h1("/128", 1000),
    "h1 1KiB c64": h1("/1k", 64),
    "h1 16KiB c64": h1("/16k", 64),
    "h1 256KiB c64": h1("/256k", 64),
    "h1 1MiB c64": h1("/1m", 64),
    "h1 new connection c64": h1("/128", 64, headers=["Connection: close"]),
    "h1 POST 10KiB c64": h1("/128", 64, lua=POST),
    "h1 40 headers c64": h1("/128", 64, lua=HEADERS_40),
    "h1 500 hosts c64": h1("/128", 64, hosts=500, headers=["Host: h499.example.com"]),
    "h1 1000 prefixes c64": h1("/128", 64, prefixes=1000),
    "h1 access log c64": h1("/128", 64, log=True),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Setup:
    """The origin: nginx on CPU 1, with bodies of every size, for as long as the benchmark runs."""

    def __init__(self, ringway: str):
        self.ringway = ringway

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        root = pathlib.Path(self.folder.name)
        root.chmod(0o755)  # nginx's worker reads the bodies as another user.
        self.port = free_port()
        for name, size in {"1k": 1 << 10, "16k": 1 << 14, "256k": 1 << 18, "1m": 1 << 20}.items():
            (root / name).write_bytes(b"b" * size)
        temp = "".join(f"{kind}_temp_path {root}/t-{kind};"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (root / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on; {temp}
  large_client_header_buffers 8 32k; client_body_buffer_size 64k; default_type text/plain;
  server {{ listen 127.0.0.1:{self.port} backlog=8192; root {root};
    location = /128 {{ return 200 "{"b" * 128}"; }}
    location / {{ open_file_cache max=16; }} }} }}
""")
        self.origin = subprocess.Popen(["taskset", "-c", "1", "nginx", "-c", f"{root}/nginx.conf"])
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self.origin.send_signal(signal.SIGTERM)
        self.origin.wait(timeout=10)
        self.folder.cleanup()


def ringway(engine: str):
    def write(setup: Setup, scenario: dict, port: int, folder: str) -> list[str]:
        routes = "".join(f'[[routes]]\nname = "h{i}"\nmatch = {{ host = ["h{i}.example.com"] }}\n'
                         'upstream = "origin"\n' for i in range(scenario.get("hosts", 0)))
        routes += "".join(f'[[routes]]\nname = "p{i}"\nmatch = {{ path_prefix = ["/prefix/{i}/"] }}\n'
                          'upstream = "origin"\n' for i in range(scenario.get("prefixes", 0)))
        log = f'[logs.access]\noutput = "file:{folder}/access.log"\n' if scenario.get("log") else ""
        pool = "pool = { max_idle_per_server = 2048 }\n" if scenario["mode"] == "http" else ""
        path = pathlib.Path(folder) / "ringway.toml"
        path.write_text(f"""
version = 1
[process]
shards = 1
cpus = "0"
max_connections = 4096
[engine]
kind = "{engine}"
[listeners.front]
bind = "127.0.0.1:{port}"
protocol = "{scenario['mode']}"
{routes}
[[routes]]
name = "all"
upstream = "origin"
[upstreams.origin]
protocol = "{scenario['mode']}"
servers = [{{ address = "127.0.0.1:{setup.port}" }}]
{pool}{log}""")
        return [setup.ringway, "run", str(path)]
    return write


def haproxy(setup: Setup, scenario: dict, port: int, folder: str) -> list[str]:
    hosts = "".join(f"  use_backend origin if {{ req.hdr(host) -i h{i}.example.com }}\n"
                    for i in range(scenario.get("hosts", 0)))
    hosts += "".join(f"  use_backend origin if {{ path_beg /prefix/{i}/ }}\n"
                     for i in range(scenario.get("prefixes", 0)))
    log = "  log stdout format raw local0\n" if scenario.get("log") else ""
    use_log = "  log global\n  option httplog\n" if scenario.get("log") else ""
    path = pathlib.Path(folder) / "haproxy.cfg"
    path.write_text(f"""
global
  nbthread 1
  maxconn 9000
{log}defaults
  mode {scenario['mode']}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
{use_log}frontend front
  bind 127.0.0.1:{port} backlog 8192
{hosts}  default_backend origin
backend origin
  {'http-reuse always' if scenario['mode'] == 'http' else ''}
  server origin 127.0.0.1:{setup.port}
""")
    return ["haproxy", "-db", "-f", str(path)]


def nginx(setup: Setup, scenario: dict, port: int, folder: str) -> list[str]:
    root = pathlib.Path(folder)
    temp = "".join(f"{kind}_temp_path {root}/t-{kind};"
                   for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    log = f"access_log {root}/access.log combined buffer=64k;" if scenario.get("log") else "access_log off;"
    # HTTP/1.1 with an empty Connection field is what keeps its server connections open.
    keep = "proxy_http_version 1.1; proxy_set_header Connection '';"
    servers = "".join(f"server {{ listen 127.0.0.1:{port} backlog=8192; server_name h{i}.example.com;"
                      f" location / {{ proxy_pass http://origin; {keep} }} }}\n"
                      for i in range(scenario.get("hosts", 0)))
    places = "".join(f"location /prefix/{i}/ {{ proxy_pass http://origin; {keep} }}\n"
                     for i in range(scenario.get("prefixes", 0)))
    (root / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{ {log} keepalive_requests 1000000000; {temp} large_client_header_buffers 8 32k;
  server_names_hash_max_size 4096; client_body_buffer_size 64k;
  upstream origin {{ server 127.0.0.1:{setup.port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} default_server backlog=8192; {places}
    location / {{ proxy_pass http://origin; {keep} }} }}
  {servers} }}
""")
    return [shutil.which("nginx") or "nginx", "-c", str(root / "nginx.conf")]


CANDIDATES = {
    "ringway": ringway("auto"),
    "ringway-io_uring": ringway("io_uring"),
    "ringway-epoll": ringway("epoll"),
    "haproxy": haproxy,
    "nginx": nginx,
}
