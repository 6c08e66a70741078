"""Bad input: each has a clear outcome, and its neighbours are imported all the same."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, as_anybody, remove, until

GOOD = {"a good.json": [{"text": "first"}], "z good.json": [{"text": "last"}]}
"""The neighbours, before and after whatever is bad."""


DEADLY = """
import os, signal

def parse(body, rules):
    os.kill(os.getpid(), signal.SIGKILL)
    yield
"""
"""A parser whose file kills the process that reads it."""


@pytest.fixture
def house(house: House) -> House:
    """Every inbox here has good files, too."""
    for key, (data,) in GOOD.items():
        house.put(key, json.dumps(data))
    return house


# --- what is in a file ---------------------------------------------------------------------------------------

ROWS = [{"text": "b"}, {"text": "c"}]
MANY = [{"text": "row", "n": n} for n in range(25_000)]

FILES: dict[str, tuple[bytes, str, list[Any]]] = {
    "broken.json": (b'{"text": "b",\n "n": }', "failed: syntax", []),
    "cells.csv": (b"text,n\nb,1\nc,2,3\nd,4\n", "done", [{"text": "b", "n": 1}, {"text": "d", "n": 4}]),
    "latin.txt": (b"caf\xe9\n", "failed: encoding", []),
    "latin.csv": (b"text\ncaf\xe9\n", "failed: encoding", []),
    "empty.json": (b"", "skipped: no_tasks", []),
    "empty.csv": (b"", "skipped: no_tasks", []),
    "empty.txt": (b"\n", "skipped: no_tasks", []),
    "empty.jsonl": (b"", "skipped: no_tasks", []),
    "huge.jsonl": (
        b'{"text": "b"}\n{"text": "' + b"x" * (17 * 1024 * 1024) + b'"}\n{"text": "c"}\n', "done", ROWS,
    ),
    "nul.jsonl": (b'{"text": "b"}\n{"text": "\\u0000"}\n{"text": "c"}\n', "done", ROWS),
    "many.csv": (b"text,n\n" + b"".join(b"row,%d\n" % n for n in range(25_000)), "done", MANY),
    "strange.xyz": (b"?", "skipped: unsupported_format", []),
    "caf%E9.json": (b'{"text": "b"}', "done", ROWS[:1]),
    "100%25E9.json": (b'{"text": "c"}', "done", ROWS[1:]),
    "inside.json": (b"", "done", GOOD["a good.json"]),
}  # fmt: skip
"""Key → content, how it has to end, and the tasks that have to come of it."""
NAMES = {"caf%E9.json": b"caf\xe9.json", "100%25E9.json": b"100%E9.json"}
"""Keys that are not the file's name as it stands."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One inbox with all of them, imported by one run, and a second that changed nothing."""
    house = House(tmp_path_factory.mktemp("bad"))
    house.inbox.mkdir()
    house.configure()
    for key, (content, _, _) in FILES.items():
        house.put(NAMES.get(key, key), content)
    for key, (data,) in GOOD.items():
        house.put(key, json.dumps(data))
    house.put("secret.json", '{"text": "secret"}', within=house.folder / "outside")
    remove(house.inbox / "inside.json")
    (house.inbox / "inside.json").symlink_to("a good.json")
    (house.inbox / "link.json").symlink_to("../outside/secret.json")
    (house.inbox / "folder").symlink_to("../outside")
    house.once(code=1)
    house.once(code=1)
    yield house
    house.close()


@pytest.mark.parametrize("key", FILES)
def test_each_bad_file_has_its_outcome(imported: House, key: str) -> None:
    """Whatever is in a file, or its name, ends in its own state with its own reason, and good rows become tasks."""
    _, state, data = FILES[key]
    assert imported.states()[key] == state
    assert imported.tasks().get(key, []) == data


def test_bad_files_stop_no_other(imported: House) -> None:
    """All good files and rows are imported beside the bad ones, each once, and everything is accounted for."""
    imported.agrees(GOOD | {key: data for key, (_, _, data) in FILES.items() if data})


def test_a_broken_json_says_where(imported: House) -> None:
    """The reason of a failed file holds the line of the break."""
    why = imported.explain("broken.json")["reason"]
    assert (why["code"], why["line"]) == ("syntax", 2)


@pytest.mark.parametrize(
    ("key", "code", "row"),
    [("cells.csv", "too_many_cells", 2), ("huge.jsonl", "too_large", 2), ("nul.jsonl", "nul", 2)],
)
def test_a_bad_row_is_kept_aside(imported: House, key: str, code: str, row: int) -> None:
    """A rejected row can be looked at with its number, its reason and the beginning of its text."""
    found = imported.rows("SELECT code, row, length(excerpt) FROM rejected WHERE key = ?", key)
    assert [(found_code, at) for found_code, at, _ in found] == [(code, row)]
    assert found[0][2] <= 1024


def test_pieces_of_a_large_file_leave_nothing_behind(imported: House) -> None:
    """A file of more rows than one piece holds is published whole, and nothing of its staging is left."""
    assert imported.rows("SELECT count(*) FROM imports WHERE state <> 'live'") == [(0,)]


def test_a_link_out_of_the_root_is_not_followed(imported: House) -> None:
    """What a link outside the root leads to is never read, be it a file or a folder."""
    assert {"link.json", "folder/secret.json"}.isdisjoint(imported.states())


def test_a_row_can_fail_its_file(house: House) -> None:
    """With `on_bad_row: fail` none of the file's rows become tasks."""
    house.configure({"on_bad_row": "fail"})
    house.put("rows.csv", "text,n\nb,1\nc,2,3\nd,4\n")
    house.once(code=1)
    assert house.states()["rows.csv"] == "failed: too_many_cells"
    house.agrees(GOOD)


# --- what is around a file -----------------------------------------------------------------------------------


def test_an_unreadable_file_fails_with_a_hint(house: House) -> None:
    """A file that may not be read ends `failed: permission`, and is imported once it may be and is retried."""
    path = house.put("locked.json", '{"text": "b"}')
    path.chmod(0)
    house.once(code=1, preexec=as_anybody)
    assert house.states()["locked.json"] == "failed: permission"
    assert house.explain("locked.json")["reason"]["hint"]
    house.agrees(GOOD)
    path.chmod(0o600)
    house.run("retry")
    house.once(preexec=as_anybody)
    house.agrees(GOOD | {"locked.json": [{"text": "b"}]})


def test_an_unreadable_folder_hides_nothing_else(house: House) -> None:
    """A folder that may not be entered is told of, its files are not taken for deleted, and the others go on."""
    house.configure({"on_delete": "archive"})
    house.put("shut/b.json", '{"text": "b"}')
    house.once()
    (house.inbox / "shut").chmod(0)
    house.put("c.json", '{"text": "c"}')
    ended = house.once(preexec=as_anybody)
    assert "folder_unreadable" in ended.err
    (house.inbox / "shut").chmod(0o700)
    house.agrees(GOOD | {"shut/b.json": [{"text": "b"}], "c.json": [{"text": "c"}]})


def test_a_file_deleted_before_it_is_read_is_gone(house: House) -> None:
    """A file that goes between its listing and its reading ends `gone`, which fails nothing."""
    path = house.put("short.json", '{"text": "b"}')
    running = house.start("run", "--once", fault="worker.started:1:STOP")
    until(running.suspended)
    path.unlink()
    running.signal(signal.SIGCONT)
    assert running.end().code == 0
    assert house.states()["short.json"] == "gone: gone"
    house.agrees(GOOD)


def test_a_folder_that_vanishes_takes_its_files_only(house: House) -> None:
    """A folder deleted between its listing and its reading leaves its files `gone` and the others imported."""
    for n in range(5):
        house.put(f"sub/{n}.json", '{"text": "b"}')
    running = house.start("run", "--once", fault="worker.started:1:STOP")
    until(running.suspended)
    remove(house.inbox / "sub")
    running.signal(signal.SIGCONT)
    assert running.end().code == 0
    assert [state for key, state in house.states().items() if key.startswith("sub/")] == ["gone: gone"] * 5
    house.agrees(GOOD)


def test_a_root_that_vanishes_is_waited_for(house: House) -> None:
    """When the whole inbox goes nothing is taken for deleted: its objects wait, and are imported when it is back."""
    running = house.start("run", "--once", "--log-format=json", fault="worker.started:1:STOP")
    until(running.suspended)
    away = house.inbox.rename(house.folder / "away")
    running.signal(signal.SIGCONT)
    until(lambda: house.rows("SELECT 1 FROM history WHERE kind = 'attempt'"), what="an attempt that found no root")
    away.rename(house.inbox)
    assert running.end().code == 0
    house.agrees(GOOD)


def test_a_source_without_its_root_fails_the_run_and_no_other_source(house: House) -> None:
    """A store that is not there makes exit code 1 and says which; the other sources are imported."""
    nowhere = {"name": "nowhere", "project": "p", "url": "./nowhere"}
    house.configure(sources=[{"name": "inbox", "project": "p", "url": "./inbox"}, nowhere])
    ended = house.once(code=1)
    assert "nowhere" in ended.err
    assert "Traceback" not in ended.err
    assert house.tasks() == GOOD
    house.configure()
    house.agrees(GOOD)


@pytest.mark.parametrize("by_rename", [False, True])
def test_a_file_changed_while_it_is_read_is_never_mixed(house: House, by_rename: bool) -> None:
    """Rows of two versions never stand together: what is imported in the end is the newest version, whole."""
    house.configure({"on_change": "replace"})
    path = house.put("moving.csv", "text,n\n" + "".join(f"old row {n:06},{n}\n" for n in range(100_000)))
    running = house.start("run", "--once", fault="worker.staged:1:STOP")
    until(running.suspended)
    new = "text,n\n" + "".join(f"new,{n}\n" for n in range(12_000))
    if by_rename:
        house.put("moving.csv", new)
    else:
        path.write_text(new)
    running.signal(signal.SIGCONT)
    assert running.end().code == 0
    house.once()
    house.agrees(GOOD | {"moving.csv": [{"text": "new", "n": n} for n in range(12_000)]})


def test_a_file_still_being_written_waits_until_it_rests(house: House) -> None:
    """A file that was written this moment is read after it has been still for `settle`, and whole."""
    house.configure({"settle": "500ms"})
    (house.inbox / "fresh.json").write_text('{"text": "b"}')
    (house.inbox / "half.json.part").write_text('{"text"')
    (house.inbox / ".hidden.json").write_text('{"text": "c"}')
    house.once()
    house.agrees(GOOD | {"fresh.json": [{"text": "b"}]})


# --- names ---------------------------------------------------------------------------------------------------


def test_a_key_that_is_too_long_is_shown_as_failed(house: House) -> None:
    """A key of more than 1,024 bytes cannot be in the ledger: the run says so and exits 1, and the others tell it."""
    key = "/".join(["d" * 250] * 5) + ".json"
    place = house.inbox
    for name in key.split("/")[:-1]:
        place /= name
        place.mkdir()
    (place / key.rpartition("/")[2]).write_text('{"text": "b"}')
    ended = house.once(code=1)
    assert "1259 bytes long" in ended.out + ended.err
    (letter,) = house.look("status", "--json").json()["dead_letters"]
    assert "1259 bytes long" in letter["reason"]
    assert "1259 bytes long" in house.look("explain", f"inbox:{key}").out
    assert house.tasks() == GOOD
    found = house.verify(code=1)
    assert [row["detail"] for row in found["findings"]] == ["the key is 1259 bytes long, more than 1024"]
    remove(house.inbox / ("d" * 250))
    house.agrees(GOOD)


# --- the machine ---------------------------------------------------------------------------------------------


def test_a_locked_database_is_waited_for(house: House) -> None:
    """While another program writes to the database a run waits for it, and then does its work."""
    house.once()
    house.put("b.json", '{"text": "b"}')
    with closing(sqlite3.connect(house.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        running = house.start("run", "--once")
        until(lambda: running.holds(house.database), what="the database opened")
        other.execute("COMMIT")
    assert running.end().code == 0
    house.agrees(GOOD | {"b.json": [{"text": "b"}]})


FULL_BYTES = 1024 * 1024
DISK = {"disk_full", "database"}
"""Codes of what a run waits for while the disk takes nothing."""
LATE = [{"text": f"row {n:0100}", "n": n} for n in range(12_000)]
"""Rows that need more room than there is."""


def put_late(house: House) -> None:
    """A file of those rows."""
    house.put("late.csv", "text,n\n" + "".join(f"{row['text']},{row['n']}\n" for row in LATE))


def allow_little() -> None:
    """In a child about to start: no file may become larger than a megabyte."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, most))


def test_a_disk_that_takes_no_more_is_waited_for(house: House) -> None:
    """While nothing can be written the run waits and says why; when it can it ends with every object once."""
    put_late(house)
    running = house.start("run", "--once", "--log-format=json", preexec=allow_little)
    until(lambda: DISK & {row.get("code") for row in running.logs()}, what="a word about the disk")
    assert "late.csv" not in house.tasks()
    _, most = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (most, most))
    assert running.end().code == 0
    house.agrees(GOOD | {"late.csv": LATE})


@pytest.fixture
def small_disk(house: House) -> Iterator[Path]:
    """A folder that is a disk of its own with four megabytes. Skips where this user may not have one."""
    folder = house.folder / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "labelfeed", folder]
    try:
        subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"no disk of its own can be mounted: {getattr(error, 'stderr', None) or error}".strip()
        pytest.skip(why)
    yield folder
    house.close()
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is on a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_full_disk_is_waited_for(house: House, small_disk: Path) -> None:
    """A disk without any room stops nothing for good: what is under way goes on as soon as there is some."""
    house.configure(database="sqlite:///disk/labelfeed.db")
    house.once()
    ballast = fill(small_disk)
    put_late(house)
    running = house.start("run", "--log-format=json")
    until(lambda: DISK & {row.get("code") for row in running.logs()}, what="a word about the disk")
    ballast.unlink()
    until(lambda: house.states().get("late.csv") == "done")
    running.signal(signal.SIGTERM)
    assert running.end().code == 0
    house.agrees(GOOD | {"late.csv": LATE})


def test_two_runs_share_one_database(house: House) -> None:
    """Two runs at the same time on one database import each object once, and both exit 0."""
    expected = house.put_tasks(400)
    first, second = (house.start("run", "--once") for _ in range(2))
    assert (first.end().code, second.end().code) == (0, 0), first.end().err + second.end().err
    house.agrees(GOOD | expected)


def test_a_file_that_kills_its_worker_is_found_out(house: House) -> None:
    """After it has killed three processes of its own the object is `failed: worker_lost`; the others are imported."""
    house.plug_in("poison", DEADLY)
    house.put("m.poison", "x")
    assert house.start("run", "--once").end().code == -signal.SIGKILL
    house.once(code=1)
    assert house.states()["m.poison"] == "failed: worker_lost"
    deaths = [event for event in house.explain("m.poison")["events"] if event["kind"] == "child_died"]
    assert [event["died"] for event in deaths] == [1, 2, 3]
    house.agrees(GOOD)
