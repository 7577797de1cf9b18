"""The demo's report: one self-contained HTML page. All text from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from rich import filesize

from eventlab.demo.console import milliseconds


def page(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The complete page: the template ``report.html`` with its fields filled.

    Parameters
    ----------
    found : mapping
        Results of the demo, as in its JSON.
    pictures : mapping of str to str
        SVG elements: market, portfolio, intervals, lengths, and book if there is one.
    """
    sources, info, longest = found["sources"], found["info"], found["latency_by_length"][-1]
    start, stop = (f"{found['market'][end][:10]} {found['market'][end][11:16]}" for end in ("start", "stop"))
    template, style = (files("eventlab.demo").joinpath(f"report.{kind}").read_text("utf-8") for kind in ("html", "css"))
    return template.format_map({
        **_escaped(found),
        "style": style,
        "svg": pictures,
        "kind": "a simulated market" if found["simulated"] else "real market data",
        "span": f"{start} to {stop.removeprefix(start[:11])} UTC",
        "bytes_per_event": info["bytes"] / max(info["events"], 1),
        "ingest_rate": sum(s["events"] for s in sources) / max(sum(s["seconds"] for s in sources), 1e-9) / 1e6,
        "sources_table": _table({
            "source": [source["name"] for source in sources],
            "feed": [source["feed"] for source in sources],
            "events": [source["events"] for source in sources],
            "dropped": ["; ".join(f"{n:,} {why}" for why, n in s["dropped"].items()) or "none" for s in sources],
            "gaps in ids": [source["gaps"] for source in sources],
        }, right=(2, 4)),
        "positions_table": _positions(found["portfolio"]["positions"]),
        "trace_section": _trace(found["trace"]),
        "past_table": _table(past_columns(found["past_states"]), right=(2, 5), code=(4,)),
        "book_figure": _book(pictures.get("book")),
        "balance": escape(_balance(found["snapshot_intervals"])),
        "intervals_table": _table(interval_columns(found["snapshot_intervals"]), right=range(1, 7)),
        "longest": longest,
        "longest_took": milliseconds(longest["latency_ms"]),
        "longest_rate": longest["events_per_second"] / 1e6,
    })  # fmt: skip


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _escaped(part) for name, part in value.items()}
    return escape(value) if isinstance(value, str) else value


def past_columns(states: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The table of past states."""
    return {
        "state of": [past["aggregate_id"] for past in states],
        "as of": [past["as_of"] for past in states],
        "version": [past["version"] for past in states],
        "was": [past["shown"] for past in states],
        "digest": [past["digest"][:12] for past in states],
        "took": [milliseconds(past["milliseconds"]) for past in states],
    }


def interval_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The table of snapshot intervals."""
    return {
        "snapshot every": ["never" if row["interval"] is None else f"{row['interval']:,} events" for row in rows],
        "snapshots": [row["snapshots"] for row in rows],
        "bytes": [filesize.decimal(int(row["bytes"])) for row in rows],
        "to build": [f"{row['build_seconds']:.2f} s" for row in rows],
        "median read": [milliseconds(row["latency_p50_ms"]) for row in rows],
        "95%": [milliseconds(row["latency_p95_ms"]) for row in rows],
        "slowest": [milliseconds(row["latency_max_ms"]) for row in rows],
    }


def _positions(positions: Sequence[Mapping[str, Any]]) -> str:
    if not positions:
        return ""
    formats = {"quantity": "+,.6g", "average_cost": ",.2f", "realized_pnl": "+,.2f"}
    columns = {name: [format(position[name], spec) for position in positions] for name, spec in formats.items()}
    return _table({"position": [position["symbol"] for position in positions], **columns}, right=(1, 2, 3))


def _trace(traced: Mapping[str, Any] | None) -> str:
    if traced is None:
        return "<p>The trader never traded: the market is too short.</p>"
    holding = traced["holding"]
    intro = (
        f"The trader's most profitable fill realised {traced['gained']:+,.2f} and left {holding['quantity']:+,.6g} "
        f"{holding['symbol']}. Every event has the position of its cause, so the trace leads from the fill to the "
        "signal, and from the signal to the market event that triggered it."
    )
    names = ("event", "content", "position", "caused by", "time", "aggregate")
    return f"<p>{escape(intro)}</p>{_table({n: [row[n] for row in traced['rows']] for n in names}, right=(2, 3))}"


def _book(picture: str | None) -> str:
    caption = "The last order book, folded from level-2 changes: the cumulative size up to each price."
    return "" if picture is None else (
        f'<figure><div class="picture" role="img" aria-label="The last order book">{picture}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )  # fmt: skip


def _balance(rows: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the savings and costs of the fastest interval."""
    without = next((row["latency_p50_ms"] for row in rows if row["interval"] is None), None)
    some = [row for row in rows if row["snapshots"]]
    if without is None or not some:
        return "The history is too short for snapshots to matter."
    quickest = min(row["latency_p50_ms"] for row in some)
    # Of intervals with about the same latency, the one with the fewest bytes is best.
    best = min((row for row in some if row["latency_p50_ms"] <= 1.1 * quickest), key=lambda row: row["bytes"])
    if best["latency_p50_ms"] >= without:
        return f"For a history this short, replay is best: {milliseconds(without)} for the median read."
    return (
        f"The median read took {milliseconds(without)} without snapshots and {milliseconds(best['latency_p50_ms'])} "
        f"with one every {best['interval']:,} events, for {filesize.decimal(int(best['bytes']))}."
    )


def _table(columns: Mapping[str, Sequence[Any]], *, right: Sequence[int] = (), code: Sequence[int] = ()) -> str:
    def cell(tag: str, at: int, value: object) -> str:
        text = escape("–" if value is None else f"{value:,}" if isinstance(value, int) else str(value))
        side = ' class="right"' if at in right else ""
        return f"<{tag}{side}>{f'<code>{text}</code>' if at in code and tag == 'td' else text}</{tag}>"

    rows = [("th", tuple(columns)), *(("td", row) for row in zip(*columns.values(), strict=True))]
    head, *body = ("".join(cell(tag, at, text) for at, text in enumerate(row)) for tag, row in rows)
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
