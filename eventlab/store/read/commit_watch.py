"""Waking listeners after commits: of this process at once, of other processes through file notifications.

The operating system reports changes of the store's files. They are hints. A journal's published end is written last.
SQLite writes its log before others can see a commit, so a writer touches the catalog after a bulk commit; a writer that
was killed in between closes its files as it dies, which is reported too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eventlab.errors import StoreError

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

Listener = Callable[[], None]


class CommitWatch:
    """Listeners of one store. `touched` is the file that a writer touches; None for a store in memory."""

    def __init__(self, touched: Path | None) -> None:
        self._touched = touched
        self._listeners: list[Listener] = []
        self._observer: BaseObserver | None = None
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every hint, from any thread; returns a function that ends it."""
        with self._lock:
            if self._observer is None and self._touched is not None:
                self._observer = _watch(self._touched.parent, self._call_all)
            self._listeners.append(listener)

        def undo() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
                idle = None if self._listeners else self._observer
                if idle is not None:
                    self._observer = None
            _end(idle)

        return undo

    def notify(self, *, others: bool) -> None:
        """Call after a commit of this process; `others` if it became visible after the last change of a file."""
        if others and self._touched is not None:
            with suppress(OSError):  # a lost hint loses no data
                os.utime(self._touched)
        self._call_all()

    def _call_all(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def close(self) -> None:
        """Call the listeners a last time."""
        with self._lock:
            observer, self._observer = self._observer, None
        _end(observer)
        self._call_all()


def _watch(directory: Path, listener: Listener) -> BaseObserver:
    from watchdog import events
    from watchdog.observers import Observer

    class Forward(events.FileSystemEventHandler):
        def dispatch(self, event: events.FileSystemEvent) -> None:
            listener()

    observer: BaseObserver | None = None
    try:
        observer = Observer()
        # Renames are left out: watchdog holds back what follows one, to pair its two halves.
        watched = [events.FileModifiedEvent, events.FileAttribEvent, events.FileClosedEvent]
        observer.schedule(Forward(), str(directory), recursive=True, event_filter=watched)
        observer.start()
    except OSError as error:
        if observer is not None:
            observer.stop()
        raise StoreError(
            f"{directory}: its files cannot be watched", got=str(error), hint="On Linux, raise fs.inotify's limits."
        ) from error
    return observer


def _end(observer: BaseObserver | None) -> None:
    if observer is not None:
        observer.stop()
        if threading.current_thread() is not observer:
            observer.join()
