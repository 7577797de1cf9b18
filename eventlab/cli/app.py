"""The command `eventlab` and its common options."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import eventlab
from eventlab.cli import demo, export, ingest, reading, snapshots, warm
from eventlab.cli.error_output import DebugCommand, ErrorGroup

# A paragraph is one line: typer wraps it to the terminal.
_HELP = """A laboratory for event-sourced trading research: events in, state out.

LAB is a directory. Reading commands open it read-only and take --json: one JSON document on stdout, times as ISO \
strings in UTC, NaN as null.

Exit codes: 0 done; 1 an error, explained on stderr; 2 wrong usage; 3 a corrupt store.
"""

app = typer.Typer(
    name="eventlab",
    cls=ErrorGroup,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo.demo, ingest.ingest, export.export, reading.info, reading.events, reading.state, reading.history,
    reading.verify, warm.warm,
):  # fmt: skip
    app.command(cls=DebugCommand)(command)
app.add_typer(snapshots.app, name="snapshots")


def _version(requested: bool) -> None:  # noqa: FBT001 - typer's callback
    if requested:
        typer.echo(f"eventlab {eventlab.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May also follow a command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Common options."""
    del version
    if debug:
        ctx.find_root().meta["debug"] = True


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not fail
    app(prog_name="eventlab")
