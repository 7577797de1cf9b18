"""Errors on the command line: the parts of an EventlabError on stderr, and an exit code."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from eventlab.errors import EventlabError, StoreCorrupt
from eventlab.runtime.terminal import printable

FAILED, CORRUPT, INTERRUPTED = 1, 3, 130
_LONGEST_PART = 400


def parts_of(error: EventlabError) -> dict[str, str | None]:
    """The parts of an error, unescaped."""

    def text(part: object) -> str | None:
        return part if part is None or isinstance(part, str) else repr(part)

    return {
        "error": type(error).__name__,
        "what": error.what,
        "got": text(error.got),
        "expected": text(error.expected),
        "hint": error.hint,
    }


def report(error: EventlabError) -> None:
    """Write an error to stderr."""
    parts = parts_of(error)
    lines = [typer.style("error: ", fg="red", bold=True) + printable(str(parts["what"]), _LONGEST_PART)]
    for name in ("got", "expected", "hint"):
        part = parts[name]
        if part is not None:
            lines.append(typer.style(f"  {name:<9} ", dim=True) + printable(part, _LONGEST_PART))
    typer.echo("\n".join(lines), err=True)


def warn(text: str) -> None:
    """Write a warning to stderr."""
    typer.echo(typer.style("warning: ", fg="yellow", bold=True) + printable(text, _LONGEST_PART), err=True)


@contextmanager
def show_warnings() -> Iterator[None]:
    """Print all UserWarnings to stderr without file and line, independent of Python's warning filters."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _without_debug(ctx: typer.Context, args: list[str]) -> list[str]:
    upto = args.index("--") if "--" in args else len(args)
    remaining = [word for at, word in enumerate(args) if at >= upto or word != "--debug"]
    if len(remaining) < len(args):
        ctx.find_root().meta["debug"] = True
    return remaining


class DebugCommand(TyperCommand):
    """A command that accepts the group's option `--debug`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _without_debug(ctx, args))


class ErrorGroup(TyperGroup):
    """A group that prints errors of its commands and exits with their code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with show_warnings():
                return super().invoke(ctx)
        except EventlabError as error:
            if ctx.find_root().meta.get("debug"):
                traceback.print_exception(error, file=sys.stderr)
            report(error)
            raise typer.Exit(CORRUPT if isinstance(error, StoreCorrupt) else FAILED) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; commits stay, and the same command resumes an ingest", err=True)
            raise typer.Exit(INTERRUPTED) from None
