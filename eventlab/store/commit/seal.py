"""From commits to segment files: what bulk commits write, and what a tail past its threshold becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from eventlab.store.blocks import Block, Int64Array
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.manifest import Knowledge, Segment
from eventlab.store.catalog.transaction import transaction
from eventlab.store.journal.files import Journals
from eventlab.store.journal.memtable import Damaged, Part, adjacent_parts
from eventlab.store.segments.files import Vault, new_name
from eventlab.store.segments.segments import SegmentFile, stretches, write_segments
from eventlab.store.types import Codec

SEGMENT_ROWS = 3_145_728
"""No segment holds more events: what a reader needs in memory at once."""

NameOf = Callable[[int], str]


def name_file(catalog: Catalog, kind: int, file: SegmentFile, runs: Int64Array) -> SegmentFile:
    """Put a file that is complete and synced into the catalog, inside a transaction; gives it back with its number."""
    no = catalog.execute(
        "INSERT INTO files (segment, event_type, name, rows, bytes, footer_bytes, footer_crc) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING no",
        (file.segment, kind, file.name, file.rows, file.bytes, file.footer_bytes, file.footer_crc),
    ).fetchone()[0]
    numbered = np.insert(runs, 1, no, axis=1)
    catalog.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", numbered.tolist())
    return replace(file, no=no)


class Sealer:
    """Writes segments and names them in the catalog. Everything here runs under the store's lock."""

    def __init__(self, catalog: Catalog, vault: Vault, journals: Journals, knowledge: Knowledge, codec: Codec) -> None:
        self._catalog = catalog
        self._vault = vault
        self._journals = journals
        self._knowledge = knowledge
        self._codec = codec

    def write(
        self,
        blocks: Mapping[int, Block],
        first: int,
        stop: int,
        name_of: NameOf,
        written: list[str],
    ) -> list[Segment]:
        """Write and sync files for positions ``first:stop`` and name them in the catalog, inside a transaction.

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
        self._catalog.executemany("INSERT INTO segments VALUES (?, ?)", spans)
        made_in_order = write_segments([part for *_, part in parts], name_of, self._codec)
        for (begin, end, kind, part), made in zip(parts, made_in_order, strict=True):
            file = SegmentFile(
                0, begin, end, part.type, new_name(begin, made.suffix), made.rows, made.content.size,
                made.footer_bytes, made.footer_crc,
            )  # fmt: skip
            written.append(file.name)
            self._vault.write(file.name, made.content)  # synced while the next ones are encoded
            files[begin][kind] = name_file(self._catalog, kind, file, made.runs)
        segments = [Segment(begin, end, files[begin]) for begin, end in spans]
        self._vault.sync()
        return segments

    def seal(self) -> int:
        """Turn the whole tail into segments; returns the number of events.

        Raises
        ------
        StoreCorrupt
            A part of the tail is damaged: sealing would make the loss permanent.
        """
        knowledge = self._knowledge
        segments: list[Segment] = []
        sealed, fresh = "", ""
        with transaction(self._catalog, self._vault, knowledge) as written:
            parts = adjacent_parts(self._tail())
            knowledge.ledger.write(self._catalog, knowledge.types_by_number)  # first: runs refer to its aggregates
            for part in parts:
                segments += self.write(
                    part.blocks, part.first_position, part.stop_position, knowledge.names.__getitem__, written
                )
            if parts:
                sealed, fresh = knowledge.journal_name, self._journals.create()
                self._catalog.execute("UPDATE meta SET value = ? WHERE key = 'journal'", (fresh,))
        if not parts:
            return 0
        try:
            for segment in segments:
                knowledge.learn_segment(segment)
            knowledge.learn_seal(fresh)
        except BaseException:
            knowledge.forget()
            raise
        self._journals.remove(sealed)
        self._catalog.tidy()
        return sum(part.stop_position - part.first_position for part in parts)

    def _tail(self) -> list[Part]:
        parts = []
        for piece in self._knowledge.view().tail:
            if isinstance(piece, Damaged):
                raise piece.error(self._catalog.where)
            parts.append(piece)
        return parts
