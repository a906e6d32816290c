"""`make bench-links`: what a Link costs, beside the same agents within one node and one plain TLS connection.

Machines a, b and h and a cloud in namespaces, joined by a router. a reaches b by a direct Link; h is told to use the
hub. Each round visits each way in turn. CPU is user and system time of all processes of the mesh that take part.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import world  # noqa: E402  (the helpers of bench-peers)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EDGEMESH, LOAD = f"{ROOT}/target/release/edgemesh", f"{ROOT}/target/release/edgemesh-load"
MACHINES = {"cloud": 0, "a": 1, "b": 2, "h": 3}
BULK = 1 << 30
# Way: where the client is, the Service, whose CPU counts.
WAYS = {"in the node": ("a", "local", "a"), "direct Link": ("a", "far", "ab"), "through the hub": ("h", "far", "hb*")}


def address(machine):
    return f"10.88.{MACHINES[machine]}.2"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--write", help="file for the figures, JSON")
    options = world.arguments(parser)
    with world.processes("links") as (folder, processes):
        run(options, folder, processes)


def inside(machine, *command):
    return ["ip", "netns", "exec", machine, *command]


def make():
    world.sh("mount -t tmpfs none /run; mkdir -p /run/netns; ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.core.somaxconn=8192")
    for machine, number in MACHINES.items():
        world.sh(f"""ip netns add {machine}; ip link add v{number} type veth peer name eth0 netns {machine}
            ip addr add 10.88.{number}.1/24 dev v{number}; ip link set v{number} up
            ip -n {machine} addr add {address(machine)}/24 dev eth0; ip -n {machine} link set eth0 up; ip -n {machine} link set lo up
            ip -n {machine} route add default via 10.88.{number}.1
            ip netns exec {machine} sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1""")


def manifests(folder):
    os.mkdir(f"{folder}/manifests")
    nodes = [f"apiVersion: v1\nkind: Node\nmetadata: {{ name: {m} }}\nstatus: {{ addresses: [{{ type: InternalIP, address: {address(m)} }}] }}\n" for m in "abh"]
    services = []
    for index, (name, machine) in enumerate((("local", "a"), ("far", "b"))):
        ports = [("http", 80, 8080), ("tcp", 7000, 7001)]
        services.append(f"""apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: default }}
spec:
  clusterIP: 10.96.0.{index + 1}
  ports: [{', '.join(f'{{ name: {n}, port: {p}, targetPort: {t} }}' for n, p, t in ports)}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: default, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{', '.join(f'{{ name: {n}, port: {t} }}' for n, p, t in ports)}]
endpoints: [{{ addresses: ["{address(machine)}"], conditions: {{ ready: true }}, nodeName: {machine} }}]
""")
    with open(f"{folder}/manifests/all.yaml", "w") as file:
        file.write("---\n".join(nodes + services))


def start_mesh(folder, processes):
    with open(f"{folder}/cloud.yaml", "w") as file:
        file.write(f"dataDir: {folder}/cloud\nsource: {{ manifests: {folder}/manifests }}\nhub: {{ listen: \"0.0.0.0:10000\", names: [\"{address('cloud')}\"] }}\n")
    mesh = {"*": processes.start("cloud", inside("cloud", EDGEMESH, "cloud", "--log", "warn", "--config", f"{folder}/cloud.yaml"))}
    for_answer("cloud", "15010", "/readyz", mesh["*"])
    token = subprocess.run(inside("cloud", EDGEMESH, "token", "create", "--config", f"{folder}/cloud.yaml"), check=True, capture_output=True, text=True).stdout
    with open(f"{folder}/token", "w") as file:
        file.write(token.strip())
    for node in "abh":
        with open(f"{folder}/{node}.yaml", "w") as file:
            file.write(f"""node: {node}
dataDir: {folder}/{node}
cloud: {{ servers: ["{address('cloud')}:10000"], tokenFile: {folder}/token }}
services: {folder}/none
proxy: {{ include: [10.96.0.0/16] }}
peer: {{ listen: "0.0.0.0:15008", path: {'hub' if node == 'h' else 'auto'} }}
accessLog: errors
""")
        mesh[node] = processes.start(node, inside(node, EDGEMESH, "agent", "--log", "warn", "--config", f"{folder}/{node}.yaml"))
    for node in "abh":
        for_answer(node, "15000", "/readyz", mesh[node])
    time.sleep(2)  # the first records
    return mesh


def for_answer(machine, port, path, process):
    until = time.monotonic() + 30
    while subprocess.run(inside(machine, "curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}{path}")).returncode:
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"{machine} does not get ready\n{open(process.log).read()[-3000:]}")
        time.sleep(0.05)


def backends(folder, processes):
    with open(f"{folder}/bulk", "wb") as file:
        file.truncate(BULK)
    os.chmod(folder, 0o755)
    for machine in "ab":
        with open(f"{folder}/nginx-{machine}.conf", "w") as file:
            file.write(f"""daemon off; user root; worker_processes 1; pid {folder}/nginx-{machine}.pid; error_log {folder}/nginx-{machine}.err;
                events {{ worker_connections 20000; }}
                http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; sendfile on; tcp_nodelay on;
                  client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                  server {{ listen {address(machine)}:8080 backlog=8192; root {folder};
                    location = / {{ return 200 "hello from the backend, and some more text for it\\n"; }} }} }}""")
        processes.start(f"nginx-{machine}", inside(machine, "nginx", "-c", f"{folder}/nginx-{machine}.conf"), preexec_fn=world.files)
        processes.start(f"echo-{machine}", inside(machine, LOAD, "echo", f"{address(machine)}:7001"))
    processes.start("tls", inside("b", LOAD, "tls-serve", f"{address('b')}:7443", f"{folder}/tls.der"))


def service(name, port):
    return f"10.96.0.{1 if name == 'local' else 2}:{port}"


def wrk(folder, machine, at, connections, seconds):
    with open(f"{folder}/wrk.lua", "w") as file:
        file.write("""done = function(s, l, r) local e = s.errors
  io.write(string.format('JSON {"calls":%d,"micros":%d,"errors":%d,"p50":%d,"p99":%d}\\n', s.requests, s.duration,
    e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(99))) end""")
    command = ["wrk", "-t", str(min(connections, 2)), "-c", str(connections), "-d", f"{seconds}s", "-s", f"{folder}/wrk.lua", f"http://{at}/"]
    out = subprocess.run(inside(machine, *command), capture_output=True, text=True).stdout
    return json.loads(next(line for line in out.splitlines() if line.startswith("JSON"))[5:])


def measured(mesh, who, act):
    before = sum(world.cpu_seconds(mesh[one].pid) for one in who)
    seen = act()
    seen["cpu"] = sum(world.cpu_seconds(mesh[one].pid) for one in who) - before
    return seen


def run(options, folder, processes):
    make()
    manifests(folder)
    backends(folder, processes)
    mesh = start_mesh(folder, processes)
    rows = {}

    def note(way, load, **figures):
        for key, value in figures.items():
            rows.setdefault((way, f"{load} {key}"), []).append(value)

    for round_number in range(options.rounds + 1):
        warm = round_number == 0
        for way, (machine, name, who) in WAYS.items():
            seconds = 1 if warm else options.seconds
            many = measured(mesh, who, lambda: wrk(folder, machine, service(name, 80), 32, seconds))
            one = wrk(folder, machine, service(name, 80), 1, seconds)
            out = subprocess.run(inside(machine, LOAD, "pingpong", service(name, 7000), "--seconds", str(seconds)), capture_output=True, text=True)
            echo = None
            if not warm:
                echo = measured(mesh, who, lambda: json.loads(subprocess.run(inside(machine, LOAD, "pingpong", service(name, 7000), "--seconds", str(seconds)), capture_output=True, text=True).stdout or '{"calls": 0, "errors": 1}'))
            bulk = measured(mesh, who, lambda: download(machine, service(name, 80)))
            if warm:
                continue
            note(way, "HTTP, 32 connections:", rate=many["calls"] / many["micros"] * 1e6, cpu_micros=many["cpu"] / max(1, many["calls"]) * 1e6, errors=many["errors"])
            note(way, "HTTP, 1 connection:", p50_micros=one["p50"], p99_micros=one["p99"])
            note(way, "64 bytes, 32 connections:", rate=echo["calls"] / seconds, cpu_micros=echo["cpu"] / max(1, echo["calls"]) * 1e6, errors=echo["errors"])
            note(way, "1 GiB:", mib_a_second=bulk["speed"] / (1 << 20), cpu_seconds=bulk["cpu"])
        plain = json.loads(subprocess.run(inside("a", LOAD, "tls-fetch", f"{address('b')}:7443", f"{folder}/tls.der", "--bytes", str(BULK)), check=True, capture_output=True, text=True).stdout)
        if not warm:
            note("plain rustls", "1 GiB:", mib_a_second=plain["bytes"] / plain["seconds"] / (1 << 20))
        print(f"round {round_number} of {options.rounds}", file=sys.stderr, flush=True)
    medians = {f"{way}: {what}": statistics.median(values) for (way, what), values in rows.items()}
    for what, value in medians.items():
        print(f"{what:60} {value:12.1f}")
    for node, process in mesh.items():
        print(f"memory of {'cloud' if node == '*' else node}: {world.resident_mib(process.pid):.1f} MiB")
    if options.write:
        world.write_json(options.write, {"machine": world.machine(), "rounds": options.rounds, "medians": medians})


def download(machine, at):
    out = subprocess.run(inside(machine, "curl", "-s", "-o", "/dev/null", "-w", "%{speed_download} %{size_download} %{http_code}", f"http://{at}/bulk"), capture_output=True, text=True).stdout.split()
    if out[1:] != [str(BULK), "200"]:
        print(f"download by {machine} from {at}: {out}", file=sys.stderr)
    return {"speed": float(out[0])}


if __name__ == "__main__":
    main()
