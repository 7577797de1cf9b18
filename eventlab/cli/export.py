"""`eventlab export`: writes events to files for other programs and labs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from eventlab.cli import resolve
from eventlab.cli.reading import Json, LabPath, Quiet
from eventlab.runtime import terminal


def export(
    lab: LabPath,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help=".pb: a stream of all types; .parquet, .arrow or .feather: one type; else a folder of such files.",
            show_default=False,
        ),
    ],
    *,
    type: Annotated[str | None, typer.Option(help="Only this event type, e.g. market_data.")] = None,  # noqa: A002
    aggregate: Annotated[str | None, typer.Option(help="An aggregate id, or a pattern with *.")] = None,
    start: Annotated[str | None, typer.Option(help="From this event time.")] = None,
    stop: Annotated[str | None, typer.Option(help="Before this event time.")] = None,
    format: Annotated[  # noqa: A002
        Literal["parquet", "arrow"] | None, typer.Option(help="Format of a folder's files; by default Parquet.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write events to files; `eventlab ingest LAB exported FILE` imports them into another lab."""
    with resolve.existing_lab(lab) as opened:
        declared = None if type is None else resolve.stored_type(opened, type)
        progress = not quiet and sys.stderr.isatty()
        receipt = opened.export(path, declared, aggregate, start, stop, format=format, progress=progress)
    if as_json:
        terminal.document({
            "path": str(receipt.path), "format": receipt.format, "events": receipt.count, "types": receipt.counts,
            "bytes": receipt.bytes, "sha256": receipt.sha256, "stop_position": receipt.stop_position,
        })  # fmt: skip
        return
    each = ", ".join(f"{count:,} {name}" for name, count in receipt.counts.items())
    terminal.say(f"{receipt.path}: {receipt.count:,} events ({each}), {receipt.bytes:,} B", f"sha256 {receipt.sha256}")
