"""`make bench`, its first part: instructions a turn of each job, counted by callgrind, beside the stored ones.

Two runs, one with twice as many turns: their difference is the job without the start of the program. What else runs on
the machine does not change a count; the kernel's part of a system call is in none. A count above the stored one by more
than the budget fails. There is one file of counts a toolchain.
"""

import argparse
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
COUNTED = f"{ROOT}/target/release/counted"
BUDGET = 0.10
LONGEST = 300  # seconds of one run
# Job of benches/counted: turns, and what one turn is.
JOBS = {
    "sniff": (20000, "first bytes of five connections, one a protocol"),
    "plan": (20000, "a captured call is planned and finished, 8 Backends"),
    "message": (2000, "a request's Message and its answer's, each written and read"),
    "link": (1000, "a request and its answer over a Link, both ends, no TLS"),
    "http1": (1000, "a captured HTTP/1 request and its answer: client, mesh, Backend"),
}
# What http1 reaches the mesh by: the address of the first Service, the listener of benches/counted/exchange.rs.
CAPTURE = "ip link set lo up; ip route add 10.96.0.0/16 dev lo src 127.0.0.1; iptables -t nat -A OUTPUT -p tcp -d 10.96.0.1 --dport 80 -j REDIRECT --to-ports 15001"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accept", action="store_true", help="store what is counted")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        os.execvp("unshare", ["unshare", "-rn", sys.executable, *sys.argv, "--inside"])
    subprocess.run(["sh", "-ec", CAPTURE], check=True)
    path = f"{HERE}/{toolchain()}.json"
    counts = {job: count(job, turns) for job, (turns, _) in JOBS.items()}
    if options.accept or not os.path.exists(path):
        store(path, counts)
    with open(path) as file:
        sys.exit(judge(counts, json.load(file), os.path.relpath(path, ROOT)))


def toolchain():
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return f"{told['release']}-{told['host']}"


def count(job, turns):
    """Instructions a turn."""
    return round((instructions(job, 2 * turns) - instructions(job, turns)) / turns)


def instructions(job, turns):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED, job, str(turns)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-2000:]}")
    return int(found.group(1))


def store(path, counts):
    with open(path, "w") as file:
        json.dump(counts, file, indent=1)
        file.write("\n")
    print(f"stored in {os.path.relpath(path, ROOT)}: commit it, and say why the counts are what they are")


def judge(counts, stored, path):
    """Prints the table; 1 when a job is above its budget."""
    print(f"{'instructions a turn':20} {'counted':>9} {'stored':>9} {'change':>8}")
    off = {}
    for job, counted in counts.items():
        change = counted / stored[job] - 1 if job in stored else 0
        if abs(change) > BUDGET or job not in stored:
            off[job] = change
        verdict = "  **over the budget**" if change > BUDGET else ""
        print(f"{job:20} {counted:9,} {stored.get(job, 0):9,} {change:+8.1%}  {JOBS[job][1]}{verdict}")
    if off:
        print(f"{', '.join(off)}: more than {BUDGET:.0%} from what is stored. If that is wanted: `make bench ACCEPT=1` "
              f"(python3 benches/counts/run.py --accept), and commit {path} with the reason.")
    return 1 if any(change > BUDGET for change in off.values()) else 0


if __name__ == "__main__":
    main()
