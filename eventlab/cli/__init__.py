"""The command line. Its modules import what they need when a command runs, so that `--help` is fast."""

from eventlab.cli.app import app, main

__all__ = ["app", "main"]
