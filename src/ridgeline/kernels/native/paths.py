"""The instruction paths of a native library: which this CPU has, and which number the library knows each by (paths.h)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from ridgeline.kernels.native.build import NativeCallError, permitted_paths


class Paths:
    """Paths of one library, which is loaded when they are first asked for."""

    def __init__(self, library: Callable[[], ctypes.CDLL], function: str) -> None:
        self._library = library
        self._function = function
        """Exported: the name of path i, empty where this CPU lacks it, null past the last."""

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Available paths, best first, with their numbers in the library."""
        name_of = getattr(self._library(), self._function)
        name_of.argtypes = [ctypes.c_int32]
        name_of.restype = ctypes.c_char_p
        found: dict[str, int] = {}
        index = 0
        while (name := name_of(index)) is not None:
            if name:
                found[name.decode()] = index
            index += 1
        return found

    def permitted(self) -> tuple[str, ...]:
        """Paths of this CPU, best first, after ``RIDGELINE_NATIVE_ISA``. Raises NativeCallError where none is left."""
        return permitted_paths(tuple(self.numbers))

    def number(self, path: str | None) -> int:
        """The number of ``path``; of the best one that is permitted where none is named.

        Raises:
            NativeCallError: for a path that this CPU lacks.
        """
        name = path or self.permitted()[0]
        if name not in self.numbers:
            raise NativeCallError(f"no path {name!r} on this CPU: one of {', '.join(self.numbers)}")
        return self.numbers[name]
