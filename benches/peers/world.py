"""The world of one comparison: a node with backends and contenders, a pod whose traffic is redirected."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

NODE, POD = "10.1.0.1", "10.1.0.2"
HTTP, GRPC, ECHO, SINK = 8080, 8082, 8083, 8084
TICKS = os.sysconf("SC_CLK_TCK")


def sh(script):
    return subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True).stdout


def arguments(parser):
    """What was asked for; the program runs again in namespaces of its own first, unless it does already."""
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        command = ["unshare", "-rnm", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv, "--inside"]
        os.execvp(command[0], command)
    return options


@contextlib.contextmanager
def processes(name):
    """A folder for a run and its programs, both gone afterwards."""
    folder = tempfile.mkdtemp(prefix=name)
    programs = Processes(folder)
    try:
        yield folder, programs
    finally:
        programs.end()
        shutil.rmtree(folder, ignore_errors=True)


def in_pod(*command):
    return ["ip", "netns", "exec", "pod", *command]


def make():
    """A veth between the node (this namespace) and `pod`."""
    sh(f"""mount -t tmpfs none /run; mkdir -p /run/netns; ip link set lo up
        ip netns add pod; ip link add pod0 type veth peer name eth0 netns pod
        ip addr add {NODE}/24 dev pod0; ip link set pod0 up
        ip -n pod addr add {POD}/24 dev eth0; ip -n pod link set eth0 up; ip -n pod link set lo up
        ip -n pod route add default via {NODE}
        sysctl -qw net.ipv4.ip_forward=1 net.core.somaxconn=8192
        ip netns exec pod sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1
        sysctl -qw net.ipv4.ip_local_port_range='16000 65535' net.ipv4.tcp_tw_reuse=1""")


def redirect(address, to):
    """What reaches `address` from the pod goes to `to`, as a proxy's rules would have it."""
    host, port = to
    sh(f"iptables -t nat -A PREROUTING -i pod0 -p tcp -d {address} -j DNAT --to-destination {host}:{port}")


class Processes:
    """Programs of this run, ended by their ids."""

    def __init__(self, folder):
        self.folder, self.all = folder, []

    def start(self, name, command, **more):
        log = open(f"{self.folder}/{name}.log", "w")
        passed = ("PATH", "TOKIO_WORKER_THREADS")  # threads of an agent beside its lanes, for who wants to compare
        more["env"] = {"LANG": "C", **{name: os.environ[name] for name in passed if name in os.environ}}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **more)
        process.log = log.name
        self.all.append(process)
        return process

    def end(self):
        for process in self.all:
            process.terminate()
        for process in self.all:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(address, port, process, seconds=20):
    import socket
    until = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((address, port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                said = open(process.log).read()[-2000:]
                raise SystemExit(f"{process.args[0]} does not listen on {address}:{port}\n{said}")
            time.sleep(0.02)


def client_ports(low):
    """From now on clients use one half of the ports. EdgeMesh's two rows are one listener: a port that one of them used a moment ago
    waits there for its last packets, and what comes from it to another address is turned away for a second (TIME_WAIT, PAWS)."""
    first, last = (1024, 32767) if low else (32768, 65535)
    sh(f"ip netns exec pod sysctl -qw net.ipv4.ip_local_port_range='{first} {last}'")


def backends(processes, load):
    """nginx (HTTP/1.1, HTTP/2, files), a gRPC server and an echo, all on the node's address."""
    folder = processes.folder
    with open(f"{folder}/8m", "wb") as file:
        file.write(os.urandom(8 << 20))
    with open(f"{folder}/backend.conf", "w") as file:
        file.write(f"""daemon off; user root; worker_processes 1; pid {folder}/backend.pid; error_log {folder}/backend.err;
            events {{ worker_connections 20000; }} worker_rlimit_nofile 40000;
            http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; client_max_body_size 0;
              client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
              uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; sendfile on; tcp_nodelay on; http2_max_concurrent_streams 256;
              server {{ listen {NODE}:{HTTP} backlog=8192; root {folder};
                location = / {{ return 200 "hello from the backend, and some more text for it\\n"; }} }}
              server {{ listen {NODE}:{HTTP + 1} http2 backlog=8192; root {folder};
                location = / {{ return 200 "hello from the backend, and some more text for it\\n"; }} }} }}""")
    nginx = processes.start("backend", ["nginx", "-c", f"{folder}/backend.conf"], preexec_fn=files)
    grpc = processes.start("grpc", [load, "grpc", f"{NODE}:{GRPC}"])
    echo = processes.start("echo", [load, "echo", f"{NODE}:{ECHO}"])
    sink = processes.start("sink", [load, "sink", f"{NODE}:{SINK}"])
    for port, process in ((HTTP, nginx), (HTTP + 1, nginx), (GRPC, grpc), (ECHO, echo), (SINK, sink)):
        wait_for(NODE, port, process)


def files():
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def family(pid):
    """A process and all below it."""
    found, new = [], [pid]
    while new:
        found += new
        new = [int(child) for parent in new for child in children(parent)]
    return found


def children(pid):
    try:
        return [c for t in os.listdir(f"/proc/{pid}/task") for c in open(f"/proc/{pid}/task/{t}/children").read().split()]
    except OSError:
        return []


def cpu_seconds(pid):
    """User and system time of a process and all below it."""
    total = 0
    for one in family(pid):
        try:
            fields = open(f"/proc/{one}/stat").read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICKS


def resident_mib(pid, alone=False):
    """Proportional resident memory of a process and all below it, or of it alone."""
    total = 0
    for one in [pid] if alone else family(pid):
        try:
            lines = open(f"/proc/{one}/smaps_rollup").read().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass
    return total / 1024


def forget_peak(pid):
    """From now on the peak of a process and all below it counts anew."""
    for one in family(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/clear_refs", "w") as file:
            file.write("5")


def peak_mib(pid):
    """Peak resident memory of a process and all below it, each for itself: what they share counts more than once."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError, StopIteration):
            lines = open(f"/proc/{one}/status").read().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total / 1024


class Idle:
    """How idle all processors are together, from now on."""

    def __init__(self):
        self.before = self.ticks()

    @staticmethod
    def ticks():
        ticks = [int(word) for word in open("/proc/stat").readline().split()[1:9]]
        return sum(ticks[3:5]), sum(ticks)

    def percent(self):
        (idle, of_all), (idle_before, all_before) = self.ticks(), self.before
        return 100 * (idle - idle_before) / max(1, of_all - all_before)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = int(open("/proc/meminfo").readline().split()[1]) >> 20
    return {"cpus": os.cpu_count(), "model": model, "memory_gib": memory, "kernel": os.uname().release,
            "load_before": os.getloadavg()[0]}


def heading(title, result, sharers):
    """The lines that say by which command, when and on what machine a result was measured."""
    machine = result["machine"]
    return [f"# {title}", "",
            f"Written by `{result['command']}` on {result['when']} at commit {result['commit']}, in {result['took_seconds']} s: {result['rounds']} interleaved rounds of "
            f"{result['seconds_a_load']} s a load, medians.",
            f"Machine: {machine['cpus']} CPUs ({machine['model']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, load before {machine['load_before']:.1f}. {sharers} share it."]


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
