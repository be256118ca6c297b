"""The machine: programs found on it, cores to run on, what processes cost, certificates to serve."""
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = Path(os.environ.get("BENCH_WORK", Path(tempfile.gettempdir()) / f"relais-bench-{os.getuid()}"))
PORT = int(os.environ.get("BENCH_PORT", "28000"))
HTTP, HTTPS, ADMIN, BACKEND = PORT + 80, PORT + 443, PORT + 99, PORT + 1000
CORES = sorted(os.sched_getaffinity(0))
# The proxy has a core for itself; load and backend share the last one.
PROXY_CORE, LOAD_CORE = {CORES[0]}, {CORES[-1]}


# Ten thousand connections are twenty thousand descriptors for a proxy.
WANTED_FILES = 65536


def raise_limit():
    """Descriptors a process may have, raised as far as this user may; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((WANTED_FILES, max(hard, WANTED_FILES)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return limit[0]
        except (ValueError, OSError):
            continue
    return soft


FILES = raise_limit()


def fail(text):
    sys.exit(f"{Path(sys.argv[0]).name}: {text}")


def program(name, package):
    """Its path; ends with the package to install when it is not there."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return found or fail(f"{name} is not here (Debian: apt install {package})")


# Our own crates on a request's way as in a release, over the libraries of the tests: near enough to the release to count
# in, and built in a minute where those are there.
COUNTED = ["--config=profile.dev.incremental=false", *(
    f"--config=profile.dev.package.{crate}.{setting}" for crate in ("relais", "relais-core", "relais-proxy")
    for setting in ("opt-level=3", "codegen-units=1", "debug=false", "debug-assertions=false", "overflow-checks=false"))]


def built(*options):
    """(relais, tools), built now unless BENCH_RELAIS and BENCH_TOOLS name them. `options`: of cargo."""
    relais, tools = os.environ.get("BENCH_RELAIS"), os.environ.get("BENCH_TOOLS")
    wanted = ([] if relais else ["--bin", "relais"]) + ([] if tools else ["--bench", "tools"])
    if wanted:
        cargo = ["cargo", "build", "--locked", "--message-format=json-render-diagnostics", *wanted, *options]
        environment = {name: value for name, value in os.environ.items() if name != "CARGO_INCREMENTAL"}
        done = subprocess.run(cargo, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            fail("the build failed")
        made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        paths = {m["target"]["name"]: m["executable"] for m in made if m.get("executable")}
        relais, tools = relais or paths["relais"], tools or paths["tools"]
    return relais, tools


def described():
    """What the figures were taken on, in a line."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / (1 << 20)
    system = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M)
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return (f"{cpu[1] if cpu else platform.machine()}, {len(CORES)} cores, {memory:.0f} GiB, {system[1] if system else ''}, "
            f"Linux {os.uname().release}, {congestion}")


def popen(command, cores=None, **more):
    """Starts a process on some cores, in a session of its own."""
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    return subprocess.Popen([str(word) for word in command], preexec_fn=pin, start_new_session=True, **more)


def stop(process, patience=3.0):
    """Ends a process that `popen` started, and all in its session."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        deadline = time.monotonic() + patience
        while group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not group_lives(process.pid):
            break
    process.wait()


def group_lives(group):
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def tree(pid):
    """The process and all below it."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def cpu_seconds(pids):
    """On a CPU so far, all threads together."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            try:
                total += int((thread / "schedstat").read_text().split()[0])
            except OSError:
                pass
    return total / 1e9


def ended_seconds(pid):
    """On a CPU by children of this process that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def core_seconds(core):
    """How long a core has been busy with anything."""
    for line in Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields[0] == f"cpu{core}":
            values = [int(field) for field in fields[1:9]]
            return (sum(values) - values[3] - values[4] - values[7]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def pss_kib(pids):
    """Memory, shared pages shared out."""
    total = 0
    for pid in pids:
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total


def certificates():
    """(certificate, key, both in one file) for *.bench.test: ECDSA P-256."""
    WORK.mkdir(parents=True, exist_ok=True)
    cert, key, both = (WORK / name for name in ("cert.pem", "key.pem", "both.pem"))
    if not both.exists() or both.stat().st_mtime < time.time() - 20 * 86400:
        made = subprocess.run(
            [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "30", "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test,DNS:*.bench.test",
             "-keyout", key, "-out", cert], capture_output=True, text=True)
        if made.returncode:
            fail(made.stderr)
        both.write_text(cert.read_text() + key.read_text())
    return cert, key, both


UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname, UNCHECKED.verify_mode = False, ssl.CERT_NONE


def get(host, path, port=HTTP, patience=2.0):
    """(status, body) of one request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as conn:
        conn.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := conn.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split()
    if len(words) < 2:
        raise OSError("no answer")
    return int(words[1]), body.decode("latin1")


def wait_until(what, holds, patience=20.0):
    """Seconds until it held."""
    began = time.perf_counter()
    while time.perf_counter() - began < patience:
        try:
            if holds():
                return time.perf_counter() - began
        except (OSError, ValueError):
            pass
        time.sleep(0.001)
    raise RuntimeError(f"waited in vain: {what}")


class Backend:
    """The cheap backend: on every address of loopback, one port."""

    def __init__(self, tools, port=BACKEND, cores=None):
        self.port = port
        self.process = popen([tools, "backend", "--port", port], cores)
        wait_until(f"the backend listens on port {port}", lambda: get("any", "/s", port)[0] == 200)

    def stop(self):
        stop(self.process)


def address(n):
    """One of the backend's addresses."""
    return f"127.{2 + n // 62500}.{n // 250 % 250}.{1 + n % 250}"
