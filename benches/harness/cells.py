"""The cells of the table: what is done to a proxy, and what is read off it."""
import json
import re
import subprocess
import time

from . import machine
from .machine import HTTP, HTTPS, LOAD_CORE, PROXY_CORE, address, popen

PLAIN, TLS = f"127.0.0.1:{HTTP}", f"127.0.0.1:{HTTPS}"

# Name: (group of services, title, unit, goal as a share of haproxy's figure).
CELLS = {
    "start": ("one", "start to the first answer", "ms", None),
    "idle": ("one", "memory, idle", "MiB", None),
    "h1": ("one", "HTTP/1.1 keep-alive, 100 B", "us/request", 0.95),
    "h1-wrk": ("one", "the same, by wrk", "us/request", 0.95),
    "h1-tls": ("one", "HTTP/1.1 over TLS 1.3", "us/request", 0.85),
    "h2": ("one", "HTTP/2 over TLS, 4 x 100 streams", "us/request", 0.92),
    "handshake": ("one", "full handshake (P-256) + 1 request", "us/connection", 0.42),
    "resumed": ("one", "resumed handshake + 1 request", "us/connection", 0.45),
    "download": ("one", "1 MiB downloads over TLS", "ms/GiB", 0.32),
    "upload": ("one", "10 MiB uploads over TLS", "ms/GiB", 0.65),
    "websocket": ("one", "WebSocket message over TLS, 125 B", "us/message", 0.82),
    "rate": ("one", "HTTP/1.1 over TLS at a fixed rate", "us/request", None),
    "idle-1k": ("crowd", "per idle TLS connection, 1,000 of them", "KiB", None),
    "idle-10k": ("crowd", "per idle TLS connection, 10,000 of them", "KiB", None),
    "hosts": ("hosts", "HTTP/1.1, 1,000 services, another every 16 requests", "us/request", None),
    "reload": ("hosts", "reload of 1,000 services, one changed", "ms", None),
    "backends": ("pool", "HTTP/1.1, 1 service of 1,000 backends", "us/request", None),
}
QUICK = ["start", "idle", "h1", "h1-tls", "h2", "handshake", "idle-1k"]
# What needs a program besides the proxies: (program, Debian package).
NEEDS = {"h2": ("h2load", "nghttp2-client"), "h1-wrk": ("wrk", "wrk")}
# Connections that the crowd may have, over the 10,000 that are opened.
CROWD = 10_050
MIB = 1 << 20


def services(group):
    if group == "hosts":
        return [(f"s{i}.bench.test", [address(2 * i % 500), address((2 * i + 1) % 500)]) for i in range(1000)]
    if group == "pool":
        return [("s0.bench.test", [address(j) for j in range(1000)])]
    return [("s0.bench.test", [address(0), address(1)])]


class Bench:
    """One backend, and proxies before it one after another."""

    def __init__(self, tools, secs, rate):
        self.tools, self.secs, self.rate = tools, secs, rate
        self.warm = min(0.5, secs / 2)
        self.backend = machine.Backend(tools, cores=LOAD_CORE)

    def load(self, proxy, *words):
        """Runs the load generator against it; CPU of the proxy is read in its window."""
        pids = ",".join(map(str, proxy.pids()))
        command = [self.tools, "load", "--pids", pids, "--secs", self.secs, "--warm", self.warm, *words]
        with Strangers(proxy) as strangers:
            process = popen(command, LOAD_CORE, stdout=subprocess.PIPE, text=True)
            out, _ = process.communicate(timeout=60)
        told = json.loads(out.strip().splitlines()[-1])
        told["errors"] += told["not_200"]
        told["strangers"] = strangers.share
        return told

    def per_request(self, proxy, *words):
        told = self.load(proxy, *words)
        told["value"] = told["cpu_us"] / max(1, told["count"])
        told["per_second"] = told["count"] / told["secs"]
        return told

    def per_gib(self, proxy, size, *words):
        told = self.load(proxy, "--addr", TLS, "--tls", 1, *words)
        gib = told["count"] * size / (1 << 30)
        told["value"] = told["cpu_us"] / 1e3 / max(gib, 1e-9)
        told["per_second"] = gib / told["secs"]
        return told

    def outside(self, proxy, command, count):
        """A load generator of somebody else's: the CPU of its whole run."""
        with Strangers(proxy) as strangers:
            before, began = machine.cpu_seconds(proxy.pids()), time.perf_counter()
            out = popen(command, LOAD_CORE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).communicate(timeout=120)[0]
            used, took = machine.cpu_seconds(proxy.pids()) - before, time.perf_counter() - began
        good, errors = count(out)
        return {"value": used * 1e6 / max(1, good), "count": good, "errors": errors, "per_second": good / took, "strangers": strangers.share}

    def measure(self, name, proxy):
        return getattr(self, "cell_" + name.replace("-", "_"))(proxy)

    def cell_start(self, proxy):
        return {"value": proxy.started_in, "errors": 0}

    def cell_idle(self, proxy):
        time.sleep(0.3)
        return {"value": machine.pss_kib(proxy.pids()) / 1024, "errors": 0}

    def cell_h1(self, proxy):
        return self.per_request(proxy, "--addr", PLAIN)

    cell_backends = cell_h1

    def cell_h1_tls(self, proxy):
        return self.per_request(proxy, "--addr", TLS, "--tls", 1)

    def cell_hosts(self, proxy):
        return self.per_request(proxy, "--addr", PLAIN, "--hosts", 1000, "--stick", 16)

    def cell_handshake(self, proxy):
        return self.per_request(proxy, "--addr", TLS, "--tls", 1, "--mode", "handshake", "--connections", 32)

    def cell_resumed(self, proxy):
        told = self.per_request(proxy, "--addr", TLS, "--tls", 1, "--mode", "handshake", "--connections", 32, "--resume", 1)
        if told["resumed"] < 0.95 * told["count"]:
            raise RuntimeError(f"only {told['resumed']} of {told['count']} sessions were resumed")
        return told

    def cell_download(self, proxy):
        return self.per_gib(proxy, MIB, "--path", "/1m", "--connections", 8)

    def cell_upload(self, proxy):
        return self.per_gib(proxy, 10 * MIB, "--upload", 10 * MIB, "--connections", 4)

    def cell_websocket(self, proxy):
        return self.per_request(proxy, "--addr", TLS, "--tls", 1, "--mode", "websocket")

    def cell_rate(self, proxy):
        return self.per_request(proxy, "--addr", TLS, "--tls", 1, "--mode", "open", "--rate", self.rate)

    def cell_h1_wrk(self, proxy):
        def count(out):
            good = int(re.search(r"(\d+) requests in", out)[1])
            bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
            lost = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
            return good, (int(bad[1]) if bad else 0) + (sum(map(int, lost.groups())) if lost else 0)

        wrk = ["wrk", "-t1", "-c64", f"-d{max(1, round(self.secs))}s", "-H", "Host: s0.bench.test", f"http://{PLAIN}/s"]
        return self.outside(proxy, wrk, count)

    def cell_h2(self, proxy):
        def count(out):
            good = re.search(r"status codes: (\d+) 2xx", out)
            if "Application protocol: h2" not in out:
                raise RuntimeError("no HTTP/2: " + out[-200:])
            return int(good[1]), int(re.search(r"requests: (\d+) total", out)[1]) - int(good[1])

        def run(n):
            return self.outside(proxy, ["h2load", "-t1", "-c4", "-m100", f"-n{n}", f"--connect-to={TLS}", f"https://s0.bench.test:{HTTPS}/s"], count)

        return run(max(4000, int(run(4000)["per_second"] * self.secs)))

    def cell_idle_1k(self, proxy):
        return self.crowd(proxy, 1000)

    def cell_idle_10k(self, proxy):
        return self.crowd(proxy, 10_000)

    def crowd(self, proxy, n, websocket=0, streams=0):
        """Memory for each of n open connections that have been used once; of WebSockets `streams` may share one."""
        time.sleep(0.3)
        before = machine.pss_kib(proxy.pids())
        command = [self.tools, "load", "--mode", "hold", "--addr", TLS, "--tls", 1, "--connections", n, "--websocket", websocket,
                   "--streams", streams]
        process = popen(command, LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        opened = json.loads(process.stdout.readline())
        time.sleep(1.0)
        full = machine.pss_kib(proxy.pids())
        used = machine.cpu_seconds(proxy.pids())
        time.sleep(1.0)
        used = machine.cpu_seconds(proxy.pids()) - used
        last, _ = process.communicate("", timeout=60)
        last = json.loads(last)
        return {"value": (full - before) / max(1, opened["open"]), "errors": n - last["alive"], "open": opened["open"],
                "first_error": opened["first_error"] or last["again"]["first_error"], "idle_cpu_ms_per_second": 1e3 * used,
                "opened_per_second": opened["open"] / opened["secs"]}

    def cell_reload(self, proxy):
        """One of 1,000 services gets another backend while others are asked: milliseconds until it serves."""
        changed, host, new = services("hosts"), "s999.bench.test", "127.0.9.9"
        changed[999] = (host, [new])
        load = popen([self.tools, "load", "--addr", PLAIN, "--hosts", 900, "--mode", "open", "--rate", 500, "--connections", 16,
                      "--warm", 0.3, "--secs", 3], LOAD_CORE, stdout=subprocess.PIPE, text=True)
        time.sleep(1.0)
        cpu = proxy.cpu()
        ordered = proxy.reload(changed)
        took = machine.wait_until("the reload is in force", lambda: machine.get(host, "/who")[1] == new, 15)
        if ordered:
            ordered.wait()
        told = json.loads(load.communicate(timeout=30)[0])
        return {"value": 1e3 * took, "errors": 0, "lost": told["errors"] + told["not_200"], "max_us": told["max"], "p99_us": told["p99"],
                "cpu_ms": 1e3 * (proxy.cpu() - cpu)}


class Strangers:
    """The share of the proxy's core that others took meanwhile."""

    def __init__(self, proxy):
        self.proxy, self.core = proxy, min(PROXY_CORE)

    def __enter__(self):
        self.began, self.busy, self.own = time.perf_counter(), machine.core_seconds(self.core), machine.cpu_seconds(self.proxy.pids())
        return self

    def __exit__(self, *_):
        busy = machine.core_seconds(self.core) - self.busy
        own = machine.cpu_seconds(self.proxy.pids()) - self.own
        self.share = round(max(0.0, busy - own) / (time.perf_counter() - self.began), 3)
