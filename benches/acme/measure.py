#!/usr/bin/env python3
"""relais beside Caddy with certificates from Debian's pebble: from the start to the first HTTPS handshake, handshakes while
a certificate is renewed, memory for many certificates. See README.md.

    measure.py [--relais PATH] [--caddy PATH] [--runs 7] [--names 1000] [--caddy-names 50]
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

IP = "127.0.88.1"
HTTP, HTTPS, DIRECTORY, MANAGEMENT, DNS, DNS_MANAGEMENT = 18080, 18443, 14000, 15000, 18053, 18055
HOST = "www.site.fr"


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


class Pebble:
    """The CA and its name server, which says one address for every name."""

    def __init__(self, folder, **settings):
        self.folder = folder
        root, key = f"{folder}/directory.pem", f"{folder}/directory.key"
        if not os.path.exists(root):
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
                "-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{IP}", "-keyout", key, "-out", root)
        with open(f"{folder}/pebble.json", "w", encoding="utf-8") as file:
            json.dump({"pebble": {
                "listenAddress": f"{IP}:{DIRECTORY}", "managementListenAddress": f"{IP}:{MANAGEMENT}",
                "certificate": root, "privateKey": key, "httpPort": HTTP, "tlsPort": HTTPS, "ocspResponderURL": ""}}, file)
        names = ["-defaultIPv4", IP, "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
                 "-dns01", f"{IP}:{DNS}", "-management", f"{IP}:{DNS_MANAGEMENT}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"} | settings
        self.children = [
            subprocess.Popen(["pebble-challtestsrv", *names], **quiet),
            subprocess.Popen(["pebble", "-config", f"{folder}/pebble.json", "-dnsserver", f"{IP}:{DNS}"],
                             env=environment, **quiet)]
        until(lambda: connects(DIRECTORY))
        trust = ssl.create_default_context(cafile=root)
        self.roots = until(lambda: fetch(f"https://{IP}:{MANAGEMENT}/roots/0", trust))

    def client(self):
        return ssl.create_default_context(cadata=self.roots)

    def stop(self):
        for child in self.children:
            child.kill()
            child.wait()


def fetch(url, trust):
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(url, context=trust, timeout=5).read().decode()
    return None


def connects(port):
    with contextlib.suppress(OSError), socket.create_connection((IP, port), timeout=1):
        return True
    return False


def until(look, within=300):
    end = time.monotonic() + within
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(0.005)
    raise SystemExit(f"not within {within} s")


def handshake(client, host):
    """Whether a client that trusts the CA is served."""
    with contextlib.suppress(OSError), socket.create_connection((IP, HTTPS), timeout=5) as stream:
        with client.wrap_socket(stream, server_hostname=host):
            return True
    return False


def relais(program, folder, names):
    with open(f"{folder}/proxy.toml", "w", encoding="utf-8") as file:
        file.write(f'[edge]\nemail = "ops@site.fr"\n[metrics]\naddress = false\n'
                   f'[listener.http]\naddress = "{IP}:{HTTP}"\nprotocol = "http"\n'
                   f'[listener.https]\naddress = "{IP}:{HTTPS}"\nprotocol = "https"\n'
                   f'[authority.pebble]\ndirectory = "https://{IP}:{DIRECTORY}/dir"\nroot = "{folder}/directory.pem"\n'
                   f'[service.web]\nhosts = {json.dumps(names)}\nrespond = {{ body = "hello" }}\n')
    return [program, "run", "--config", f"{folder}/proxy.toml", "--state-dir", f"{folder}/state",
            "--socket", f"{folder}/admin.sock"]


def caddy(program, folder, names):
    sites = "\n".join(f'{name} {{\n respond "hello"\n}}' for name in names)
    with open(f"{folder}/Caddyfile", "w", encoding="utf-8") as file:
        file.write(f"{{\n email ops@site.fr\n admin off\n http_port {HTTP}\n https_port {HTTPS}\n default_bind {IP}\n"
                   f" acme_ca https://{IP}:{DIRECTORY}/dir\n acme_ca_root {folder}/directory.pem\n"
                   f" storage file_system {folder}/state\n}}\n{sites}\n")
    return [program, "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


class Edge:
    def __init__(self, command):
        self.began = time.monotonic()
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kibibytes(self):
        with open(f"/proc/{self.child.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(20)
        self.child.kill()
        self.child.wait()


def first_handshake(folder, command, client):
    shutil.rmtree(f"{folder}/state", ignore_errors=True)
    edge = Edge(command)
    until(lambda: handshake(client, HOST))
    took = time.monotonic() - edge.began
    edge.stop()
    return took


def renewals(program, folder, client, rounds=10):
    """Handshakes served and lost by four clients while the certificate is renewed again and again."""
    shutil.rmtree(f"{folder}/state", ignore_errors=True)
    edge = Edge(relais(program, folder, [HOST]))
    until(lambda: handshake(client, HOST))
    served, lost, over = [0] * 4, [0] * 4, threading.Event()

    def ask(place):
        while not over.is_set():
            (served if handshake(client, HOST) else lost)[place] += 1

    clients = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for one in clients:
        one.start()
    for _ in range(rounds):
        before = issued(program, folder)
        run(program, "certs", "--socket", f"{folder}/admin.sock", "renew", HOST)
        until(lambda: issued(program, folder) > before)
    over.set()
    for one in clients:
        one.join()
    edge.stop()
    return sum(served), sum(lost)


def issued(program, folder):
    text = run(program, "certs", "--socket", f"{folder}/admin.sock", "--json")
    return sum(authority["issued"] for authority in json.loads(text)["authorities"])


def memory(make, folder, client, names):
    """Resident memory with certificates for these names after a restart and one handshake of each, in KiB."""
    shutil.rmtree(f"{folder}/state", ignore_errors=True)
    edge = Edge(make(names))
    for name in names:
        until(lambda name=name: handshake(client, name), 900)
    ordered = time.monotonic() - edge.began
    edge.stop()
    edge = Edge(make(names))
    until(lambda: handshake(client, names[0]))
    ready = time.monotonic() - edge.began
    lost = sum(not handshake(client, name) for name in names)
    time.sleep(2)
    used = edge.kibibytes()
    edge.stop()
    return used, ordered, ready, lost


def restarts(makers, folder, client, names, runs):
    """Seconds from the start to the first handshake when the certificates of all names are there, for each program."""
    commands, took = {}, {program: [] for program in makers}
    for program, make in makers.items():
        own = f"{folder}/{program}"
        os.makedirs(own)
        shutil.copy(f"{folder}/directory.pem", own)
        commands[program] = make(own, names)
        edge = Edge(commands[program])
        for name in names:
            until(lambda name=name: handshake(client, name))
        edge.stop()
    for _ in range(runs):
        for program, command in commands.items():
            edge = Edge(command)
            until(lambda: handshake(client, names[0]))
            took[program].append(time.monotonic() - edge.began)
            edge.stop()
    return took


def told(name, values):
    print(f"{name:8} {statistics.median(values):.3f} s  (min {min(values):.3f}, max {max(values):.3f}, n = {len(values)})")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--relais", default="target/release/relais")
    options.add_argument("--caddy", default="/usr/bin/caddy")
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--names", type=int, default=1000)
    options.add_argument("--caddy-names", type=int, default=50)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pebble = Pebble(folder)
        commands = {"relais": relais(chosen.relais, folder, [HOST]), "caddy": caddy(chosen.caddy, folder, [HOST])}
        took = {name: [] for name in commands}
        for _ in range(chosen.runs):
            for name, command in commands.items():
                took[name].append(first_handshake(folder, command, pebble.client()))
        print("start to first HTTPS handshake, nothing kept from before:")
        for name, values in took.items():
            told(name, values)
        served, lost = renewals(chosen.relais, folder, pebble.client())
        print(f"ten renewals under four clients: {served} handshakes served, {lost} lost")
        pebble.stop()
        if chosen.names:
            pebble = Pebble(folder, PEBBLE_VA_ALWAYS_VALID="1")
            makers = {"relais": lambda own, names: relais(chosen.relais, own, names),
                      "caddy": lambda own, names: caddy(chosen.caddy, own, names)}
            names = [f"host-{number}.site.fr" for number in range(20)]
            print("start to first HTTPS handshake with 20 certificates from before:")
            for name, values in restarts(makers, folder, pebble.client(), names, chosen.runs).items():
                told(name, values)
            names = [f"host-{number}.site.fr" for number in range(chosen.names)]
            for name, make, count in (
                    ("relais", lambda names: relais(chosen.relais, folder, names), chosen.names),
                    ("caddy", lambda names: caddy(chosen.caddy, folder, names), chosen.caddy_names)):
                few, *_ = memory(make, folder, pebble.client(), names[:1])
                many, ordered, ready, lost = memory(make, folder, pebble.client(), names[:count])
                each = (many - few) / max(1, count - 1)
                print(f"{name:8} {count} names: ordered in {ordered:.1f} s; after a restart the first handshake at "
                      f"{ready:.3f} s, {lost} names not served at once; {few / 1024:.1f} MiB with one, "
                      f"{many / 1024:.1f} MiB with all: {each:.1f} KiB each")
            pebble.stop()


if __name__ == "__main__":
    main()
