"""Writing segments: of a bulk commit, or of all unsealed commits when there are many."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from eventlab.store.blocks import Block
from eventlab.store.catalog.manifest import Segment
from eventlab.store.catalog.open_store import OpenStore
from eventlab.store.journal.memtable import Damaged, Part, adjacent_parts
from eventlab.store.segments.segments import SegmentFile, stretches, write_segments

SEGMENT_ROWS = 3_145_728
"""A segment holds at most so many events: a reader needs all of one in memory."""

NameOf = Callable[[int], str]


class Sealer:
    """Writes segments and adds them to the catalog. Call its methods under the store's lock."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store

    def write(
        self,
        blocks: Mapping[int, Block],
        first: int,
        stop: int,
        name_of: NameOf,
        written: list[str],
    ) -> list[Segment]:
        """Write and sync files for positions ``first:stop`` and add them to the catalog, inside a transaction.

        `blocks` are all events there, by event type number; names of new files are added to `written`.
        """
        spans = stretches(first, stop, SEGMENT_ROWS, len(blocks))
        parts = [
            (begin, end, kind, part)
            for begin, end in spans
            for kind, block in blocks.items()
            if len(part := block.between(begin, end))
        ]
        files: dict[int, dict[int, SegmentFile]] = {begin: {} for begin, _ in spans}
        for span in spans:
            self._store.catalog.add_segment(*span)
        made_in_order = write_segments([part for *_, part in parts], name_of, self._store.codec)
        for (begin, end, kind, part), made in zip(parts, made_in_order, strict=True):
            file = made.file(begin, end, part.type)
            written.append(file.name)
            self._store.storage.write(file.name, [made.content])  # synced while the next ones are encoded
            files[begin][kind] = self._store.catalog.add_file(kind, file, made.runs)
        segments = [Segment(begin, end, files[begin]) for begin, end in spans]
        self._store.storage.sync()
        return segments

    def seal(self) -> int:
        """Turn all unsealed commits into segments; returns the number of events.

        Raises
        ------
        StoreCorrupt
            An unsealed commit is damaged: sealing would make the loss permanent.
        """
        catalog, index = self._store.catalog, self._store.index
        segments: list[Segment] = []
        sealed, fresh = "", ""
        with self._store.transaction() as written:
            parts = adjacent_parts(self._unsealed_parts())
            index.unsealed.write(catalog, index.types_by_number, index.names)  # first: runs refer to aggregates
            for part in parts:
                segments += self.write(
                    part.blocks, part.first_position, part.stop_position, index.names.__getitem__, written
                )
            if parts:
                sealed, fresh = index.journal_name, self._store.journals.create()
                catalog.set_journal(fresh)
        if not parts:
            return 0
        try:
            for segment in segments:
                index.learn_segment(segment)
            index.learn_seal(fresh)
        except BaseException:
            index.forget()
            raise
        self._store.journals.remove(sealed)
        catalog.tidy()
        return sum(part.stop_position - part.first_position for part in parts)

    def _unsealed_parts(self) -> list[Part]:
        parts = []
        for piece in self._store.index.manifest().unsealed:
            if isinstance(piece, Damaged):
                raise piece.error(self._store.catalog.where)
            parts.append(piece)
        return parts
