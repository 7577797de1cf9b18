"""The lock of writers: one process holds it at a time, and its threads share it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from eventlab.errors import StoreError, StoreLocked
from eventlab.store.disk import range_locks as ofd

LOCK_NAME = "lock"

_WHOLE_TURN = 0.05
_LINE = 1 << 61
"""Distance from a lock's byte to the byte of the next in line, far from all other locked bytes."""


class _Waiting:
    """A thread in the system's queue; `wanted` while a caller still waits for the lock."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.got = threading.Event()
        self.wanted = True


class FileLock:
    """A lock on one byte of a file. The system releases it when the process ends, even if it is killed.

    The system wakes a process that waits for a byte, but any process that asks before that one runs gets the byte: one
    that writes without pause would starve the others. So the next in line holds a second byte. A process that had the
    lock for a while looks at that byte before it asks again, and waits in line.

    Without a path, as for a store in memory, the lock is always free.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False, byte: int = 0) -> None:
        self._path = path
        self._byte = byte
        self._line = byte + _LINE
        self._since = 0.0
        self._guard = threading.Lock()
        self._waiting: _Waiting | None = None
        self._descriptor: int | None = None
        if path is not None:
            with contextlib.suppress(OSError):  # if it cannot be made, no process can write
                flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
                self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)

    def acquire(self, wait: float) -> bool:
        if self._descriptor is None:
            return True
        if not (wait > 0 and self._is_others_turn()) and ofd.try_lock(self._descriptor, self._byte):
            return True
        return wait > 0 and self._queue(wait)

    def _is_others_turn(self) -> bool:
        now = time.monotonic()
        if now - self._since <= _WHOLE_TURN:
            return False
        self._since = now
        return self._descriptor is not None and ofd.is_locked(self._descriptor, self._line)

    def _queue(self, wait: float) -> bool:
        """Wait in the system's queue, on a second descriptor.

        After a timeout the thread waits on until the lock is free; a later call continues with it.
        """
        with self._guard:
            waiting = self._waiting
            if waiting is None:
                waiting = _Waiting(os.open(str(self._path), os.O_RDWR | os.O_CLOEXEC))
                threading.Thread(
                    target=self._stand, args=(waiting,), name="eventlab-waits-for-writer", daemon=True
                ).start()
                self._waiting = waiting
            waiting.wanted = True
        got = False
        try:
            waiting.got.wait(wait)
        finally:
            with self._guard:
                waiting.wanted = False
                got = waiting.got.is_set()
                if got:
                    before, self._descriptor = self._descriptor, waiting.descriptor
                    if before is not None:
                        os.close(before)
        self._since = time.monotonic()
        return got

    def _stand(self, waiting: _Waiting) -> None:
        ofd.wait_exclusive(waiting.descriptor, self._line)
        ofd.wait_exclusive(waiting.descriptor, self._byte)
        ofd.unlock(waiting.descriptor, self._line)
        with self._guard:
            self._waiting = None
            if waiting.wanted:
                waiting.got.set()
            else:
                os.close(waiting.descriptor)

    def is_there(self) -> bool:
        """Whether the path still leads to the file that was opened: others would lock another one."""
        if self._path is None or self._descriptor is None:
            return True
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            ofd.unlock(self._descriptor, self._byte)

    def is_free(self) -> bool:
        return self._descriptor is None or not ofd.is_locked(self._descriptor, self._byte)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Exclusive:
    """Counts the threads that change the store; the first takes the lock and the last releases it.

    Threads that arrive while others write share their turn, so that they can share syncs. After a while new ones wait
    for the end of the turn, so that other processes get one.
    """

    def __init__(self, lock: FileLock, wait: float, where: str) -> None:
        self._lock = lock
        self.wait = wait
        self._where = where
        self._changed = threading.Condition(threading.Lock())
        self._users = 0
        self._since = 0.0
        self._taking = False
        self._closed = False
        self.turn = 0
        """Rises whenever another process may have changed something since."""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises StoreLocked if another process keeps it for too long.

        Waiting for the end of this process's own turn has no limit: that is work, and not a lock.
        """
        inside = [0]
        try:
            self._enter(inside)
            yield
        finally:
            try:
                self._leave(inside)
            except BaseException:  # an interrupt must not keep the lock
                self._leave(inside)
                raise

    def leave(self) -> None:
        """End what `try_enter` began."""
        self._leave([1])

    def _enter(self, inside: list[int]) -> None:
        deadline = time.monotonic() + self.wait
        with self._changed:
            while self._taking or (self._users and time.monotonic() - self._since > _WHOLE_TURN):
                self._changed.wait()
            self._users, inside[0] = self._users + 1, 1  # in one go: an interrupt comes before both or after
            if self._users > 1:
                return
            self._taking = True
        if not self._lock.is_there():
            raise StoreError(
                f"{self._where}: was removed, moved or replaced since it was opened",
                hint="Open it where it is now; nothing was kept.",
            )
        if not self._lock.acquire(max(deadline - time.monotonic(), 0.0)):
            hint = "Wait for it, or raise el.open(..., wait=seconds)."
            raise StoreLocked(f"{self._where}: another writer holds the store", hint=hint)
        with self._changed:
            self._taking = False
            self._since = time.monotonic()
            self.turn += 1
            self._changed.notify_all()

    def _leave(self, inside: list[int]) -> None:
        with self._changed:
            self._users, inside[0] = self._users - inside[0], 0
            if self._users == 0:
                self._taking = False
                self.turn += 1
                if self._closed:
                    self._lock.close()
                else:
                    self._lock.release()
                self._changed.notify_all()

    def try_enter(self) -> bool:
        """Enter if no thread and no process holds the lock."""
        with self._changed:
            if self._users or self._taking or not self._lock.acquire(0):
                return False
            self._users, self._since = 1, time.monotonic()
            self.turn += 1
            return True

    def is_free(self) -> bool:
        """Whether no other process holds the lock."""
        return self._lock.is_free()

    def close(self) -> None:
        """Close the lock as soon as no thread holds it; a thread that still waits then finds it closed."""
        with self._changed:
            self._closed = True
            if not (self._users or self._taking):
                self._lock.close()
