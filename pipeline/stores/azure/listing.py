"""Listing a container: page after page of one stream, by obstore where it can, by Azure's client where it can't."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from azure.core.exceptions import ResourceNotFoundError
from obstore.exceptions import InvalidPathError

from pipeline.errors import ObjectFailed, ObjectGone, UnavailableError, UsageError
from pipeline.stores import Entry, Page
from pipeline.stores.azure.access import Full, Meta, Plain
from pipeline.stores.azure.failures import converted
from pipeline.stores.azure.options import AzureOptions
from pipeline.stores.paths import nameable
from pipeline.stores.streams import Stream, Streams

LOOKUPS_LIMIT = 16
"""Empty blobs of a page that are looked up one by one; with more of them, the page is asked of Azure's client."""


class Listings:
    """The pages of one container's listings. Thread-safe.

    A page that begins where the one before ended goes on with the server's own marker. One that begins after a
    key, as after a restart, asks the server to begin there, and passes over what it gives before it nonetheless
    (as Azurite does): that costs requests, and no memory. An account with folders lists one folder after the
    other, so that what comes after a key can't be told: there such a page begins anew.
    """

    def __init__(self, options: AzureOptions, plain: Plain, full: Full, entry: Callable[[Meta], Entry]) -> None:
        self._options = options
        self._folder = options.folder
        self._plain = plain
        self._full = full
        self._entry = entry
        self._streams: Streams[Meta] = Streams()
        self._ordered: bool | None = options.ordered

    @property
    def ordered(self) -> bool:
        """Whether keys come in byte order: as configured, else unless the account has folders."""
        if self._ordered is None:
            self._ordered = not self._hierarchical()
        return self._ordered

    def _hierarchical(self) -> bool:
        """Whether the account has folders; no, where we may not ask: if it has, the first pages tell."""
        try:
            with converted(self._options.canonical):
                return self._full.hierarchical()
        except (ObjectFailed, ObjectGone, UsageError):
            return False
        except UnavailableError as error:
            if error.code != "permission":
                raise
            return False

    def page(self, after: str | None, limit: int) -> Page:
        """The page of at most `limit` keys after a key; empty only at the end."""
        stream = self._streams.take(after, limit) or self._from(after, limit)
        for found, last in stream:
            entries = [entry for entry in map(self._entry, found) if entry.key]
            if entries or last:
                if not last:
                    self._streams.keep(entries[-1].key, limit, stream)
                return Page(entries, last)
        return Page([], complete=True)

    def _from(self, after: str | None, limit: int) -> Stream[Meta]:
        place = self._folder + after if after and self.ordered else None
        return self._after(place, self._present(place, limit))

    def _after(self, place: str | None, stream: Stream[Meta]) -> Iterator[tuple[Sequence[Meta], bool]]:
        """Only what comes after a place, as long as it comes in order."""
        before = ""
        for found, last in stream:
            if self._ordered is not False:
                for meta in found:
                    if meta.key < before:
                        self._disorder()
                    before = meta.key
            yield found if place is None else [meta for meta in found if meta.key > place], last

    def _disorder(self) -> None:
        if self.ordered:
            self._ordered = False
            raise UnavailableError(f"{self._options.canonical} does not list in byte order; it is listed otherwise now")

    def _present(self, place: str | None, limit: int) -> Stream[Meta]:
        """What comes after a place, and perhaps what comes before it; without order, some may come twice."""
        given = None
        if nameable(self._folder.rstrip("/") or "x") and (place is None or nameable(place)):
            try:
                for found, last in self._plain.pages(self._folder, place, limit):
                    blobs = None if given is None and found and self._slashed() else self._blobs(found)
                    if blobs is None:
                        break
                    yield blobs, last
                    given = blobs[-1].key if blobs else given
                else:
                    return
            except InvalidPathError:
                """What follows has a key that obstore can't name."""
        if given is not None:
            place = given if self.ordered else None
        for found, last in self._full.pages(self._folder, place, limit):
            yield [meta for meta in found if not meta.mark and (place is None or meta.key > place)], last

    def _slashed(self) -> bool:
        """Whether there are names that begin with a slash: obstore lists them without it, as other names."""
        if self._folder:
            return False
        found, _ = next(iter(self._full.pages("/", None, 1)), ([], True))
        return any(meta.key.startswith("/") for meta in found)

    def _blobs(self, found: Sequence[Meta]) -> Sequence[Meta] | None:
        """A page of obstore without folders' marks, which it shows as empty blobs; None where those are many."""
        doubtful = [meta for meta in found if meta.size == 0]
        if len(doubtful) > LOOKUPS_LIMIT:
            return None
        marks = {meta for meta in doubtful if not self._is_blob(meta)}
        return [meta for meta in found if meta not in marks and meta.key.startswith(self._folder)]

    def _is_blob(self, listed: Meta) -> bool:
        """Whether an empty blob has the name that obstore lists it by, not one with a slash, and is no mark."""
        try:
            found = self._full.head(listed.key)
        except ResourceNotFoundError:
            return False
        return not found.mark and found.size == 0
