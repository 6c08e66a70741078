"""Lists and manifests as they change: the producers' contract for a folder on a real server, and what lists add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.producers.urls import UrlsProducer
from pipeline.stores.http import open_list, open_store
from pipeline.stores.scope import Scope
from tests.producers.contract import Made, ProducerContract, listening
from tests.stores.web import Site, serving

PAUSE_SECONDS = 0.02


class TestFolder(ProducerContract):
    """The contract for a folder, whose manifest is asked for again and again."""

    @pytest.fixture
    def made(self) -> Iterator[Made]:
        """A folder of its own for each test."""
        with serving(Site()) as site:
            names: set[str] = set()

            def change() -> None:
                site.put("/files.txt", "\n".join(sorted(names)))

            def put(key: str, content: bytes) -> None:
                site.put(f"/{key}", content)
                names.add(key)
                change()

            def delete(key: str) -> None:
                names.discard(key)
                change()

            change()
            source = Source(name="s", project="p", url=f"{site.url}/", allow_private=True)
            store = open_store(source, Path())
            yield Made(UrlsProducer(source, store, Scope(), PAUSE_SECONDS), store, put, delete)
            store.close()

    def test_a_changed_object_is_noticed_again(self, made: Made) -> None:
        """The manifest says nothing of a file's content: another content is for a pass, whose version differs."""
        made.put("one", b"first")
        before = made.store.head("one")
        with listening(made.producer) as listener:
            made.put("one", b"second!")
            made.put("two", b"x")
            listener.event("two", "created")
            after = made.store.head("one")

            assert all(event.key == "two" for notices in listener.seen for event in notices.events)
            assert before is not None
            assert after is not None
            assert before.version != after.version


def test_a_local_list_is_noticed_line_by_line(tmp_path: Path) -> None:
    """Lines that come, go and change their signature are events; those that `match` leaves out are none."""
    path = tmp_path / "urls.txt"
    path.write_text("http://h/a.jpg?sig=1\nhttp://h/b.jpg\n")
    source = Source.model_validate({"name": "s", "project": "p", "url": str(path), "as": "urls", "settle": 0})
    store = open_list(source, tmp_path)
    with listening(UrlsProducer(source, store, Scope(exclude=["**/*.txt"]))) as listener:
        unfinished = tmp_path / "new"
        unfinished.write_text("http://h/a.jpg?sig=2\nhttp://h/c.jpg\nhttp://h/d.txt\n")
        unfinished.rename(path)
        listener.event("http://h/b.jpg", "deleted")
    told = {(event.key, event.kind) for notices in listener.seen for event in notices.events}

    assert told == {("http://h/a.jpg", "created"), ("http://h/b.jpg", "deleted"), ("http://h/c.jpg", "created")}
    store.close()


def test_one_url_is_for_passes() -> None:
    """A single URL has no list; nothing is asked for, and it ends when it is to."""
    with serving(Site()) as site:
        source = Source(name="s", project="p", url=f"{site.url}/a.json", allow_private=True)
        store = open_store(source, Path())
        with listening(UrlsProducer(source, store, Scope(), PAUSE_SECONDS)):
            pass
        store.close()
        assert site.asked == []
