"""`make bench-rules`: what a Rule costs: a request from the cloud's ingress through hub and agent to an application on the edge.

POST with a body of 100 bytes, keep-alive, as in the recordings of KubeEdge (field notes: 42 requests a second as shipped, about
550 with its throttle lifted, p50 4.1 to 4.7 ms). Beside it the same application without anything between.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import nodes as links  # noqa: E402
from nodes import inside, world  # noqa: E402

RULES = """apiVersion: v1
kind: Service
metadata: { name: any, namespace: default }
spec: { clusterIP: 10.96.0.9, ports: [{ name: http, port: 80 }] }
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: { name: rest, namespace: default }
spec: { ruleEndpointType: rest, properties: {} }
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: { name: app, namespace: default }
spec: { ruleEndpointType: servicebus, properties: { service_port: "8080" } }
---
apiVersion: rules.kubeedge.io/v1
kind: Rule
metadata: { name: bench, namespace: default }
spec: { source: rest, sourceResource: { path: /bench }, target: app, targetResource: { path: /app } }
"""
WAYS = {"rest to servicebus": ("cloud", "127.0.0.1:9443/b/default/bench"), "the application": ("b", "127.0.0.1:8080/app")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    options = world.arguments(parser)
    with world.processes("rules") as (folder, processes):
        bench(options, folder, processes)


def start(folder, processes):
    os.mkdir(f"{folder}/manifests")
    with open(f"{folder}/manifests/all.yaml", "w") as file:
        file.write(RULES)
    with open(f"{folder}/cloud.yaml", "w") as file:
        file.write(f"""dataDir: {folder}/cloud
source: {{ manifests: {folder}/manifests }}
hub: {{ listen: "0.0.0.0:10000", names: ["{links.address('cloud')}"] }}
accessLog: errors
""")
    cloud = processes.start("cloud", inside("cloud", links.EDGEMESH, "cloud", "--log", "warn", "--config", f"{folder}/cloud.yaml"))
    links.for_answer("cloud", "15010", "/readyz", cloud)
    token = subprocess.run(inside("cloud", links.EDGEMESH, "token", "create", "--config", f"{folder}/cloud.yaml"), check=True, capture_output=True, text=True).stdout
    with open(f"{folder}/token", "w") as file:
        file.write(token.strip())
    with open(f"{folder}/b.yaml", "w") as file:
        file.write(f"""node: b
dataDir: {folder}/b
cloud: {{ servers: ["{links.address('cloud')}:10000"], tokenFile: {folder}/token }}
services: {folder}/none
proxy: {{ intercept: none }}
dns: {{ listen: [] }}
accessLog: errors
""")
    agent = processes.start("b", inside("b", links.EDGEMESH, "agent", "--log", "warn", "--config", f"{folder}/b.yaml"))
    links.for_answer("b", "15000", "/readyz", agent)
    os.chmod(folder, 0o755)
    with open(f"{folder}/nginx.conf", "w") as file:
        file.write(f"""daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
            events {{ worker_connections 2000; }}
            http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; tcp_nodelay on;
              client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
              server {{ listen 127.0.0.1:8080 backlog=1024; location / {{ return 200 "hello\\n"; }} }} }}""")
    processes.start("nginx", inside("b", "nginx", "-c", f"{folder}/nginx.conf"))
    url = f"http://{WAYS['rest to servicebus'][1]}"
    script = f"for i in $(seq 100); do curl -sf -d x {url} && exit 0; sleep 0.1; done; curl -sS -d x {url}; exit 1"
    subprocess.run(inside("cloud", "sh", "-c", script), check=True, capture_output=True)
    return [cloud, agent]


def wrk(folder, machine, url, connections, seconds):
    with open(f"{folder}/wrk.lua", "w") as file:
        file.write("""wrk.method = 'POST'; wrk.body = string.rep('x', 100)
done = function(s, l, r) local e = s.errors
  io.write(string.format('JSON {"calls":%d,"micros":%d,"errors":%d,"p50":%d,"p99":%d}\\n', s.requests, s.duration,
    e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(99))) end""")
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", f"{folder}/wrk.lua", f"http://{url}"]
    out = subprocess.run(inside(machine, *command), capture_output=True, text=True).stdout
    return json.loads(next(line for line in out.splitlines() if line.startswith("JSON"))[5:])


def bench(options, folder, processes):
    links.make()
    mesh = start(folder, processes)
    rows = {}
    for round_number in range(options.rounds + 1):
        for way, (machine, url) in WAYS.items():
            seconds = options.seconds if round_number else 1
            one = wrk(folder, machine, url, 1, seconds)
            before = sum(world.cpu_seconds(process.pid) for process in mesh)
            many = wrk(folder, machine, url, 16, seconds)
            cpu = sum(world.cpu_seconds(process.pid) for process in mesh) - before
            if round_number == 0:
                continue
            for what, value in (
                ("1 connection, p50 micros", one["p50"]),
                ("1 connection, p99 micros", one["p99"]),
                ("16 connections, requests a second", many["calls"] / many["micros"] * 1e6),
                ("16 connections, p50 micros", many["p50"]),
                ("16 connections, p99 micros", many["p99"]),
                ("16 connections, CPU micros of cloud and agent a request", cpu / max(1, many["calls"]) * 1e6),
                ("errors", one["errors"] + many["errors"]),
            ):
                rows.setdefault(f"{way}: {what}", []).append(value)
        print(f"round {round_number} of {options.rounds}", file=sys.stderr, flush=True)
    for what, values in rows.items():
        print(f"{what:78} {statistics.median(values):10.1f}")


if __name__ == "__main__":
    main()
