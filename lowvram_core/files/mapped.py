"""Memory-mapped files: which addresses they are mapped to, and how their pages leave RAM."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from torch import Tensor


def file_spans(file: Path | None = None) -> list[range]:
    """The addresses that a file is mapped to, or all files; an empty list on systems that do not list them."""
    maps = Path("/proc/self/maps")
    if not maps.exists():  # Windows, macOS
        return []
    wanted = None if file is None else str(file.resolve())
    spans = []
    for line in maps.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/") and wanted in (None, fields[5]):
            first, _, end = fields[0].partition("-")
            spans.append(range(int(first, 16), int(end, 16)))
    return spans


def give_back(tensor: Tensor, spans: list[range]) -> None:
    """Takes a tensor's pages out of RAM. The next access reads them from the file again.

    Does nothing for a tensor outside of the spans: memory that belongs to no file would lose its content. The tensor
    must not have been written to.
    """
    first, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    if tensor.nbytes and any(first in span and end - 1 in span for span in spans):
        first -= first % mmap.PAGESIZE
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)
