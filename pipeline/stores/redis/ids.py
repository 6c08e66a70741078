"""Entries' ids in a stream, and ranges of them."""

from __future__ import annotations

from typing import NamedTuple

_LARGEST = 2**64 - 1


class EntryId(NamedTuple):
    """An entry's place in its stream: when it was added (milliseconds since 1970, usually), and which one then."""

    time: int
    number: int

    def __str__(self) -> str:
        return f"{self.time}-{self.number}"

    @property
    def following(self) -> EntryId:
        """The next id that there can be."""
        return EntryId(self.time, self.number + 1) if self.number < _LARGEST else EntryId(self.time + 1, 0)

    @property
    def before(self) -> EntryId:
        """The id just before this one."""
        return EntryId(self.time, self.number - 1) if self.number else EntryId(max(self.time - 1, 0), _LARGEST)

    @classmethod
    def parse(cls, text: str | bytes) -> EntryId:
        """The inverse of `str()`. Raises ValueError."""
        time, dash, number = (text if isinstance(text, str) else text.decode()).partition("-")
        if not (time.isdecimal() and number.isdecimal() and dash):
            raise ValueError("no id of an entry")
        return cls(int(time), int(number))


START = EntryId(0, 0)
"""Before every entry."""


class Range(NamedTuple):
    """The entries from one to another, both included."""

    first: EntryId
    last: EntryId

    @property
    def key(self) -> str:
        """The key of the object that it is."""
        return f"{self.first}..{self.last}"

    @classmethod
    def parse(cls, key: str) -> Range | None:
        """The inverse of `key`; None if it is no range's."""
        first, _, last = key.partition("..")
        try:
            found = cls(EntryId.parse(first), EntryId.parse(last))
        except ValueError:
            return None
        return found if found.key == key else None
