"""What every delivery promises, on the real thing: Label Studio, a folder, a bucket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest

from deploy.services.model import Service
from pipeline.config.models import JsonLines, LabelStudio
from pipeline.errors import BatchRefused, LeaseLost, UnavailableError
from pipeline.ledger.deliveries import Change, Item
from pipeline.sinks import Delivery, Encoded
from pipeline.sinks.jsonl import JsonLinesDelivery
from pipeline.sinks.label_studio import LabelStudioDelivery
from pipeline.tasks import Task
from tests.deliveries.studio import CHOICES, Studio, choice
from tests.servers import s3_client

BATCH = "0a1b2c3d-1"


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
        for name in ("0a1b2c3d-c1", "0a1b2c3d-c2"):
            told = room.delivery.change(changes, name, ready)
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


class StudioRoom:
    """A Label Studio project."""

    def __init__(self, studio: Studio, token: str) -> None:
        options = LabelStudio(url=studio.url, project=studio.project, token=token, timeout=60)  # type: ignore[arg-type]
        self.delivery = LabelStudioDelivery(options, Path())
        self.studio = studio

    def held(self) -> dict[int, Any]:
        """By the mark in each task's meta."""
        return {int(task["meta"]["labelfeed"]["key"]): task["data"] for task in self.studio.export()}


class FileRoom:
    """A place with files."""

    def __init__(self, delivery: Delivery, read: Callable[[], dict[str, bytes]]) -> None:
        self.delivery = delivery
        self._read = read

    def held(self) -> dict[int, Any]:
        """As a reader does who goes by the manifests: the line of the highest revision is the task."""
        files = self._read()
        assert not [name for name in files if name.endswith(".part")]
        newest: dict[int, dict[str, Any]] = {}
        for name in sorted(files):
            if name.startswith("manifests/"):
                manifest = json.loads(files[name])
                lines = files[manifest["file"]].decode().split("\n")[:-1]
                assert (len(lines), len(files[manifest["file"]])) == (manifest["tasks"], manifest["bytes"])
                for line in map(json.loads, lines):
                    if line["revision"] >= newest.get(line["id"], line)["revision"]:
                        newest[line["id"]] = line
        return {number: line["data"] for number, line in sorted(newest.items()) if not line.get("deleted")}


class TestFolder(DeliveryContract):
    """JSON lines in a folder."""

    @pytest.fixture
    def room(self, tmp_path: Path) -> Room:
        """A folder."""
        root = tmp_path / "out"

        def read() -> dict[str, bytes]:
            return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

        return FileRoom(JsonLinesDelivery(JsonLines(url="out"), tmp_path), read)

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        """What is in the way of the folder is said, and may be mended."""
        (tmp_path / "out").write_text("a file")
        delivery = JsonLinesDelivery(JsonLines(url="out"), tmp_path)
        with pytest.raises(UnavailableError, match="out"):
            send(delivery, [item(1)])


class TestBucket(DeliveryContract):
    """JSON lines in a bucket."""

    @pytest.fixture
    def room(self, seaweedfs: Service, aws: None, unique: str, tmp_path: Path) -> Room:
        """A bucket of its own."""
        client = s3_client(seaweedfs)
        client.create_bucket(Bucket=unique)

        def read() -> dict[str, bytes]:
            found = client.list_objects_v2(Bucket=unique, Prefix="tasks/").get("Contents", [])
            return {
                row["Key"].removeprefix("tasks/"): client.get_object(Bucket=unique, Key=row["Key"])["Body"].read()
                for row in found
            }

        options = JsonLines(url=f"s3://{unique}/tasks", endpoint=seaweedfs.url)
        return FileRoom(JsonLinesDelivery(options, tmp_path), read)

    def test_the_environment_s_keys_count(
        self, seaweedfs: Service, aws: None, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The keys are those that the environment has now, not those that boto3 found for somebody else before."""
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session("somebody", "else"))
        s3_client(seaweedfs).create_bucket(Bucket=unique)

        assert unique in JsonLinesDelivery(JsonLines(url=f"s3://{unique}", endpoint=seaweedfs.url), tmp_path).ping()


class TestLabelStudio(DeliveryContract):
    """A real Label Studio, with a legacy token."""

    @pytest.fixture
    def room(self, studio: Studio) -> Iterator[StudioRoom]:
        """A project."""
        made = StudioRoom(studio, studio.token)
        yield made
        made.delivery.close()

    def test_annotations_predictions_and_meta_are_kept(self, room: StudioRoom) -> None:
        """What a task brings is there, in all three forms of meta, and a second trip through an export keeps it."""
        items = [
            item(1, annotations=[choice("a", ground_truth=True, lead_time=3.5)]),
            item(2, predictions=[choice("b", score=0.25, model_version="m1")]),
            item(3, meta={"page": 7}),
            item(4, meta=["one", {"two": 2}]),
            item(5, meta={"labelfeed": {"batch": "old-1", "key": "99"}, "page": 8}),
        ]
        made = send(room.delivery, items)
        there = room.studio.export()
        (annotation,) = there[0]["annotations"]
        assert (annotation["result"], annotation["lead_time"]) == (choice("a")["result"], 3.5)
        (prediction,) = room.studio.client.get(f"/api/tasks/{made[2]}/").json()["predictions"]
        assert (prediction["score"], prediction["model_version"]) == (0.25, "m1")
        metas = [task["meta"] for task in there]
        assert metas[2] == {"page": 7, "labelfeed": {"batch": BATCH, "key": "3"}}
        assert metas[3] == ["one", {"two": 2}, {"labelfeed": {"batch": BATCH, "key": "4"}}]
        assert metas[4] == {"labelfeed": {"batch": BATCH, "key": "5"}, "page": 8}
        assert room.delivery.find(BATCH, None) == made

    def test_annotated_tasks_are_left_alone(self, room: StudioRoom) -> None:
        """A task that somebody has annotated there is not changed; its predictions neither."""
        made = send(room.delivery, [item(1), item(2, predictions=[choice("a")])])
        room.studio.annotate(made[1], "b")
        told = room.delivery.change(
            [
                Change(item(1, "new", 2), made[1], delete=False),
                Change(item(2, "new", 2, predictions=[choice("b")]), made[2], delete=False),
            ],
            "0a1b2c3d-c1",
            ready,
        )
        assert (told[1][0], told[2][0]) == ("kept", "done")
        assert room.studio.texts() == ["new", "text 1"]
        (prediction,) = room.studio.client.get(f"/api/tasks/{made[2]}/").json()["predictions"]
        assert prediction["result"] == choice("b")["result"]

    def test_a_refusal_names_the_tasks(self, room: StudioRoom) -> None:
        """What the labelling configuration refuses is told task by task, in Label Studio's words; nothing arrives."""
        bad = Item(2, 1, Task(1, '{"other":1}'))
        with pytest.raises(BatchRefused) as caught:
            send(room.delivery, [item(1), bad, item(3)])
        assert list(caught.value.reasons) == [1]
        assert '"text" key is expected' in caught.value.reasons[1]
        assert room.studio.export() == []

    def test_a_refusal_without_a_name(self, room: StudioRoom) -> None:
        """An annotator whom it doesn't know is refused without saying whose task that was."""
        with pytest.raises(BatchRefused, match="completed_by=4711") as caught:
            send(room.delivery, [item(1), item(2, annotations=[choice("a", completed_by=4711)])])
        assert caught.value.reasons == {}

    def test_the_labelling_configuration(self, room: StudioRoom) -> None:
        """It is the project's own."""
        assert room.delivery.label_config() == CHOICES

    def test_a_personal_access_token(self, room: StudioRoom) -> None:
        """A personal access token is exchanged for access, again when that has ended."""
        delivery = StudioRoom(room.studio, room.studio.personal_token()).delivery
        send(delivery, [item(1)])
        delivery._client._access = "ended"
        assert delivery.find(BATCH, None) != "absent"
        delivery._client._access_until = 0.0
        send(delivery, [item(2)], "0a1b2c3d-2")
        delivery.close()
        assert set(room.held()) == {1, 2}

    @pytest.mark.parametrize(
        ("options", "code"), [({"token": "0" * 40}, "unauthorized"), ({"project": 999_999}, "no_project")]
    )
    def test_what_a_person_must_mend(self, studio: Studio, options: dict[str, Any], code: str) -> None:
        """A wrong token and a project that isn't there are told by a code of their own."""
        values = {"url": studio.url, "project": studio.project, "token": studio.token, **options}
        delivery = LabelStudioDelivery(LabelStudio(**values), Path())
        with pytest.raises(UnavailableError) as caught:
            send(delivery, [item(1)])
        assert caught.value.code == code
        assert str(options.get("token", "-")) not in str(caught.value)
        delivery.close()
