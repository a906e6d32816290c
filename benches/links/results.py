"""What a run of bench-links says: targets with their verdicts, a table a load, JSON for programs."""

from nodes import world
from report import median, show  # of bench-peers; nodes knows where

PLAIN = "plain rustls"
LOADS = {"http-32": "HTTP/1.1, 32 connections", "http-1": "HTTP/1.1, 1 connection", "echo-32": "64 bytes there and back, 32 connections", "bulk": "1 GiB of HTTP"}
# What, how it comes from the figures of the run, at most or at least, the bound.
TARGETS = [
    ("64 bytes, 32 connections: CPU µs of both agents", lambda of: of("echo-32/direct Link", "cpu_micros"), "≤", 35),
    ("HTTP/1.1, 32 connections: CPU µs of both agents", lambda of: of("http-32/direct Link", "cpu_micros"), "≤", 55),
    ("the same, over the Envoy pair's", lambda of: of("http-32/direct Link", "cpu_micros") / of("http-32/Envoy pair", "cpu_micros"), "≤", 0.7),
    ("HTTP/1.1, 32 connections: requests a second, over those in the node", lambda of: of("http-32/direct Link", "calls_a_second") / of("http-32/in the node", "calls_a_second"), "≥", 0.5),
    ("HTTP/1.1, 1 connection: µs that the hub adds to p50", lambda of: of("http-1/through the hub", "p50") - of("http-1/direct Link", "p50"), "≤", 60),
    ("1 GiB: MiB a second, over those of plain rustls", lambda of: of("bulk/direct Link", "mib_a_second") / of(f"bulk/{PLAIN}", "mib_a_second"), "≥", 0.8),
]


def tell(result, folder):
    """Prints it, and writes it to `folder` where there is one."""
    text = document(result)
    if folder:
        world.write_json(f"{folder}/links.json", result)
        with open(f"{folder}/LINKS.md", "w") as file:
            file.write(text)
    print(text)


def document(result):
    out = [*world.heading("Links beside their peers", result, "Clients, backends and all proxies"), "",
           "*In the node*: one agent. *Direct Link*: two agents. *Through the hub*: two agents and the cloud between. *HAProxy pair*, *Envoy pair*: one on each machine, mutual TLS 1.3 "
           "between them: HTTP/2 for requests, HTTP/1.1 for 1 GiB (each costs them less than the other), a TLS connection for each of bytes. CPU is user and system time of all of them together, in microseconds a call; "
           "work that the kernel does in interrupts is on nobody's account. Latencies in microseconds.", ""]
    if result["missing"]:
        out += ["**Missing here:** " + "; ".join(result["missing"]), ""]
    out += ["## Targets", "", *targets(result), ""]
    for load, title in LOADS.items():
        if not any(cell.startswith(f"{load}/") for cell in result["cells"]):
            continue
        out += [f"## {title}", "", *table(result, load), ""]
    out += ["## Memory afterwards", "", "| way | MiB of each process (PSS) |", "|---|---|"]
    out += [f"| {way} | {' + '.join(f'{one:.1f}' for one in memory)} |" for way, memory in result["memory"].items()]
    return "\n".join([*out, "", "## Versions", "", *(f"* {way}: {version}" for way, version in result["ways"].items()), ""])


def targets(result):
    rows = ["| what | measured | target | |", "|---|---|---|---|"]
    for what, figure, sense, bound in TARGETS:
        try:
            value = figure(lambda cell, key: result["cells"][cell][key])
        except (KeyError, ZeroDivisionError):
            rows.append(f"| {what} | | {sense} {bound} | not measured |")
            continue
        met = value <= bound if sense == "≤" else value >= bound
        rows.append(f"| {what} | {value:.{2 if bound < 1 else 1}f} | {sense} {bound} | {'met' if met else '**missed**'} |")
    return rows


def table(result, load):
    bulk = load == "bulk"
    heads, keys = (["MiB/s", "CPU s/GiB"], [("mib_a_second", ",.0f"), ("cpu_seconds", ".2f")]) if bulk else (
        ["calls/s", "CPU µs", "p50", "p99"], [("calls_a_second", ",.0f"), ("cpu_micros", ".1f"), ("p50", ",.0f"), ("p99", ",.0f")])
    rows = ["| " + " | ".join(["way", *heads, "errors"]) + " |", "|" + "---|" * (len(heads) + 2)]
    for way in [*result["ways"], *([PLAIN] if bulk else [])]:
        cell = result["cells"].get(f"{load}/{way}")
        if cell:
            rows.append(f"| {way} | " + " | ".join(show(cell.get(key), form) for key, form in keys) + f" | {cell['errors']:.0f} |")
    return rows
