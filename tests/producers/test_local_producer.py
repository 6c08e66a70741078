"""Local files as they change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.config import Source
from pipeline.errors import UnavailableError
from pipeline.producers import local
from pipeline.producers.local import LocalProducer
from pipeline.stores.local import LocalStore
from pipeline.stores.scope import Scope
from tests.producers.conftest import until
from tests.producers.contract import Listener, Made, ProducerContract, listening


def put(root: Path, key: str, content: bytes = b"x") -> None:
    """A finished file, renamed into its place."""
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def producer(root: Path, settle: float = 0.1, *match: str) -> LocalProducer:
    """A producer over a folder."""
    source = Source(name="inbox", project="p", url=str(root))
    return LocalProducer(source, LocalStore(root, settle), Scope(match or ("**/*",)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class TestLocalProducer(ProducerContract):
    """The contract."""

    @pytest.fixture
    def made(self, root: Path) -> Made:
        """A producer over an empty folder."""
        store = LocalStore(root, 0.1)
        watching = LocalProducer(Source(name="inbox", project="p", url=str(root)), store, Scope())
        return Made(watching, store, lambda key, content: put(root, key, content), lambda key: (root / key).unlink())


def keys(listener: Listener) -> list[str]:
    """The keys of all events so far."""
    return [event.key for notices in listener.seen for event in notices.events]


def test_a_growing_file_is_published_once_it_rests(root: Path) -> None:
    """Written in pieces, it gives one event, with the whole file's size."""
    with listening(producer(root, 0.3)) as listener:
        pause = threading.Event()
        with (root / "growing").open("wb", buffering=0) as file:
            for _ in range(10):
                file.write(b"x")
                pause.wait(0.02)
        event = listener.event("growing", "created", "updated")
        put(root, "end")
        listener.event("end", "created")

        assert event.size == 10
        assert keys(listener).count("growing") == 1


def test_what_is_left_out_is_not_published(root: Path) -> None:
    """Hidden, unfinished and uncovered files give no events."""
    with listening(producer(root, 0.1, "**/*.json")) as listener:
        for key in (".hidden.json", "unfinished.json.tmp", "other.csv", ".d/a.json"):
            (root / key).parent.mkdir(exist_ok=True)
            (root / key).write_bytes(b"x")
        put(root, "a.json")
        listener.event("a.json", "created")

        assert keys(listener) == ["a.json"]


def test_a_folder_that_is_moved_in_is_published_whole(root: Path, tmp_path: Path) -> None:
    """Its files changed before they were in the root, and no notification tells of them."""
    for key in ("a", "deep/er/b", "deep/c"):
        put(tmp_path / "elsewhere", key)

    with listening(producer(root)) as listener:
        (tmp_path / "elsewhere").rename(root / "moved")
        wanted = {"moved/a", "moved/deep/er/b", "moved/deep/c"}
        listener.until(lambda _: wanted <= set(keys(listener)))


def test_files_that_land_in_a_new_folder_before_it_is_watched_are_published(root: Path) -> None:
    """However quickly folders and files follow each other, each file is noticed."""
    wanted = {f"{number}/x/y/z.json" for number in range(100)}
    with listening(producer(root)) as listener:
        for key in wanted:
            put(root, key)
        listener.until(lambda _: wanted <= set(keys(listener)))


def test_a_name_that_is_not_utf8_ends_the_watch_with_an_error_that_passes(root: Path) -> None:
    """The library cannot tell it; a new watch and a pass take over."""
    with listening(producer(root)) as listener:
        Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_bytes(b"x")
        listener.thread.join(20)

        assert isinstance(listener.error, UnavailableError)


def test_a_root_that_vanishes_ends_the_watch(root: Path) -> None:
    """A watch on a deleted folder would be silent for ever."""
    with listening(producer(root)) as listener:
        shutil.rmtree(root)
        root.mkdir()
        listener.thread.join(20)

        assert isinstance(listener.error, UnavailableError)


def test_a_root_that_is_not_there_is_unavailable(root: Path) -> None:
    """It may come later."""
    with pytest.raises(UnavailableError):
        next(producer(root / "missing").notices(threading.Event()))


def test_a_single_file_is_watched_for_what_takes_its_place(root: Path) -> None:
    """A file that is replaced by a rename is another file, and is noticed."""
    put(root, "only.json", b"1")
    with listening(producer(root / "only.json")) as listener:
        put(root, "other.json", b"1")
        put(root, "only.json", b"22")
        event = listener.event("only.json", "created", "updated")

        assert event.size == 2
        assert set(keys(listener)) == {"only.json"}


def test_a_burst_that_the_system_may_have_cut_short_makes_a_pass_due(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library does not tell of an overflow, so too many changes at once are taken for one."""
    (root.parent / "length").write_text("800")
    monkeypatch.setattr(local, "QUEUE_LENGTH", root.parent / "length")
    with listening(producer(root)) as listener:
        for number in range(300):
            put(root, str(number))

        assert listener.until(lambda notices: notices.lost)


WATCHING = """
import sys, threading
from tests.producers.test_local_producer import Path, producer
for notices in producer(Path(sys.argv[1])).notices(threading.Event()):
    if notices.lost:
        print("lost", flush=True)
"""


def test_a_queue_that_overflows_while_the_process_is_held_up_makes_a_pass_due(root: Path) -> None:
    """The system drops what does not fit; the producer cannot see what, but says that something may be lost."""
    command = [sys.executable, "-c", WATCHING, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "lost\n"
        child.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        for number in range(min(int(local.QUEUE_LENGTH.read_text()), 20_000) // 5):
            put(root, str(number))
        until(lambda: time.monotonic() - stopped > local.STALL_SECONDS)
        child.send_signal(signal.SIGCONT)

        assert child.stdout.readline() == "lost\n"
        child.kill()


def test_a_large_folder_that_is_moved_in_is_left_to_a_pass(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing it here would keep other changes waiting."""
    monkeypatch.setattr(local, "LIST_LIMIT", 10)
    monkeypatch.setattr(local, "LIST_PAGE", 5)
    for number in range(50):
        put(tmp_path / "elsewhere", str(number))
    with listening(producer(root)) as listener:
        (tmp_path / "elsewhere").rename(root / "moved")

        assert listener.until(lambda notices: notices.lost)
