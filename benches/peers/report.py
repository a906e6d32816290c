"""What a run says: tables for people, JSON for programs, a plot, and the targets with their verdicts."""

import statistics

import world

# load, figure, whom we are compared with, who of us; at most or at least this ratio, or (+) at most so much more.
TARGETS = [
    ("h1-32", "cpu_micros", "haproxy-http", "edgemesh", "<=", 1.0),
    ("h1-32", "cpu_micros", "envoy-http", "edgemesh", "<=", 0.45),
    ("h1-32", "calls_a_second", "haproxy-http", "edgemesh", ">=", 1.0),
    ("new", "cpu_micros", "haproxy-http", "edgemesh", "<=", 1.0),
    ("h2", "cpu_micros", "envoy-http", "edgemesh", "<=", 0.8),
    ("grpc", "cpu_micros", "envoy-http", "edgemesh", "<=", 0.8),
    ("pingpong", "cpu_micros", "haproxy-tcp", "edgemesh-tcp", "<=", 0.95),
    ("down", "gib_a_second", "haproxy-tcp", "edgemesh-tcp", ">=", 1.0),
    ("down", "gib_a_second", "envoy-tcp", "edgemesh-tcp", ">=", 1.0),
    ("down", "cpu_a_gib", "haproxy-tcp", "edgemesh-tcp", "<=", 1.0),
    ("down", "cpu_a_gib", "envoy-tcp", "edgemesh-tcp", "<=", 1.0),
    ("up", "gib_a_second", "haproxy-tcp", "edgemesh-tcp", ">=", 1.0),
    ("up", "gib_a_second", "envoy-tcp", "edgemesh-tcp", ">=", 1.0),
    ("up", "cpu_a_gib", "haproxy-tcp", "edgemesh-tcp", "<=", 1.0),
    ("up", "cpu_a_gib", "envoy-tcp", "edgemesh-tcp", "<=", 1.0),
    ("rate", "p99", "haproxy-http", "edgemesh", "<=", 1.0),
    ("h1-256", "rss", "haproxy-http", "edgemesh", "+", 5),
]
WORDS = {"cpu_micros": "CPU a call", "calls_a_second": "calls a second", "gib_a_second": "GiB a second", "cpu_a_gib": "CPU a GiB", "p99": "p99", "rss": "MiB of memory"}


def median(rounds_seen):
    """The median of each figure over the rounds; all errors."""
    keys = {key for seen in rounds_seen for key in seen if isinstance(seen[key], (int, float))}
    values = {key: [seen[key] for seen in rounds_seen if seen.get(key) is not None] for key in keys}
    out = {key: statistics.median(known) for key, known in values.items() if known}
    out["errors"] = sum(seen["errors"] for seen in rounds_seen)
    return out


def write(result, folder):
    world.write_json(f"{folder}/results.json", result)
    with open(f"{folder}/results.svg", "w") as file:
        file.write(plot(result))
    text = document(result)
    with open(f"{folder}/RESULTS.md", "w") as file:
        file.write(text)
    print(text)


def document(result):
    out = [*world.heading("EdgeMesh beside its peers", result, "Client, contender and backend"), "",
           "CPU is user and system time of the contender's processes, in microseconds a call; work that the kernel does in interrupts is on nobody's account. Latencies in microseconds. "
           "MiB: proportional resident memory (PSS) of the contender's processes half way through a load; peak: the sum of their peaks of resident memory (VmHWM) "
           "in it, where what they share counts more than once. Idle: of all processors together, in percent. EdgeMesh's two rows and its guard are one contender.", ""]
    if result["missing"]:
        out += ["**Missing here:** " + "; ".join(result["missing"]), ""]
    out += ["## Targets", "", *targets(result), ""]
    titles = {**result["loads"], **({"rate": f"HTTP/1.1 at a fixed rate of {result['fixed_rate']} a second, 32 connections"} if result["fixed_rate"] else {})}
    for load, title in titles.items():
        out += [f"## {title}", "", *load_table(result, load), ""]
    if result["idle"]:
        out += ["## 5,000 idle HTTP connections, each after one request", "", "| contender | MiB before | MiB with them | KiB each |", "|---|---|---|---|"]
        out += [f"| {name} | {row['before']:.1f} | {row['with']:.1f} | {row['kib_each']:.1f} |" for name, row in result["idle"].items()]
        out += ["", "Proportional resident memory (PSS) of all processes of a contender.", ""]
    out += ["## Versions", ""] + [f"* {name}: {version}" for name, version in result["versions"].items() if version]
    out += ["", "![CPU a call](results.svg)", ""]
    return "\n".join(out)


def load_table(result, load):
    bulk = load in ("down", "up")
    head = ["contender", *(["GiB/s", "CPU s/GiB"] if bulk else ["calls/s", "CPU µs"]), "p50", "p99", "p99.9", "MiB", "peak", "idle", "errors"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in result["versions"]:
        cell = result["cells"].get(f"{load}/{name}")
        if not cell:
            continue
        figures = [("gib_a_second", ".2f"), ("cpu_a_gib", ".2f")] if bulk else [("calls_a_second", ",.0f"), ("cpu_micros", ".1f")]
        plain = name in ("no proxy", "kernel DNAT")
        shown = [show(cell.get(key), form) if not (plain and key.startswith("cpu")) else "" for key, form in figures]
        shown += [show(cell.get(key), ",.0f") for key in ("p50", "p99", "p999")] + [show(cell.get(key), ".0f") for key in ("rss", "peak", "idle")] + [f"{cell['errors']:.0f}"]
        rows.append(f"| {name} | " + " | ".join(shown) + " |")
    return rows


def show(value, form):
    return "" if value is None else format(value, form)


def targets(result):
    rows = ["| load | figure | beside | ratio, or more by | target | |", "|---|---|---|---|---|---|"]
    for load, figure, peer, ours, sense, bound in TARGETS:
        mine, theirs = (result["cells"].get(f"{load}/{who}", {}).get(figure) for who in (ours, peer))
        if not mine or not theirs:
            continue
        rows.append(f"| {load} | {WORDS[figure]} | {peer} | {verdict(mine, theirs, sense, bound)} |")
    return rows


def verdict(mine, theirs, sense, bound):
    value = mine - theirs if sense == "+" else mine / theirs
    met = value >= bound if sense == ">=" else value <= bound
    shown = f"{value:+.1f} | ≤ +{bound}" if sense == "+" else f"{value:.2f} | {'≥' if sense == '>=' else '≤'} {bound}"
    return f"{shown} | {'met' if met else '**missed**'}"


def plot(result):
    """Bars: CPU microseconds a call, one group a load."""
    loads = [name for name in result["loads"] if name not in ("down", "up")]
    names = [name for name in result["versions"] if name not in ("no proxy", "kernel DNAT")]
    colours = {name: colour for name, colour in zip(names, ["#7aa6c2", "#33658a", "#c9a66b", "#8a5a33", "#a7c27a", "#5d8a33", "#d98fb0", "#b0306a"])}
    bars, y = [], 30
    peak = max((result["cells"].get(f"{load}/{name}", {}).get("cpu_micros") or 0 for load in loads for name in names), default=1) or 1
    for load in loads:
        bars.append(f'<text x="10" y="{y + 11}" font-weight="bold">{result["loads"][load]}</text>')
        y += 18
        for name in names:
            value = result["cells"].get(f"{load}/{name}", {}).get("cpu_micros")
            if value:
                width = value / peak * 520
                bars.append(f'<text x="150" y="{y + 10}" text-anchor="end">{name}</text><rect x="156" y="{y}" width="{width:.1f}" height="12" fill="{colours[name]}"/>'
                            f'<text x="{160 + width:.1f}" y="{y + 10}">{value:.1f}</text>')
                y += 15
        y += 8
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="740" height="{y + 10}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="10" y="16" font-size="13">CPU microseconds of the proxy a call (less is better)</text>{"".join(bars)}</svg>\n')
