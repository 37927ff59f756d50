#!/usr/bin/env python3
"""Measures certificates: bench/tls/run.py many [--names 10000] | issue [--count 20]   (--binary PATH)

many   gets one certificate from pebble and puts those of the other names beside it (seed.py; kept in target/bench-tls for a
       second run), then measures: a start with them, to the first handshake; memory after it, and after handshakes; the
       handshake rate with all names against that with one, interleaved, and the server's CPU time a handshake, which the
       client's own cost cannot hide.
issue  from the CNAME being made, and from its being seen, to `issued`, pebble validating for real.

Needs pebble (Debian), a release build, and Python's cryptography: target/test-tools/venv/bin/python has it after
scripts/test. Everything listens on a loopback address of this process's own and ends with it.
"""
import argparse
import atexit
import json
import multiprocessing
import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import time
import urllib.request

import seed

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = REPOSITORY / "target/bench-tls"
PID = os.getpid()
IP = f"127.{64 | PID >> 16}.{PID >> 8 & 255}.{PID & 255}"
DNS, DNS_MANAGEMENT, CA, CA_MANAGEMENT = (f"{IP}:{port}" for port in (9053, 9055, 9000, 9001))
HTTP, HTTPS, API, ADMIN = (f"{IP}:{port}" for port in (8080, 8443, 8090, 8091))
TARGET = "edge.edgeweir.localhost"


def started(*command, **environment):
    log = open(FOLDER / f"{pathlib.Path(command[0]).name}.log", "a")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
    atexit.register(lambda: (process.kill(), process.wait()))
    return process


def until(what, wanted, patience=60, pause=0.01):
    end = time.monotonic() + patience
    while not (got := wanted()):
        if time.monotonic() > end:
            raise SystemExit(f"not {what} after {patience} s")
        time.sleep(pause)
    return got


def listens(address):
    host, port = address.split(":")
    with socket.socket() as s:
        return s.connect_ex((host, int(port))) == 0


def ask(url, method="GET", body=None, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, method=method, data=data, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def set_record(call, **body):
    request = urllib.request.Request(f"http://{DNS_MANAGEMENT}/{call}", data=json.dumps(body).encode())
    urllib.request.urlopen(request).read()


def start_ca(always_valid):
    """DNS where every name leads here when nothing is validated, and none does otherwise; and the CA."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    started("pebble-challtestsrv", "-http01", "", "-https01", "", "-tlsalpn01", "", "-dns01", DNS, "-management",
            DNS_MANAGEMENT, "-defaultIPv4", IP if always_valid else "", "-defaultIPv6", "")
    root, key, leaf = (str(FOLDER / name) for name in ("ca-listener-root.pem", "ca-listener.key", "ca-listener.pem"))
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*openssl, "-subj", "/CN=root", "-keyout", f"{root}.key", "-out", root], check=True, capture_output=True)
    subprocess.run([*openssl, "-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{IP}", "-addext",
                    "basicConstraints=critical,CA:FALSE", "-CA", root, "-CAkey", f"{root}.key", "-keyout", key, "-out", leaf],
                   check=True, capture_output=True)
    config = {"listenAddress": CA, "managementListenAddress": CA_MANAGEMENT, "certificate": leaf, "privateKey": key,
              "httpPort": int(HTTP.split(":")[1]), "tlsPort": int(HTTPS.split(":")[1]),
              "certificateValidityPeriod": 90 * 86400}
    (FOLDER / "pebble.json").write_text(json.dumps({"pebble": config}))
    valid = {"PEBBLE_VA_ALWAYS_VALID": "1"} if always_valid else {}
    started("pebble", "-config", str(FOLDER / "pebble.json"), "-dnsserver", DNS, PEBBLE_VA_NOSLEEP="1",
            PEBBLE_WFE_NONCEREJECT="0", PEBBLE_AUTHZREUSE="0", **valid)
    until("a CA", lambda: all(map(listens, (DNS, DNS_MANAGEMENT, CA, CA_MANAGEMENT))))
    return root


class Edge:
    def __init__(self, binary, data_dir, root):
        self.binary, self.data_dir = binary, data_dir
        settings = {"acme.directory": f"https://{CA}/dir", "acme.ca_bundle": root, "acme.contact": "mailto:ops@example.com",
                    "dns.resolver": DNS, "dns.addresses": IP, "listen.http": HTTP, "listen.https": HTTPS, "listen.api": API,
                    "listen.admin": ADMIN, "limits.domains": 1_000_000, "keys.pool": 0, "log.filter": "warn"}
        self.settings = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self.process = None

    def start(self):
        self.process = started(self.binary, "serve", "--data-dir", str(self.data_dir), *self.settings)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def project(self):
        """An access token of a new project's."""
        made = subprocess.run([self.binary, "project", "create", "bench", "--json", "--data-dir", str(self.data_dir)],
                              check=True, capture_output=True)
        return ask(f"http://{API}/v1/access_token/{json.loads(made.stdout)['api_key']}", "POST")["access_token"]

    def memory(self):
        """Resident MB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu(self):
        """Seconds of CPU time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def subscribe(token, name):
    domain = ask(f"http://{API}/v1/domains", "POST", {"name": name, "type": "live"}, token)["domain"]["id"]
    made = ask(f"http://{API}/v1/tls/subscriptions", "POST", {"domain_id": domain}, token)
    return made["tls_subscription"]["id"]


def status(token, subscription):
    return ask(f"http://{API}/v1/tls/subscriptions/{subscription}", token=token)["tls_subscription"]["status"]


def tls_client():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def handshake(context, name):
    host, port = HTTPS.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as tcp, context.wrap_socket(tcp, server_hostname=name):
            return True
    except (OSError, ssl.SSLError):
        return False


def handshakes(names, seconds, offset, stride, result):
    # Without sessions kept, every handshake is a full one.
    context, count, failed, position = tls_client(), 0, 0, offset
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if handshake(context, names[position % len(names)]):
            count += 1
        else:
            failed += 1
        position += stride
    result.put((count, failed))


def rate(edge, names, seconds):
    """Handshakes a second, and the server's CPU milliseconds for each."""
    result, before, workers = multiprocessing.Queue(), edge.cpu(), []
    for n in range(2):
        # A stride that meets every name, in no order that memory likes.
        worker = multiprocessing.Process(target=handshakes, args=(names, seconds, n * 31, 7919, result))
        worker.start()
        workers.append(worker)
    done = [result.get() for _ in workers]
    for worker in workers:
        worker.join()
    count, failed = map(sum, zip(*done))
    if failed:
        raise SystemExit(f"{failed} of {count + failed} handshakes failed")
    return count / seconds, (edge.cpu() - before) * 1000 / count


def many(options):
    data_dir = FOLDER / f"data-{options.names}"
    edge = Edge(options.binary, data_dir, start_ca(always_valid=True))
    names = [f"n{n}.bench.example.com" for n in range(options.names)]
    marker = data_dir / "seeded"
    if not marker.exists():
        shutil.rmtree(data_dir, ignore_errors=True)
        edge.start()
        until("a server", lambda: listens(API))
        token = edge.project()
        subscription = subscribe(token, names[0])
        until("issued", lambda: status(token, subscription) == "issued")
        edge.kill()
        seed.seed(data_dir, names[0], names[1:])
        marker.touch()
    context = tls_client()
    starts = []
    for _ in range(5):
        began = time.monotonic()
        edge.start()
        until("the first handshake", lambda: handshake(context, names[-1]), pause=0.002)
        starts.append(time.monotonic() - began)
        resting = edge.memory()
        if len(starts) < 5:
            edge.kill()
    rates = {"one": [], "all": []}
    for which in ["one", "all", "all", "one"] * options.rounds:
        rates[which].append(rate(edge, names[:1] if which == "one" else names, options.seconds))
    (one, one_cpu), (everyone, all_cpu) = ([statistics.median(column) for column in zip(*rates[w])] for w in ("one", "all"))
    print(json.dumps({
        "names": options.names,
        "start_s": round(statistics.median(starts), 3),
        "start_worst_s": round(max(starts), 3),
        "memory_mb": round(resting),
        "memory_after_handshakes_mb": round(edge.memory()),
        "handshakes_per_s": {"one": round(one), "all": round(everyone), "ratio": round(everyone / one, 3)},
        "server_cpu_ms_per_handshake": {"one": round(one_cpu, 4), "all": round(all_cpu, 4), "ratio": round(one_cpu / all_cpu, 3)},
    }, indent=2))


def issue(options):
    data_dir = FOLDER / f"issue-{PID}"
    edge = Edge(options.binary, data_dir, start_ca(always_valid=False))
    set_record("add-a", host=f"{TARGET}.", addresses=[IP])
    edge.start()
    until("a server", lambda: listens(API))
    token, made, seen = edge.project(), [], []
    for n in range(options.count):
        name = f"n{n}.issue.example.com"
        subscription = subscribe(token, name)
        set_record("set-cname", host=f"{name}.", target=f"{TARGET}.")
        record = time.monotonic()
        until("seen", lambda: status(token, subscription) != "pending", pause=0.002)
        begun = time.monotonic()
        until("issued", lambda: status(token, subscription) == "issued", pause=0.002)
        made.append(time.monotonic() - record)
        seen.append(time.monotonic() - begun)
    summary = lambda times: {"median_s": round(statistics.median(times), 3), "worst_s": round(max(times), 3)}
    print(json.dumps({"from_the_record_made": summary(made), "from_the_record_seen": summary(seen)}, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["many", "issue"])
    parser.add_argument("--binary", default=str(REPOSITORY / "target/release/edgeweir"))
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    {"many": many, "issue": issue}[options.what](options)


if __name__ == "__main__":
    main()
