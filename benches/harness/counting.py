"""Instructions under valgrind: of loops over pure functions, and of requests through a whole edge.

What is counted is a difference: the same run with few and with many turns, so that start, first connections and the end
do not count. Everything that could differ by chance is taken away: one connection, one worker, no checks, and both peers
wait a moment before they speak, so that the edge has always gone to sleep before it is woken (a race between its read and
the answer would count differently each time).
"""
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from . import machine
from .machine import WORK

# Turns of the two runs. To set up a thousand services differs by some 100,000 instructions each time, by the seeds of hash
# tables: a route is too short for that to vanish in as many turns as suffice for the others. A reload takes a million.
LOOPS, ROUTES, RELOADS = (2_000, 22_000), (2_000, 202_000), (10, 60)
REQUESTS = (100, 400)
# How long each peer waits before it speaks. Under valgrind the edge is some fifty times slower than by itself.
MOMENT = 0.004
ANSWER = b"HTTP/1.1 200 OK\r\nServer: backend\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + b"x" * 100
GET = "GET /a/page?x=1 HTTP/1.1\r\nHost: s0.bench.test\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
BROWSER = """GET /a/page?x=1 HTTP/1.1
Host: s0.bench.test
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: https://www.example.org/a/page
Connection: keep-alive
Cookie: session=0123456789abcdef; theme=dark
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Sec-Fetch-Site: same-origin
If-None-Match: "0123456789abcdef"
Priority: u=0, i

""".replace("\n", "\r\n")

# A service beside the one that is asked, with all there is: what it has must cost the other nothing.
LADEN = """[service.laden]
hosts = ["laden.bench.test"]
paths = ["/a", "/b"]
health = "off"
balance = { hash = "header:X-Key" }
sticky = { cookie = "laden", key = "0123456789abcdef0123456789abcdef" }
max_inflight = 100
max_body = "1MB"
hsts = "365d"
canonical = "laden.bench.test"
request_headers = { set = { X-Edge = "relais" }, remove = ["X-Debug"] }
response_headers = { set = { X-Edge = "relais" }, add = { Vary = "Accept" } }
retry = { hedge = true, statuses = [502, 503], attempts = 8 }
timeout = { request = "5m" }
maintenance = { body = "soon" }
"""

# Without a request with a body: its counts differ by 15 % from run to run, by how body and answer meet.
# Of many backends always the same one: a connection that waits for its turn is looked at twice a second, which under
# valgrind is at each request.
SAME = 'balance = { hash = "uri" }'
# Name: (request, services, backends of each, lines of the service asked, lines more, access log).
CASES = {
    "request/get": (GET, 1, 1, "", "", False),
    "request/of-a-browser": (BROWSER, 1, 1, "", "", False),
    "request/2-backends": (GET, 1, 2, SAME, "", False),
    "request/1000-backends": (GET, 1, 1000, SAME, "", False),
    "request/1000-services": (GET, 1000, 1, "", "", False),
    "request/beside-a-laden-service": (GET, 1, 1, "", LADEN, False),
    "request/access-log": (GET, 1, 1, "", "", True),
}


def functions(tools):
    names = subprocess.run([tools, "count"], capture_output=True, text=True, check=True).stdout.split()

    def count(name):
        loops = {"route": ROUTES, "reload": RELOADS}.get(name.split("/")[0], LOOPS)
        few, many = (collected([tools, "count", name, times]) for times in loops)
        return name, (many - few) / (loops[1] - loops[0])

    with ThreadPoolExecutor(len(machine.CORES)) as pool:
        return dict(pool.map(count, names))


def requests(relais, keep=None):
    """`keep`: a directory for callgrind's profiles of the runs with many requests."""

    def count(n, name):
        few, many = (Edge(relais, n, name).instructions(turns, keep if turns == REQUESTS[1] else None) for turns in REQUESTS)
        return name, (many - few) / (REQUESTS[1] - REQUESTS[0])

    with ThreadPoolExecutor(len(machine.CORES)) as pool:
        return dict(pool.map(count, range(len(CASES)), CASES))


# Where executable and files lie must not count: addresses on the stack depend on the environment's length.
BARE = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def valgrind(command, *words):
    return [machine.program("valgrind", "valgrind"), "--tool=callgrind", *words, *map(str, command)]


def told(text):
    found = re.search(r"^(?:==\d+== Collected : |totals: |summary: )(\d+)", text, re.M)
    if not found:
        raise RuntimeError("valgrind counted nothing: " + text[-500:])
    return int(found[1])


def gathered(profile):
    """What it took to gather randomness. A thread that ends before the worker's begins does that, and valgrind may give its number,
    and with it its profile, to the worker's."""
    names = set(re.findall(r"\((\d+)\) \S.* as rustls::crypto::SecureRandom>::fill", profile))
    calls = re.findall(r"^cfn=\((\d+)\).*\ncalls=.*\n\S+ (\d+)$", profile, re.M)
    return sum(int(cost) for number, cost in calls if number in names)


def collected(command):
    done = subprocess.run(valgrind(command, "--callgrind-out-file=/dev/null"), capture_output=True, text=True, env=BARE)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return told(done.stderr)


class Edge:
    """One edge under valgrind, with its only client and its only backend."""

    def __init__(self, relais, n, name):
        self.relais, self.name = relais, name
        self.request, self.services, self.backends, self.own, self.more, self.access = CASES[name]
        self.dir = WORK / "count" / str(n)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def config(self, backend):
        text = f"""[edge]
workers = 1
tls = "files"
[listener.http]
address = "127.0.0.1:{self.port}"
protocol = "http"
redirect = false
[metrics]
address = false
[log]
level = "warn"
access = {str(self.access).lower()}
"""
        listed = ", ".join(f'"{machine.address(n)}:{backend}"' for n in range(self.backends))
        for i in range(self.services):
            text += f'[service.s{i}]\nhosts = ["s{i}.bench.test"]\nhealth = "off"\n{self.own}\nbackends = [{listed}]\n'
        text += self.more and self.more + f'backends = ["127.0.0.1:{backend}"]\n'
        return text if not self.access else text.replace('"warn"', '"info"')

    def instructions(self, turns, keep):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        backend = Answers()
        (self.dir / "proxy.toml").write_text(self.config(backend.port))
        edge = [self.relais, "run", "--config", "proxy.toml", "--state-dir", "state", "--socket", "admin.sock"]
        errors = open(self.dir / "log", "w")
        process = subprocess.Popen(valgrind(edge, "--separate-threads=yes", "--callgrind-out-file=profile"), cwd=self.dir, env=BARE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            machine.wait_until(f"the edge listens; see {self.dir}/log", lambda: process.poll() is not None or listens(self.port), 120)
            if process.poll() is not None:
                raise RuntimeError(f"the edge ended: see {self.dir}/log")
            ask(self.port, self.request.encode(), turns)
            process.send_signal(signal.SIGTERM)
            process.wait(120)
        finally:
            backend.close()
            if process.poll() is None:
                process.kill()
                process.wait()
            errors.close()
        profile = self.of_worker()
        if keep:
            shutil.copy(profile, keep / (self.name.replace("/", "-") + ".callgrind"))
        text = profile.read_text()
        return told(text) - gathered(text)

    def of_worker(self):
        """The profile of the thread that served: what the others do (start, disk, timers) differs by millions each time."""
        served = [path for path in self.dir.glob("profile-*") if "relais_proxy::service::handle" in path.read_text()]
        if len(served) != 1:
            raise RuntimeError(f"{len(served)} threads served; see {self.dir}")
        return served[0]


def listens(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def ask(port, request, turns):
    """One connection, one request after another; every answer must be the backend's."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for turn in range(turns):
            time.sleep(MOMENT)
            conn.sendall(request)
            answer = conn.recv(65536)
            while b"\r\n\r\n" not in answer or not answer.endswith(b"x" * 100):
                if not (more := conn.recv(65536)):
                    raise RuntimeError(f"answer {turn} ended early: {answer!r}")
                answer += more
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"answer {turn}: {answer[:200]!r}")


class Answers(threading.Thread):
    """A backend that takes its time, the same each time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        while part := conn.recv(65536):
            got += part
            head, end, body = got.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if end and len(body) >= int(length[1] if length else 0):
                got = b""
                time.sleep(MOMENT)
                conn.sendall(ANSWER)

    def close(self):
        # Ends the wait in `accept` too.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
