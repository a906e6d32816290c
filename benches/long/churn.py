"""Records that change all the time: a Backend signs up and off, and a manifest is written anew."""

import http.client
import json
import os
import re
import threading
import time
import urllib.request

from world import HTTP, NODE, SINK

EVERY = 1 / 55  # seconds: 50 changes a second, with room for what is late
ADMIN = ("127.0.0.1", 15000)
METRICS = "http://127.0.0.1:15020/metrics"


class Churn(threading.Thread):
    """A Service with one Backend that stays, and one that comes and goes."""

    def __init__(self, folder, number):
        super().__init__(daemon=True)
        self.path, self.number, self.stop = f"{folder}/manifests/churn.yaml", number, threading.Event()
        self.address = f"10.97.0.{number}:80"
        os.makedirs(f"{folder}/manifests", exist_ok=True)
        self.write(0)

    def run(self):
        self.put("stays", HTTP)
        turn, due = 0, time.monotonic()
        while not self.stop.is_set():
            turn += 1
            if turn % 50 == 0:
                self.write(turn)
            elif turn % 2:
                self.put("comes", SINK)
            else:
                self.ask("DELETE", "comes")
            due += EVERY
            self.stop.wait(max(0, due - time.monotonic()))

    def end(self):
        self.stop.set()
        self.join()

    def put(self, name, port):
        self.ask("PUT", name, json.dumps({"address": NODE, "port": port, "servicePort": 80}))

    def ask(self, method, name, body=None):
        connection = http.client.HTTPConnection(*ADMIN, timeout=10)
        connection.request(method, f"/v1/registrations/default/churn/{name}", body)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status >= 300:
            raise OSError(f"{method} of {name}: {answer.status} {said!r}")

    def write(self, turn):
        """The Service, and a Slice whose only Backend, not ready, is another one each time."""
        text = f"""apiVersion: v1
kind: Service
metadata: {{ name: churn }}
spec: {{ clusterIP: 10.97.0.{self.number}, ports: [{{ name: http, port: 80, appProtocol: http }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: churn-1, labels: {{ kubernetes.io/service-name: churn }} }}
addressType: IPv4
ports: [{{ name: http, port: 80, appProtocol: http }}]
endpoints: [{{ addresses: [10.1.0.{turn // 50 % 200 + 3}], conditions: {{ ready: false }}, nodeName: other }}]
"""
        with open(f"{self.path}.new", "w") as file:
            file.write(text)
        os.rename(f"{self.path}.new", self.path)

    def revision(self):
        """How often the agent's records have changed."""
        with urllib.request.urlopen(METRICS, timeout=10) as answer:
            return int(re.search(r"^edgemesh_snapshot_revision (\d+)", answer.read().decode(), re.M).group(1))
