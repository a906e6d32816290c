"""`make bench-links`: what a Link costs, beside the same agents within one node, pairs of HAProxy and Envoy, and one plain TLS connection.

Each round visits each way in turn, so that what disturbs the machine disturbs all alike. CPU is user and system time of
all processes of a way that take part: both agents and the hub, or both proxies.
"""

import argparse
import functools
import json
import shlex
import subprocess
import sys
import time

import nodes
import results
from nodes import BULK, LOAD, address, inside, world

import contenders  # of bench-peers, as `world`
import pairs

FULL = (3, 3)  # rounds, seconds a load


class Way:
    """From a client on a machine to what `to` tells for a kind of traffic; `processes` are those whose CPU counts."""

    def __init__(self, name, machine, to, processes, version):
        self.name, self.machine, self.to, self.processes, self.version = name, machine, to, processes, version

    def cpu(self):
        return sum(world.cpu_seconds(one.pid) for one in self.processes)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=FULL[0])
    parser.add_argument("--seconds", type=int, default=FULL[1])
    parser.add_argument("--only", default="", help="loads to run, by name, joined by commas")
    parser.add_argument("--field", default="", help="ways to compare, by name, joined by commas")
    parser.add_argument("--edgemesh", default=nodes.EDGEMESH, help="the program to measure, for one beside another: run it with each in turn")
    parser.add_argument("--write", help="folder for LINKS.md and links.json; by default `benches`, and of part of it nowhere: its tables are printed")
    options = world.arguments(parser)
    with world.processes("links") as (folder, processes):
        run(options, folder, processes)


def run(options, folder, processes):
    began, machine = time.monotonic(), world.machine()
    nodes.make()
    nodes.manifests(folder)
    nodes.backends(folder, processes)
    pairs.certificates(folder)
    mesh = nodes.start_mesh(folder, processes, options.edgemesh)
    found, missing = pairs.all_of_them()
    found, missing = [p for p in found if wanted(p.name, options.field)], [] if options.field else missing
    ways = [way for way in of_mesh(mesh, options.edgemesh) if wanted(way.name, options.field)]
    ways += [Way(p.name, "a", p.to, p.start(folder, processes), p.version) for p in found]
    tools, seen = Tools(folder, options.only), {}
    for number in range(options.rounds + 1):
        tools.seconds = options.seconds if number else 1
        visits = [(way.name, tools.all(way)) for way in ways]
        if wanted("bulk", options.only) and wanted(results.PLAIN, options.field):
            visits.append((results.PLAIN, {"bulk": tools.plain()}))
        for name, figures in visits if number else []:  # the first one warms up
            for load, figure in figures.items():
                seen.setdefault(f"{load}/{name}", []).append(figure)
        print(f"round {number} of {options.rounds} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    results.tell({
        "machine": machine, "command": command(options),
        "when": time.strftime("%Y-%m-%d"), "commit": contenders.commit(), "rounds": options.rounds, "seconds_a_load": options.seconds,
        "took_seconds": round(time.monotonic() - began), "missing": missing, "cells": {cell: results.median(rounds) for cell, rounds in seen.items()},
        "ways": {way.name: way.version for way in ways}, "memory": {way.name: [world.resident_mib(one.pid) for one in way.processes] for way in ways},
    }, options.write or (None if partial(options) else f"{nodes.ROOT}/benches"))


def wanted(name, names):
    return not names or name in names.split(",")


def partial(options):
    return bool(options.only or options.field or options.edgemesh != nodes.EDGEMESH)


def command(options):
    if options.seconds == FULL[1] and not partial(options):
        return "make bench-links" + (f" ROUNDS={options.rounds}" if options.rounds != FULL[0] else "")
    said = {name: getattr(options, name) for name in ("rounds", "seconds", "only", "field")} | {"edgemesh": options.edgemesh if options.edgemesh != nodes.EDGEMESH else None}
    return shlex.join(["python3", "benches/links/run.py", *(word for name, value in said.items() if value for word in (f"--{name}", str(value)))])


def of_mesh(mesh, program):
    version = contenders.version(program, "--version")
    for name, machine, service, who in (("in the node", "a", "local", "a"), ("direct Link", "a", "far", "ab"), ("through the hub", "h", "far", "hb*")):
        to = functools.partial(nodes.service, service)
        yield Way(name, machine, to, [mesh[one] for one in who], version)


class Tools:
    """The programs that make load, and how long each load takes."""

    seconds = 1

    def __init__(self, folder, only):
        self.folder, self.only = folder, only
        with open(f"{folder}/wrk.lua", "w") as file:
            file.write("""done = function(s, l, r) local e = s.errors
  io.write(string.format('JSON {"calls":%d,"micros":%d,"errors":%d,"p50":%d,"p99":%d}\\n', s.requests, s.duration,
    e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(99))) end""")

    def all(self, way):
        loads = {"http-32": lambda: self.wrk(way, 32), "http-1": lambda: self.wrk(way, 1), "echo-32": lambda: self.echo(way), "bulk": lambda: self.download(way)}
        return {name: accounted(way, act) for name, act in loads.items() if wanted(name, self.only)}

    def wrk(self, way, connections):
        command = ["wrk", "-t", str(min(connections, 2)), "-c", str(connections), "-d", f"{self.seconds}s", "-s", f"{self.folder}/wrk.lua", f"http://{way.to('http')}/"]
        out = said(way.machine, *command)
        seen = json.loads(next((line[5:] for line in out.splitlines() if line.startswith("JSON")), '{"calls": 0, "micros": 1, "errors": 1}'))
        return {**seen, "seconds": seen["micros"] / 1e6}

    def echo(self, way):
        out = said(way.machine, LOAD, "pingpong", way.to("tcp"), "--seconds", str(self.seconds))
        return {**json.loads(out or '{"calls": 0, "errors": 1}'), "seconds": self.seconds}

    def download(self, way):
        form = '{"seconds": %{time_total}, "bytes": %{size_download}, "status": %{http_code}}'
        seen = json.loads(said(way.machine, "curl", "-s", "-o", "/dev/null", "-w", form, f"http://{way.to('bulk')}/bulk"))
        whole = (seen["status"], seen["bytes"]) == (200, BULK)
        return {"calls": 1, "seconds": seen["seconds"], "mib_a_second": seen["bytes"] / seen["seconds"] / (1 << 20), "errors": 0 if whole else 1}

    def plain(self):
        """The same bytes over one TLS connection of rustls, without any proxy."""
        seen = json.loads(said("a", LOAD, "tls-fetch", f"{address('b')}:7443", f"{self.folder}/tls.der", "--bytes", str(BULK)))
        return {"mib_a_second": seen["bytes"] / seen["seconds"] / (1 << 20), "errors": 0}


def said(machine, *command):
    return subprocess.run(inside(machine, *command), capture_output=True, text=True).stdout


def accounted(way, act):
    """Runs a load; adds calls a second, and the CPU of the way's processes."""
    before = way.cpu()
    seen = act()
    seen["cpu_seconds"] = way.cpu() - before
    seen["calls_a_second"] = seen["calls"] / seen["seconds"]
    seen["cpu_micros"] = seen["cpu_seconds"] / max(1, seen["calls"]) * 1e6
    if seen["errors"]:
        print(f"  {way.name}: {seen['errors']} errors", file=sys.stderr)
    return seen


if __name__ == "__main__":
    main()
