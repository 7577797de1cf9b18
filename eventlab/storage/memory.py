"""Files in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from eventlab.storage.api import Buffer, check_name


class MemoryStorage:
    """See `Storage`. Files live as long as the object."""

    join_gap = 0

    def __init__(self) -> None:
        # Single operations on a dictionary need no lock.
        self._files: dict[str, memoryview] = {}

    def read(self, name: str) -> memoryview:
        try:
            return self._files[check_name(name)]
        except KeyError:
            raise FileNotFoundError(name) from None

    def ranges(self, name: str, wanted: Sequence[tuple[int, int]]) -> Iterator[memoryview]:
        content = self.read(name)
        return (content[start:stop] for start, stop in wanted)

    def write(self, name: str, buffers: Iterable[Buffer]) -> None:
        self._files[check_name(name)] = _content(buffers)

    def create(self, name: str, buffers: Iterable[Buffer]) -> None:
        content = _content(buffers)
        if self._files.setdefault(check_name(name), content) is not content:
            raise FileExistsError(name)

    def list(self, prefix: str = "") -> Mapping[str, int]:
        return {name: content.nbytes for name, content in sorted(self._files.items()) if name.startswith(prefix)}

    def remove(self, name: str) -> None:
        self._files.pop(check_name(name), None)

    def sync(self) -> None:
        """Nothing outlives the process."""

    def sweep(self) -> Mapping[str, int]:
        """Interrupted writes leave nothing."""
        return {}


def _content(buffers: Iterable[Buffer]) -> memoryview:
    parts = list(buffers)
    if len(parts) == 1 and isinstance(parts[0], bytes | pa.Buffer):  # these never change
        return memoryview(parts[0]).cast("B")
    return memoryview(b"".join(memoryview(part) for part in parts))
