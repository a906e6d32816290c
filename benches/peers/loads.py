"""The loads: what is asked, by which program, and how its answer is read."""

import json
import os
import re
import subprocess

import world

LUA = """done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON {"calls":%d,"micros":%d,"bytes":%d,"errors":%d,"p50":%d,"p99":%d,"p999":%d}\\n', summary.requests, summary.duration,
    summary.bytes, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""
UPLOAD = 8 << 20


class Load:
    """One load. `needs`: `http` rows only, `bytes` rows only, or None for both."""

    def __init__(self, name, kind, title, run, needs=None, gib=False):
        self.name, self.kind, self.title, self.run, self.needs, self.gib = name, kind, title, run, needs, gib

    def fits(self, contender):
        serves = getattr(contender, "serves", lambda kind: contender.speaks == "bytes" or kind != "tcp")
        plain = contender.name in ("no proxy", "kernel DNAT")
        return serves(self.kind) and (plain or self.needs is None or self.needs == contender.speaks)


class Tools:
    """The programs that make load, and how long each load takes."""

    def __init__(self, folder, load, seconds):
        self.folder, self.load, self.seconds = folder, load, seconds
        with open(f"{folder}/plain.lua", "w") as file:
            file.write(LUA)
        with open(f"{folder}/upload.lua", "w") as file:
            file.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {UPLOAD})\n' + LUA)
        with open(f"{folder}/message", "wb") as file:
            file.write(bytes([0, 0, 0, 0, 64]) + bytes(64))

    def wrk(self, at, connections, *more, path="/", script="plain"):
        threads, seconds = min(connections, 2), max(1, round(self.seconds))  # wrk takes whole seconds
        command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s",
                   "-s", f"{self.folder}/{script}.lua", *more, f"http://{at[0]}:{at[1]}{path}"]
        out = subprocess.run(world.in_pod(*command), capture_output=True, text=True)
        found = re.search(r"^JSON (.*)$", out.stdout, re.M)
        if not found:
            return {"calls": 0, "seconds": 1, "errors": 1, "said": (out.stdout + out.stderr)[-300:]}
        seen = json.loads(found.group(1))
        seen["seconds"] = seen.pop("micros") / 1e6
        return seen

    def h2load(self, at, *more, path="/"):
        log = f"{self.folder}/h2.log"
        if os.path.exists(log):
            os.unlink(log)
        seconds = max(1, round(self.seconds))
        # h2load has been seen to spin for ever at its end, without any proxy; its log is whole by then.
        command = ["timeout", "-s", "KILL", str(seconds + 5), "h2load", "-c", "8", "-m", "16", "-t", "1", "-D", str(seconds), f"--log-file={log}", *more,
                   f"http://{at[0]}:{at[1]}{path}"]
        out = subprocess.run(world.in_pod(*command), capture_output=True, text=True)
        rows = [line.split("\t") for line in open(log)] if os.path.exists(log) else []
        micros = sorted(int(row[2]) for row in rows if row[1] == "200")
        failed = re.search(r"(\d+) failed, (\d+) errored", out.stdout)
        errors = len(rows) - len(micros) + (int(failed.group(2)) if failed else 1)
        at_share = lambda share: micros[min(len(micros) - 1, int(len(micros) * share))] if micros else None
        return {"calls": len(micros), "seconds": seconds, "errors": errors, "p50": at_share(.5), "p99": at_share(.99), "p999": at_share(.999)}

    def own(self, at, *words):
        command = [self.load, words[0], f"{at[0]}:{at[1]}", "--seconds", str(self.seconds), *words[1:]]
        out = subprocess.run(world.in_pod(*command), capture_output=True, text=True)
        if out.returncode:
            return {"calls": 0, "seconds": 1, "errors": 1, "said": out.stderr[-300:]}
        return {**json.loads(out.stdout), "seconds": self.seconds}


def all_of_them():
    grpc = lambda tools: ["-d", f"{tools.folder}/message", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    return [
        Load("h1-1", "http", "HTTP/1.1 keep-alive, 1 connection", lambda t, at: t.wrk(at, 1)),
        Load("h1-32", "http", "HTTP/1.1 keep-alive, 32 connections", lambda t, at: t.wrk(at, 32)),
        Load("h1-256", "http", "HTTP/1.1 keep-alive, 256 connections", lambda t, at: t.wrk(at, 256)),
        Load("new", "http", "new connection a request, 32 at a time", lambda t, at: t.wrk(at, 32, "-H", "Connection: close")),
        Load("h2", "h2", "HTTP/2, 8 connections, 16 streams each", lambda t, at: t.h2load(at)),
        Load("grpc", "grpc", "gRPC unary, 8 connections, 16 calls each", lambda t, at: t.h2load(at, *grpc(t), path="/bench.Echo/Call")),
        Load("down", "http", "download of 8 MiB, 4 connections", lambda t, at: t.wrk(at, 4, path="/8m"), gib=True),
        Load("up", "up", "upload of 8 MiB, 4 connections", upload, gib=True),
        Load("pingpong", "tcp", "64 bytes there and back, 32 connections", lambda t, at: t.own(at, "pingpong"), needs="bytes"),
    ]


def upload(tools, at):
    seen = tools.wrk(at, 4, script="upload")
    seen["bytes"] = seen["calls"] * UPLOAD
    return seen


def rate(tools, at, calls_a_second):
    return tools.own(at, "rate", "--rate", str(calls_a_second))


class Idle:
    """Connections that are held open while memory is read."""

    def __init__(self, load, at, connections):
        words = [load, "hold", f"{at[0]}:{at[1]}", "--connections", str(connections)]
        self.process = subprocess.Popen(world.in_pod(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=world.files)
        self.held = json.loads(self.process.stdout.readline() or "{}").get("held", 0)

    def end(self):
        self.process.stdin.close()
        self.process.wait()
