"""Commands that read a lab: info, events, state, history, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventlab.cli import resolve
from eventlab.cli.error_output import parts_of
from eventlab.errors import StoreCorrupt
from eventlab.runtime import terminal

if TYPE_CHECKING:
    import polars as pl

    from eventlab.timetravel.state import State

LabPath = Annotated[Path, typer.Argument(metavar="LAB", help="The lab's directory.", show_default=False)]
_REDUCERS = "trades, book, signals or portfolio; or module:Name or file.py:Name."
ReducerName = Annotated[str, typer.Argument(metavar="REDUCER", help=_REDUCERS, show_default=False)]
Aggregate = Annotated[
    str, typer.Argument(metavar="AGGREGATE", help="E.g. market/BTCUSDT; `info` lists them.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Limit = Annotated[int, typer.Option(min=0, help="Most rows to show; 0 for all.")]
Last = Annotated[bool, typer.Option("--last", help="The last rows instead of the first.")]
Columns = Annotated[str | None, typer.Option(help="Comma-separated columns to show.")]


def info(lab: LabPath, *, limit: Limit = 20, as_json: Json = False) -> None:
    """Show events, aggregates, bytes and the digest of the last commit."""
    with resolve.existing_lab(lab) as opened:
        found = opened.info()
        heads = opened.store.heads()
    shown = heads[:limit] if limit else heads
    if as_json:
        aggregates = [
            {"aggregate_id": head.aggregate_id, "version": head.version, "position": head.position,
             "timestamp": terminal.iso(head.timestamp)}
            for head in shown
        ]  # fmt: skip
        terminal.document({
            "path": found.path, "store_id": found.store_id, "events": found.events, "commits": found.commits,
            "bytes": found.bytes, "digest": found.digest, "event_types": found.event_types,
            "aggregate_count": found.aggregates, "aggregates": aggregates, "truncated": len(shown) < len(heads),
        })  # fmt: skip
        return
    each = f"  ({found.bytes / found.events:.1f} B per event)" if found.events else ""
    terminal.grid(
        [
            ("path", found.path),
            ("store id", found.store_id),
            ("events", f"{found.events:,} in {found.commits:,} commits"),
            ("event types", ", ".join(found.event_types) or "none"),
            ("on disk", f"{found.bytes:,} B{each}"),
            ("head digest", found.digest or "none"),
        ],
        indent=0,
    )
    if not heads:
        return
    typer.echo()
    terminal.table({
        "aggregate": [head.aggregate_id for head in shown],
        "version": [head.version for head in shown],
        "last event": [terminal.iso(head.timestamp) for head in shown],
    })  # fmt: skip
    if len(shown) < len(heads):
        terminal.say(f"and {len(heads) - len(shown):,} more aggregates; --limit 0 shows all")


def events(
    lab: LabPath,
    event_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="An event type, e.g. market_data.", show_default=False)
    ],
    *,
    aggregate: Annotated[str | None, typer.Option(help="An aggregate id, or a pattern with *.")] = None,
    start: Annotated[str | None, typer.Option(help="From this event time, e.g. 2024-08-09T00:00:00Z.")] = None,
    stop: Annotated[str | None, typer.Option(help="Before this event time.")] = None,
    columns: Columns = None,
    limit: Limit = 20,
    last: Last = False,
    as_json: Json = False,
) -> None:
    """Show events of one type, in the order of the log."""
    import polars as pl

    from eventlab.errors import UnknownAggregate
    from eventlab.events.clock import to_ns
    from eventlab.store.api import frame_schema

    wanted = resolve.comma_separated(columns)
    first = None if start is None else to_ns(start, what="--start")
    past = None if stop is None else to_ns(stop, what="--stop")
    with resolve.existing_lab(lab) as opened:
        declared = resolve.stored_type(opened, event_type)
        chosen = None if aggregate is None else opened.store.aggregate_ids(aggregate)
        if chosen == [] and "*" not in str(aggregate):
            raise UnknownAggregate.named(aggregate, hint="`eventlab info` lists them.")
        rows = pl.DataFrame(schema=frame_schema(declared, wanted))
        for piece in opened.store.rows(declared, aggregates=chosen, start=first, stop=past, columns=wanted):
            rows = pl.concat([rows, piece])
            if limit and len(rows) > limit:  # bounds memory; one row more shows that there are more
                rows = rows.tail(limit + 1) if last else rows.head(limit + 1)
                if not last:
                    break
    _show_rows({"event_type": declared.name}, rows, limit, last=last, as_json=as_json)


def _show_rows(subject: dict[str, str], frame: pl.DataFrame, limit: int, *, last: bool, as_json: bool) -> None:
    """Show the first or last rows of a frame; the JSON document begins with its subject."""
    more = 0 < limit < len(frame)
    if more:
        frame = frame.tail(limit) if last else frame.head(limit)
    if as_json:
        terminal.document({**subject, "rows": terminal.with_iso_times(frame).to_dicts(), "truncated": more})
    else:
        terminal.frame_table(frame, more=more, last=last, choose="--columns, ")


def state(
    lab: LabPath,
    reducer: ReducerName,
    aggregate: Aggregate,
    *,
    as_of: Annotated[str | None, typer.Option(help="A version, or an event time.")] = None,
    version: Annotated[int | None, typer.Option(help="After this number of the aggregate's events.")] = None,
    time: Annotated[str | None, typer.Option(help="At this event time, e.g. 2024-08-09T00:00:00Z.")] = None,
    position: Annotated[int | None, typer.Option(help="At this log position.")] = None,
    known_at: Annotated[str | None, typer.Option(help="Only events recorded by this time.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Most rows per table; 0 for all.")] = 10,
    as_json: Json = False,
) -> None:
    """Show the latest or a past state of an aggregate. Options combine."""
    moment = resolve.moment(as_of, version, time, position, known_at)
    with resolve.existing_lab(lab) as opened:
        found = opened.state(resolve.reducer(reducer), aggregate, moment)
    if as_json:
        terminal.document({
            "reducer": found.reducer.name, "aggregate_id": found.aggregate_id,
            "as_of": {"version": moment.version, "time": terminal.iso(moment.time_ns), "position": moment.position,
                      "known_at": terminal.iso(moment.known_at_ns)},
            "version": found.version, "position": found.position,
            "timestamp": terminal.iso(found.timestamp), "digest": found.digest, "state": _fields(found),
        })  # fmt: skip
        return
    _show_state(found, limit)


def _fields(found: State) -> dict[str, Any]:
    content = found.to_dict()
    return {name: content[name] for name in content if name not in ("version", "position", "timestamp")}


def _show_state(found: State, limit: int) -> None:
    typer.secho(terminal.printable(f"{found.reducer.name} of {found.aggregate_id}"), bold=True)
    fields = _fields(found)
    tables = {table.name for table in found.reducer.layout.tables}
    terminal.grid([
        ("version", f"{found.version:,}"),
        ("event time", terminal.iso(found.timestamp) or "before the first event"),
        ("digest", found.digest),
    ])  # fmt: skip
    typer.echo()
    terminal.grid((name, _number(value)) for name, value in fields.items() if name not in tables)
    for name in (name for name in fields if name in tables):
        rows = fields[name]
        shown = rows[:limit] if limit else rows
        of = f" (first {len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
        typer.echo()
        typer.secho(terminal.printable(f"  {name}{of}"), bold=True)
        if shown:
            terminal.table({column: [row[column] for row in shown] for column in shown[0]})
        else:
            terminal.say("  no rows")


def _number(value: object) -> str:
    return f"{value:,.12g}" if isinstance(value, float) else terminal.cell(value)


def history(
    lab: LabPath,
    reducer: ReducerName,
    aggregate: Aggregate,
    *,
    at: Annotated[list[str] | None, typer.Option(help="A row for this version or event time; repeatable.")] = None,
    every: Annotated[str | None, typer.Option(help="A row for each bar of this length, e.g. 1m.")] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Also keyed tables and ladders.")] = False,
    columns: Columns = None,
    limit: Limit = 20,
    last: Last = False,
    as_json: Json = False,
) -> None:
    """Show the history of a state: a row per event, per moment (--at), or per bar (--every)."""
    moments = [resolve.parse_moment(word) for word in at] if at else None
    with resolve.existing_lab(lab) as opened:
        chosen = resolve.reducer(reducer)
        frame = opened.history(chosen, aggregate, at=moments, every=every, tables=tables)
    rows = _picked(frame, resolve.comma_separated(columns))
    _show_rows({"reducer": chosen.name, "aggregate_id": aggregate}, rows, limit, last=last, as_json=as_json)


def _picked(frame: pl.DataFrame, columns: list[str] | None) -> pl.DataFrame:
    if columns is None:
        return frame
    for name in columns:
        if name not in frame.columns:
            raise typer.BadParameter(f"no column {name!r}; there are {', '.join(frame.columns)}")
    return frame.select(list(dict.fromkeys(columns)))


def verify(lab: LabPath, *, as_json: Json = False) -> None:
    """Read everything back and check that nothing was lost or changed: events, digest chain, snapshots."""
    try:
        with resolve.existing_lab(lab) as opened:
            report = opened.verify()
            checked = opened.snapshots.verify()
    except StoreCorrupt as error:
        if as_json:
            terminal.document({"ok": False, "problem": parts_of(error)})
        raise
    if as_json:
        terminal.document({
            "ok": True, "events": report.events, "commits": report.commits, "aggregates": report.aggregates,
            "segments": report.segments, "digest": report.head,
            "snapshots": {"equal": checked.equal, "unknown": checked.unknown},
        })  # fmt: skip
        return
    typer.echo(typer.style("ok", fg="green", bold=True) + "  nothing was lost or changed")
    snapshots = f"{checked.equal:,} folded again and equal"
    if checked.unknown:
        snapshots += f"; {checked.unknown:,} of reducers not declared here"
    terminal.grid([
        ("events", f"{report.events:,} read back"),
        ("commits", f"{report.commits:,} in the chain"),
        ("aggregates", f"{report.aggregates:,}"),
        ("segments", f"{report.segments:,}"),
        ("snapshots", snapshots),
        ("head digest", report.head or "none"),
    ])  # fmt: skip
