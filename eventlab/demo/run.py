"""The demo's steps, in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl
from rich import filesize

from eventlab import reducers
from eventlab.demo import analysis, charts, market, report
from eventlab.demo.console import Console, milliseconds
from eventlab.demo.folder import Folder
from eventlab.demo.trader import PORTFOLIO, SIGNALS, Crossover, run_trader
from eventlab.events.builtin import PortfolioChange
from eventlab.events.clock import format_ns
from eventlab.experiments import latency_by_length, snapshot_intervals
from eventlab.lab.lab import Lab
from eventlab.lab.open import open as open_lab
from eventlab.snapshots import Every

MOST_MARKETS = 4
READS = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """Arguments of the demo. Without `data` it simulates `trades` from `seed`."""

    out: Path
    data: tuple[Path, ...] = ()
    symbol: str | None = None
    seed: int = 7
    trades: int = 1_000_000
    reads: int = READS


def run(plan: Plan, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo and write its report; returns the results, ready for JSON.

    Raises
    ------
    EventlabError
        The data cannot be read, the folder is not the demo's, or a check fails.
    """
    console = Console(quiet=quiet)
    feeds = market.feeds_of(plan.data, plan.symbol) if plan.data else market.simulated(plan.trades, plan.seed)
    folder = Folder(plan.out)
    folder.prepare()
    with open_lab(folder.lab) as lab:
        folder.mark(lab.store.store_id)
        found: dict[str, Any] = {"lab": str(folder.lab), "simulated": not plan.data}
        found["sources"] = _ingest(lab, feeds, console)
        markets = market.markets(lab)[:MOST_MARKETS]
        found["trader"] = _trade(lab, markets, console)
        main = markets[0]
        pictures: dict[str, str] = {}
        replayed = _replay(lab, markets, console, pictures)
        found["market"], found["portfolio"] = replayed["market"], replayed["portfolio"]
        found["trace"] = _traced(lab, console)
        found["past_states"] = _past_states(lab, main, replayed["history"], console, pictures)
        found["snapshot_intervals"], found["latency_by_length"] = _compare(lab, main, plan, console, pictures)
        found["proof"] = _prove(lab, console)
        found["info"] = {"events": lab.info().events, "bytes": lab.info().bytes, "store_id": lab.store.store_id}
    console.section("Report")
    found["report"] = str(folder.write_report(report.page(found, pictures)))
    found["seconds"] = console.seconds
    console.facts([("written to", found["report"]), ("total time", f"{found['seconds']:.1f} s")])
    console.note(f"look around:  eventlab info {folder.lab}")
    return found


def _ingest(lab: Lab, feeds: list[Any], console: Console) -> list[dict[str, Any]]:
    made = []
    console.section("Ingested events")
    for feed in feeds:
        began = perf_counter()
        receipt = lab.ingest(feed, progress=console.progress)
        seconds = perf_counter() - began
        made.append({
            "name": feed.source, "feed": feed.name, "events": receipt.count, "seconds": seconds,
            "dropped": dict(receipt.report.dropped), "gaps": receipt.report.gaps,
        })  # fmt: skip
        rate = receipt.count / seconds if seconds else 0.0
        console.facts([(feed.source, f"{receipt.count:,} events in {seconds:.1f} s, {rate:,.0f} events/s")])
    info = lab.info()
    console.facts([
        ("aggregates", ", ".join(f"{head.aggregate_id} ({head.version:,})" for head in lab.store.heads()[:8])),
        ("on disk", f"{filesize.decimal(info.bytes)}, {info.bytes / max(info.events, 1):.1f} B per event"),
    ])  # fmt: skip
    return made


def _trade(lab: Lab, markets: list[market.Market], console: Console) -> dict[str, Any]:
    trader = Crossover()
    console.section("Trades of a simple strategy")
    acted = run_trader(lab, markets, trader)
    signals = lab.state(reducers.Signals, SIGNALS) if acted.signals else None
    console.facts([
        ("strategy", f"average of {trader.fast} bars crossing that of {trader.slow}; bars of {markets[0].bar}"),
        ("signals", f"{acted.signals:,}, each caused by a market event"),
        ("fills", f"{acted.fills:,}, each caused by a signal, at the next trade's price; fee {trader.fee:.2%}"),
    ])  # fmt: skip
    return {
        "signals": acted.signals, "fills": acted.fills, "fast": trader.fast, "slow": trader.slow,
        "bar": markets[0].bar, "fee": trader.fee, "cash": trader.cash,
        "markets": [one.aggregate_id for one in markets],
        "last_signal": None if signals is None else f"{signals.action} {signals.symbol}",
    }  # fmt: skip


def _replay(lab: Lab, markets: list[market.Market], console: Console, pictures: dict[str, str]) -> dict[str, Any]:
    from eventlab.plots import plot_portfolio

    main = markets[0]
    console.section("Replayed history")
    began = perf_counter()
    at = analysis.bar_times(main, min(m.start for m in markets), max(m.stop for m in markets))
    histories = {m.name: lab.history(reducers.Trades, m.aggregate_id, at=at) for m in markets}
    seconds = perf_counter() - began
    events = sum(m.events for m in markets)
    portfolio = lab.history(reducers.Portfolio, PORTFOLIO, at=at, tables=True)
    marked = analysis.equity(portfolio, histories, at)
    final = lab.state(reducers.Portfolio, PORTFOLIO)
    stop = analysis.bar_times(main, main.start, main.stop)[-1]
    of_main = histories[main.name].filter((pl.col("version") > 0) & (pl.col("at") <= stop))
    last = of_main.row(-1, named=True)
    worth = float(marked["equity"][-1])
    prices = ", ".join(f"{name} {last[name]:,.2f}" for name in ("last", "low", "high", "vwap"))
    console.facts([
        (main.aggregate_id, f"{len(of_main):,} bars of {main.bar}; {prices}"),
        ("replay", f"{events:,} trades in {seconds:.2f} s, including compilation"),
        ("portfolio", f"equity {worth:,.2f}; realised {final.realized_pnl:+,.2f}, fees {final.fees:,.2f}"),
    ])  # fmt: skip
    pictures["market"] = charts.svg(lambda ax: _with_fills(lab, main, of_main, ax), "market", height=4.8)
    shown = portfolio.select(timestamp=at, realized_pnl="realized_pnl", cash="cash").with_columns(
        equity=marked["equity"]
    )
    pictures["portfolio"] = charts.svg(lambda ax: plot_portfolio(shown, ax=ax), "portfolio", height=5.6)
    return {
        "history": of_main,
        "market": {"aggregate_id": main.aggregate_id, "trades": main.events, "bar": main.bar, "bars": len(of_main),
                   "start": format_ns(main.start), "stop": format_ns(main.stop), "last": last["last"],
                   "high": last["high"], "low": last["low"], "vwap": last["vwap"],
                   "trades_replayed": events, "seconds": seconds},
        "portfolio": {"equity": worth, "cash": final.cash, "realized_pnl": final.realized_pnl, "fees": final.fees,
                      "fills": final.fills, "digest": final.digest,
                      "positions": final.positions.select("symbol", "quantity", "average_cost", "realized_pnl")
                                                  .to_dicts()},
    }  # fmt: skip


def _with_fills(lab: Lab, main: market.Market, history: pl.DataFrame, ax: Any) -> None:
    from eventlab.plots import plot_market

    changes = lab.events(PortfolioChange, PORTFOLIO, columns=["timestamp", "symbol", "kind", "quantity", "price"])
    fills = changes.filter((pl.col("kind") == "fill") & (pl.col("symbol") == main.name))
    price = plot_market(history, ax=ax)
    for bought, marker, colour, label in ((True, "^", charts.BOUGHT, "bought"), (False, "v", charts.SOLD, "sold")):
        some = fills.filter((pl.col("quantity") > 0) == bought)
        price.scatter(
            some["timestamp"].dt.replace_time_zone(None).to_numpy(), some["price"].to_numpy(),
            marker=marker, s=26, color=colour, linewidths=0.0, zorder=3, label=label,
        )  # fmt: skip
    price.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.3, columnspacing=1.4, handlelength=1.6,
        fontsize=9.0, frameon=False, labelcolor=charts.INK,
    )  # fmt: skip


def _traced(lab: Lab, console: Console) -> dict[str, Any] | None:
    console.section("Trace of one position")
    traced = analysis.trace(lab, lab.history(reducers.Portfolio, PORTFOLIO))
    if traced is None:
        console.note("the trader never traded: the market is too short")
        return None
    rows, holding = traced["rows"], traced["holding"]
    console.table({name: [row[name] for row in rows] for name in rows[0]})
    after = f"{holding['quantity']:+,.6g} {holding['symbol']} at {holding['average_cost']:,.2f} on average"
    console.note(f"this fill realised {traced['gained']:+,.2f} and left {after}")
    return traced


def _past_states(
    lab: Lab, main: market.Market, history: pl.DataFrame, console: Console, pictures: dict[str, str]
) -> list[dict[str, Any]]:
    from eventlab.plots import plot_book

    console.section("Time travel")
    past_states = analysis.past_states(lab, main, history)
    console.table(report.past_columns(past_states))
    console.note("each equals its row of the history bit for bit, and has the same digest by time and by version")
    books = lab.store.heads(lab.store.aggregate_ids("book/*"))
    if books:
        book = max(books, key=lambda head: head.version)
        began = perf_counter()
        state = lab.state(reducers.OrderBook, book.aggregate_id, format_ns(book.timestamp))
        taken = (perf_counter() - began) * 1e3
        bid = f"bid {state.best_bid:,.2f} × {state.best_bid_size:g}"
        ask = f"ask {state.best_ask:,.2f} × {state.best_ask_size:g}"
        changes = f"{book.version:,} changes in {milliseconds(taken)}, including compilation"
        console.facts([(book.aggregate_id, f"{bid}, {ask}; {changes}")])
        if len(state.bids) and len(state.asks):
            pictures["book"] = charts.svg(lambda ax: plot_book(state, ax=ax), "book")
    return past_states


def _compare(
    lab: Lab, main: market.Market, plan: Plan, console: Console, pictures: dict[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from eventlab.plots import plot_latency_by_length, plot_snapshot_intervals

    console.section("Comparison of snapshot intervals")
    intervals = snapshot_intervals(
        lab, reducers.Trades, main.aggregate_id, reads=plan.reads, seed=plan.seed, progress=console.progress
    )
    console.table(report.interval_columns(intervals.to_dicts()))
    console.note(f"{plan.reads:,} past versions of {main.aggregate_id}, read interleaved; all states equal")
    lengths = latency_by_length(lab, reducers.Trades, main.aggregate_id)
    longest = lengths.row(-1, named=True)
    console.note(
        f"without snapshots, {longest['version']:,} events take {milliseconds(longest['latency_ms'])}: "
        f"{longest['events_per_second'] / 1e6:,.0f} million events/s, including reading"
    )
    pictures["intervals"] = charts.svg(lambda ax: plot_snapshot_intervals(intervals, ax=ax), "intervals")
    pictures["lengths"] = charts.svg(lambda ax: plot_latency_by_length(lengths, ax=ax), "lengths")
    return intervals.to_dicts(), lengths.to_dicts()


def _prove(lab: Lab, console: Console) -> dict[str, Any]:
    console.section("Verification")
    lab.snapshots.policy = Every(1_000)
    for reducer, aggregates in ((reducers.Trades, "market/*"), (reducers.Portfolio, PORTFOLIO)):
        lab.snapshots.build(reducer, aggregates)
    checked = lab.snapshots.verify()
    proved = lab.verify()
    console.facts([
        ("chain", f"{proved.commits:,} commits and {proved.events:,} events read back: nothing lost or changed"),
        ("snapshots", f"{checked.equal:,} folded again: all equal"),
        ("head digest", proved.head or "none"),
    ])  # fmt: skip
    return {"events": proved.events, "commits": proved.commits, "segments": proved.segments,
            "aggregates": proved.aggregates, "digest": proved.head, "snapshots": checked.equal}  # fmt: skip
