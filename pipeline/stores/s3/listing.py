"""Listing a bucket: page after page of one stream, by obstore where it can, by boto3 where it can't."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from botocore.exceptions import ClientError
from obstore.exceptions import InvalidPathError

from pipeline.errors import ObjectGone, UnavailableError
from pipeline.stores import Entry, Page
from pipeline.stores.paths import AFTER_SLASH, nameable
from pipeline.stores.s3.access import Full, Meta, Plain, maybe_mark
from pipeline.stores.s3.failures import code_of, converted
from pipeline.stores.s3.options import S3Options
from pipeline.stores.streams import Stream, Streams

LOOKUPS_LIMIT = 16
"""Empty objects of a page that are looked up one by one; with more of them, the page is asked of boto3."""
REFUSED_LOOKS = frozenset({"400", "403"})
"""The answer to a HEAD has no word of S3's: 400 where the object is under a key of its owner's own."""
DIRECTORY_BUCKET = "--x-s3"
"""S3 Express lists in no order; its buckets are named so."""
UNORDERED_SERVERS = ("seaweedfs",)
"""They list folder by folder, so that `a/b` comes before `a b`."""

PASSING_SERVERS = ("minio", "seaweedfs")
"""They pass over keys where a listing begins after one, see `Listings`."""


class Listings:
    """The pages of one bucket's listings. Thread-safe.

    A page that begins where the one before ended goes on with the server's own continuation token. Beginning
    after a key, as after a restart, is an operation of its own, which MinIO and SeaweedFS get wrong where folders
    and files of like names meet: it passes over keys. The next pass, which begins at the start, has them.
    """

    def __init__(
        self,
        options: S3Options,
        plain: Plain,
        full: Full,
        entry: Callable[[Meta], Entry],
        versioned: Callable[[], bool],
    ) -> None:
        self._options = options
        self._folder = options.folder
        self._plain = plain
        self._full = full
        self._entry = entry
        self._versioned = versioned
        self._streams: Streams[Meta] = Streams()
        self._ordered: bool | None = options.ordered
        self._named: str | None = None
        """What the server calls itself, once it was asked."""

    @property
    def ordered(self) -> bool:
        """Whether keys come in byte order: as configured, else by what the server says it is."""
        if self._ordered is None:
            if self._options.endpoint is None:
                self._ordered = not self._options.bucket.endswith(DIRECTORY_BUCKET)
            else:
                self._ordered = not self._server.startswith(UNORDERED_SERVERS)
        return self._ordered

    @property
    def jumps(self) -> bool:
        """Whether a listing may begin after any key without passing over others."""
        return self._options.endpoint is None or not self._server.startswith(PASSING_SERVERS)

    @property
    def _server(self) -> str:
        # No cached_property: before Python 3.12 all buckets' listings wait there for one that does not answer.
        if self._named is None:
            self._named = self._full.server().lower()
        return self._named

    def page(self, after: str | None, limit: int) -> Page:
        """The page of at most `limit` keys after a key; empty only at the end."""
        stream = self._resumed(after, limit)
        for found, last in stream:
            entries = [entry for entry in map(self._entry, found) if entry.key]
            self._check_order(entries)
            if entries or last:
                if not last:
                    self._streams.keep(entries[-1].key, limit, stream)
                return Page(entries, last)
        return Page([], complete=True)

    def _resumed(self, after: str | None, limit: int) -> Stream[Meta]:
        known = self._streams.take(after, limit)
        if known is not None:
            return known
        place = self._folder + after if after else None
        return self._latest(place, limit) if self._versioned() else self._present(place, limit)

    def _check_order(self, entries: Sequence[Entry]) -> None:
        if (
            self._ordered is not False
            and any(one.key >= other.key for one, other in pairwise(entries))
            and self.ordered
        ):
            self._ordered = False
            raise UnavailableError(f"{self._options.canonical} does not list in byte order; it is listed otherwise now")

    def _latest(self, place: str | None, limit: int) -> Stream[Meta]:
        for found, last in self._full.latest_pages(self._folder, place, limit):
            yield _without_marks(found), last

    def _present(self, place: str | None, limit: int) -> Stream[Meta]:
        if nameable(self._folder.rstrip("/") or "x") and (place is None or nameable(place)):
            start = place
            try:
                for found, last in self._plain.pages(self._folder, place, limit):
                    if place == start and found and self._slashed(place):
                        break
                    yield self._known(found, place, limit), last
                    if found:
                        place = found[-1].key
                else:
                    return
            except InvalidPathError:
                """What follows has a key that obstore can't name."""
        for found, last in self._full.pages(self._folder, place, limit):
            yield _without_marks(found), last

    def _slashed(self, place: str | None) -> bool:
        """Whether names that begin with a slash come after a place: obstore lists them without it, as other names."""
        if self._folder or (place is not None and place >= AFTER_SLASH):
            return False
        found, _ = next(iter(self._full.pages("/", None, 1)), ([], True))
        return any(meta.key.startswith("/") for meta in found)

    def _known(self, found: Sequence[Meta], place: str | None, limit: int) -> Sequence[Meta]:
        """A page of obstore without folders' marks, which it shows as empty objects of the folder's name."""
        doubtful = {meta.key for meta in found if maybe_mark(meta)}
        if not doubtful:
            return found
        marks = self._looked_up(doubtful) if len(doubtful) <= LOOKUPS_LIMIT else None
        if marks is None:
            marks = doubtful - self._listed(place, found[-1].key, limit)
        unique: dict[str, Meta] = {}
        for meta in found:
            # An object comes before the mark of a folder of the same name, which must not take its place.
            if meta.key not in marks and meta.key.startswith(self._folder):
                unique.setdefault(meta.key, meta)
        return list(unique.values())

    def _looked_up(self, doubtful: Iterable[str]) -> set[str] | None:
        """Which of these are no objects; None where we may not look at one: it may be listed all the same."""
        try:
            return {key for key in doubtful if not self._is_there(key)}
        except ClientError as error:
            if code_of(error) in REFUSED_LOOKS:
                return None
            raise

    def _is_there(self, key: str) -> bool:
        # What is archived, or under a key that we may not use, is there by a HEAD, and refused to a GET.
        if self._full.head(key) is not None:
            return True
        try:
            with converted(self._options.canonical):
                self._full.first(key)
        except ObjectGone:
            return False
        return True

    def _listed(self, place: str | None, end: str, limit: int) -> set[str]:
        keys: set[str] = set()
        for found, _ in self._full.pages(self._folder, place, limit):
            keys.update(meta.key for meta in found)
            if end in keys or f"{end}/" in keys:
                break
        return keys


def _without_marks(found: Sequence[Meta]) -> Sequence[Meta]:
    return [meta for meta in found if not meta.key.endswith("/")]
