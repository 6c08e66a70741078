"""Batches of entries as what a parser reads: a JSON text sequence, one document an entry."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

from pipeline.stores import SMALL_BYTES, Entry

SEPARATOR = b"\x1e"
_NO_SEPARATOR = b"\x01"
"""Stands for a separator within an entry: as little a part of any JSON, so that the entry stays as bad as it is."""
NAME = "entries.json"
"""The file name that tells how a batch is read."""
BATCH_BYTES = 8 * 1024 * 1024
"""A batch of large entries has fewer of them, so that it is about this large; it is read whole."""
FIRST_ENTRIES = 64
"""So many entries are asked for while nobody knows how large they are."""


class BatchReading:
    """`pipeline.stores.Reading` of a batch, in memory."""

    def __init__(self, entry: Entry, documents: Sequence[bytes]) -> None:
        self._framed = b"".join([b"%b%b\n" % (SEPARATOR, _bare(document)) for document in documents])
        self.content = self._framed if len(self._framed) <= SMALL_BYTES else None
        self.entry = entry

    def stream(self) -> BinaryIO:
        """As `Reading.stream`."""
        return io.BytesIO(self._framed)


def _bare(document: bytes) -> bytes:
    return document.replace(SEPARATOR, _NO_SEPARATOR) if SEPARATOR in document else document


class Sizes:
    """How many entries are asked for at once: at most `most`, fewer where the last ones were large."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._mean: float | None = None

    def count(self) -> int:
        """How many to ask for now."""
        if self._mean is None:
            return min(self._most, FIRST_ENTRIES)
        return max(1, min(self._most, int(BATCH_BYTES / max(self._mean, 1.0))))

    def learn(self, entries: int, size: int) -> None:
        """So many entries were so many bytes together."""
        self._mean = size / entries
