"""Local files as a store."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import LabelfeedError, ObjectFailed, ObjectGone, ObjectUnsettled, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES
from pipeline.stores.local import LocalStore, walk
from pipeline.stores.local.folders import FOLDERS_LIMIT
from pipeline.stores.local.names import to_text
from pipeline.stores.local.settling import Settling
from tests.stores.contract import Made, StoreContract, listed

HOUR = 3600


def write(path: Path, content: bytes = b"x") -> Path:
    """A finished file: written beside its place and renamed into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    return unfinished.rename(path)


class TestLocalStore(StoreContract):
    """The contract."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> Made:
        """A store over an empty folder."""
        root = tmp_path / "root"
        root.mkdir()
        return Made(
            LocalStore(root, settle=0),
            lambda key, content: void(write(root / key, content)),
            lambda key: (root / key).unlink(),
        )


def void(_: object) -> None:
    """Nothing."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder, beside which there is a file that is none of ours."""
    write(tmp_path / "secret", b"secret")
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> LocalStore:
    """The store of that folder."""
    return LocalStore(root, settle=0)


def keys(store: LocalStore, limit: int = 1000) -> list[str]:
    """All keys as listed."""
    return [entry.key for entry in listed(store, limit)]


# --- listing -----------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "a-", "a0", "b", "ab", "é", "a.b", "%FF", "~a", "z" * 20])
TREES = st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=25)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tree=TREES, limit=st.integers(1, 7), names=st.integers(1, 4), data=st.data())
def test_any_tree_is_listed_in_order_from_anywhere(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    tree: set[str],
    limit: int,
    names: int,
    data: st.DataObject,
) -> None:
    """Pages of any size, folders too big for one scan, warm or cold: each key once, in byte order."""
    monkeypatch.setattr(walk, "NAMES_LIMIT", names)
    root = tmp_path_factory.mktemp("tree")
    files = sorted(path for path in tree if not any(other.startswith(path + "/") for other in tree))
    for path in files:
        write(root / path)
    store = LocalStore(root, settle=0)
    expected = sorted(to_text(path.encode()) for path in files)

    assert keys(store, limit) == expected
    after = data.draw(st.sampled_from([*expected, "a", "a/a", "a/", "zz"]))
    assert [entry.key for entry in store.list(after, 1000).entries] == [key for key in expected if key > after]


def test_paging_does_not_scan_a_folder_again(root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that goes on where its last page ended reads each folder once."""
    for number in range(30):
        write(root / f"{number % 3}" / f"{number}.txt")
    scanned: list[bytes] = []
    scandir = os.scandir
    monkeypatch.setattr(walk.os, "scandir", lambda folder: (scanned.append(folder), scandir(folder))[1])

    assert len(keys(store, limit=4)) == 30
    assert len(scanned) == len(set(scanned)) == 4


def test_hidden_and_unfinished_files_and_folders_are_left_out(root: Path, store: LocalStore) -> None:
    """What is hidden or unfinished, by its own name or its folder's, is not listed and cannot be opened."""
    for key in (".a", "b/.c", ".d/e", "f.tmp", "g.part", "h.crdownload", "i~", "j.part/k"):
        write(root / key)
        assert store.head(key) is None
        with pytest.raises(ObjectGone), store.open(key):
            pass
    write(root / "seen")

    assert keys(store) == ["seen"]


def test_names_that_are_not_utf8_are_listed_and_opened(root: Path, store: LocalStore) -> None:
    """Such a file has a text key, by which it is found again."""
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).write_bytes(b"latin")

    assert keys(store) == ["caf%E9.txt"]
    with store.open("caf%E9.txt") as reading:
        assert reading.content == b"latin"
    assert store.uri("caf%E9.txt").endswith("/caf%E9.txt")


def test_only_regular_files_are_listed(root: Path, store: LocalStore) -> None:
    """A pipe is never opened for reading, which would wait for ever; it fails as what it is."""
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()

    assert keys(store) == []
    assert store.head("pipe") is None
    for key in ("pipe", "folder"):
        with pytest.raises(ObjectFailed) as caught, store.open(key):
            pass
        assert caught.value.code == "not_a_file"


def test_a_missing_root_is_no_empty_one(root: Path) -> None:
    """Where the root is not there nothing is known of its files: they are not gone."""
    write(root / "a")
    store = LocalStore(root, settle=0)
    root.rename(root.with_name("away"))

    for ask in (lambda: store.list(None, 10), lambda: store.head("a"), lambda: store.open("a").__enter__(), store.ping):
        with pytest.raises(UnavailableError):
            ask()


def test_a_folder_that_vanishes_in_a_listing_is_passed_over(root: Path, store: LocalStore) -> None:
    """Its neighbours are listed all the same."""
    for key in ("a/1", "a/2", "b/1", "c/1"):
        write(root / key)
    first = store.list(None, 1)
    (root / "b/1").unlink()
    (root / "b").rmdir()

    rest = store.list(first.entries[-1].key, 10)

    assert [entry.key for entry in rest.entries] == ["a/2", "c/1"]


def test_a_single_file_is_a_store_of_one_object(tmp_path: Path) -> None:
    """Its name is the key, even a hidden one, because somebody asked for it."""
    write(tmp_path / ".only.json", b"[]")
    store = LocalStore(tmp_path / ".only.json", settle=0)

    assert keys(store) == [".only.json"]
    assert store.list(".only.json", 10).entries == []
    with store.open(".only.json") as reading:
        assert reading.content == b"[]"
    assert store.head("other") is None
    (tmp_path / ".only.json").unlink()
    with pytest.raises(UnavailableError):
        store.head(".only.json")


# --- links -------------------------------------------------------------------------------------------------


def test_a_link_inside_the_root_is_its_file(root: Path, store: LocalStore) -> None:
    """It has the file's version, and its content."""
    write(root / "data/real", b"content")
    (root / "link").symlink_to("data/real")

    link, real = store.head("link"), store.head("data/real")

    assert keys(store) == ["data/real", "link"]
    assert link is not None
    assert real is not None
    assert link.version == real.version
    with store.open("link") as reading:
        assert reading.content == b"content"


def test_no_link_leads_out_of_the_root(root: Path, store: LocalStore) -> None:
    """Neither a file's link nor a folder's, nor a key with dots, opens what is outside."""
    (root / "file").symlink_to("../secret")
    (root / "folder").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "inner").mkdir()
    (root / "inner/back").symlink_to(root)

    assert keys(store) == []
    for key in (
        "file",
        "folder/secret",
        "loop",
        "inner/back/file",
        "../secret",
        "inner/../../secret",
        "/etc/passwd",
        "x\0",
    ):
        assert store.head(key) is None
        with pytest.raises(ObjectGone), store.open(key):
            pass


@contextmanager
def exchanging(root: Path) -> Iterator[None]:
    """Somebody who exchanges a folder for a link that leads out, and back, as fast as he can."""
    write(root / "in/secret", b"ours")
    (root / "out").symlink_to("..")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for one, other in (("in", "kept"), ("out", "in"), ("in", "out"), ("kept", "in")):
                (root / one).rename(root / other)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_exchanging_a_folder_for_a_link_never_leads_out(root: Path, store: LocalStore) -> None:
    """Whoever swaps a folder and a link as fast as he can gets nothing read from outside."""
    read = set()
    with exchanging(root):
        for _ in range(3000):
            try:
                with store.open("in/secret") as reading:
                    read.add(reading.content)
            except (ObjectGone, ObjectUnsettled):
                pass
    assert read <= {b"ours"}


def test_small_files_are_read_many_at_a_time(root: Path) -> None:
    """Each as `open` reads it, in the order of the keys; what must be looked at alone is left to `open`."""
    for number in range(5):
        write(root / f"{number % 2}/{number}", str(number).encode())
    write(root / "top", b"")
    write(root / "large", b"x" * (SMALL_BYTES + 1))
    (root / "link").symlink_to("top")
    (root / "folder").mkdir()
    store = LocalStore(root, settle=0)
    keys = ["1/1", "top", "0/0", "0/2", "1/3", "large", "link", "folder", "missing", ".hidden", "0/4", "../secret"]

    found = dict(zip(keys, store.contents(keys), strict=True))

    assert [key for key in keys if found[key] is None] == [
        "large", "link", "folder", "missing", ".hidden", "../secret",
    ]  # fmt: skip
    for key, content in found.items():
        if content is not None:
            with store.open(key) as reading:
                assert content == (reading.entry, reading.content)


def test_a_file_that_is_being_written_is_left_to_open(root: Path) -> None:
    """Its content would be of no version."""
    os.utime(write(root / "done"), (1, 1))
    (root / "fresh").write_bytes(b"x")
    store = LocalStore(root, settle=HOUR)

    done, fresh = store.contents(["done", "fresh"])

    assert done is not None
    assert fresh is None


def test_a_folder_that_is_kept_open_is_the_one_that_was_checked(root: Path) -> None:
    """Whatever takes its name meanwhile, files are read in it, or not at all."""
    write(root / "in/one", b"one")
    write(root / "in/secret", b"ours")
    (root / "in/away").symlink_to("../../secret")

    contents = LocalStore(root, settle=0).contents(["in/one", "in/secret", "in/away", "other/secret"])
    first = next(contents)
    (root / "in").rename(root / "kept")
    (root / "in").symlink_to("..")
    (root / "other").symlink_to("..")
    others = list(contents)

    assert first is not None
    assert first[1] == b"one"
    assert [None if found is None else found[1] for found in others] == [b"ours", None, None]


def test_exchanging_a_folder_never_leads_the_reading_of_many_out(root: Path, store: LocalStore) -> None:
    """Nor where files are read many at a time, in a folder that is kept open."""
    with exchanging(root):
        read = {found[1] for _ in range(3000) for found in store.contents(["in/secret"]) if found is not None}
    assert read == {b"ours"}


def test_no_more_folders_are_kept_open_than_the_limit(root: Path, store: LocalStore) -> None:
    """Many folders are read with few handles, and all of these are closed at the end."""
    keys = [f"{number}/file" for number in range(3 * FOLDERS_LIMIT)]
    for key in keys:
        write(root / key, key.encode())
    before = len(list(Path("/proc/self/fd").iterdir()))

    for key, found in zip(keys, store.contents(keys), strict=True):
        assert found is not None
        assert found[1] == key.encode()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + FOLDERS_LIMIT

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- settling ----------------------------------------------------------------------------------------------


def test_a_file_being_written_is_not_settled(root: Path) -> None:
    """It is listed as unsettled, and opening it says to come again."""
    store = LocalStore(root, settle=HOUR)
    (root / "growing").write_bytes(b"half")

    assert [entry.settled for entry in listed(store)] == [False]
    with pytest.raises(ObjectUnsettled) as caught, store.open("growing"):
        pass
    assert caught.value.retry_after == HOUR


def test_a_file_is_settled_once_it_was_left_alone(root: Path) -> None:
    """Nothing else than time has to pass."""
    store = LocalStore(root, settle=0.05)
    (root / "done").write_bytes(b"whole")
    deadline = time.monotonic() + 5
    while not (entry := store.head("done")) or not entry.settled:
        assert time.monotonic() < deadline

    assert entry.size == 5


def test_what_is_put_into_place_is_settled_at_once(root: Path) -> None:
    """A rename, a link and a copy with its times come after the last write."""
    store = LocalStore(root, settle=HOUR)
    write(root / "renamed", b"x")
    (root / "copied").write_bytes(b"x")
    os.utime(root / "copied", ns=(0, 1_600_000_000_123_456_789))
    (root / "linked").hardlink_to(root / "renamed")

    assert [entry.settled for entry in listed(store)] == [True, True, True]


def test_an_empty_file_is_settled_by_time_only(root: Path) -> None:
    """Who has made a file and set its mode has not written it yet."""
    store = LocalStore(root, settle=HOUR)
    (root / "new").touch()
    (root / "new").chmod(0o600)

    assert [entry.settled for entry in listed(store)] == [False]


def test_a_file_from_the_future_is_settled_when_it_was_seen_to_rest(root: Path) -> None:
    """A clock that was set back does not keep a file away for ever."""
    settling = Settling(0.05)
    path = root / "ahead"
    path.write_bytes(b"x")
    status = path.stat()
    yesterday = status.st_ctime_ns - 86400 * 10**9

    assert not settling.settled("ahead", "v1", status, yesterday)
    deadline = time.monotonic() + 5
    while not settling.settled("ahead", "v1", status, yesterday):
        assert time.monotonic() < deadline
    assert not settling.settled("ahead", "v2", status, yesterday)


def test_whole_seconds_of_writing_say_nothing_of_what_came_after(root: Path) -> None:
    """Where a file system cuts the time of writing to seconds, a file just written is not taken for a renamed one."""
    path = root / "fat"
    path.write_bytes(b"x")
    second = path.stat().st_ctime_ns // 10**9 * 10**9
    os.utime(path, ns=(second, second))

    assert not Settling(HOUR).settled("fat", "v", path.stat(), path.stat().st_ctime_ns)


# --- reading -----------------------------------------------------------------------------------------------


def test_a_large_file_that_changes_is_of_no_version(root: Path, store: LocalStore) -> None:
    """Its stream says so at its end, and so does leaving it."""
    write(root / "large", b"x" * (SMALL_BYTES + 10))

    def read(rest: int) -> None:
        with store.open("large") as reading:
            stream = reading.stream()
            stream.read(10)
            with (root / "large").open("ab") as file:
                file.write(b"more")
            stream.read(rest)

    for rest in (-1, 10):
        with pytest.raises(ObjectUnsettled):
            read(rest)


def test_a_large_file_that_is_replaced_or_deleted_is_read_to_its_end(root: Path, store: LocalStore) -> None:
    """What was opened stays one version, whatever the name stands for by then."""
    body = b"x" * (SMALL_BYTES + 10)
    write(root / "large", body)

    with store.open("large") as reading:
        write(root / "large", b"new")
        assert reading.stream().read() == body
        (root / "large").unlink()
        assert reading.stream().read() == body


def test_a_stream_ends_with_its_reading(root: Path, store: LocalStore) -> None:
    """A forgotten stream never reads another file that got the same handle."""
    write(root / "large", b"x" * (SMALL_BYTES + 10))
    with store.open("large") as reading:
        stream = reading.stream()

    with pytest.raises(ValueError, match="ended"):
        stream.read()


def test_no_handle_is_left_open(root: Path, store: LocalStore) -> None:
    """Whether reading works or fails, files are closed."""
    write(root / "small")
    write(root / "large", b"x" * (SMALL_BYTES + 1))
    (root / "link").symlink_to("small")
    (root / "folder").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))

    for key in ("small", "large", "link", "folder", "missing"):
        try:
            store.head(key)
            with store.open(key) as reading:
                reading.stream().read()
        except (ObjectGone, ObjectFailed):
            pass

    assert len(list(Path("/proc/self/fd").iterdir())) == before


AS_NOBODY = """
import os, sys
from pipeline.errors import LabelfeedError
from pipeline.stores.local import LocalStore
if os.getuid() == 0:  # whom permissions do not bind
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = LocalStore(sys.argv[1], 0)
print([entry.key for entry in store.list(None, 10).entries])
for key in ("unreadable", "closed/a"):
    for ask in (store.head, lambda key: store.open(key).__enter__()):
        try:
            print(bool(ask(key)))
        except LabelfeedError as error:
            print(error.code)
"""


@pytest.fixture
def open_path(tmp_path: Path) -> Iterator[None]:
    """Lets every user enter the folders above, which pytest keeps to one."""
    above = [folder for folder in tmp_path.parents if folder.stat().st_uid == os.getuid() and folder != Path("/")]
    modes = {folder: folder.stat().st_mode for folder in (tmp_path, *above)}
    for folder, mode in modes.items():
        folder.chmod(mode | 0o755)
    yield
    for folder, mode in modes.items():
        folder.chmod(mode)


def test_what_may_not_be_read_fails_with_permission_and_is_not_gone(root: Path, open_path: None) -> None:
    """A file without permission fails when it is opened; one in a closed folder cannot even be looked at."""
    write(root / "unreadable").chmod(0)
    write(root / "closed/a")
    (root / "closed").chmod(0)
    program = [sys.executable, "-c", AS_NOBODY, str(root)]
    repository = Path(__file__).parents[2]
    try:
        done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=repository)
    finally:
        (root / "closed").chmod(0o700)

    assert done.stderr == "folder_unreadable\n"
    assert done.stdout.splitlines() == ["['unreadable']", "True", "permission", "permission", "permission"]


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.EIO, UnavailableError, "unavailable"),
        (errno.ESTALE, UnavailableError, "unavailable"),
        (errno.EMFILE, UnavailableError, "unavailable"),
        (errno.ENOENT, ObjectGone, "gone"),
        (errno.ENAMETOOLONG, ObjectGone, "gone"),
        (errno.EACCES, ObjectFailed, "permission"),
        (errno.ENXIO, ObjectFailed, "not_a_file"),
        (errno.EINVAL, ObjectUnsettled, "unsettled"),
    ],
)
def test_an_error_of_the_system_is_ours(store: LocalStore, number: int, kind: type[LabelfeedError], code: str) -> None:
    """A failing disk is tried again, a missing file is gone, a forbidden one fails; each names the file."""
    error = store.files.translated(OSError(number, os.strerror(number)), "a b")

    assert (type(error), error.code) == (kind, code)
    assert "a%20b" in str(error)


def test_a_local_file_cannot_be_signed(store: LocalStore) -> None:
    """There is no URL by which others could read it."""
    with pytest.raises(UsageError):
        store.sign("a", 60)


def test_paths_become_keys(root: Path, store: LocalStore) -> None:
    """What a watcher calls a file is its key, unless it is none of ours."""
    assert store.files.key_of(str(root / "a/b c.txt")) == "a/b c.txt"
    for path in (root, root.parent / "secret", root / ".hidden/a", root / "a.part"):
        assert store.files.key_of(str(path)) is None
