"""`eventlab snapshots compare`: which snapshot policy is best for which reads, measured on a lab."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from eventlab.cli import policies, resolve
from eventlab.cli.failures import Command, Group
from eventlab.cli.reading import Json, LabPath
from eventlab.runtime import terminal

app = typer.Typer(cls=Group, help="Measure snapshots.", no_args_is_help=True)

_SHOWN = (
    "policy", "workload", "budget", "seed", "snapshots", "bytes", "latency_p50_ms", "latency_p99_ms",
    "latency_mean_ms", "events_replayed", "evictions", "optimum_ratio", "headroom", "captured", "write_seconds",
    "training_seconds",
)  # fmt: skip


@app.command("compare", cls=Command)
def compare(
    lab: LabPath,
    *,
    reducer: Annotated[
        str, typer.Option(help="trades, book, …; or your own as module:Name or file.py:Name.", show_default=False)
    ],
    policy: Annotated[
        list[str], typer.Option(help="E.g. 'Every(1000) & Keep(3)'; may be repeated.", show_default=False)
    ],
    workload: Annotated[
        list[str], typer.Option(help="uniform, zipf, 'Drift(0.1)', …; may be repeated.", show_default=False)
    ],
    aggregate: Annotated[str | None, typer.Option(help="The longest that the reducer handles, by default.")] = None,
    budget: Annotated[
        list[int] | None, typer.Option(help="Bytes that snapshots may take; may be repeated. No limit by default.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Of the reads; may be repeated. 0 by default.")] = None,
    reads: Annotated[int, typer.Option(help="Half of them train, half are measured.")] = 200,
    name: Annotated[
        str | None, typer.Option(help="Append the results under experiment/NAME, and measure only what is missing.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    as_json: Json = False,
) -> None:
    """Compare snapshot policies: what they take, and how soon they give past states, all read in turns."""
    chosen = [policies.policy(text) for text in policy]
    asked = [policies.workload(text) for text in workload]
    with resolve.reading(lab) if name is None else resolve.writing(lab) as opened:
        from eventlab import experiments

        found = experiments.compare(
            opened, resolve.reducer(reducer), chosen, asked, aggregate_id=aggregate, budgets=budget or (None,),
            seeds=seed or (0,), reads=reads, name=name, progress=not quiet and sys.stderr.isatty(),
        )  # fmt: skip
    if as_json:
        terminal.document({
            "reducer": found.reducer, "aggregate_id": found.aggregate_id, "version": found.version,
            "trials": terminal.rows_of(found.frame), "verdict": found.verdict.splitlines(),
        })  # fmt: skip
        return
    columns = terminal.columns_of(found.frame)
    terminal.table({
        column: [float(f"{one:.3g}") if isinstance(one, float) else one for one in columns[column]]
        for column in _SHOWN
        if any(one is not None for one in columns[column])
    })  # fmt: skip
    typer.echo()
    terminal.say(*found.verdict.splitlines())
