"""`make bench-kubernetes`: a large cluster read from an API server: time to synced, memory of the cloud, one change at an agent.

The API server is this script: 10,000 Services with an EndpointSlice of 10 Backends each, told in parts (`limit`, `continue`) or,
with --streams, as streams (`sendInitialEvents`), and watches. The agent is a real one, with `intercept: none`, that gets its
records from the cloud; a change is seen when its look-up stream (`mesh.sock`) tells it. Everything shares this machine's cores.
"""

import argparse
import http.client
import json
import os
import queue
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import fleet  # noqa: E402  (its waiting and asking)
import world  # noqa: E402  (the helpers of bench-peers)

SERVICES, SLICES = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"
BUILT_IN = [SERVICES, SLICES, "/api/v1/nodes", "/api/v1/pods"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--backends", type=int, default=10, help="of each Service")
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--streams", action="store_true", help="tell lists as streams, as servers from 1.34 on do")
    options = world.arguments(parser)
    world.sh("ip link set lo up")
    with world.processes("kubernetes") as (folder, processes):
        run(options, folder, processes)


def metadata(name, **more):
    """With what every object has that no mesh reads."""
    fields = [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
               "fieldsV1": {"f:spec": {"f:ports": {}, "f:selector": {}}, "f:metadata": {"f:labels": {".": {}, "f:app": {}}}}}]
    return {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "1", "managedFields": fields, **more}


def service(number):
    spec = {"clusterIP": f"10.{64 + number // 65000}.{number // 250 % 250}.{number % 250 + 1}", "type": "ClusterIP",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}], "selector": {"app": f"service-{number}"}}
    return {"metadata": metadata(f"service-{number}"), "spec": spec, "status": {"loadBalancer": {}}}


def slice_of(number, backends, turn=0):
    def endpoint(b):
        at = number * backends + b
        return {"addresses": [f"10.{100 + turn % 100}.{at // 250 % 250}.{at % 250 + 1}"], "nodeName": f"node-{at % 50}",
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "name": f"service-{number}-{b}", "namespace": "default", "uid": f"pod-{at}"}}
    labels = {"kubernetes.io/service-name": f"service-{number}"}
    return {"metadata": metadata(f"service-{number}-x", labels=labels), "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": [endpoint(b) for b in range(backends)]}


class Api:
    """What the server holds, and who watches."""

    def __init__(self, options):
        self.streams = options.streams
        count, backends = options.services, options.backends
        self.objects = {path: [] for path in BUILT_IN}
        self.objects[SERVICES] = [json.dumps(service(n)) for n in range(count)]
        self.objects[SLICES] = [json.dumps(slice_of(n, backends)) for n in range(count)]
        self.version, self.watchers = 1, {path: [] for path in BUILT_IN}

    def change(self, path, text):
        self.version += 1
        text = text.replace('"resourceVersion": "1"', f'"resourceVersion": "{self.version}"')
        event = f'{{"type": "MODIFIED", "object": {text}}}\n'.encode()
        for watcher in self.watchers[path]:
            watcher.put(event)


def handler(api):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            url = urlparse(self.path)
            query = {key: value[0] for key, value in parse_qs(url.query).items()}
            if url.path == "/version":
                return self.whole(200, json.dumps({"major": "1", "minor": "36" if api.streams else "30"}))
            if url.path not in api.objects:
                return self.whole(404, json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
                                                   "message": "the server could not find the requested resource", "metadata": {}}))
            if query.get("watch") == "true":
                return self.watch(url.path, query)
            all, first = api.objects[url.path], int(query.get("continue", 0))
            part = all[first:first + int(query.get("limit", len(all) + 1))]
            more = f', "continue": "{first + len(part)}"' if first + len(part) < len(all) else ""
            return self.whole(200, f'{{"kind": "List", "apiVersion": "v1", "metadata": {{"resourceVersion": "1"{more}}}, "items": [{",".join(part)}]}}')

        def whole(self, status, text):
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def watch(self, path, query):
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            events = queue.Queue()
            api.watchers[path].append(events)
            if query.get("sendInitialEvents") == "true":
                for text in api.objects[path]:
                    self.chunk(f'{{"type": "ADDED", "object": {text}}}\n'.encode())
                mark = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
                self.chunk((json.dumps({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1", "metadata": mark}}) + "\n").encode())
            end = time.monotonic() + int(query.get("timeoutSeconds", 300))
            try:
                while (left := end - time.monotonic()) > 0:
                    self.chunk(events.get(timeout=left))
            except queue.Empty:
                pass
            finally:
                api.watchers[path].remove(events)
            self.wfile.write(b"0\r\n\r\n")

        def chunk(self, event):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    return Handler


def run(options, folder, processes):
    api = Api(options)
    size = sum(map(len, api.objects[SERVICES])) + sum(map(len, api.objects[SLICES]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(api))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(f"{folder}/cloud.yaml", "w") as file:
        file.write(f"dataDir: {folder}/cloud\nsource: {{ kubernetes: {{ server: 'http://127.0.0.1:{server.server_port}' }} }}\n"
                   f"hub: {{ listen: \"{fleet.HUB}\", names: [\"127.0.0.1\"] }}\n")
    began = time.monotonic()
    cloud = processes.start("cloud", [fleet.EDGEMESH, "cloud", "--log", "warn", "--config", f"{folder}/cloud.yaml"], preexec_fn=world.files)
    total = options.services * options.backends
    status = lambda: json.loads(fleet.get("15010", "/v1/status") or "{}")  # noqa: E731
    fleet.wait("the cloud", cloud, lambda: status().get("backends") == total)
    took = time.monotonic() - began
    how = "as streams" if options.streams else "in parts of 250"
    print(f"{options.services} Services, {total} Backends ({size / 2**20:.0f} MiB of JSON, {how}): synced {took:.1f} s after the start", flush=True)
    time.sleep(10)
    print(f"memory of the cloud 10 s later: {world.resident_mib(cloud.pid):.0f} MiB", flush=True)
    changes(options, api, folder, processes)
    print(f"memory of the cloud afterwards: {world.resident_mib(cloud.pid):.0f} MiB", flush=True)


def start_agent(folder, processes):
    token = subprocess.run([fleet.EDGEMESH, "token", "create", "--config", f"{folder}/cloud.yaml"], check=True, capture_output=True, text=True).stdout
    with open(f"{folder}/token", "w") as file:
        file.write(token.strip())
    with open(f"{folder}/agent.yaml", "w") as file:
        file.write(f"node: node-0\ndataDir: {folder}/agent\ncloud: {{ servers: ['{fleet.HUB}'], tokenFile: {folder}/token }}\n"
                   "proxy: { intercept: none }\n")
    agent = processes.start("agent", [fleet.EDGEMESH, "agent", "--log", "warn", "--config", f"{folder}/agent.yaml"], preexec_fn=world.files)
    fleet.wait("the agent", agent, lambda: fleet.get("15000", "/readyz") is not None)
    return agent


class Socket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def changes(options, api, folder, processes):
    """One EndpointSlice after another gets other addresses; the agent's look-up of its Service tells them."""
    start_agent(folder, processes)
    number = options.services // 2
    connection = Socket(f"{folder}/agent/mesh.sock")
    connection.request("GET", f"/v1/lookup?name=service-{number}.default:80&follow=1")
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"the look-up: {answer.status} {answer.read()[:300]}")
    took = []
    for turn in range(1, options.changes + 1):
        want = re.escape(slice_of(number, options.backends, turn)["endpoints"][0]["addresses"][0])
        began = time.monotonic()
        api.change(SLICES, json.dumps(slice_of(number, options.backends, turn)))
        while not re.search(want, answer.readline().decode()):
            if time.monotonic() > began + 30:
                raise SystemExit("a change is not seen")
        took.append((time.monotonic() - began) * 1000)
        time.sleep(0.05)
    took.sort()
    p99 = took[max(0, int(len(took) * 0.99) - 1)]
    print(f"one change of an EndpointSlice, from the API's watch by way of the cloud to the agent's Snapshot: "
          f"p50 {statistics.median(took):.1f} ms, p99 {p99:.1f} ms, worst of {len(took)} {took[-1]:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
