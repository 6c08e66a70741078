"""`HttpStore`: what a list, a manifest or a single URL names, as objects."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from mimetypes import guess_type
from threading import Lock
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import httpx

from pipeline.errors import (
    LabelfeedError,
    ObjectFailed,
    ObjectGone,
    ObjectUnsettled,
    RetriableError,
    UnavailableError,
    UsageError,
)
from pipeline.stores import SMALL_BYTES, Entry, Page
from pipeline.stores.http.bodies import HASH, BodyStream, Hashed, Stated, chunks, is_html, stated, strong_tag
from pipeline.stores.http.bounds import CONCURRENCY
from pipeline.stores.http.client import Client, Credentials
from pipeline.stores.http.lists import Held, Lines, Target
from pipeline.stores.http.urls import canonical, parsed, same_origin, without_user

PAGE_LOOKS = 250
"""Files that are looked at for one page of a listing."""
SILENT_LIMIT = 8
"""A host that did not answer so often within one page is not asked for the rest of it."""
HEADLESS = frozenset({400, 403, 405, 406, 500, 501})
"""What servers answer to HEAD that would answer GET."""
STREAM_BUFFER_BYTES = 256 * 1024
REFERENCE = "url"
"""What the versions of references begin with: nothing but the URL itself is known of them."""
_MARKUP = frozenset({"", ".html", ".htm", ".xhtml", ".xml"})
_BINARY = ("image/", "audio/", "video/", "application/pdf")


Entries = list[Entry]


class Names(Protocol):
    """Which objects there are, and the URL of each."""

    def page(self, after: str | None, limit: int) -> tuple[Sequence[str], bool]:
        """At most `limit` keys after one, in byte order, and whether they are the last."""

    def target(self, key: str) -> Target | None:
        """What a key stands for; None where there is no such object."""


class One:
    """A single URL."""

    def __init__(self, url: httpx.URL) -> None:
        key = canonical(url)
        self._lines = Lines([key], {key: Target(str(url))})

    def page(self, after: str | None, limit: int) -> tuple[Sequence[str], bool]:
        """As `Names.page`."""
        return self._lines.page(after, limit)

    def target(self, key: str) -> Target | None:
        """As `Names.target`."""
        return self._lines.target(key)


class HttpStore:
    """`pipeline.stores.Store` over HTTP. Thread-safe.

    With `by_reference` tasks refer to the URLs and nothing of them is asked for. `form` is the source's `format`.
    """

    ordered = True

    def __init__(
        self,
        names: Names,
        client: Client,
        credentials: Credentials,
        identity: str,
        uri_of: Callable[[str], str],
        *,
        by_reference: bool = False,
        form: str | None = None,
    ) -> None:
        self._names = names
        self._client = client
        self._credentials = credentials
        self._identity = identity
        self._uri_of = uri_of
        self.by_reference = by_reference
        self.concurrency = 1 if by_reference else CONCURRENCY
        self._form = form
        self._pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="http-look")

    def identity(self) -> str:
        """As `Store.identity`."""
        return self._identity

    def uri(self, key: str) -> str:
        """The object's URL without user, password, signature or token."""
        return self._uri_of(key)

    def reference(self, key: str) -> str:
        """How tasks refer to an object: by its whole URL as the list has it, but for user and password."""
        target = self._names.target(key)
        if target is None or target.problem is not None:
            return self.uri(key)
        return str(without_user(parsed(target.url)))

    def listed(self) -> Lines | None:
        """What the list or manifest holds now; None for a single URL. Raises UnavailableError."""
        return self._names.lines() if isinstance(self._names, Held) else None

    def ping(self) -> str:
        """As `Store.ping`."""
        lines = self.listed()
        if lines is None:
            (key,), _ = self._names.page(None, 1)
            entry = self.head(key)
            return "nothing is there now" if entry is None else f"a file of {entry.size} bytes"
        count = len(lines.keys)
        return f"a list of {count} URLs" if self.by_reference else f"a list of {count} files"

    def list(self, after: str | None, limit: int) -> Page:
        """As `Store.list`. What doesn't answer now has no version; what the server denies has none either."""
        while True:
            keys, complete = self._names.page(after, limit if self.by_reference else min(limit, PAGE_LOOKS))
            entries = self._entries(keys)
            if entries or complete:
                return Page(entries, complete)
            after = keys[-1]

    def _entries(self, keys: Sequence[str]) -> Entries:
        silent = _Silent()
        if self.by_reference:
            return [entry for key in keys if (entry := self._looked(key, silent)) is not None]
        found = self._pool.map(lambda key: self._looked(key, silent), keys)
        return [entry for entry in found if entry is not None]

    def _looked(self, key: str, silent: _Silent) -> Entry | None:
        unknown = Entry(key, "", 0, 0.0)
        host = "" if self.by_reference else urlsplit(self.uri(key)).netloc
        if silent.given_up(host):
            return unknown
        try:
            return self.head(key)
        except RetriableError:
            if isinstance(self._names, One):
                # There is nothing but this one: its source waits.
                raise
            silent.add(host)
            return unknown
        except LabelfeedError:
            return unknown

    def head(self, key: str) -> Entry | None:
        """As `Store.head`; raises ObjectFailed where the line of the list is no URL, or the server denies it."""
        target = self._names.target(key)
        if target is None:
            return None
        if self.by_reference:
            return Entry(key, _reference_version(key, self._url(key, target)), 0, 0.0)
        url = self._url(key, target)
        try:
            with self._patience(url):
                return self._look(key, url)
        except ObjectGone:
            return None

    @contextmanager
    def _patience(self, url: httpx.URL) -> Iterator[None]:
        """An outage of the source's own host is the storage's, and waited for; another host's is its file's failure."""
        try:
            yield
        except UnavailableError as error:
            own = self._credentials.url
            if isinstance(self._names, One) or (own is not None and same_origin(url, own)):
                raise
            raise RetriableError(str(error), retry_after=error.retry_after, code=error.code) from None

    def _look(self, key: str, url: httpx.URL) -> Entry:
        with self._client.answer("HEAD", url, also=HEADLESS) as answer:
            if answer.is_success:
                said = stated(answer)
                if said.version is not None:
                    self._refuse_page(key, answer, None)
                    return _entry(key, said)
        with self._client.answer("GET", url) as answer:
            said = stated(answer)
            if said.version is None:
                whole = Hashed()
                for chunk in self._chunks(key, answer):
                    whole.add(chunk)
                said = said._replace(version=whole.version, size=whole.size)
            return _entry(key, said)

    @contextmanager
    def open(self, key: str) -> Iterator[HttpReading]:
        """As `Store.open`: one request for a small file; a large one is asked for again by each stream."""
        target = self._names.target(key)
        if target is None:
            raise ObjectGone(f"{self.uri(key)} is not in the list")
        url = self._url(key, target)
        with self._patience(url):
            reading = self._opened(key, url)
        yield reading

    def _opened(self, key: str, url: httpx.URL) -> HttpReading:
        with self._client.answer("GET", url) as answer:
            said, tag = stated(answer), strong_tag(answer)
            kept: list[bytes] = []
            whole = Hashed()
            for chunk in self._chunks(key, answer):
                whole.add(chunk)
                if whole.size <= SMALL_BYTES:
                    kept.append(chunk)
                elif said.version is not None and said.size is not None:
                    break
        small = whole.size <= SMALL_BYTES
        size = whole.size if said.version is None or said.size is None or small else said.size
        entry = Entry(key, said.version or whole.version, size, said.modified)
        if small:
            return HttpReading(entry, b"".join(kept), lambda: iter(()))
        return HttpReading(entry, None, lambda: self._again(url, entry, tag))

    def _again(self, url: httpx.URL, entry: Entry, tag: str | None) -> Iterator[bytes]:
        """The bytes of a version once more. Raises ObjectUnsettled if there is another one by now."""
        whole = Hashed()
        with self._client.answer("GET", url, {"If-Match": tag} if tag else {}) as answer:
            by_content = entry.version.startswith(HASH)
            if not by_content and stated(answer).version != entry.version:
                raise ObjectUnsettled(f"{self.uri(entry.key)} changed while it was read")
            for chunk in self._chunks(entry.key, answer):
                yield whole.add(chunk) if by_content else chunk
        if by_content and whole.version != entry.version:
            raise ObjectUnsettled(f"{self.uri(entry.key)} changed while it was read")

    def _chunks(self, key: str, answer: httpx.Response) -> Iterator[bytes]:
        bounds = self._client.bounds
        said = stated(answer)
        limit = bounds.body_bytes if said.version is not None and said.size is not None else bounds.untold_bytes
        found = chunks(answer, self.uri(key), bounds, limit, packed=_name(key).endswith(".gz"))
        first = next(found, b"")
        self._refuse_page(key, answer, first)
        yield first
        yield from found

    def _refuse_page(self, key: str, answer: httpx.Response, start: bytes | None) -> None:
        """Raise ObjectFailed for an HTML page in place of a file of another kind; `start` is None without its bytes."""
        if not is_html(answer) or self._form == "html":
            return
        name = _name(key)
        binary = (guess_type(name)[0] or "").startswith(_BINARY)
        extension = name[name.rfind(".") :] if "." in name else ""
        page = start is not None and start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<" and extension not in _MARKUP
        if page or (binary and start is None):
            raise ObjectFailed(
                "html_page",
                f"{self.uri(key)}: the server answers with an HTML page instead of the file",
                hint="a page that asks to log in, or tells of an error? open the URL, and check the credentials",
            )

    def _url(self, key: str, target: Target) -> httpx.URL:
        if target.problem is not None:
            raise ObjectFailed("bad_url", f"{key}: {target.problem}", hint="put the line of the list right")
        return parsed(target.url)

    def sign(self, key: str, ttl: float) -> str:
        """The URL itself, if anybody may read it; UsageError where it takes credentials of ours."""
        target = self._names.target(key)
        if target is None:
            raise ObjectGone(f"{self.uri(key)} is not in the list")
        url = self._url(key, target)
        if url.userinfo or self._credentials.covers(url):
            raise UsageError(f"{self.uri(key)} takes credentials: there is no URL for it that lives for {ttl:g} s")
        return str(url)

    def close(self) -> None:
        """As `Store.close`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()


class HttpReading:
    """`pipeline.stores.Reading` of a file."""

    def __init__(self, entry: Entry, content: bytes | None, again: Callable[[], Iterator[bytes]]) -> None:
        self.entry = entry
        self.content = content
        self._again = again

    def stream(self) -> BinaryIO:
        """As `Reading.stream`."""
        if self.content is not None:
            return io.BytesIO(self.content)
        return io.BufferedReader(BodyStream(self._again), STREAM_BUFFER_BYTES)


class _Silent:
    """Hosts that did not answer, within one page."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._hosts: Counter[str] = Counter()

    def add(self, host: str) -> None:
        with self._lock:
            self._hosts[host] += 1

    def given_up(self, host: str) -> bool:
        return self._hosts[host] >= SILENT_LIMIT


def _entry(key: str, said: Stated) -> Entry:
    return Entry(key, said.version or "", said.size or 0, said.modified)


def _reference_version(key: str, url: httpx.URL) -> str:
    """Another one when the list has another URL for the key, such as one with a new signature."""
    whole = str(without_user(url))
    return REFERENCE if whole == key else f"{REFERENCE}-{blake2b(whole.encode(), digest_size=8).hexdigest()}"


def _name(key: str) -> str:
    """The file's own name, in lower case, without the query of a URL."""
    path = key.partition("?")[0] if key.startswith(("http://", "https://")) else key
    return path.rpartition("/")[2].lower()
