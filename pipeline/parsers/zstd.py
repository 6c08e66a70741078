"""Zstandard, by the optional extra `zstd`."""

from __future__ import annotations

import zstandard

WINDOW_BYTES = 128 * 1024 * 1024
"""A frame that wants more memory than this is refused."""


class Zstandard:
    """One frame of a Zstandard stream, while it is read."""

    read_bytes = 1024
    """Small, because what comes out of one step is not bounded, and may be 30,000 times as much."""

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """What came after the frame."""
        return self._inner.unused_data

    def step(self, data: bytes) -> tuple[bytes, bool]:
        """What comes out of some more bytes; never more to come without further ones.

        Raises:
            ValueError: the stream is corrupt.
        """
        try:
            return self._inner.decompress(data), False
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
