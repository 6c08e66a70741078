"""Files that a person named, as one store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Source
from pipeline.errors import ObjectGone
from pipeline.stores.named import NamedFiles, open_store, url_of

NAMES = st.lists(
    st.sampled_from(["a", "a b", "a-", "a0", "a.x", "b", "ä", "b/c", "b/0", "b.d/e", "c/d/e"]), unique=True
)


def store_of(*paths: Path) -> NamedFiles:
    """A store over these paths, opened by its url as the application does."""
    return open_store(Source(name="s", project="p", url=url_of(paths), settle=0), Path("/"))


def listed(store: NamedFiles, limit: int) -> list[str]:
    """All keys, page by page."""
    keys: list[str] = []
    after = None
    while True:
        page = store.list(after, limit)
        keys += [entry.key for entry in page.entries]
        if page.complete:
            return keys
        after = keys[-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(NAMES, NAMES, st.integers(1, 4))
def test_listing(tmp_path_factory: pytest.TempPathFactory, names: list[str], chosen: list[str], limit: int) -> None:
    """A listing gives exactly what was named, in byte order, once, whatever the size of its pages."""
    root = tmp_path_factory.mktemp("named").resolve()
    for name in names:
        place = root / "sub" / name
        if not place.exists() and not (root / "sub" / name.partition("/")[0]).is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(name)
    paths = [root / "sub" / name for name in chosen if (root / "sub" / name).exists()]
    store = store_of(*paths)
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()}
    expected = sorted(str(file)[1:].encode() for file in files)

    assert [key.encode() for key in listed(store, limit)] == expected


def test_named_before(tmp_path: Path) -> None:
    """What was not named this time can still be looked at and read, also in hidden folders."""
    hidden = tmp_path.resolve() / ".hidden"
    hidden.mkdir()
    (hidden / "a.json").write_bytes(b"{}")
    (hidden / "b.json").write_bytes(b"[]")
    store = store_of(hidden / "a.json")
    other = str(hidden / "b.json")[1:]

    entry = store.head(other)
    assert entry is not None
    assert entry.key == other
    with store.open(other) as reading:
        assert reading.content == b"[]"
    assert store.uri(other) == (hidden / "b.json").as_uri()
    assert (store.named(str(hidden / "a.json")[1:]), store.named(other)) == (True, False)


def test_gone(tmp_path: Path) -> None:
    """A file that is no more is gone, and so is what is no name of a file."""
    store = store_of(tmp_path.resolve())

    assert store.head(f"{tmp_path.resolve()}/x"[1:]) is None
    assert store.head("nowhere/at/all") is None
    assert store.head("a\x00b") is None
    with pytest.raises(ObjectGone), store.open(f"{tmp_path.resolve()}/x"[1:]):
        pass
    with pytest.raises(ObjectGone):
        store.open("a\x00b")
