"""The proxies: each as its manual would have it for speed, on one core, with the same duties.

All of them: one worker, no access log, no active checks, round robin, X-Forwarded-For and X-Forwarded-Proto, kept
connections to backends, TLS 1.3 and session tickets. None compresses or caches.
"""
import os
import re
import shutil
import signal
import subprocess

from . import machine
from .machine import ADMIN, HTTP, HTTPS, PROXY_CORE, WORK, certificates, popen, program


class Proxy:
    name = ""
    package = ""
    # Signal that reloads; None: `reload_command`.
    signal = signal.SIGHUP

    def __init__(self):
        self.dir = WORK / self.name
        self.process = None
        self.bin = self.find()

    def find(self):
        return program(self.name, self.package)

    def version(self):
        told = subprocess.run([self.bin, *self.version_words], capture_output=True, text=True)
        return f"{self.name} {re.search(r'[0-9]+([.][0-9]+)+', told.stdout + told.stderr)[0]}"

    def start(self, services, connections=4096):
        """`services`: [(host, [address, ...]), ...]. Milliseconds until the first request was answered."""
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.connections = connections
        self.write(services)
        log = open(self.dir / "log", "w")
        environment = {**os.environ, "HOME": str(self.dir), "XDG_DATA_HOME": str(self.dir), "XDG_CONFIG_HOME": str(self.dir)}
        self.process = popen(self.command(), PROXY_CORE, cwd=self.dir, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        return 1e3 * machine.wait_until(f"{self.name} answers; see {self.dir}/log", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: " + (self.dir / "log").read_text()[-500:])
        return machine.get("s0.bench.test", "/s")[0] == 200

    def reload(self, services):
        self.write(services)
        if self.signal:
            os.kill(self.process.pid, self.signal)
            return None
        return popen(self.reload_command(), machine.LOAD_CORE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def pids(self):
        return machine.tree(self.process.pid)

    def cpu(self):
        """Seconds on a CPU, with those of processes that a reload has ended."""
        return machine.cpu_seconds(self.pids()) + machine.ended_seconds(self.process.pid)

    def stop(self):
        if self.process:
            machine.stop(self.process)
            self.process = None


class Relais(Proxy):
    name = "relais"
    version_words = ["--version"]
    executable = None  # set by whoever built it
    def find(self):
        return self.executable

    def write(self, services):
        new = self.dir / ".new"
        new.write_text(self.head() + self.body(services))
        new.rename(self.dir / "proxy.toml")

    def head(self):
        cert, key, _ = certificates()
        return f"""[edge]
workers = 1
tls = "files"
min_tls = "1.3"
[edge.limit]
connections = {self.connections}
[listener.http]
address = "127.0.0.1:{HTTP}"
protocol = "http"
redirect = false
[listener.https]
address = "127.0.0.1:{HTTPS}"
protocol = "https"
[certificate.bench]
cert = "{cert}"
key = "{key}"
[metrics]
address = false
[log]
level = "error"
access = false
"""

    def body(self, services):
        text = ""
        for i, (host, backends) in enumerate(services):
            listed = ", ".join(f'"{backend}:{machine.BACKEND}"' for backend in backends)
            text += f'[service.s{i}]\nhosts = ["{host}"]\nhealth = "off"\nbalance = "round-robin"\nbackends = [{listed}]\n'
        return text

    def command(self):
        return [self.bin, "run", "--config", self.dir / "proxy.toml", "--state-dir", self.dir / "state", "--socket", self.dir / "admin.sock"]

    def asked(self, *words):
        """What a command of the executable says about this edge."""
        return subprocess.run([self.bin, *words, "--socket", str(self.dir / "admin.sock")], capture_output=True, text=True)


class RelaisPgo(Relais):
    """What `benches/pgo` built."""
    name = "relais-pgo"

    def find(self):
        built = machine.ROOT / "target" / "pgo" / "relais"
        return built if built.exists() else machine.fail(f"{built} is not here: benches/pgo makes it")


class Haproxy(Proxy):
    name = package = "haproxy"
    version_words = ["-v"]
    signal = signal.SIGUSR2

    def write(self, services):
        both = certificates()[2]
        hosts = self.dir / "hosts.map"
        hosts.write_text("".join(f"{host} b{i}\n" for i, (host, _) in enumerate(services)))
        text = f"""global
 nbthread 1
 maxconn {self.connections}
 ulimit-n {min(machine.FILES, 2 * self.connections + 100)}
 no strict-limits
 ssl-default-bind-options ssl-min-ver TLSv1.3
 tune.ssl.cachesize 20000
 log /dev/null local0 crit
defaults
 mode http
 timeout client 60s
 timeout server 60s
 timeout connect 5s
 timeout http-keep-alive 60s
 timeout tunnel 60s
 option forwardfor
 http-reuse always
frontend f
 bind 127.0.0.1:{HTTP} backlog 4096
 bind 127.0.0.1:{HTTPS} ssl crt {both} alpn h2,http/1.1 backlog 4096
 http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
 use_backend %[req.hdr(host),field(1,:),lower,map({hosts},b0)]
"""
        for i, (_, backends) in enumerate(services):
            text += f"backend b{i}\n balance roundrobin\n"
            text += "".join(f" server s{j} {backend}:{machine.BACKEND}\n" for j, backend in enumerate(backends))
        (self.dir / "haproxy.cfg").write_text(text)

    def command(self):
        return [self.bin, "-W", "-f", self.dir / "haproxy.cfg"]


class Nginx(Proxy):
    name = package = "nginx"
    version_words = ["-v"]

    def write(self, services):
        cert, key, _ = certificates()
        own = "".join(f"{what}_temp_path {self.dir}/{what}; " for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = f"""daemon off;
worker_processes 1;
worker_rlimit_nofile {min(machine.FILES, 2 * self.connections + 100)};
pid {self.dir}/pid;
error_log {self.dir}/error.log crit;
events {{ worker_connections {2 * self.connections}; multi_accept on; }}
http {{
 access_log off;
 server_names_hash_max_size 8192;
 server_names_hash_bucket_size 128;
 variables_hash_max_size 2048;
 keepalive_timeout 75s;
 keepalive_requests 100000000;
 http2_max_concurrent_streams 128;
 tcp_nodelay on;
 client_max_body_size 0;
 proxy_http_version 1.1;
 proxy_request_buffering off;
 proxy_max_temp_file_size 0;
 proxy_set_header Host $host;
 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
 proxy_set_header X-Forwarded-Proto $scheme;
 map $http_upgrade $conn_up {{ default upgrade; '' ''; }}
 proxy_set_header Upgrade $http_upgrade;
 proxy_set_header Connection $conn_up;
 ssl_certificate {cert};
 ssl_certificate_key {key};
 ssl_protocols TLSv1.3;
 ssl_session_cache shared:s:20m;
 {own}
"""
        for i, (host, backends) in enumerate(services):
            servers = " ".join(f"server {backend}:{machine.BACKEND};" for backend in backends)
            text += f"upstream u{i} {{ {servers} keepalive 128; keepalive_requests 100000000; }}\n"
            text += (f"server {{ listen 127.0.0.1:{HTTP}; listen 127.0.0.1:{HTTPS} ssl http2; server_name {host}; "
                     f"location / {{ proxy_pass http://u{i}; }} }}\n")
        (self.dir / "nginx.conf").write_text(text + "}\n")

    def command(self):
        return [self.bin, "-p", self.dir, "-c", self.dir / "nginx.conf", "-e", self.dir / "error.log"]


class Caddy(Proxy):
    name = package = "caddy"
    version_words = ["version"]
    signal = None

    def write(self, services):
        cert, key, _ = certificates()
        text = f"{{\n admin 127.0.0.1:{ADMIN}\n auto_https off\n grace_period 2s\n log {{\n  level ERROR\n }}\n}}\n"
        for host, backends in services:
            to = " ".join(f"{backend}:{machine.BACKEND}" for backend in backends)
            proxied = f" bind 127.0.0.1\n reverse_proxy {to} {{\n  lb_policy round_robin\n }}\n"
            text += f"http://{host}:{HTTP} {{\n{proxied}}}\nhttps://{host}:{HTTPS} {{\n tls {cert} {key}\n{proxied}}}\n"
        (self.dir / "Caddyfile").write_text(text)

    def command(self):
        return [self.bin, "run", "--config", self.dir / "Caddyfile", "--adapter", "caddyfile"]

    def reload_command(self):
        return [self.bin, "reload", "--config", self.dir / "Caddyfile", "--adapter", "caddyfile", "--address", f"127.0.0.1:{ADMIN}"]


ALL = {kind.name: kind for kind in (Relais, RelaisPgo, Haproxy, Nginx, Caddy)}
# Measured when none is named.
USUAL = ["relais", "haproxy", "nginx", "caddy"]
