"""Files on the web become tasks: by a URL on the command line, by lists and by folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.house import House, until
from tests.stores.web import Handler, Site, serving

SECRET = "planted-5ecret"


@pytest.fixture
def site() -> Iterator[Site]:
    """A server of this test alone."""
    with serving(Site()) as site:
        yield site


def left_by(house: House) -> list[str]:
    """The files, but for the configuration, that hold the secret."""
    files = [path for path in house.folder.rglob("*") if path.is_file() and path.name != "labelfeed.yaml"]
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


def imported(house: House, *arguments: str, code: int = 0) -> Any:
    """`labelfeed import` into a database of its own; gives the rows of its closing table."""
    ended = house.run("import", *arguments, "--project", "p", "--json")
    assert ended.code == code, ended.out + ended.err
    return ended.json()


def test_a_url_is_imported_once(house: House, site: Site) -> None:
    """`import URL` reads the file; the same version again, even by another signature, gives nothing new."""
    site.put("/a.json", '[{"text": "a"}, {"text": "b"}]')
    site.put("/b.txt", "one\ntwo\n")

    first = imported(house, f"{site.url}/a.json?token={SECRET}", f"{site.url}/b.txt", "--allow-private")
    again = imported(house, f"{site.url}/a.json?token=other", f"{site.url}/b.txt", "--allow-private")

    assert sorted(row["tasks"] for row in first) == [2, 2]
    assert [row["imported"] for row in again] == [0, 0]
    assert [len(house.rows("SELECT 1 FROM tasks"))] == [4]
    assert left_by(house) == []
    (found,) = house.look("explain", "--json", f"{site.url}/a.json").json()
    assert (found["key"], found["uri"]) == (f"{site.url}/a.json", f"{site.url}/a.json")


def test_a_url_at_a_private_address_needs_leave(house: House, site: Site) -> None:
    """Without --allow-private nothing is asked of this machine; with it a failed URL is tried again."""
    site.put("/a.json", '{"text": "a"}')

    (row,) = imported(house, f"{site.url}/a.json", code=1)

    assert [failure["reason"]["code"] for failure in row["failures"]] == ["private_address"]
    assert site.asked == []
    assert imported(house, f"{site.url}/a.json", "--allow-private")[0]["tasks"] == 1


def test_what_is_no_url_is_refused(house: House) -> None:
    """A URL without a host is an error of use, told without what may be secret in it."""
    ended = house.run("import", f"https://user:{SECRET}@/x.json", "--project", "p")

    assert ended.code == 2
    assert SECRET not in ended.err


def test_a_list_of_urls_gives_references(house: House, site: Site) -> None:
    """Each line is a task that refers to its URL as the list has it; only there is the signature."""
    signed = f"{site.url}/b.jpg?sig={SECRET}&se=9"
    site.put("/list.txt", f"{site.url}/a.jpg\n{signed}\nnonsense\n")
    house.configure(
        {"url": f"{site.url}/list.txt", "allow_private": True},
        projects={"p": {"label_config": '<View><Image name="i" value="$image"/></View>'}},
    )

    ended = house.once(code=1)

    assert house.tasks() == {
        f"{site.url}/a.jpg": [{"image": f"{site.url}/a.jpg"}],
        f"{site.url}/b.jpg": [{"image": signed}],
    }
    assert house.states() == {f"{site.url}/a.jpg": "done", f"{site.url}/b.jpg": "done", "nonsense": "failed: bad_url"}
    assert SECRET not in ended.out + ended.err
    (found,) = house.look("explain", "--json", f"{site.url}/b.jpg").json()
    assert found["uri"] == f"{site.url}/b.jpg"
    assert house.rows("SELECT 1 FROM objects WHERE key LIKE ?", f"%{SECRET}%") == []
    house.verify()


def test_a_list_of_urls_is_fetched(house: House, site: Site) -> None:
    """With `fetch` the files are read; what goes from the list goes, what changes is replaced, the silent stay."""
    for name in ("a", "b", "c"):
        site.put(f"/{name}.json", json.dumps({"text": name}))
    (house.folder / "urls.txt").write_text("".join(f"{site.url}/{name}.json\n" for name in ("a", "b", "c")))
    options = {
        "url": "./urls.txt", "as": "urls", "fetch": True, "allow_private": True, "on_change": "replace",
        "on_delete": "archive", "delete_guard": 1, "settle": 0,
    }  # fmt: skip
    house.configure(options)
    house.once()
    assert sorted(data["text"] for (data,) in house.tasks().values()) == ["a", "b", "c"]

    site.put("/a.json", json.dumps({"text": "a2"}))
    site.answer("/c.json", lambda handler: handler.reply(503))
    (house.folder / "urls.txt").write_text(f"{site.url}/a.json\n{site.url}/c.json\n")
    house.once()

    assert house.tasks() == {f"{site.url}/a.json": [{"text": "a2"}], f"{site.url}/c.json": [{"text": "c"}]}
    site.put("/c.json", json.dumps({"text": "c"}))
    house.once()
    house.agrees({f"{site.url}/a.json": [{"text": "a2"}], f"{site.url}/c.json": [{"text": "c"}]})


def test_bad_servers_fail_their_own_files(house: House, site: Site) -> None:
    """Redirects to private addresses, lies about length, pages and endless bodies fail with their reasons, alone."""

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.ended.is_set():
            handler.wfile.write(b"x" * 65536)

    site.put("/good.json", '{"text": "good"}')
    site.answer("/private.json", lambda handler: handler.redirect(f"http://127.0.0.2:{site.port}/good.json"))
    site.answer("/long.json", lambda handler: handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}more"))
    site.put("/page.json", "<html>", Content_Type="text/html")
    site.answer("/endless.json", endless)
    names = ["good", "private", "long", "page", "endless", "gone"]
    site.put("/list.txt", "".join(f"{site.url}/{name}.json\n" for name in names))
    house.configure({"url": f"{site.url}/list.txt", "fetch": True, "allow_private": ["127.0.0.1"]})

    house.once(code=1)

    states = {key.rpartition("/")[2].removesuffix(".json"): state for key, state in house.states().items()}
    assert states == {
        "good": "done", "private": "failed: private_address", "long": "failed: length", "page": "failed: html_page",
        "endless": "failed: too_large",
    }  # fmt: skip
    house.agrees({f"{site.url}/good.json": [{"text": "good"}]})


def test_a_url_that_does_not_answer_ends_an_import(house: House, site: Site) -> None:
    """An import of a URL that is out of order says so at once, and does not wait for hours."""
    site.answer("/a.json", lambda handler: handler.reply(503))
    ended = house.run("import", f"{site.url}/a.json", "--allow-private", "--project", "p")

    assert (ended.code, "the server answers 503" in ended.err) == (1, True), ended.err


def test_a_folder_is_read_while_it_changes(house: House, site: Site) -> None:
    """A folder's manifest is followed continuously; credentials are sent, and found nowhere."""
    site.token = f"Bearer {SECRET}"
    site.put("/in/files.txt", "a.json\nbad.json\n")
    site.put("/in/a.json", '{"text": "a"}')
    site.put("/in/bad.json", "<html>log in</html>", Content_Type="text/html")
    house.configure({"url": f"{site.url}/in/", "allow_private": True, "http": {"bearer": SECRET}, "watch": False})
    with house.continuously("--log-level=debug"):
        until(lambda: house.tasks() == {"a.json": [{"text": "a"}]}, what="the first file")
        until(lambda: house.states().get("bad.json") == "failed: html_page", what="the page")
        site.put("/in/b.json", '{"text": "b"}')
        site.put("/in/files.txt", "a.json\nb.json\nbad.json\n")
        until(lambda: "b.json" in house.tasks(), what="the second file")
    for verb in (["check"], ["explain", "inbox:bad.json"], ["plan"]):
        house.run(*verb)
    assert left_by(house) == []
    house.agrees({"a.json": [{"text": "a"}], "b.json": [{"text": "b"}]})
