#!/usr/bin/env python3
"""Measures Edgeweir beside nginx and varnish (with hitch for TLS), on this machine and in one run.

The servers take turns in every scenario (A B A B ...), so that their ratios hold where the machine's speed drifts; what is
told is the median of the rounds. Each scenario starts every server anew. `scripts/bench` installs what is needed, builds the
release and runs this; bench/README.md says what each scenario is, and what the columns are.
"""
import argparse
import atexit
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

BENCH = pathlib.Path(__file__).resolve().parent
KIB, MIB = 1 << 10, 1 << 20
OBJECTS = {"1k": KIB, "10k": 10 * KIB, "64k": 64 * KIB, "1m": MIB, "64m": 64 * MIB}
IDLE = 10_000  # connections


# ---- servers ---------------------------------------------------------------------------------------------------------
class Server:
    """A server that runs: its processes, and where it answers."""

    def __init__(self, name, http, https, query=""):
        self.name, self.http, self.https, self.query = name, http, https, query
        self.processes = []

    def run(self, folder, *argv, **environment):
        self.log = folder / f"{self.name}.log"
        log = open(self.log, "a")
        self.processes.append(subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log, env={**os.environ, **environment}))
        atexit.register(self.processes[-1].kill)
        return self

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pids(self):
        """Its processes and theirs."""
        children = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                children.setdefault(int(stat.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(stat.parent.name))
        found = [process.pid for process in self.processes]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu(self):
        """Seconds of CPU time so far, user and system."""
        stats = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.pids()]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Resident KiB; what processes share is divided among them."""
        rollups = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids()]
        return sum(int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1]) for rollup in rollups)


def free_ports(count):
    """The first of `count` ports in a row that nobody uses."""
    while True:
        with contextlib.ExitStack() as stack:
            taken = [stack.enter_context(socket.socket())]
            taken[0].bind(("127.0.0.1", 0))
            base = taken[0].getsockname()[1]
            try:
                for port in range(base + 1, base + count):
                    taken.append(stack.enter_context(socket.socket()))
                    taken[-1].bind(("127.0.0.1", port))
                return base
            except (OSError, OverflowError):
                continue


def wait_for(server, port):
    for _ in range(300):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.1)
    raise SystemExit(f"{server.name} does not answer on port {port}:\n{server.log.read_text()[-2000:]}")


def edgeweir(mode):
    def start(name, folder, origin, scenario, binary):
        base = free_ports(4)
        host = f"bench-{mode}.media-storage.local.edgeweir.localhost"
        server = Server(name, f"http://{host}:{base}", f"https://{host}:{base + 1}")
        environment = {"EDGEWEIR": binary} if binary else {}
        options = [part for key, value in scenario.settings.items() for part in ("--set", f"{key}={value}")]
        server.run(folder, BENCH / "start.sh", folder, base, *options, **environment)
        setup = [sys.executable, BENCH / "setup.py", folder, base, origin.http, mode]
        made = subprocess.run([str(a) for a in setup], stdout=subprocess.PIPE, check=True, text=True, env={**os.environ, **environment})
        server.query = json.loads(made.stdout)["query"]
        return wait_for(server, base)

    return start


def nginx(name, folder, origin, scenario, _):
    base, place = free_ports(2), folder / name
    place.mkdir()
    (place / "nginx.conf").write_text(f"""
daemon off; worker_processes 2; worker_rlimit_nofile 65536; pid {place}/pid; error_log {place}/error.log; user root;
events {{ worker_connections 16384; }}
http {{
  access_log off; sendfile on; tcp_nopush {scenario.nopush}; tcp_nodelay on; open_file_cache max=10000;
  keepalive_requests 100000000; keepalive_timeout 600s;
  proxy_cache_path {place}/cache levels=1:2 keys_zone=c:64m max_size=10g inactive=600m use_temp_path=off;
  proxy_temp_path {place}/tmp;
  ssl_protocols TLSv1.3; ssl_session_cache off; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  upstream origin {{ server {origin.http.removeprefix("http://")}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{base} backlog=4096 reuseport;
    listen 127.0.0.1:{base + 1} ssl http2 backlog=4096 reuseport;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache c; proxy_cache_lock on;
    }}
  }}
}}
""")
    server = Server(name, f"http://localhost:{base}", f"https://localhost:{base + 1}")
    return wait_for(server.run(folder, "nginx", "-c", place / "nginx.conf"), base)


def varnish(name, folder, origin, scenario, _):
    base, place = free_ports(3), folder / name
    place.mkdir()
    host, port = origin.http.removeprefix("http://").split(":")
    (place / "v.vcl").write_text(f'vcl 4.1;\nbackend default {{ .host = "{host}"; .port = "{port}"; }}\n')
    (place / "hitch.conf").write_text(f"""
frontend = "[127.0.0.1]:{base + 1}"
backend = "[127.0.0.1]:{base + 2}"
pem-file = "{folder}/both.pem"
tls-protos = TLSv1.3
alpn-protos = "h2, http/1.1"
workers = 2
user = "nobody"
write-proxy-v2 = on
""")
    server = Server(name, f"http://localhost:{base}", f"https://localhost:{base + 1}")
    server.run(folder, "varnishd", "-F", "-n", place / "n", "-a", f"127.0.0.1:{base}", "-a", f"127.0.0.1:{base + 2},PROXY",
               "-f", place / "v.vcl", "-s", "malloc,1g", "-p", "feature=+http2", "-p", "timeout_idle=600")
    server.run(folder, "hitch", "--config", place / "hitch.conf")
    wait_for(server, base + 1)
    return wait_for(server, base)


SERVERS = {"edgeweir-signed": edgeweir("signed"), "edgeweir-public": edgeweir("public"), "nginx": nginx, "varnish": varnish}
PEERS = {"nginx", "varnish"}


class Origin(Server):
    """An nginx with one worker that has an object of each size, under any name below it, too: /64k and /64k/anything."""

    def __init__(self, folder):
        port = free_ports(1)
        super().__init__("origin", f"http://127.0.0.1:{port}", "")
        place = folder / "origin"
        place.mkdir()
        for name, size in OBJECTS.items():
            (place / name).write_bytes(os.urandom(min(size, MIB)) * math.ceil(size / MIB))
        locations = "".join(f"location /{name} {{ try_files /{name} =404; }}\n" for name in OBJECTS)
        (folder / "origin.conf").write_text(f"""
daemon off; worker_processes 1; pid {place}.pid; error_log {place}.error.log; user root;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=100; open_file_cache_valid 1h; default_type video/mp4;
  keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port} backlog=4096; root {place}; add_header Cache-Control "public, max-age=86400";
    location = /status {{ stub_status; }}
    {locations}
  }}
}}
""")
        self.run(folder, "nginx", "-c", folder / "origin.conf")
        wait_for(self, port)

    def count(self):
        """Requests so far, without those that ask for this."""
        with urllib.request.urlopen(f"{self.http}/status") as answer:
            requests = int(answer.read().split(b"\n")[2].split()[2])
        self.asked = getattr(self, "asked", 0) + 1
        return requests - self.asked


def certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem",
                    "-out", folder / "cert.pem"], check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())


# ---- clients: each gives requests, rate (a second), p50 and p99 (ms), bytes, failed --------------------------------------
def tool(*argv):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{argv[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def wrk(url, scenario, seconds):
    close = ["-H", "Connection: close"] if scenario.closes else []
    if scenario.vary[:1] == ("count",):
        # Never a number that an earlier run had.
        varying = ["count", time.time_ns() // 1000]
    else:
        varying = scenario.vary
    out = tool("wrk", "-t1", f"-c{scenario.connections}", f"-d{seconds}s", *close, "-s", BENCH / "wrk.lua", url, "--", *varying)
    told = json.loads(out.splitlines()[-1])
    # A connection that is closed after its answer is told as an error of reading by wrk.
    failed = sum(told[kind] for kind in ("statuses", "connect", "write", "timeout")) + (0 if scenario.closes else told["read"])
    return dict(requests=told["requests"], rate=told["requests"] / told["seconds"], bytes=told["bytes"], p50=told["p50"],
                p99=told["p99"], failed=failed)


def milliseconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def h2load(url, scenario, seconds):
    out = tool("h2load", "-t1", f"-c{scenario.connections}", "-m32", "-D", seconds, "--warm-up-time=0", url)
    done = int(re.search(r"(\d+) done", out)[1])
    failed = sum(map(int, re.findall(r"(\d+) (?:failed|errored|3xx|4xx|5xx)", out)))
    mean = milliseconds(re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)[1])
    data = int(re.search(r"\((\d+)\) data", out)[1])
    # It tells no percentiles.
    return dict(requests=done, rate=done / seconds, bytes=data, p50=mean, p99=math.nan, failed=failed)


def ab(url, scenario, seconds):
    out = tool("ab", "-q", "-t", seconds, "-n", 10_000_000, "-c", scenario.connections, url)
    number = lambda what: float(re.search(rf"{what}:\s+([\d.]+)", out)[1])
    percentile = lambda which: float(re.search(rf"\s{which}%\s+(\d+)", out)[1])
    other = re.search(r"Non-2xx responses:\s+(\d+)", out)
    return dict(requests=int(number("Complete requests")), rate=number("Requests per second"), bytes=number("Total transferred"),
                p50=percentile(50), p99=percentile(99), failed=number("Failed requests") + (int(other[1]) if other else 0))


# ---- scenarios -------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Scenario:
    path: str  # with @ for a number: see wrk.lua
    bytes: int  # of an answer's body
    connections: int
    tls: bool = False
    client: object = wrk
    closes: bool = False  # a connection for each request
    vary: tuple = ()  # wrk.lua's arguments
    objects: int = 0  # so many are asked for first
    settings: dict = dataclasses.field(default_factory=dict)  # Edgeweir's
    # nginx's tcp_nopush: small answers are a quarter faster with it, those of 64 KiB wait 40 ms for an acknowledgement.
    nopush: str = "on"
    without: tuple = ()  # servers that cannot do it


SCENARIOS = {
    "http-1k": Scenario("/1k", KIB, 64),
    "http-1m": Scenario("/1m", MIB, 16),
    "tls-10k": Scenario("/10k", 10 * KIB, 64, tls=True),
    "tls-1m": Scenario("/1m", MIB, 16, tls=True),
    "h2-10k": Scenario("/10k", 10 * KIB, 16, tls=True, client=h2load),
    "handshake": Scenario("/1k", KIB, 16, tls=True, client=ab),
    "handshake-resumed": Scenario("/1k", KIB, 16, tls=True, closes=True),
    "range": Scenario("/64m", MIB, 16, vary=("range", MIB, 64 * MIB)),
    "miss-64k": Scenario("/64k/@", 64 * KIB, 64, vary=("count",), nopush="off"),
    "disk": Scenario("/64k/@", 64 * KIB, 64, vary=("random", 4096), objects=4096,
                     settings={"cache.memory": "64MiB", "cache.disk": "2GiB"}, nopush="off", without=("varnish",)),
    "idle-10k": Scenario("/1k", KIB, IDLE, settings={"limits.idle_seconds": 600}),
}


def get(url):
    """Status and length of what curl gets."""
    return tool("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url)


def warm(server, url, scenario, origin):
    """Has what is asked for stored, and sees that it is whole."""
    size = OBJECTS[scenario.path.split("/")[1]]
    for _ in range(3):
        if (got := get(url.replace("@", "0"))) != f"200 {size}":
            raise SystemExit(f"{server.name}: {url} is answered with {got!r}, not 200 and {size} bytes")
    for _ in range(10 if scenario.objects else 0):
        before = origin.count()
        tool("curl", "-sfZ", "--parallel-max", 64, "-o", "/dev/null", url.replace("@", f"[0-{scenario.objects - 1}]"))
        if origin.count() == before:
            return
    if scenario.objects:
        print(f"{server.name}: not all of {scenario.objects} objects are kept", file=sys.stderr)


def measure(server, scenario, seconds, origin, perf):
    url = (server.https if scenario.tls else server.http) + scenario.path + server.query
    origin_before, cpu_before = origin.count(), server.cpu()
    with recorded(server, perf):
        told = scenario.client(url, scenario, seconds)
    cpu = server.cpu() - cpu_before
    requests = max(told["requests"], 1)
    if told["bytes"] / requests < scenario.bytes and not scenario.closes:
        raise SystemExit(f"{server.name}: {url}: {told['bytes'] / requests:.0f} bytes an answer, not {scenario.bytes}")
    return dict(rate=told["rate"], mb=told["rate"] * scenario.bytes / 1e6, p50=told["p50"], p99=told["p99"],
                cpu=cpu * 1e6 / requests, memory=server.memory() / 1024, origin=(origin.count() - origin_before) / requests,
                failed=told["failed"])


@contextlib.contextmanager
def recorded(server, perf):
    """Has perf watch the server, if there is a file for it."""
    if not perf:
        yield
        return
    pids = ",".join(map(str, server.pids()))
    watch = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "499", "--call-graph", "fp", "-p", pids, "-o", perf])
    time.sleep(0.2)
    yield
    watch.send_signal(signal.SIGINT)
    watch.wait()


def measure_idle(server, scenario):
    """What connections take that have had one answer each, and then nothing."""
    host, port = server.http.removeprefix("http://").split(":")
    request = f"GET {scenario.path}{server.query} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    before = server.memory()
    with contextlib.ExitStack() as stack:
        sockets, failed = [], 0
        for _ in range(scenario.connections):
            sockets.append(stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), 10)))
            sockets[-1].sendall(request)
            answer = b""
            while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + scenario.bytes:
                if not (more := sockets[-1].recv(65536)):
                    break
                answer += more
            failed += not answer.startswith(b"HTTP/1.1 200 ")
        memory = server.memory()
        for s in sockets:
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                s.recv(1)
                failed += 1  # it was closed
    return dict(memory=memory / 1024, each=(memory - before) / scenario.connections, failed=failed)


# ---- the run ---------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def started(names, scenario):
    """The origin and the servers, anew."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="edgeweir-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        certificate(folder)
        origin = Origin(folder)
        stack.callback(origin.stop)
        servers = []
        for name in names:
            kind, _, binary = name.partition("=")
            if kind not in scenario.without:
                servers.append(SERVERS[kind](name.replace("/", "-"), folder, origin, scenario, binary))
                stack.callback(servers[-1].stop)
        for server in servers:
            warm(server, (server.https if scenario.tls else server.http) + scenario.path + server.query, scenario, origin)
        yield origin, servers


def run(name, scenario, options):
    """The figures of every server, a list of rounds each."""
    rounds = {}
    if name.startswith("idle"):
        # An allocator keeps what it had: each round needs a server of its own.
        for _ in range(options.rounds):
            with started(options.server, scenario) as (_, servers):
                for server in servers:
                    rounds.setdefault(server.name, []).append(measure_idle(server, scenario))
        return rounds
    with started(options.server, scenario) as (origin, servers):
        for _ in range(options.rounds):
            for server in servers:
                perf = options.perf and f"{options.perf}/{name}-{server.name}.data"
                rounds.setdefault(server.name, []).append(measure(server, scenario, options.seconds, origin, perf))
    return rounds


COLUMNS = [("req/s", "rate", "{:.0f}"), ("MB/s", "mb", "{:.0f}"), ("p50 ms", "p50", "{:.2f}"), ("p99 ms", "p99", "{:.2f}"),
           ("CPU µs/req", "cpu", "{:.1f}"), ("memory MB", "memory", "{:.0f}"), ("KiB/connection", "each", "{:.1f}"),
           ("origin/req", "origin", "{:.3f}"), ("failed", "failed", "{:.0f}")]
RATIOS = [("rate ÷ best peer", "rate", max), ("CPU ÷ best peer", "cpu", min), ("KiB ÷ best peer", "each", min)]


def table(results):
    heads = [head for head, *_ in COLUMNS + RATIOS]
    yield f"| scenario | server | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 2) + "|"
    for scenario, servers in results.items():
        medians = {server: {k: statistics.median(r[k] for r in rounds) for k in rounds[0]} for server, rounds in servers.items()}
        for server, figures in medians.items():
            cells = [form.format(figures[key]) if math.isfinite(figures.get(key, math.nan)) else "" for _, key, form in COLUMNS]
            for _, key, best in RATIOS:
                peers = [m[key] for name, m in medians.items() if name in PEERS and key in m]
                cells.append(f"{figures[key] / best(peers):.2f}" if peers and best(peers) and key in figures else "")
            yield f"| {scenario} | {server} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", metavar="NAME",
                        help=f"one of {', '.join(SERVERS)}; of Edgeweir, NAME=BINARY is another build (default: all)")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="may be repeated (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="how long each measurement takes")
    parser.add_argument("--json", help="write the figures of every round to this file")
    parser.add_argument("--perf", metavar="FOLDER", help="let perf record each server there: the figures are worth less then")
    options = parser.parse_args()
    options.server = options.server or list(SERVERS)
    for name in options.server:
        if name.partition("=")[0] not in SERVERS:
            parser.error(f"there is no server {name}")
    if "bench-signed" not in pathlib.Path("/etc/hosts").read_text():
        parser.error("the servers' names lead nowhere: run scripts/bench")
    # The client of idle connections; what is started inherits it.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.perf:
        pathlib.Path(options.perf).mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.scenario or SCENARIOS:
        print(name, file=sys.stderr)
        results[name] = run(name, SCENARIOS[name], options)
    print("\n".join(table(results)))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
