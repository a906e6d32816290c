#!/usr/bin/env bash
# Memory of an agent: idle with 1,000 Services, and what each of 5,000 idle opaque connections adds.
# Runs in namespaces of its own; needs python3 and `cargo build --release` done before.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [ "${1:-}" != inside ]; then
  [ -x "$here/target/release/edgemesh" ] || { echo "first: cargo build --release -p edgemesh-daemon"; exit 1; }
  exec unshare -rnm --pid --fork --kill-child --mount-proc bash "$0" inside
fi
mount -t tmpfs none /run; ip link set lo up
world=$(mktemp -d); trap 'rm -rf "$world"' EXIT; mkdir "$world/manifests"
python3 - "$world/manifests/all.yaml" <<'P'
import sys
one = """apiVersion: v1
kind: Service
metadata: {{name: s{i}}}
spec: {{clusterIP: 10.96.{a}.{b}, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{i}-1, labels: {{kubernetes.io/service-name: s{i}}}}}
addressType: IPv4
ports: [{{name: "", port: 9000}}]
endpoints: [{{addresses: [127.0.0.1], nodeName: n1}}, {{addresses: [127.0.0.2], nodeName: n1}}]
"""
documents = [one.format(i=i, a=i // 250, b=i % 250 + 1) for i in range(1000)]
open(sys.argv[1], "w").write("---\n".join(documents))
P
printf 'node: n1\ndataDir: %s/data\nsource: { manifests: %s/manifests }\nservices: %s/none\naccessLog: errors\n' \
  "$world" "$world" "$world" > "$world/agent.yaml"
agent() { "$here/target/release/edgemesh" agent --config "$world/agent.yaml" >/dev/null 2>>"$world/log" & guard=$!
  for _ in $(seq 200); do curl -fs http://127.0.0.1:15020/readyz >/dev/null && break; sleep 0.05; done
  sleep 5; child=$(pgrep -P "$guard"); }
rss() { awk '/VmRSS/{print $2}' "/proc/$child/status"; }
agent; echo "idle, 1,000 Services and 2,000 Backends just read: $(rss) KiB"
kill "$guard"; wait "$guard"
agent; idle=$(rss); echo "the same after a restart from the store:          $idle KiB"
python3 - "$child" <<'P'
import socket, sys, threading
def rss(): return next(int(l.split()[1]) for l in open(f"/proc/{sys.argv[1]}/status") if l.startswith("VmRSS"))
held = []
def serve(listener):
    while True:
        c, _ = listener.accept(); held.append(c); c.sendall(c.recv(64))
for address in ("127.0.0.1", "127.0.0.2"):
    threading.Thread(target=serve, args=(socket.create_server((address, 9000), backlog=4096),), daemon=True).start()
before, n = rss(), 5000
for _ in range(n):
    c = socket.create_connection(("10.96.0.1", 80)); c.sendall(b"\0hello"); c.recv(64); held.append(c)
after = rss()
print(f"{n} idle opaque connections: {before} -> {after} KiB, {(after - before) / n:.2f} KiB each")
P
kill "$guard"; wait "$guard"
