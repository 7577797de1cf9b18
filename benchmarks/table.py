"""Turns the raw results of a run into `results.json` and the tables in the README.

    python benchmarks/table.py .benchmarks/latest.json

Raw results name the machine. `results.json` has medians, rates and ratios, without host names and paths.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

Row = dict[str, Any]


def results(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `results.json`."""
    machine = raw["machine_info"]
    return {
        "python": machine["python_version"],
        "cores": machine["cpu"]["count"],
        "rows": [row_of(one["extra_info"], one["stats"]) for one in raw["benchmarks"] if "row" in one["extra_info"]],
    }


def row_of(info: Mapping[str, Any], stats: Mapping[str, Any]) -> Row:
    if "placements" in info:
        return {"row": info["row"], "placements": [_placement(one) for one in info["placements"]]}
    row: Row = {"row": info["row"], "median_seconds": _rounded(stats["median"])}
    if "against" in info:
        row["against"] = info["against"]
    if "stored_bytes" in info:
        measured, compared = info["stored_bytes"] / info["events"], info["raw_bytes"] / info["events"]
        row |= {"unit": "B/event", "measured": measured, "compared": compared, "ratio": measured / compared}
    elif "predictions" in info:
        row |= _predicted(info["predictions"])
    elif info.get("percentiles"):
        cuts = statistics.quantiles(stats["data"], n=100)
        row |= {"unit": "ms", "measured": stats["median"] * 1e3, "p99": cuts[98] * 1e3}
        if "against_rounds" in info:
            row["compared"] = statistics.quantiles(info["against_rounds"], n=100)[98] * 1e3
            row["ratio"] = row["p99"] / row["compared"]
    elif info.get("seconds"):
        row |= {"unit": "s", "measured": stats["median"], "compared": info["against_seconds"]}
    else:
        row |= {"unit": info.get("unit", "events/s"), "measured": info["events"] / stats["median"]}
        if "against_seconds" in info:
            row["compared"] = info["against_events"] / info["against_seconds"]
            # Round by round: a neighbour's burst of work falls on both sides of a pair.
            pairs = zip(info["against_rounds"], stats["data"], strict=True)
            size = info["events"] / info["against_events"]
            row["ratio"] = statistics.median(size * theirs / ours for theirs, ours in pairs)
    row |= _wish(info, row)
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in row.items()}


def _placement(info: Mapping[str, Any]) -> Row:
    """One placement of snapshots: its size, and the latency of reads with it in ms."""
    taken = [seconds * 1e3 for seconds in info["seconds"]]
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    latencies = {"mean": statistics.mean(taken), "p50": cuts[49], "p99": cuts[98], "max": max(taken)}
    kept = {name: value for name, value in info.items() if name != "seconds"}
    return kept | {name: _rounded(value) for name, value in latencies.items()}


def _predicted(rounds: Sequence[Mapping[str, float]]) -> Row:
    """Medians over rounds. The ratio is of the percentile that is further off."""
    ratios = [statistics.median(one[f"ratio_{q}"] for one in rounds) for q in ("p50", "p95")]
    row: Row = {"unit": "ms", "ratio": max(ratios, key=lambda ratio: abs(ratio - 1.0))}
    for name, said in (("measured", "measured"), ("compared", "predicted")):
        low, high = (statistics.median(one[f"{said}_{q}_ms"] for one in rounds) for q in ("p50", "p95"))
        row |= {name: low, f"{name}_p95": high}
    return row | {"against": "predicted"}


def _wish(info: Mapping[str, Any], row: Row) -> Row:
    if "wanted_ratio" in info:
        return {"wanted": f"ratio at least {info['wanted_ratio']}", "met": row["ratio"] >= info["wanted_ratio"]}
    if "wanted_rate" in info:
        wish = f"at least {_figure(info['wanted_rate'], row['unit'])}"
        return {"wanted": wish, "met": row["measured"] >= info["wanted_rate"]}
    if "wanted_share" in info:
        return {"wanted": f"ratio at most {info['wanted_share']}", "met": row["ratio"] <= info["wanted_share"]}
    if "wanted_above_seconds" in info:
        limit = info["wanted_above_seconds"]
        return {"wanted": f"at most {limit} s more", "met": row["measured"] - row["compared"] <= limit}
    if "wanted_p99_ratio" in info:
        # Two percentiles of equal distributions differ by some hundredths from run to run.
        limit = info["wanted_p99_ratio"]
        return {"wanted": f"p99 no worse, ratio at most {limit} + 0.05", "met": row["ratio"] <= limit + 0.05}
    if "wanted_within" in info:
        part = info["wanted_within"]
        return {"wanted": f"both within {part:.0%}", "met": abs(row["ratio"] - 1.0) <= part}
    if "wanted_p99_ms" in info:
        return {"wanted": f"p99 at most {info['wanted_p99_ms']} ms", "met": row["p99"] <= info["wanted_p99_ms"]}
    return {}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def table(kept: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    head = (
        f"Medians of one run on {kept['cores']} cores, Python {kept['python']}; "
        "a ratio is the median over rounds in which both sides take turns."
    )
    lines = [
        head,
        "",
        "| what | measured | compared with | ratio | wanted |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in kept["rows"] if "placements" not in row]
    return "\n".join(lines)


def placements(kept: Mapping[str, Any]) -> str:
    """The compared placements of snapshots, a Markdown table for each comparison."""
    blocks = []
    for row in kept["rows"]:
        if "placements" in row:
            lines = [
                f"| {row['row']} | widest gap | bytes | mean | p50 | p99 | max |",
                "|---|---|---|---|---|---|---|",
            ]
            for one in row["placements"]:
                taken = " | ".join(_figure(one[name], "ms") for name in ("mean", "p50", "p99", "max"))
                lines.append(f"| {one['placement']} | {one['widest_gap']:,} | {one['bytes']:,} | {taken} |")
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cells(row: Row) -> Sequence[str]:
    measured = _figure(row["measured"], row["unit"])
    if "p99" in row:
        measured = f"p50 {measured}, p99 {_figure(row['p99'], row['unit'])}"
    beside = f"{row['against']}: {_figure(row['compared'], row['unit'])}" if "compared" in row else ""
    if beside and "p99" in row:
        beside = beside.replace(": ", ": p99 ")
    if "measured_p95" in row:
        measured, beside = (
            f"{said}p50 {_figure(row[name], row['unit'])}, p95 {_figure(row[f'{name}_p95'], row['unit'])}"
            for said, name in (("", "measured"), (f"{row['against']}: ", "compared"))
        )
    wanted = f"{row['wanted']}: **{'met' if row['met'] else 'not met'}**" if "wanted" in row else ""
    return row["row"], measured, beside, f"{row['ratio']:.3g}" if "ratio" in row else "", wanted


def _figure(value: float, unit: str) -> str:
    if unit.endswith("/s") and value >= 1e6:
        value, unit = value / 1e6, f"M {unit}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def placed(readme: str, name: str, block: str) -> str:
    """The README with the block between the markers of this name.

    Raises
    ------
    ValueError
        The markers are not there, once each and in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(begin) > readme.index(end):
        raise ValueError(f"README.md must have {begin} and, after it, {end}, each once")
    head, rest = readme.split(begin)
    return f"{head}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def main(path: str) -> None:
    """Write results and README."""
    kept = results(json.loads(Path(path).read_text("utf-8")))
    (ROOT / "benchmarks" / "results.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    for name, block in (("benchmarks", table(kept)), ("placements", placements(kept))):
        print(block)
        text = placed(text, name, block)
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
