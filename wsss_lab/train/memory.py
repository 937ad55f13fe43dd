"""Memory of a C library that a training step gets back as it left it.

glibc returns every freed block above a few hundred kilobytes to the kernel, and the next step asks
for it anew: the kernel clears every page, and the processor stops at each one it touches first. A
step of ASDT on `lite0` (8 photos of 224 px) met 418,000 such stops and spent a sixth of its
processor time in the kernel (`benchmarks/memory.py`). Results are the same, bit for bit.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # names of glibc's malloc.h
_OFTEN = 65_536
_LARGE = 32 * 2**20
_NEVER = 2**31 - 1


@contextlib.contextmanager
def kept_memory() -> Iterator[bool]:
    """Keep freed memory in the process; on leaving, give back what is free.

    Acts on the whole process, under glibc only, and not if the environment tunes its allocator
    already (`GLIBC_TUNABLES`, `MALLOC_...`). Inside another one it does nothing.

    Yields:
        Whether it acts.
    """
    libc = None if _is_tuned() or _inside else _glibc()
    if libc is None:
        yield False
        return
    _inside.append(True)
    # blocks of any size come from the heap, whose free end stays
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield True
    finally:
        # what glibc's own rule arrives at after the first large block was freed
        libc.mallopt(_MMAP_MAX, _OFTEN)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
        libc.malloc_trim(0)
        _inside.clear()


_inside: list[bool] = []


def _is_tuned() -> bool:
    tuned = "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") for name in os.environ)


def _glibc() -> ctypes.CDLL | None:
    try:
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            return None
        return ctypes.CDLL(None)
    except (AttributeError, ValueError, OSError):  # no such function, name or library
        return None
