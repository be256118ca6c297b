"""The rounds as Markdown: medians with least and most, ratios to haproxy of the same round."""
import statistics

from .cells import CELLS

REFERENCE = "haproxy"
# A cell in which others had more of the proxy's core than this is left out when a quiet one exists.
NOISE = 0.06


def good(rounds, cell):
    """The rounds of a cell that count."""
    there = [one for one in rounds.get(cell, []) if "failed" not in one]
    return [one for one in there if one.get("strangers", 0) <= NOISE] or there


def number(x):
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def spread(values, form=number):
    middle, least, most = statistics.median(values), min(values), max(values)
    return form(middle) if form(least) == form(most) else f"{form(middle)} ({form(least)}–{form(most)})"


def ratios(proxies, name, cell):
    """To the reference, round by round."""
    base = {one["round"]: one["value"] for one in good(proxies.get(REFERENCE, {}), cell)}
    return [one["value"] / base[one["round"]] for one in good(proxies[name], cell) if base.get(one["round"])]


def rows(head, lines):
    return ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1), *("| " + " | ".join(line) + " |" for line in lines), ""]


def markdown(result):
    proxies, names = result["proxies"], list(result["proxies"])
    there = [cell for cell in CELLS if any(good(proxies[name], cell) for name in names)]
    out = [f"{result['when']}, {result['machine']}. Versions: " + ", ".join(result["versions"][name] for name in names)
           + f". Rounds: {result['rounds']}, interleaved; median (least–most).", ""]

    def cells(cell, key="value", form=number, scale=1.0):
        line = []
        for name in names:
            values = [one[key] * scale for one in good(proxies[name], cell) if key in one]
            line.append(spread(values, form) if values else "-")
        return line

    timed = [cell for cell in there if CELLS[cell][2].split("/")[0] in ("us", "ms") and "/" in CELLS[cell][2]]
    out += [f"CPU of the whole proxy; behind the dot its share of {REFERENCE}'s in the same round, below 1 is cheaper:", ""]
    lines = []
    for cell in timed:
        line = cells(cell)
        for at, name in enumerate(names):
            if name != REFERENCE and (share := ratios(proxies, name, cell)):
                line[at] += f" · {statistics.median(share):.2f}"
        own = ratios(proxies, "relais", cell) if "relais" in names else []
        goal = CELLS[cell][3]
        lines.append([CELLS[cell][1], CELLS[cell][2], *line, spread(own, "{:.2f}".format) if own else "-", f"{goal:.2f}" if goal else ""])
    out += rows(["work", "unit", *names, f"relais / {REFERENCE}", "goal"], lines)
    out += ["What one core carries, a second:", ""]
    out += rows(["work", *names], [[CELLS[c][1] + (" (GiB)" if "GiB" in CELLS[c][2] else ""), *cells(c, "per_second")] for c in timed if c != "rate"])
    if "rate" in there:
        keys = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("longest", "max"))
        out += [f"Latency in microseconds at {result['rate']:,.0f} requests a second, HTTP/1.1 over TLS, timed from the moment due:", ""]
        out += rows(["", *names], [[title, *cells("rate", key)] for title, key in keys])
    growth = [[CELLS[c][1], *(grown(proxies[name], c) for name in names)] for c in ("hosts", "backends") if c in there and "h1" in there]
    if growth:
        out += ["Growth of the CPU for a request over one service with two backends:", "", *rows(["", *names], growth)]
    rest = [[CELLS[c][1], CELLS[c][2], *cells(c)] for c in ("start", "idle", "idle-1k", "idle-10k", "reload") if c in there]
    if "reload" in there:
        rest += [["requests lost at the reload", "", *cells("reload", "lost")], ["longest answer meanwhile", "ms", *cells("reload", "max_us", scale=1e-3)],
                 ["CPU of the reload and of 500 requests a second meanwhile", "ms", *cells("reload", "cpu_ms")]]
    if rest:
        out += ["Start, memory, reload:", "", *rows(["", "unit", *names], rest)]
    bad = [f"{name} {cell}: {one.get('failed') or str(one['errors']) + ' errors, first: ' + str(one.get('first_error'))}"
           for name in names for cell, ones in proxies[name].items() for one in ones if one.get("failed") or one.get("errors")]
    if bad:
        out += ["Failures: " + "; ".join(bad[:40]), ""]
    return "\n".join(out)


def grown(rounds, cell):
    base = {one["round"]: one["value"] for one in good(rounds, "h1")}
    values = [100 * (one["value"] / base[one["round"]] - 1) for one in good(rounds, cell) if base.get(one["round"])]
    return spread(values, lambda x: f"{x:+.0f} %") if values else "-"
