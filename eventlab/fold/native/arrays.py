"""Arrays as kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class _Exposed:
    """Offers an array's memory under a type without the read-only flag. Kernels never write to event columns."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.keep = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}


def writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory, contiguous, under the one type kernels are compiled for: Numba tells read-only arrays apart."""
    array = np.ascontiguousarray(array)
    if array.flags.writeable:
        return array
    return np.asarray(_Exposed(array)) if len(array) else np.empty(0, array.dtype)
