"""`eventlab snapshots compare`: compares snapshot policies on a lab's events."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from eventlab.cli import policies, resolve
from eventlab.cli.error_output import DebugCommand, ErrorGroup
from eventlab.cli.reading import Json, LabPath, Quiet
from eventlab.runtime import terminal

app = typer.Typer(cls=ErrorGroup, help="Measure snapshots.", no_args_is_help=True)

_SHOWN = (
    "policy", "workload", "budget", "seed", "snapshots", "bytes", "latency_p50_ms", "latency_p99_ms",
    "latency_mean_ms", "events_replayed", "evictions", "optimum_ratio", "headroom", "captured", "write_seconds",
    "training_seconds",
)  # fmt: skip


@app.command("compare", cls=DebugCommand)
def compare(
    lab: LabPath,
    *,
    reducer: Annotated[str, typer.Option(help="trades, book, …; or module:Name or file.py:Name.", show_default=False)],
    policy: Annotated[list[str], typer.Option(help="E.g. 'Every(1000) & Keep(3)'; repeatable.", show_default=False)],
    workload: Annotated[
        list[str], typer.Option(help="uniform, zipf, 'Drift(0.1)', …; repeatable.", show_default=False)
    ],
    aggregate: Annotated[str | None, typer.Option(help="By default the longest that the reducer handles.")] = None,
    budget: Annotated[
        list[int] | None, typer.Option(help="Bytes of snapshots; repeatable. By default no limit.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the reads; repeatable. By default 0.")] = None,
    reads: Annotated[int, typer.Option(help="Number of reads: half train, half are measured.")] = 200,
    name: Annotated[
        str | None, typer.Option(help="Append results under experiment/NAME, and measure only missing ones.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare snapshot policies by size and read latency, with interleaved reads."""
    chosen = [policies.policy(text) for text in policy]
    workloads = [policies.workload(text) for text in workload]
    with resolve.existing_lab(lab, read_only=name is None) as opened:
        from eventlab import experiments

        found = experiments.compare(
            opened, resolve.reducer(reducer), chosen, workloads, aggregate_id=aggregate, budgets=budget or (None,),
            seeds=seed or (0,), reads=reads, name=name, progress=not quiet and sys.stderr.isatty(),
        )  # fmt: skip
    if as_json:
        terminal.document({
            "reducer": found.reducer, "aggregate_id": found.aggregate_id, "version": found.version,
            "trials": terminal.with_iso_times(found.frame).to_dicts(), "verdict": found.verdict.splitlines(),
        })  # fmt: skip
        return
    columns = terminal.with_iso_times(found.frame).to_dict(as_series=False)
    terminal.table({
        column: [float(f"{one:.3g}") if isinstance(one, float) else one for one in columns[column]]
        for column in _SHOWN
        if any(one is not None for one in columns[column])
    })  # fmt: skip
    typer.echo()
    terminal.say(*found.verdict.splitlines())
