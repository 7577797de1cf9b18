"""The segments and unsealed pieces that make up the log at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eventlab.store.journal.memtable import Damaged, Part, Piece
from eventlab.store.segments.segments import SegmentFile


@dataclass(frozen=True, slots=True)
class Segment:
    """Positions ``first_position:stop_position``, in one file per event type; keys are the types' numbers."""

    first_position: int
    stop_position: int
    files: Mapping[int, SegmentFile]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole log at one moment: segments and unsealed pieces, together without gap or overlap."""

    stop_position: int
    segments: tuple[Segment, ...]
    unsealed: tuple[Piece, ...]

    def parts(self) -> list[Segment | Piece]:
        """Segments and unsealed pieces, in position order."""
        both: list[Segment | Piece] = [*self.segments, *self.unsealed]
        return sorted(both, key=lambda piece: piece.first_position)

    def pieces(self) -> list[Segment | Damaged | list[Part]]:
        """Segments, damaged ranges and lists of adjacent unsealed parts, in position order."""
        found: list[Segment | Damaged | list[Part]] = []
        for piece in self.parts():
            if not isinstance(piece, Part):
                found.append(piece)
            elif found and isinstance(found[-1], list):
                found[-1].append(piece)
            else:
                found.append([piece])
        return found
