"""The HTTP store against a real server: the contract for folders, and what lists are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ObjectFailed, ObjectGone, RetriableError, UnavailableError
from pipeline.stores.http import lists
from tests.stores.contract import Made, StoreContract, listed
from tests.stores.web import Site, serving
from tests.stores.webstore import SECRET, TIGHT, opened


class FolderContract(StoreContract):
    """The contract for a folder with a manifest."""

    validators = "etag"

    @pytest.fixture
    def made(self) -> Iterator[Made]:
        """A folder of its own for each test."""
        with serving(Site(validators=self.validators)) as site:
            site.put("/box/files.txt", "")
            names: set[str] = set()

            def change() -> None:
                site.put("/box/files.txt", "# what there is\n" + "".join(f"./{name}\n" for name in sorted(names)))

            def put(key: str, content: bytes) -> None:
                site.put(f"/box/{key}", content)
                names.add(key)
                change()

            def delete(key: str) -> None:
                site.files.pop(f"/box/{key}")
                names.discard(key)
                change()

            store = opened(f"{site.url}/box/")
            yield Made(store, put, delete)
            store.close()


class TestFolderByETag(FolderContract):
    """Versions are ETags."""


class TestFolderByModified(FolderContract):
    """Versions are sizes with Last-Modified."""

    validators = "modified"


class TestFolderByContent(FolderContract):
    """Versions are hashes of the content, as the server tells nothing."""

    validators = "none"


def test_a_name_that_leads_out_of_the_folder_is_never_asked_for(site: Site) -> None:
    """`..`, `//host` and an absolute URL in a manifest stay names, or fail; none reaches another path or host."""
    names = ["../secret.json", "a/../../secret.json", "//elsewhere/x.json", "/secret.json", f"{site.url}/secret.json"]
    site.put("/secret.json", "[]")
    site.put("/box/files.txt", "\n".join(names))
    store = opened(f"{site.url}/box/")

    for key in names:
        with pytest.raises((ObjectFailed, ObjectGone)), store.open(key):
            pass
    assert len(listed(store)) == len([name for name in names if ".." in name or "//" in name or name[0] == "/"])
    assert "/secret.json" not in [path.partition("?")[0] for path in site.paths("GET") + site.paths("HEAD")]


def test_the_manifest_may_be_named_itself(site: Site) -> None:
    """`…/files.txt` is the same folder as `…/`, and is not in it."""
    site.put("/box/files.txt", "a.json\nfiles.txt\n./files.txt\nsub/\n\n")
    site.put("/box/a.json", "[]")
    one, other = opened(f"{site.url}/box/files.txt"), opened(f"{site.url}/box/")

    assert [entry.key for entry in listed(one)] == ["a.json"]
    assert one.identity() == other.identity()
    assert one.uri("a.json") == f"{site.url}/box/a.json"


def test_an_unchanged_list_is_not_sent_again(site: Site) -> None:
    """Each pass asks for the list on condition, and the server answers 304."""
    site.put("/list.txt", "http://example.org/a.jpg\n")
    store = opened(f"{site.url}/list.txt")

    listed(store)
    listed(store)

    assert [one.headers.get("if-none-match") for one in site.asked] == [None, site.files["/list.txt"].headers["ETag"]]  # type: ignore[union-attr]
    site.put("/list.txt", "http://example.org/b.jpg\n")
    assert [entry.key for entry in listed(store)] == ["http://example.org/b.jpg"]


def test_a_list_refers_and_asks_for_nothing(site: Site) -> None:
    """Without `fetch` the URLs of a list are objects that are never asked for, and whose tasks hold them whole."""
    lines = [
        f"{site.url}/a.jpg",
        f"{site.url}/b.jpg?w=1&X-Amz-Signature={SECRET}",
        f"http://u:{SECRET}@h.example/c.jpg",
    ]
    site.put("/list.txt", "\n".join(["# pictures", "", *lines]))
    store = opened(f"{site.url}/list.txt")

    keys = [entry.key for entry in listed(store)]

    assert keys == sorted([f"{site.url}/a.jpg", f"{site.url}/b.jpg?w=1", "http://h.example/c.jpg"])
    assert store.by_reference
    assert [store.reference(key) for key in sorted(keys)] == sorted([lines[0], lines[1], "http://h.example/c.jpg"])
    assert site.paths("HEAD") == []
    assert site.paths("GET") == ["/list.txt"]


def test_a_new_signature_is_another_version(site: Site) -> None:
    """The key stays when a list is written with new signatures; the version changes, so that tasks may be renewed."""
    site.put("/list.txt", f"{site.url}/b.jpg?sig=one&se=1")
    store = opened(f"{site.url}/list.txt")
    (first,) = listed(store)
    site.put("/list.txt", f"{site.url}/b.jpg?sig=two&se=2")
    (second,) = listed(store)

    assert first.key == second.key == f"{site.url}/b.jpg"
    assert first.version != second.version


def test_a_known_file_is_read_while_its_list_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is away keeps nobody from the files that it named, and makes none of the others gone."""
    monkeypatch.setattr(lists, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(lists, "FRESH_SECONDS", 0.0)
    site.put("/a.json", "[]")
    site.put("/list.txt", f"{site.url}/a.json")
    store = opened(f"{site.url}/list.txt", fetch=True)
    listed(store)
    site.answer("/list.txt", lambda handler: handler.reply(500))

    with store.open(f"{site.url}/a.json") as reading:
        assert reading.content == b"[]"
    with pytest.raises(UnavailableError):
        store.head(f"{site.url}/b.json")


def test_a_list_on_disk_names_files_on_the_web(site: Site, tmp_path: Path) -> None:
    """`as: urls` takes a local file's lines, and with `fetch` their files are the objects."""
    site.put("/a.json", '{"text": "a"}')
    (tmp_path / "urls.txt").write_text(f"{site.url}/a.json\n{site.url}/gone.json\n")
    store = opened("./urls.txt", folder=tmp_path, fetch=True, settle=0, **{"as": "urls"})

    (entry,) = listed(store)
    with store.open(entry.key) as reading:
        assert (reading.content, reading.entry.version) == (b'{"text": "a"}', entry.version)
    assert store.head(f"{site.url}/gone.json") is None
    (tmp_path / "urls.txt").unlink()
    with pytest.raises(UnavailableError, match=r"urls\.txt"):
        store.list(None, 10)


def test_a_line_that_is_no_url_fails_alone(site: Site) -> None:
    """A bad line is an object of its own that fails with its reason; its secret is not told."""
    site.put("/list.txt", f"ftp://u:{SECRET}@h/x\n{site.url}/a.json\nnonsense\n")
    site.put("/a.json", "[]")
    store = opened(f"{site.url}/list.txt", fetch=True)

    entries = {entry.key: entry for entry in listed(store)}

    assert set(entries) == {"ftp://h/x", f"{site.url}/a.json", "nonsense"}
    for key in ("ftp://h/x", "nonsense"):
        assert entries[key].version == ""
        with pytest.raises(ObjectFailed) as failed, store.open(key):
            pass
        assert failed.value.code == "bad_url"
        assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("<!doctype html><p>log in", "text/html", "html_page"),
        ('{"a": 1}\n', "application/json", "bad_url"),
        ("x" * 100_001, "text/plain", "too_large"),
        ("http://h/\n" * 101, "text/plain", "too_large"),
    ],
    ids=["html", "no-urls", "bytes", "lines"],
)
def test_what_is_no_list_is_no_empty_list(site: Site, body: str, kind: str, code: str) -> None:
    """A page, another file or too long a list stops the pass with a reason; nothing is taken for deleted by it."""
    site.put("/list.txt", body, Content_Type=kind)
    store = opened(f"{site.url}/list.txt", TIGHT)

    with pytest.raises(UnavailableError) as failed:
        store.list(None, 10)
    assert failed.value.code == code


@pytest.mark.parametrize(("status", "code"), [(404, "gone"), (403, "permission"), (500, "unavailable")])
def test_a_list_that_is_not_there_is_no_empty_list(site: Site, status: int, code: str) -> None:
    """A missing list, or one that we may not read, is an error of the source."""
    site.answer("/list.txt", lambda handler: handler.reply(status))

    with pytest.raises(UnavailableError) as failed:
        opened(f"{site.url}/list.txt").list(None, 10)
    assert failed.value.code == code


def test_a_file_that_does_not_answer_leaves_the_others_alone(site: Site) -> None:
    """In a listing, what fails or is silent has no version; the rest is listed, and a silent host is soon given up."""
    names = [f"{number:02}.json" for number in range(40)]
    site.put("/box/files.txt", "\n".join(["ok.json", "denied.json", *names]))
    site.put("/box/ok.json", "[]")
    site.answer("/box/denied.json", lambda handler: handler.reply(403))
    store = opened(f"{site.url}/box/", TIGHT)
    versions = {entry.key: entry.version for entry in listed(store)}
    assert versions["denied.json"] == ""
    assert versions["ok.json"]
    assert len(versions) == 2
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
    site.put("/list.txt", "\n".join(f"http://127.0.0.1:{port}/{name}" for name in names))

    assert {entry.version for entry in listed(opened(f"{site.url}/list.txt", TIGHT, fetch=True))} == {""}


def test_who_is_waited_for(site: Site) -> None:
    """An outage of the source's own host is waited for; another host's, or a 500, fails its file in the end."""
    with serving(Site()) as other:
        urls = [f"{site.url}/503.json", f"{site.url}/500.json", f"{other.url}/503.json"]
        for where in (site, other):
            where.answer("/503.json", lambda handler: handler.reply(503))
            where.answer("/500.json", lambda handler: handler.reply(500))
        site.put("/list.txt", "\n".join(urls))
        store = opened(f"{site.url}/list.txt", fetch=True)
        raised = []
        for url in urls:
            with pytest.raises(RetriableError) as failed, store.open(url):
                pass
            raised.append((type(failed.value), failed.value.code))

    assert raised == [
        (UnavailableError, "unavailable"),
        (RetriableError, "unavailable"),
        (RetriableError, "unavailable"),
    ]


def test_one_url_that_does_not_answer_stops_its_source(site: Site) -> None:
    """Where a single URL is all there is, its outage is the source's, which says so at once."""
    site.answer("/a.json", lambda handler: handler.reply(503))

    with pytest.raises(UnavailableError):
        opened(f"{site.url}/a.json").list(None, 10)
