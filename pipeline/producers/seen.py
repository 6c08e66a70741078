"""Keys that a pass has listed, and keys that notifications told of, in memory of a fixed size."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable
from hashlib import blake2b

FILTER_BYTES = 8 * 2**20
"""A power of two. A key that was not listed is taken for listed once in 90,000 times where a source has a million
keys, in 25 where it has ten million, in 2 where it has thirty million."""
RECENT_KEYS = 50_000
"""Keys that are remembered after a notification told of them, until the ledger has them."""

_BITS_OF_KEY = struct.Struct("<4I")


class SeenKeys:
    """A Bloom filter over keys: what was added is always in it, and now and then something else is, too.

    For a pass over a store that lists in no order of its own: a known key that is not in the filter was
    surely not listed, and the store must be asked for it. One that is in it is taken for listed. Where that is
    wrong, a deletion stays unnoticed in this pass; each filter mixes its keys with a random seed of its own, so
    that the next pass errs on other keys. An exact set would grow with the source, and a mark on each of the
    ledger's rows would make of every pass as many writes as there are objects.
    """

    def __init__(self, size: int = FILTER_BYTES) -> None:
        """An empty filter of `size` bytes, a power of two."""
        self._bits = bytearray(size)
        self._mask = 8 * size - 1
        self._mixed = blake2b(key=secrets.token_bytes(16), digest_size=_BITS_OF_KEY.size)

    def add(self, keys: Iterable[str]) -> None:
        """Keep keys in mind."""
        bits = self._bits
        for key in keys:
            for place in self._places(key):
                bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: str) -> bool:
        """False only for a key that was not added."""
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in self._places(key))

    def _places(self, key: str) -> list[int]:
        mixed = self._mixed.copy()
        mixed.update(key.encode(errors="surrogatepass"))
        return [number & self._mask for number in _BITS_OF_KEY.unpack(mixed.digest())]


class RecentKeys:
    """The keys that came last. One thread adds, any may ask."""

    def __init__(self, limit: int = RECENT_KEYS) -> None:
        self._limit = limit
        self._keys: dict[str, None] = {}

    def add(self, keys: Iterable[str]) -> None:
        """Remember keys, and forget those that came first where they are too many."""
        known = self._keys
        for key in keys:
            known.pop(key, None)
            known[key] = None
        while len(known) > self._limit:
            del known[next(iter(known))]

    def __contains__(self, key: object) -> bool:
        return key in self._keys
