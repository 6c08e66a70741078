"""HTTP: a list of URLs, a folder with a manifest, or one URL, as a store.

**A list of URLs** (`as: urls`, or a URL that ends with `.txt`): each line is an object, and its key is the URL without
what is secret in it. By default tasks refer to the URLs, which are not asked for; `fetch: true` reads the files.
**A folder** (a URL that ends with a slash, or with `/files.txt`): each line of its `files.txt` is the plain name of a
file in it, and its key.
**One URL** is one object.
**Version**: the ETag, else size and Last-Modified, else a hash of the content.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx

from pipeline.config import Source
from pipeline.errors import UsageError
from pipeline.stores.http.addresses import Guard
from pipeline.stores.http.bounds import Bounds
from pipeline.stores.http.client import Client, Credentials, basic
from pipeline.stores.http.lists import Held, fetched, itself, manifest, on_disk, urls
from pipeline.stores.http.store import HttpStore, One
from pipeline.stores.http.urls import beneath, canonical, parsed, without_user

__all__ = ["HttpStore", "open_list", "open_store"]

MANIFEST = "files.txt"
LIST_SUFFIX = ".txt"


def open_store(source: Source, folder: Path, bounds: Bounds | None = None) -> HttpStore:
    """The store of a source whose `url` is http(s)://…. Raises UsageError where its words can't be followed."""
    url = _url(source)
    name = url.path.rpartition("/")[2]
    plain = source.format is None
    if source.as_ == "urls" or (name.endswith(LIST_SUFFIX) and name != MANIFEST and plain and source.as_ == "auto"):
        return open_list(source, folder, bounds)
    credentials = _credentials(source, url)
    client = Client(_guard(source), credentials, bounds or Bounds())
    shown = canonical(url)
    if name and not (name == MANIFEST and plain):
        return HttpStore(
            One(url), client, credentials, f"http file {shown}", lambda key: key or shown, form=source.format
        )
    base = url.join("./").copy_with(query=url.query or None)
    lines = beneath(base, MANIFEST)
    held = Held(fetched(client, lines), manifest(base, MANIFEST), canonical(lines), client.bounds.list_lines)
    uri_of = lambda key: canonical(beneath(base, key))  # noqa: E731 - bound to this folder
    return HttpStore(held, client, credentials, f"http folder {canonical(base)}", uri_of, form=source.format)


def open_list(source: Source, folder: Path, bounds: Bounds | None = None) -> HttpStore:
    """The store of a source whose `url` is a list of URLs, on the web or in a local file. Raises UsageError."""
    bounds = bounds or Bounds()
    local = urlsplit(source.url).scheme.lower() not in ("http", "https")
    url = None if local else _url(source)
    credentials = _credentials(source, url)
    client = Client(_guard(source), credentials, bounds)
    if url is None:
        path = _path(source.url, folder)
        shown, where = path.as_uri(), on_disk(path, source.settle, bounds)
    else:
        shown, where = canonical(url), fetched(client, url)
    held = Held(where, urls, shown, bounds.list_lines)
    return HttpStore(
        held,
        client,
        credentials,
        f"http list {shown}",
        lambda key: itself(key) or shown,
        by_reference=not source.fetch,
        form=source.format,
    )


def _path(url: str, folder: Path) -> Path:
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        raise UsageError(f"as: urls needs a local file or an http(s) URL, not {parts.scheme}://")
    text = httpx.URL(url).path if parts.scheme == "file" else url
    return (folder / Path(text).expanduser()).absolute()


def _url(source: Source) -> httpx.URL:
    try:
        return parsed(source.url)
    except ValueError as error:
        # The URL is not told: somebody may have written a password into it.
        raise UsageError(f"source {source.name}: url: {error}") from None


def _guard(source: Source) -> Guard:
    try:
        return Guard.of(source.allow_private)
    except ValueError as error:
        raise UsageError(f"source {source.name}: allow_private: {error}") from None


def _credentials(source: Source, url: httpx.URL | None) -> Credentials:
    options = source.http
    headers: dict[str, str] = {}
    if url is not None and url.userinfo:
        headers["Authorization"] = basic(url.username, url.password)
    if options is None:
        return Credentials(headers, url and without_user(url))
    headers |= {name: value.get_secret_value() for name, value in options.headers.items()}
    if options.username is not None:
        password = options.password.get_secret_value() if options.password is not None else ""
        headers["Authorization"] = basic(options.username, password)
    if options.bearer is not None:
        headers["Authorization"] = f"Bearer {options.bearer.get_secret_value()}"
    if headers and url is None and not options.hosts:
        raise UsageError(f"source {source.name}: http.hosts must name the hosts that the credentials are for")
    return Credentials(headers, url and without_user(url), frozenset(options.hosts))
