"""`make bench-fleet`: what agents cost the cloud: idle ones, a full sync, one change, and the first sync of a real agent.

The agents of the fleet share one process: they join, decode every step and acknowledge it, and do not build a Snapshot of
it. Everything shares this machine's cores, so the times hold both ends' work. All in a namespace of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import world  # noqa: E402  (the helpers of bench-peers)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EDGEMESH, LOAD = f"{ROOT}/target/release/edgemesh", f"{ROOT}/target/release/edgemesh-load"
HUB = "127.0.0.1:10000"
PER_FILE = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=2000, help="idle agents")
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--backends", type=int, default=10, help="of each Service")
    parser.add_argument("--agents", type=int, default=100, help="agents of the full sync and of the changes")
    parser.add_argument("--changes", type=int, default=20)
    options = world.arguments(parser)
    world.sh("ip link set lo up; sysctl -qw net.core.somaxconn=8192")
    for part in (idle, full):
        with world.processes("fleet") as (folder, processes):
            part(options, folder, processes)


def service(number, backends, turn=0):
    addresses = [f"10.{100 + turn}.{(number * backends + b) // 250 % 250}.{(number * backends + b) % 250 + 1}" for b in range(backends)]
    endpoints = ", ".join(f'{{ addresses: ["{a}"], conditions: {{ ready: true }}, nodeName: node-{i % 50} }}' for i, a in enumerate(addresses))
    return f"""apiVersion: v1
kind: Service
metadata: {{ name: service-{number}, namespace: default }}
spec: {{ clusterIP: 10.{64 + number // 65000}.{number // 250 % 250}.{number % 250 + 1}, ports: [{{ name: http, port: 80, targetPort: 8080 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: service-{number}-1, namespace: default, labels: {{ kubernetes.io/service-name: service-{number} }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080 }}]
endpoints: [{endpoints}]
"""


def write(path, services):
    """In one step, as every tool that is fit for it does."""
    with open(f"{path}.new", "w") as file:
        file.write("---\n".join(services))
    os.rename(f"{path}.new", path)


def start_cloud(folder, processes, services, backends):
    os.mkdir(f"{folder}/manifests")
    for first in range(0, services, PER_FILE):
        numbers = range(first, min(first + PER_FILE, services))
        write(f"{folder}/manifests/{first}.yaml", [service(n, backends) for n in numbers])
    with open(f"{folder}/cloud.yaml", "w") as file:
        file.write(f"dataDir: {folder}/cloud\nsource: {{ manifests: {folder}/manifests }}\nhub: {{ listen: \"{HUB}\", names: [\"127.0.0.1\"] }}\n")
    cloud = processes.start("cloud", [EDGEMESH, "cloud", "--log", "warn", "--config", f"{folder}/cloud.yaml"], preexec_fn=world.files)
    wait("the cloud", cloud, lambda: get("15010", "/readyz") is not None)
    token = subprocess.run([EDGEMESH, "token", "create", "--config", f"{folder}/cloud.yaml"], check=True, capture_output=True, text=True).stdout
    with open(f"{folder}/token", "w") as file:
        file.write(token.strip())
    return cloud


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def wait(what, process, until, seconds=120):
    end = time.monotonic() + seconds
    while not until():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{what} does not get ready\n{open(process.log).read()[-3000:]}")
        time.sleep(0.02)


def start_fleet(folder, processes, agents, seconds):
    command = [LOAD, "fleet", HUB, f"{folder}/token", "--agents", str(agents), "--seconds", str(seconds)]
    return processes.start("fleet", command, preexec_fn=world.files)


def lines(process):
    with open(process.log) as file:
        return [json.loads(line) for line in file if line.startswith("{")]


def idle(options, folder, processes):
    cloud = start_cloud(folder, processes, 10, 2)
    before = world.resident_mib(cloud.pid)
    fleet = start_fleet(folder, processes, options.idle, 3600)
    wait("the fleet", fleet, lambda: any("joined" in line for line in lines(fleet)), 600)
    joined = next(line for line in lines(fleet) if "joined" in line)
    time.sleep(10)
    cpu = world.cpu_seconds(cloud.pid)
    time.sleep(10)
    cpu = world.cpu_seconds(cloud.pid) - cpu
    after = world.resident_mib(cloud.pid)
    print(f"{options.idle} agents joined in {joined['micros'] / 1e6:.1f} s; memory of the cloud {before:.1f} -> {after:.1f} MiB: "
          f"{(after - before) * 1024 / options.idle:.1f} KiB an idle agent; CPU {cpu * 10:.1f} % of a core", flush=True)


def full(options, folder, processes):
    total = options.services * options.backends
    cloud = start_cloud(folder, processes, options.services, options.backends)
    one = first_sync(options, folder, processes)
    print(f"full sync of {total} Backends to one agent: {one:.2f} s from its start, join, capture and store included", flush=True)
    began = time.time()
    fleet = start_fleet(folder, processes, options.agents, 3600)
    wait("the fleet", fleet, lambda: any("revision" in line for line in lines(fleet)), 300)
    seen = next(line for line in lines(fleet) if "revision" in line)
    print(f"full sync of {total} Backends to {options.agents} agents: {seen['last'] / 1e6 - began:.1f} s from their start, joins included; "
          f"memory of the cloud {world.resident_mib(cloud.pid):.1f} MiB", flush=True)
    took = []
    for turn in range(1, options.changes + 1):
        known = max(line["revision"] for line in lines(fleet) if "revision" in line)
        began = time.time()
        sign_up(turn)
        wait("the change", fleet, lambda: any(line.get("revision", 0) > known for line in lines(fleet)), 60)
        seen = next(line for line in lines(fleet) if line.get("revision", 0) > known)
        took.append((seen["p99"] / 1e6 - began) * 1000)
        time.sleep(0.3)
    took.sort()
    print(f"one change at {options.agents} agents, from its node's agent by way of the cloud to the 99th of 100: "
          f"median {statistics.median(took):.0f} ms, worst of {len(took)} {took[-1]:.0f} ms", flush=True)


def sign_up(turn):
    """A Backend of the agent's own machine; each time it is another."""
    body = json.dumps({"port": 8000 + turn}).encode()
    request = urllib.request.Request("http://127.0.0.1:15000/v1/registrations/default/own/a", body, method="PUT")
    urllib.request.urlopen(request, timeout=5).read()


def first_sync(options, folder, processes):
    """Of a real agent, which stores the records and builds its Snapshot."""
    with open(f"{folder}/agent.yaml", "w") as file:
        file.write(f"""node: first
dataDir: {folder}/agent
cloud: {{ servers: ["{HUB}"], tokenFile: {folder}/token }}
services: {folder}/none
proxy: {{ include: [10.64.0.0/16] }}
accessLog: errors
""")
    began = time.monotonic()
    agent = processes.start("agent", [EDGEMESH, "agent", "--log", "warn", "--config", f"{folder}/agent.yaml"], preexec_fn=world.files)
    known = lambda: len(json.loads(get("15000", "/v1/services") or "[]")) >= options.services  # noqa: E731
    wait("the agent", agent, lambda: get("15000", "/readyz") is not None and known())
    took = time.monotonic() - began
    print(f"memory of that agent: {world.resident_mib(agent.pid):.1f} MiB", flush=True)
    return took


if __name__ == "__main__":
    main()
