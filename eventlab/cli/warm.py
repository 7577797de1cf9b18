"""`eventlab warm`: compiles the built-in reducers into the kernel cache."""

from __future__ import annotations

import os
import sys

from eventlab.cli.reading import Json, Quiet
from eventlab.errors import ReducerError
from eventlab.runtime import terminal


def warm(*, quiet: Quiet = False, as_json: Json = False) -> None:
    """Compile the built-in reducers into the kernel cache, so that later processes start faster.

    Existing kernels stay; kernels unused for 90 days are removed. The cache is in the user's cache folder, or in the
    folder of the environment variable EVENTLAB_KERNELS.
    """
    from eventlab import reducers
    from eventlab.fold import stops
    from eventlab.fold.fold import warm as compile_into_cache
    from eventlab.fold.native import cache
    from eventlab.runtime.progress import tqdm
    from eventlab.timetravel.marks import merge

    folder = cache.folder()
    if not cache.usable(folder):
        raise ReducerError(
            "kernels cannot be cached here", got=str(folder),
            expected="a folder of the user that nobody else can write to",
            hint=f"Set {cache.FOLDER}=/path/to/folder.",
        )  # fmt: skip
    before = cache.files().keys()
    removed = cache.sweep()
    names = dir(reducers)
    with tqdm(names, desc="compiling", disable=quiet or not sys.stderr.isatty(), file=sys.stderr) as progress:
        for name in progress:
            compile_into_cache(getattr(reducers, name))
    stops.warm()
    merge.warm()
    files = cache.files()
    new = len(files.keys() - before)
    if not files:
        raise ReducerError("no kernel could be cached", got=str(folder), hint="Is the disk full?")
    if as_json:
        terminal.document({
            "folder": os.fspath(folder), "kernels": len(files), "bytes": sum(files.values()), "new": new,
            "removed": removed,
        })  # fmt: skip
        return
    gone = f", {removed} unused removed" if removed else ""
    terminal.say(f"{folder}: {len(files)} kernels, {sum(files.values()):,} B, {new} new{gone}")
