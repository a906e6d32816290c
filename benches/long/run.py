"""`make bench-long`: one agent under mixed load for a long time: does its memory, its files or its latency grow?

HTTP/1.1, HTTP/2 and opaque messages at fixed rates, connections that are cut in the middle, and records that change 50 times
a second: registrations come and go, and a manifest is written anew each second. All loads begin anew with each window, and
what is held is read at a window's end, before they let go. Calls that pass no agent tell what the machine itself did to
latencies. The world is that of bench-peers.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import contenders  # noqa: E402  (the helpers of bench-peers)
import world  # noqa: E402
from churn import Churn  # noqa: E402

LOAD = f"{contenders.ROOT}/target/release/edgemesh-load"
WINDOWS = 60
SHORTEST = 5  # seconds of a window
# The last quarter of the windows is held against the second; the first is for warming up.
FLAT = 0.05  # memory, either way
DRIFT = 1.5  # p99, beyond what calls that pass no agent have drifted too
QUIET_WITHIN = 90  # seconds until idle connections to Backends are closed, with room to spare
FILES_MORE = 2  # a connection of the name server or of a probe may be open just then
HTTP_RATE, OPAQUE_RATE, CHURNED_RATE, CONTROL_RATE, CUT_RATE, H2_RATE_OF_EACH = 3000, 3000, 500, 500, 100, 200
UNCUT = ("direct", "http", "opaque", "churned", "h2")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--write", help="file for the figures, JSON")
    options = world.arguments(parser)
    if options.minutes * 60 < 4 * SHORTEST:
        parser.error(f"a quarter of the time is no window of {SHORTEST} s")
    with world.processes("long") as (folder, processes):
        sys.exit(run(options, folder, processes))


def run(options, folder, processes):
    world.make()
    os.chmod(folder, 0o755)
    world.backends(processes, LOAD)
    opaque, http = contenders.Edgemesh("edgemesh-tcp", "bytes"), contenders.Edgemesh("edgemesh", "http")
    opaque.number, http.number = 1, 2
    churn = Churn(folder, number=3)
    opaque.start(processes)
    http.start(processes)
    agent = those_that_stay(http.process.pid)
    start = held(agent)
    churn.start()
    seconds = max(SHORTEST, options.minutes * 60 / WINDOWS)
    windows, began, said = [], time.monotonic(), 0
    while time.monotonic() - began < options.minutes * 60:
        windows.append(window(seconds, http, opaque, churn, agent))
        if time.monotonic() - began >= 60 * (said + 1):
            said += 1
            say(f"minute {said} of {options.minutes:g}: {line(windows[-1])}")
    churn.end()
    end = back_to(start, agent)
    if options.write:
        world.write_json(options.write, {"machine": world.machine(), "start": start, "windows": windows, "end": end})
    return report(start, windows, end)


def those_that_stay(pid):
    """The agent and its guard: a program that the agent starts now and then is gone the second time."""
    time.sleep(1)
    before = world.family(pid)
    time.sleep(1)
    after = world.family(pid)
    return [one for one in before if one in after]


def window(seconds, http, opaque, churn, agent):
    """All loads side by side; what each saw, and what the agent held while they ran."""
    h2 = ["timeout", "-s", "KILL", str(round(seconds) + 5), "h2load", "-c", "8", "-m", "16", "-t", "1", "-D", str(round(seconds)), f"--rps={H2_RATE_OF_EACH}"]
    at = lambda contender, kind: "{}:{}".format(*contender.address(kind))
    own = lambda to, word, rate, connections: begin(LOAD, word, to, "--rate", str(rate), "--connections", str(connections), "--seconds", str(seconds))
    before, cpu, changes = time.monotonic(), world.cpu_seconds(agent[0]), churn.revision()
    direct = f"{world.NODE}:{world.HTTP}"
    running = {"direct": own(direct, "rate", CONTROL_RATE, 8), "http": own(at(http, "http"), "rate", HTTP_RATE, 32),
               "opaque": own(at(opaque, "tcp"), "pingpong", OPAQUE_RATE, 32),
               "churned": own(churn.address, "rate", CHURNED_RATE, 8), "cut": own(at(http, "http"), "cut", CUT_RATE, 1),
               "h2": begin(*h2, f"http://{at(http, 'h2')}/")}
    time.sleep(seconds - 0.7)
    seen = {**held(agent), "cores": (world.cpu_seconds(agent[0]) - cpu) / (time.monotonic() - before)}
    seen["changes_a_second"] = (churn.revision() - changes) / (time.monotonic() - before)
    for name, process in running.items():
        out, errors = process.communicate()
        found = of_h2load(out) if name == "h2" else json.loads(out or '{"calls": 0, "errors": 1}')
        if found["errors"]:
            say(f"  {name}: {found['errors']} errors {errors[-300:]}")
        seen[name] = found
    return seen


def begin(*command):
    return subprocess.Popen(world.in_pod(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=world.files)


def of_h2load(out):
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", out)
    return {"calls": int(found.group(1)), "errors": int(found.group(2))} if found else {"calls": 0, "errors": 1}


def held(agent):
    """Proportional memory, open files and threads of the agent and its guard, without the programs that it starts now and then."""
    count = lambda what: sum(len(os.listdir(f"/proc/{one}/{what}")) for one in agent)
    return {"mib": sum(world.resident_mib(one, alone=True) for one in agent), "files": count("fd"), "threads": count("task")}


def back_to(start, agent):
    """What is held once idle connections were closed, or the wait is over."""
    until = time.monotonic() + QUIET_WITHIN
    while (now := held(agent))["files"] > start["files"] and time.monotonic() < until:
        time.sleep(1)
    return now


def report(start, windows, end):
    rows = [("at the start", start), *((f"window {n}", one) for n, one in shown(windows)), ("at the end", end)]
    for name, one in rows:
        print(f"{name:12} {line(one)}")
    verdicts = [*judge(start, windows, end)]
    for what, good in verdicts:
        print(f"{'met   ' if good else 'MISSED'} {what}")
    return 0 if all(good for _, good in verdicts) else 1


def shown(windows, rows=20):
    """At most so many of the windows, evenly."""
    step = max(1, -(-len(windows) // rows))
    return [(n + 1, windows[n]) for n in range(step - 1, len(windows), step)]


def line(seen):
    text = f"{seen['mib']:6.1f} MiB {seen['files']:4} files {seen['threads']:3} threads"
    if "http" in seen:
        p99 = " ".join(f"{name} {seen[name]['p99'] or 0:6,}" for name in ("direct", "http", "opaque", "churned"))
        text += f"  p99 µs: {p99}  {seen['changes_a_second']:3.0f} changes a second, {seen['cores']:.2f} cores"
    return text


def judge(start, windows, end):
    quarter = max(1, len(windows) // 4)
    medians = lambda of: [statistics.median(of(one) for one in part) for part in (windows[quarter:2 * quarter], windows[-quarter:])]
    second, last = medians(lambda one: one["mib"])
    yield f"memory flat: {last:.1f} MiB in the last quarter, {second:.1f} in the second (±{FLAT:.0%})", abs(last / second - 1) <= FLAT
    yield f"files back: {end['files']} at the end, {start['files']} at the start (+{FILES_MORE})", end["files"] <= start["files"] + FILES_MORE
    p99 = lambda name: medians(lambda one: one[name]["p99"] or 0)
    second, last = p99("direct")
    machine = max(1, last / max(1, second))
    for name in ("http", "opaque"):
        second, last = p99(name)
        yield (f"p99 of {name} does not drift: {last:,.0f} µs in the last quarter, {second:,.0f} in the second "
               f"(≤ {DRIFT} times, and {machine:.2f} times by the machine)"), last <= DRIFT * machine * second
    changes = statistics.median(one["changes_a_second"] for one in windows)
    yield f"records changed {changes:.0f} times a second (≥ 50)", changes >= 50
    errors = sum(one[name]["errors"] for one in windows for name in UNCUT)
    yield f"{errors} errors of calls that nobody cut (0)", errors == 0


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
