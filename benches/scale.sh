#!/usr/bin/env bash
# An agent with 10,000 Services and 100,000 Backends: start from the store until it serves, memory, one change.
# Runs in namespaces of its own; needs python3 and `cargo build --release` done before.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [ "${1:-}" != inside ]; then
  [ -x "$here/target/release/edgemesh" ] || { echo "first: cargo build --release -p edgemesh-daemon"; exit 1; }
  exec unshare -rnm --pid --fork --kill-child --mount-proc bash "$0" inside
fi
mount -t tmpfs none /run; ip link set lo up
world=$(mktemp -d); trap 'rm -rf "$world"' EXIT; mkdir "$world/manifests"
python3 - "$world/manifests" <<'P'
import json, sys
def service(i):
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{i}"},
           "spec": {"clusterIP": f"10.{96 + i // 62500}.{i // 250 % 250}.{i % 250 + 1}", "ports": [{"port": 80}]}}
    yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"name": f"s{i}-1", "labels": {"kubernetes.io/service-name": f"s{i}"}},
           "ports": [{"name": "", "port": 9000}],
           "endpoints": [{"addresses": [f"10.{100 + b}.{i // 250}.{i % 250 + 1}"], "nodeName": f"n{b}"} for b in range(10)]}
for part in range(40):
    items = [o for i in range(part * 250, part * 250 + 250) for o in service(i)]
    with open(f"{sys.argv[1]}/{part:02}.json", "w") as file:
        json.dump({"apiVersion": "v1", "kind": "List", "items": items}, file)
P
printf 'node: n1\ndataDir: %s/data\nsource: { manifests: %s/manifests }\nservices: %s/none\naccessLog: errors\n' \
  "$world" "$world" "$world" > "$world/agent.yaml"
cat > "$world/start.py" <<'P'
import subprocess, sys, time, urllib.request, signal
binary, config, what = sys.argv[1:4]
began = time.monotonic()
agent = subprocess.Popen([binary, "agent", "--config", config], stdout=subprocess.DEVNULL, stderr=open(config + ".log", "a"))
while True:
    try:
        if urllib.request.urlopen("http://127.0.0.1:15020/readyz", timeout=1).status == 200: break
    except Exception: time.sleep(0.002)
ready = time.monotonic() - began
child = subprocess.check_output(["pgrep", "-P", str(agent.pid)], text=True).split()[0]
def status(key): return next(int(l.split()[1]) for l in open(f"/proc/{child}/status") if l.startswith(key))
def cpu():
    fields = open(f"/proc/{child}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 10
at_ready = cpu()
time.sleep(8)
print(f"{what:<34} ready after {ready * 1000:5.0f} ms ({at_ready} ms of CPU), RSS {status('VmRSS') / 1024:.1f} MiB (peak {status('VmHWM') / 1024:.1f})", flush=True)
agent.send_signal(signal.SIGTERM); agent.wait()
P
binary="$here/target/release/edgemesh"
python3 "$world/start.py" "$binary" "$world/agent.yaml" "first start, manifests read:"
for round in 1 2 3; do python3 "$world/start.py" "$binary" "$world/agent.yaml" "restart from the store, round $round:"; done
mv "$world/manifests" "$world/away"
python3 "$world/start.py" "$binary" "$world/agent.yaml" "restart, the source away:"
