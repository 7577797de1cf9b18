"""The demo's report: one self-contained HTML page. All text from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from eventlab.demo.analysis import Link
from eventlab.demo.console import milliseconds, size
from eventlab.events.clock import format_ns


def link_row(link: Link) -> dict[str, Any]:
    """One event of a trace as a row of a table."""
    event = link.event
    return {
        "event": link.what,
        "content": _content(event),
        "position": event["position"],
        "caused by": event.get("cause"),
        "time": format_ns(event["timestamp"]),
        "aggregate": event["aggregate_id"],
        "version": event["version"],
    }


def _content(event: Mapping[str, Any]) -> str:
    if "action" in event:
        return f"{event['action']}, averages differ by {event['strength']:+.4%}"
    verb = ("bought", "sold")[event["quantity"] < 0] if "quantity" in event else f"{event['side'] or 'trade of'}"
    return f"{verb} {abs(event.get('quantity', event.get('volume', 0.0))):,.6g} at {event['price']:,.10g}"


def page(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The complete page.

    Parameters
    ----------
    found : mapping
        Results of the demo, as in its JSON.
    pictures : mapping of str to str
        SVG elements: market, portfolio, intervals, lengths, and book if there is one.
    """
    parts = [
        _head(found), _market(found, pictures), _portfolio(found, pictures), _trace(found), _past(found, pictures),
        _snapshots(found, pictures), _proof(found),
    ]  # fmt: skip
    page, style = (files("eventlab.demo").joinpath(name).read_text("utf-8") for name in ("report.html", "report.css"))
    return Template(page).substitute(title="eventlab demo", style=style, body="\n".join(parts))


def _head(found: Mapping[str, Any]) -> str:
    market, trader, info = found["market"], found["trader"], found["info"]
    kind = "a simulated market" if found["simulated"] else "real market data"
    seconds = sum(source["seconds"] for source in found["sources"])
    events = sum(source["events"] for source in found["sources"])
    cards = [
        (f"{info['events']:,}", "events in the log"),
        (f"{info['bytes'] / max(info['events'], 1):.1f} B", "on disk for each event"),
        (f"{events / max(seconds, 1e-9) / 1e6:,.2f} M/s", "events ingested per second"),
        (f"{trader['signals']:,} → {trader['fills']:,}", "signals → fills"),
        (f"{found['portfolio']['equity']:,.0f}", f"equity, of {trader['cash']:,.0f} at the start"),
        ("verified", "digest chain and snapshots"),
    ]
    shown = "".join(f'<div class="card"><b>{escape(b)}</b><span>{escape(label)}</span></div>' for b, label in cards)
    sources = _table(
        ("source", "feed", "events", "dropped", "gaps in ids"),
        [
            (s["name"], s["feed"], f"{s['events']:,}",
             "; ".join(f"{count:,} {why}" for why, count in s["dropped"].items()) or "none", f"{s['gaps']:,}")
            for s in found["sources"]
        ],
        right=(2, 4),
    )  # fmt: skip
    return f"""<h1>eventlab demo</h1>
<p class="lead">One log of events, and everything else computed from it: {kind}, a trader, and every past state of
both. {escape(_span(market["start"], market["stop"]))}.</p>
<div class="cards">{shown}</div>
<h2>Ingested events</h2>
<p>Each source was appended once, in atomic chunks. A second ingest would add nothing.</p>
{sources}"""


def _span(start: str, stop: str) -> str:
    def minute(time: str) -> str:
        return f"{time[:10]} {time[11:16]}"

    same = start[:10] == stop[:10]
    return f"{minute(start)} to {stop[11:16] if same else minute(stop)} UTC"


def _market(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    market = found["market"]
    caption = (
        f"{market['trades']:,} trades of {market['aggregate_id']}, replayed as {market['bars']:,} bars of "
        f"{market['bar']}: each bar is the state after all trades up to its end, and triangles are the trader's fills."
    )
    return f"<h2>The market</h2>{_figure(pictures, 'market', caption)}"


def _portfolio(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    trader, portfolio = found["trader"], found["portfolio"]
    intro = (
        f"A trader goes long while the average of {trader['fast']} bars is above that of {trader['slow']}, and short "
        f"below. It decides when a bar of {trader['bar']} ends, without later information, and is filled at the "
        f"next trade's price for a fee of {trader['fee']:.2%}. It is an example, not a profitable strategy."
    )
    caption = (
        f"Equity marked at each market's last trade, after {portfolio['fills']:,} fills: realised profit "
        f"{portfolio['realized_pnl']:+,.2f} before fees of {portfolio['fees']:,.2f}. Cash jumps as positions turn."
    )
    rows = [
        (p["symbol"], f"{p['quantity']:+,.6g}", f"{p['average_cost']:,.2f}", f"{p['realized_pnl']:+,.2f}")
        for p in portfolio["positions"]
    ]
    table = _table(("position", "quantity", "average cost", "realised"), rows, right=(1, 2, 3)) if rows else ""
    return f"<h2>The portfolio</h2><p>{escape(intro)}</p>{_figure(pictures, 'portfolio', caption)}{table}"


def _trace(found: Mapping[str, Any]) -> str:
    traced = found["trace"]
    if traced is None:
        return "<h2>Trace of one position</h2><p>The trader never traded: the market is too short.</p>"
    holding = traced["holding"]
    intro = (
        f"The trader's most profitable fill realised {traced['gained']:+,.2f} and left {holding['quantity']:+,.6g} "
        f"{holding['symbol']}. Every event has the position of its cause, so the trace leads from the fill to the "
        "signal, and from the signal to the market event that triggered it."
    )
    names = ("event", "content", "position", "caused by", "time", "aggregate")
    links = [{**row, "time": row["time"][5:-1].replace("T", " ")} for row in traced["rows"]]  # without year and Z
    rows = [[_shown(row[name]) for name in names] for row in links]
    marked = [("← " * bool(at) + row[0], *row[1:]) for at, row in enumerate(rows)]
    return f"<h2>Trace of one position</h2><p>{escape(intro)}</p>{_table(names, marked, right=(2, 3))}"


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _past(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    rows = [
        (v["aggregate_id"], v["as_of"], f"{v['version']:,}", v["shown"], v["digest"][:16],
         milliseconds(v["milliseconds"]))
        for v in found["past_states"]
    ]  # fmt: skip
    table = _table(("state of", "as of", "version", "was", "digest", "took"), rows, right=(2, 5), code=(4,))
    book = _figure(
        pictures, "book",
        "The last order book, folded from level-2 changes: the cumulative size up to each price.",
    ) if "book" in pictures else ""  # fmt: skip
    return f"""<h2>Past states</h2>
<p>States as of any event time or version. Each of these has the same digest by time and by version, and equals its row
of the history <span class="good">bit for bit</span>.</p>
{table}{book}"""


def _snapshots(found: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    rows = [
        ("never" if r["interval"] is None else f"{r['interval']:,} events", f"{r['snapshots']:,}", size(r["bytes"]),
         f"{r['build_seconds']:.2f} s", milliseconds(r["latency_p50_ms"]), milliseconds(r["latency_p95_ms"]),
         milliseconds(r["latency_max_ms"]))
        for r in found["snapshot_intervals"]
    ]  # fmt: skip
    table = _table(
        ("snapshot every", "snapshots", "bytes", "to build", "median", "95%", "slowest"), rows, right=(1, 2, 3, 4, 5, 6)
    )
    longest = found["latency_by_length"][-1]
    first = (
        f"Random past versions of {found['market']['aggregate_id']}, by the number of events between snapshots; all "
        f"gave the same states. {_balance(found['snapshot_intervals'])}"
    )
    second = (
        f"Without any snapshot, by length of history: {longest['version']:,} events took "
        f"{milliseconds(longest['latency_ms'])}, or {longest['events_per_second'] / 1e6:,.0f} million per second, "
        "including reads from disk. The time of the shortest history is the cost of opening and decoding."
    )
    return f"""<h2>Costs and benefits of snapshots</h2>
{_figure(pictures, "intervals", first)}
{table}
{_figure(pictures, "lengths", second)}"""


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
        f"with one every {best['interval']:,} events, for {size(best['bytes'])}."
    )


def _proof(found: Mapping[str, Any]) -> str:
    proof, lab = found["proof"], escape(found["lab"])
    return f"""<h2>Verification</h2>
<p>All {proof["events"]:,} events in {proof["commits"]:,} commits were read back, and each commit's digest was computed
again from its content and the digest before it: <span class="good">nothing was lost or changed</span>.
{proof["snapshots"]:,} snapshots were folded again from the events: <span class="good">all equal</span>. The last digest
covers the complete history:</p>
<p><code>{escape(str(proof["digest"]))}</code></p>
<h2>Next steps</h2>
<pre><code>eventlab info {lab}
eventlab state {lab} portfolio portfolio/crossover
eventlab history {lab} portfolio portfolio/crossover --last
eventlab verify {lab}</code></pre>
<footer>Written by <code>eventlab demo</code>. This page is self-contained: no scripts, no network.</footer>"""


def _figure(pictures: Mapping[str, str], name: str, caption: str) -> str:
    text = escape(caption)
    return (
        f'<figure><div class="picture" role="img" aria-label="{text}">{pictures[name]}</div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _table(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), code: Sequence[int] = ()
) -> str:
    def place(at: int) -> str:
        return ' class="right"' if at in right else ""

    head = "".join(f"<th{place(at)}>{escape(name)}</th>" for at, name in enumerate(names))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{place(at)}>{f'<code>{escape(text)}</code>' if at in code else escape(text)}</td>"
            for at, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
