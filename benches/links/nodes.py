"""The world of the comparisons across nodes: machines a, b and h and a cloud in namespaces, joined by a router.

a reaches b by a direct Link; h is told to use the hub. On a and b there are nginx and an echo.
"""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import world  # noqa: E402  (the helpers of bench-peers)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EDGEMESH, LOAD = f"{ROOT}/target/release/edgemesh", f"{ROOT}/target/release/edgemesh-load"
MACHINES = {"cloud": 0, "a": 1, "b": 2, "h": 3}
HTTP, ECHO = 8080, 7001
BULK = 1 << 30


def address(machine):
    return f"10.88.{MACHINES[machine]}.2"


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
        ports = [("http", 80, HTTP), ("tcp", 7000, ECHO)]
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


def start_mesh(folder, processes, program=EDGEMESH):
    with open(f"{folder}/cloud.yaml", "w") as file:
        file.write(f"dataDir: {folder}/cloud\nsource: {{ manifests: {folder}/manifests }}\nhub: {{ listen: \"0.0.0.0:10000\", names: [\"{address('cloud')}\"] }}\n")
    mesh = {"*": processes.start("cloud", inside("cloud", program, "cloud", "--log", "warn", "--config", f"{folder}/cloud.yaml"))}
    for_answer("cloud", "15010", "/readyz", mesh["*"])
    token = subprocess.run(inside("cloud", program, "token", "create", "--config", f"{folder}/cloud.yaml"), check=True, capture_output=True, text=True).stdout
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
        mesh[node] = processes.start(node, inside(node, program, "agent", "--log", "warn", "--config", f"{folder}/{node}.yaml"))
    for node in "abh":
        for_answer(node, "15000", "/readyz", mesh[node])
    time.sleep(2)  # the first records
    return mesh


def for_answer(machine, port, path, process):
    until_good(machine, process, "curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}{path}")


def for_port(machine, host, port, process):
    until_good(machine, process, "nc", "-z", host, str(port))


def until_good(machine, process, *command):
    until = time.monotonic() + 30
    while subprocess.run(inside(machine, *command)).returncode:
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
                  server {{ listen {address(machine)}:{HTTP} backlog=8192; root {folder};
                    location = / {{ return 200 "hello from the backend, and some more text for it\\n"; }} }} }}""")
        processes.start(f"nginx-{machine}", inside(machine, "nginx", "-c", f"{folder}/nginx-{machine}.conf"), preexec_fn=world.files)
        processes.start(f"echo-{machine}", inside(machine, LOAD, "echo", f"{address(machine)}:{ECHO}"))
    processes.start("tls", inside("b", LOAD, "tls-serve", f"{address('b')}:7443", f"{folder}/tls.der"))


def service(name, kind):
    """The address of a Service's port for a kind of traffic."""
    return f"10.96.0.{1 if name == 'local' else 2}:{7000 if kind == 'tcp' else 80}"
