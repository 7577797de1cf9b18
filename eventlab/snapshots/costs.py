"""What the versions of one aggregate cost: to read, and to keep a snapshot at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Costs by version, 0 to n; 0 is the state before any event.

    A read of v from a snapshot at s takes ``restore[s] + replay[v] - before[s]``.

    Attributes
    ----------
    replay : float64 array, shape (n + 1,)
        Seconds to decode and fold all events up to the end of a version's row group.
    before : float64 array, shape (n + 1,)
        Seconds to decode those before the start of a version's row group, and to fold those up to the version.
    restore : float64 array, shape (n + 1,)
        Seconds to begin at a snapshot of a version, or at nothing.
    size : float64 array, shape (n + 1,)
        Bytes of a snapshot.
    write : float64 array, shape (n + 1,)
        Seconds to make one.
    """

    replay: Float64Array
    before: Float64Array
    restore: Float64Array
    size: Float64Array
    write: Float64Array
