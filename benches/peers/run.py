"""`make bench-peers`: EdgeMesh beside its peers, on the same work, in one run.

Runs in network namespaces of its own. Every contender is up all the time; in each round each load visits each of
them in turn, so that what disturbs the machine disturbs all alike. CPU is user and system time of the contender's processes.
"""

import argparse
import os
import subprocess
import sys
import threading
import time

import contenders
import loads
import report
import world

IDLE = 5000
# (seconds a load, rounds): about 12 minutes, and about two.
FULL, QUICK = (1, 5), (1, 1)
BUILT = f"{contenders.ROOT}/target/release/edgemesh"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="", help="loads to run, by name, joined by commas")
    parser.add_argument("--field", default="", help="contenders to compare, by name, joined by commas")
    parser.add_argument("--edgemesh", default=BUILT, help="the program to measure, for one beside another: run it with each in turn")
    parser.add_argument("--write", help="folder for RESULTS.md, results.json, results.svg; by default `benches`, and of part of it nowhere: its tables are printed")
    options = world.arguments(parser)
    with world.processes("peers") as (folder, processes):
        run(options, folder, processes)


def run(options, folder, processes):
    began = time.monotonic()
    machine = world.machine()
    world.make()
    os.chmod(folder, 0o755)
    load = f"{contenders.ROOT}/target/release/edgemesh-load"
    world.backends(processes, load)
    field, missing = contenders.all_of_them(options.edgemesh, options.field)
    for contender in field:
        contender.start(processes)
        say(f"up: {contender.name}")
    seconds, rounds = QUICK if options.quick else FULL
    rounds = options.rounds or rounds
    tools = loads.Tools(folder, load, seconds)
    wanted = [one for one in loads.all_of_them() if not options.only or one.name in options.only.split(",")]
    cells = {}
    for number in range(1, rounds + 1):
        for one in wanted:
            for contender in rotated(field, number):
                if one.fits(contender):
                    cells.setdefault((one.name, contender.name), []).append(measure(tools, one, contender))
            say(f"round {number} of {rounds}: {one.title} ({time.monotonic() - began:.0f} s)")
        if number == 1:
            halved = fixed_rate(cells)
        for contender in rotated(field, number):
            if halved and loads.Load("rate", "http", "", None).fits(contender):
                seen = lambda: loads.rate(tools, contender.address("http"), halved)
                cells.setdefault(("rate", contender.name), []).append(accounted(tools, contender, seen))
    summary = {f"{load_name}/{name}": report.median(rounds_seen) for (load_name, name), rounds_seen in cells.items()}
    idle = {} if options.only else {c.name: idle_memory(load, c) for c in field if c.process and c.speaks == "http" or c.name == "haproxy-tcp"}
    result = {"machine": machine, "command": command(options), "rounds": rounds,
              "seconds_a_load": seconds, "took_seconds": round(time.monotonic() - began), "fixed_rate": halved, "missing": missing,
              "when": time.strftime("%Y-%m-%d"), "commit": contenders.commit(),
              "versions": {c.name: c.version for c in field}, "loads": {one.name: one.title for one in wanted}, "cells": summary, "idle": idle}
    if is_part(options) and not options.write:
        print(report.document(result))
    else:
        report.write(result, options.write or f"{contenders.ROOT}/benches")


def is_part(options):
    return bool(options.only or options.field or options.edgemesh != BUILT)


def command(options):
    """What to say to have it again."""
    if not is_part(options):
        return " ".join(["make bench-peers"] + (["QUICK=1"] if options.quick else []) + ([f"ROUNDS={options.rounds}"] if options.rounds else []))
    said = {name: getattr(options, name) for name in ("rounds", "only", "field")} | {"edgemesh": options.edgemesh if options.edgemesh != BUILT else None}
    return " ".join(["python3 benches/peers/run.py"] + [f"--{name} {value}" for name, value in said.items() if value])


def measure(tools, one, contender):
    seen = accounted(tools, contender, lambda: one.run(tools, contender.address(one.kind)))
    if one.gib and seen["calls"]:
        seen["gib_a_second"] = seen["bytes"] / seen["seconds"] / (1 << 30)
        seen["cpu_a_gib"] = seen["cpu"] / (seen["bytes"] / (1 << 30))
    return seen


def accounted(tools, contender, act):
    """Runs a load; adds calls a second, the contender's CPU a call, its memory (half way through, and its peak), and how idle the machine was."""
    world.client_ports(contender.speaks == "bytes")
    pid = contender.process.pid if contender.process else None
    idle = world.Idle()
    if not pid:
        seen = {**act(), "cpu": 0}
    else:
        memory = {}
        half_way = threading.Timer(tools.seconds / 2, lambda: memory.update(rss=world.resident_mib(pid)))
        world.forget_peak(pid)
        before = world.cpu_seconds(pid)
        half_way.start()
        seen = act()
        half_way.join()
        seen = {**seen, **memory, "cpu": world.cpu_seconds(pid) - before, "peak": world.peak_mib(pid)}
    seen["idle"] = idle.percent()
    seen["calls_a_second"] = seen["calls"] / seen["seconds"]
    seen["cpu_micros"] = seen["cpu"] / seen["calls"] * 1e6 if seen["calls"] else None
    if seen["errors"]:
        say(f"  {contender.name}: {seen['errors']} errors {seen.get('said', '')}")
    return seen


def fixed_rate(cells):
    """Half of what the slowest contender can do with 32 connections."""
    speeds = [seen[0]["calls_a_second"] for (name, _), seen in cells.items() if name == "h1-32"]
    return round(min(speeds) / 2) if speeds else None


def idle_memory(load, contender):
    before = world.resident_mib(contender.process.pid)
    idle = loads.Idle(load, contender.address("http"), IDLE)
    time.sleep(1)
    after = world.resident_mib(contender.process.pid)
    idle.end()
    say(f"idle: {contender.name}")
    return {"before": before, "with": after, "held": idle.held, "kib_each": (after - before) * 1024 / max(1, idle.held)}


def rotated(field, number):
    """Each round begins with another: what a load leaves behind, such as sockets in TIME_WAIT for a minute, is not always met by the same one."""
    start = 2 * (number - 1) % len(field)
    return field[start:] + field[:start]


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
