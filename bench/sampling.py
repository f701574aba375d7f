"""bench/sampling.py - one sample: a fresh balancer, a probe, a warm-up, one measured run."""
import contextlib
import ctypes
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator

from answers import read_head
from candidates import CERTIFICATE, Candidate
from scenarios import Scenario

# The first two CPUs that are allowed: the balancer's, and that of the load and the origin.
BALANCER_CPU, LOAD_CPU = (sorted(os.sched_getaffinity(0)) * 2)[:2]
WARM_UP_CLIENTS = 64
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)

# wrk prints one JSON object behind RESULT; latencies in milliseconds.
LUA = """%s
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT{"requests":%%d,"seconds":%%f,"p50":%%f,"p99":%%f,"p999":%%f,' ..
    '"errors":%%d,"error":"connect %%d, read %%d, write %%d, status %%d, timeout %%d"}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout,
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


class SampleError(Exception):
    """The sample could not be taken; the text says why."""


def raise_file_limit() -> int:
    """As many descriptors as the system allows; inherited by all that is started. The limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65536, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return wanted
    return soft


def free_port() -> int:
    """Below the ephemeral range, so that no client connection takes it first."""
    while True:
        port = random.randint(18_000, 31_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start(words: list[str], cpu: int | set[int], **more) -> subprocess.Popen:
    """Starts a program on one CPU or some, all its threads included. It ends when this script does."""
    parent = os.getpid()

    def prepare():
        os.sched_setaffinity(0, cpu if isinstance(cpu, set) else {cpu})
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(words, preexec_fn=prepare, start_new_session=True, **more)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for task in os.listdir(f"/proc/{pid}/task")
                for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    return []


def stop(process: subprocess.Popen):
    """Ends a program and its children, by pid, whatever state it is in."""
    family = children(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in family:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(words: list[str], cpu: int | set[int], **more) -> Iterator[subprocess.Popen]:
    process = start(words, cpu, **more)
    try:
        yield process
    finally:
        stop(process)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, all threads, those that ended included.

    The process CPU clock: the sum that /proc/PID/stat shows in ticks of 10 ms, in nanoseconds.
    """
    def clock_of(process: int) -> int:
        return (~process << 3) | 2  # clock_getcpuclockid(3): CPUCLOCK_SCHED of the whole process
    return sum(time.clock_gettime(clock_of(process)) for process in [pid, *children(pid)])


def cpu_taken(cpu: int) -> float:
    """Seconds that one CPU has not been idle since the system started; stolen time counts."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, ticks[:8])
            busy = user + nice + system + irq + softirq + steal
            return busy / os.sysconf("SC_CLK_TCK")
    return 0.0


def wait_for_calm(patience: float):
    """Waits until both CPUs have been all but idle for half a second, at most `patience` seconds."""
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        before = [cpu_taken(cpu) for cpu in (BALANCER_CPU, LOAD_CPU)]
        time.sleep(0.5)
        taken = [cpu_taken(cpu) - was for cpu, was in zip((BALANCER_CPU, LOAD_CPU), before)]
        if max(taken) <= 0.03:
            return


class Meter:
    """Reads the clocks around a measured run."""

    def __init__(self, pid: int):
        self.pid = pid
        self.begin, self.taken, self.used = time.monotonic(), cpu_taken(BALANCER_CPU), (
            cpu_seconds(pid))

    def read(self, requests: int) -> dict[str, float]:
        used = cpu_seconds(self.pid) - self.used
        passed = time.monotonic() - self.begin
        others = cpu_taken(BALANCER_CPU) - self.taken - used
        return {"cpu_us": used * 1e6 / requests, "cpu_busy": used / passed,
                "cpu_others": max(others, 0.0) / passed}


def memory_of(pid: int) -> dict[str, int]:
    """Resident and proportional memory of a process and its children, in bytes."""
    total = {"Rss": 0, "Pss": 0}
    for process in [pid, *children(pid)]:
        for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in total:
                total[name] += int(rest.split()[0]) * 1024
    return {"rss": total["Rss"], "pss": total["Pss"]}


def ask(port: int, scenario: Scenario) -> bool:
    """One exchange. True when the answer is exactly what the scenario expects."""
    with contextlib.ExitStack() as open_now:
        client = open_now.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        if scenario.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client = open_now.enter_context(context.wrap_socket(client))
        client.sendall(scenario.request())
        file = client.makefile("rb")
        if not scenario.echo:
            head = read_head(file)
            if b" 200 " not in head.status or head.length != scenario.expect:
                return False
        return len(file.read(scenario.expect)) == scenario.expect


def make_certificate(kind: str) -> bytes:
    """A certificate that nobody has signed, and its key, in one piece of PEM."""
    key = ["rsa:2048"] if kind == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    with tempfile.TemporaryDirectory(prefix="ringway-bench-") as name:
        paths = [pathlib.Path(name) / part for part in ("cert", "key")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "30", "-subj",
                        "/CN=bench.example.com", "-out", paths[0], "-keyout", paths[1]],
                       check=True, capture_output=True, timeout=60)
        return b"".join(path.read_bytes() for path in paths)


def wait_for_listener(port: int):
    """Until somebody accepts there, at most 5 s; what comes then will say why not."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)


def wait_for_answer(process: subprocess.Popen, port: int, scenario: Scenario, log: pathlib.Path):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if ask(port, scenario):
                return
        time.sleep(0.02)
    said = log.read_text(errors="replace").strip().splitlines()[-5:]
    state = "ended" if process.poll() is not None else "does not answer"
    raise SampleError(f"the balancer {state}: {' | '.join(said)}")


class Bench:
    """The origin, which lives as long as this object, and the way to take samples behind it."""

    def __init__(self, build: pathlib.Path, seconds: float, warm_up: float, patience: float,
                 balancer_cpus: int | set[int] = BALANCER_CPU, load_cpus: int | set[int] = LOAD_CPU):
        self.balancer_cpus, self.load_cpus = balancer_cpus, load_cpus
        self.load = build / "bench/load/bench_load"
        origin = build / "bench/load/bench_origin"
        for program in (self.load, origin):
            if not program.exists():
                raise SampleError(f"{program} is missing: ninja -C {build} "
                                  "bench/load/bench_load bench/load/bench_origin")
        self.seconds = seconds
        self.warm_up = warm_up
        self.patience = patience
        self.wrk = shutil.which("wrk") if seconds >= 1 else None
        self.certificates: dict[str, bytes] = {}
        self.http_port, self.echo_port = free_port(), free_port()
        self.origin = start([str(origin), "--http", str(self.http_port), "--echo",
                             str(self.echo_port)], load_cpus)

    def __enter__(self):
        wait_for_listener(self.http_port)
        return self

    def __exit__(self, *_):
        stop(self.origin)

    def sample(self, candidate: Candidate, scenario: Scenario) -> dict:
        """Requests, latencies, CPU and memory of one run. A sample with errors is void."""
        wait_for_calm(self.patience)
        port = free_port()
        origin = self.echo_port if scenario.echo else self.http_port
        with tempfile.TemporaryDirectory(prefix="ringway-bench-") as name:
            folder = pathlib.Path(name)
            folder.chmod(0o755)  # nginx's worker may be another user
            log = folder / "log"
            request = folder / "request"
            request.write_bytes(scenario.request())
            if scenario.tls:
                if scenario.tls not in self.certificates:
                    self.certificates[scenario.tls] = make_certificate(scenario.tls)
                (folder / CERTIFICATE).write_bytes(self.certificates[scenario.tls])
            try:
                words = candidate.write(scenario, port, origin, folder)
                with log.open("wb") as sink, running(
                        words, self.balancer_cpus, stdout=sink, stderr=sink) as balancer:
                    wait_for_answer(balancer, port, scenario, log)
                    took = self.measure(balancer.pid, port, scenario, request, folder)
            except (SampleError, OSError, ValueError) as error:
                took = {"requests": 0, "errors": 1, "error": str(error)}
        return {"scenario": scenario.name, "candidate": candidate.name, **took}

    def measure(self, pid: int, port: int, scenario: Scenario, request: pathlib.Path,
                folder: pathlib.Path) -> dict:
        if scenario.memory:
            return self.measure_memory(pid, port, scenario, request)
        if scenario.wrk and self.wrk:
            with self.loaded(port, scenario, request, 0):
                pass  # the warm-up only
            meter = Meter(pid)
            took = self.run_wrk(port, scenario, folder)
        else:
            with self.loaded(port, scenario, request, self.seconds) as load:
                meter = Meter(pid)
                took = self.finish(load)
        if took["requests"] == 0:
            raise SampleError(f"no request was answered: {took['error']}")
        return {**took, "rps": took["requests"] / took["seconds"],
                **meter.read(took["requests"]), **memory_of(pid)}

    def measure_memory(self, pid: int, port: int, scenario: Scenario,
                       request: pathlib.Path) -> dict:
        """What the connections add to the resident memory, after a first load has filled pools."""
        with self.loaded(port, scenario, request, 0, idle=0, connections=WARM_UP_CLIENTS):
            pass
        before = memory_of(pid)
        with self.loaded(port, scenario, request, 0) as load:
            after = memory_of(pid)
            took = self.finish(load)
        took["requests"] = scenario.idle
        return {**took, **after,
                "bytes_per_connection_rss": (after["rss"] - before["rss"]) / scenario.idle,
                "bytes_per_connection_pss": (after["pss"] - before["pss"]) / scenario.idle}

    @contextlib.contextmanager
    def loaded(self, port: int, scenario: Scenario, request: pathlib.Path, seconds: float,
               **other) -> Iterator[subprocess.Popen]:
        """bench_load, connected and warmed up, nothing in flight, waiting to be let go."""
        given = {"connections": scenario.connections, "idle": scenario.idle, **other}
        words = [str(self.load), "--port", str(port), "--request", str(request),
                 "--expect", str(scenario.expect), "--http", str(int(not scenario.echo)),
                 "--reconnect", str(int(scenario.reconnect)), "--rate", str(scenario.rate),
                 "--tls", str(int(bool(scenario.tls))), "--resume", str(int(scenario.resume)),
                 "--warm-up-ms", str(round(self.warm_up * 1000)),
                 "--measure-ms", str(round(seconds * 1000)),
                 "--connections", str(given["connections"]), "--idle", str(given["idle"])]
        with running(words, self.load_cpus, text=True, stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE) as load:
            if load.stdout.readline() != "READY\n":
                raise SampleError("bench_load did not get ready")
            yield load

    @staticmethod
    def finish(load: subprocess.Popen) -> dict:
        said, _ = load.communicate("go\n")
        return json.loads(said)

    def run_wrk(self, port: int, scenario: Scenario, folder: pathlib.Path) -> dict:
        lua = folder / "load.lua"
        body = f'wrk.method = "POST"\nwrk.body = string.rep("p", {scenario.post})\n'
        lua.write_text(LUA % (body if scenario.post else ""))
        threads = len(self.load_cpus) if isinstance(self.load_cpus, set) else 1
        words = [self.wrk, f"-t{threads}", f"-c{scenario.connections}", f"-d{round(self.seconds)}s",
                 "--timeout", "10s", "-s", str(lua)]
        for name, value in scenario.all_fields():
            words += ["-H", f"{name}: {value}"]
        scheme = "https" if scenario.tls else "http"
        with running([*words, f"{scheme}://127.0.0.1:{port}{scenario.path()}"], self.load_cpus, text=True,
                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as wrk:
            said, _ = wrk.communicate()
        if "RESULT" not in said:
            raise SampleError(f"wrk said: {said.strip()[-200:]}")
        return json.loads(said.rsplit("RESULT", 1)[1])
