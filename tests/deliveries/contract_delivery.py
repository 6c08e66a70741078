"""What every delivery promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pytest

from pipeline.errors import BatchUnsure, LeaseLost
from pipeline.ledger.deliveries import Change, Item
from pipeline.sinks import Delivery, Encoded
from pipeline.tasks import Task

BATCH = "0a1b2c3d-1"
MOST = 50_000_000


def item(number: int, text: str | None = None, revision: int = 1, **parts: Any) -> Item:
    """A task of a batch."""
    texts = {name: json.dumps(value) for name, value in parts.items()}
    return Item(number, revision, Task(1, json.dumps({"text": text or f"text {number}"}), **texts))


def ready() -> None:
    """There is time."""


def send(delivery: Delivery, items: Sequence[Item], batch: str = BATCH) -> dict[int, str]:
    """Send a batch."""
    return dict(delivery.send(batch, [Encoded(one.id, delivery.encode(batch, one)) for one in items], ready))


class Room(Protocol):
    """A delivery, and what its remote holds: our number → the data of the task, as it is there now."""

    delivery: Delivery

    def held(self) -> dict[int, Any]:
        """What the remote holds."""


class DeliveryContract:
    """What every delivery promises. A suite gives the fixture `room`."""

    def test_a_batch_arrives(self, room: Room) -> None:
        """Every task of a batch is there, under an id of its own, and the batch is found by its name."""
        made = send(room.delivery, [item(n) for n in range(1, 40)])
        assert len(set(made.values())) == 39
        assert room.held() == {n: {"text": f"text {n}"} for n in range(1, 40)}
        assert room.delivery.find(BATCH, None) == made

    def test_what_was_not_sent_is_absent(self, room: Room) -> None:
        """A batch that never arrived is absent, also where another one's name begins with its own."""
        send(room.delivery, [item(1)], f"{BATCH}1")
        assert room.delivery.find(BATCH, None) == "absent"

    def test_a_batch_of_many_pages_is_found_whole(self, room: Room) -> None:
        """A batch that is larger than a page of any list is found whole."""
        made = send(room.delivery, [item(n) for n in range(1, 521)])
        assert room.delivery.find(BATCH, None) == made

    def test_nothing_is_sent_too_late(self, room: Room) -> None:
        """A sender whose time is over sends nothing, or nothing that counts."""
        left = iter([None])

        def late() -> None:
            if next(left, 1):
                raise LeaseLost("too late")

        body = [Encoded(n, room.delivery.encode(BATCH, item(n, "x" * 1000))) for n in range(1, 500)]
        with pytest.raises(LeaseLost):
            room.delivery.send(BATCH, body, late)
        assert room.delivery.find(BATCH, None) == "absent"
        assert room.held() == {}

    def test_the_size_is_what_goes_out(self, room: Room) -> None:
        """`size` is the very number of bytes of a batch."""
        bodies = [room.delivery.encode(BATCH, item(n)) for n in range(3)]
        size = room.delivery.size(sum(map(len, bodies)), 3)
        assert size in (len(b"[" + b",".join(bodies) + b"]"), len(b"".join(body + b"\n" for body in bodies)))

    def test_updates_and_deletions(self, room: Room) -> None:
        """A changed task is changed there, a deleted one is gone, others stay; a repeat does no harm."""
        made = send(room.delivery, [item(n) for n in (1, 2, 3)])
        changes = [Change(item(1, "new", 2), made[1], delete=False), Change(item(2, "x", 2), made[2], delete=True)]
        for name in ("0a1b2c3d-2", "0a1b2c3d-3"):
            told = room.delivery.change(changes, name, ready, MOST)
            assert told[1][0] == "done"
            assert told[2][0] in ("done", "gone")
        assert room.held() == {1: {"text": "new"}, 3: {"text": "text 3"}}

    def test_every_text_survives(self, room: Room) -> None:
        """Quotes, line ends, other scripts and astral signs arrive as they were."""
        texts = ['"quoted"', "two\nlines\r\n", "žluťoučký 漢字 🦡", "\\", "\u2028", "</script>"]
        send(room.delivery, [item(n, text) for n, text in enumerate(texts, 1)])
        assert [data["text"] for data in room.held().values()] == texts

    def test_ping(self, room: Room) -> None:
        """It says what it has found."""
        assert room.delivery.ping()


class FilesContract(DeliveryContract):
    """What a delivery promises whose remote is a place for files. A suite also gives the fixture `cut`: a delivery into
    the place of `room`, of which no write of a manifest is answered well."""

    def test_a_manifest_that_nobody_answers_for(self, room: Room, cut: Delivery) -> None:
        """Once a manifest is being written nobody says that the batch did not arrive: it is looked for first."""
        with pytest.raises(BatchUnsure):
            send(cut, [item(1), item(2)])
        found = room.delivery.find(BATCH, None)
        made = send(room.delivery, [item(1), item(2)])
        assert found in ("absent", made)
        assert room.held().keys() == {1, 2}

    def test_a_file_that_is_written_twice(self, room: Room) -> None:
        """A batch that is sent again replaces itself."""
        send(room.delivery, [item(1)])
        assert room.delivery.find(BATCH, None) == send(room.delivery, [item(1)])
        assert room.held() == {1: {"text": "text 1"}}

    def test_a_file_of_changes_is_bounded(self, room: Room) -> None:
        """A file of changes holds no more bytes than it may, what found no room is not told as made, and a change that
        is too large by itself is kept; its deletion is not."""
        made = send(room.delivery, [item(n) for n in range(1, 6)])
        texts = {1: "a" * 300, 2: "b" * 2000, 3: "c" * 300, 4: "d" * 300}
        changes = [Change(item(n, text, 2), made[n], delete=False) for n, text in texts.items()]
        changes.insert(0, Change(item(5, "e" * 2000), made[5], delete=True))
        told = room.delivery.change(changes, "0a1b2c3d-2", ready, 1024)
        assert {number: outcome for number, (outcome, _) in told.items()} == {
            5: "done",
            1: "done",
            2: "kept",
            3: "done",
        }
        assert told[2][1].startswith("too_large")
        assert {number: data["text"][0] for number, data in room.held().items()} == {1: "a", 2: "t", 3: "c", 4: "t"}
        assert room.delivery.change([changes[2]], "0a1b2c3d-3", ready, 1024).keys() == {2}

    @pytest.mark.parametrize("numbers", [(8, 9, 10), (9, 10, 11), (98, 99, 100)])
    def test_what_was_deleted_and_comes_back(self, room: Room, numbers: tuple[int, int, int]) -> None:
        """Tasks that are sent again after their deletion, or named in a change since, are there, and deleted once more
        they are not: in the same revision all the time, in whatever order names are sorted."""
        first, second, third = (f"0a1b2c3d-{number}" for number in numbers)
        made = send(room.delivery, [item(n) for n in (1, 2, 3)], first)
        room.delivery.change([Change(item(n), made[n], delete=True) for n in (1, 2, 3)], second, ready, MOST)
        assert room.held() == {}
        send(room.delivery, [item(1), item(2)], third)
        assert room.held().keys() == {1, 2}
        room.delivery.change([Change(item(3), made[3], delete=False)], "0a1b2c3d-1000", ready, MOST)
        room.delivery.change([Change(item(2), made[2], delete=True)], "0a1b2c3d-1001", ready, MOST)
        assert room.held().keys() == {1, 3}
        # A repeat of what came before changes nothing.
        send(room.delivery, [item(1), item(2)], third)
        assert room.held().keys() == {1, 3}


class FileRoom:
    """A place with files."""

    def __init__(self, delivery: Delivery, read: Callable[[], dict[str, bytes]]) -> None:
        self.delivery = delivery
        self._read = read

    def held(self) -> dict[int, Any]:
        """As a reader does who goes by the manifests: the line of the highest order is the task."""
        files = self._read()
        assert not [name for name in files if name.endswith(".part")]
        newest: dict[int, dict[str, Any]] = {}
        for name in sorted(files):
            if name.startswith("manifests/"):
                manifest = json.loads(files[name])
                lines = files[manifest["file"]].decode().split("\n")[:-1]
                assert (len(lines), len(files[manifest["file"]])) == (manifest["tasks"], manifest["bytes"])
                for line in map(json.loads, lines):
                    if line["id"] not in newest or line["order"] > newest[line["id"]]["order"]:
                        newest[line["id"]] = line
        return {number: line["data"] for number, line in sorted(newest.items()) if not line.get("deleted")}
