"""The command line. Its modules load what they need when a command runs, so that `--help` is quick."""

from eventlab.cli.app import app, main

__all__ = ["app", "main"]
