"""What every delivery promises, on the real thing: Label Studio, a folder, a bucket that speaks S3."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from deploy.services.model import Service
from pipeline.config.projects import JsonLines, LabelStudio
from pipeline.errors import BatchRefused, UnavailableError
from pipeline.ledger.deliveries import Change, Item
from pipeline.sinks import Delivery
from pipeline.sinks.jsonl import JsonLinesDelivery
from pipeline.sinks.jsonl.delivery import MANIFESTS
from pipeline.sinks.label_studio import LabelStudioDelivery
from pipeline.tasks import Task
from tests.deliveries.contract_delivery import (
    BATCH,
    MOST,
    DeliveryContract,
    FileRoom,
    FilesContract,
    Room,
    item,
    ready,
    send,
)
from tests.deliveries.studio import CHOICES, Studio, choice
from tests.servers import s3_client
from tests.serving import Handler, serving
from tests.stores.front import Answer, Asked, Front, front_of

TIMEOUT = 6.0
"""Seconds in which one file is to be in a bucket by way of a proxy."""


class StudioRoom:
    """A Label Studio project."""

    def __init__(self, studio: Studio, token: str) -> None:
        options = LabelStudio(url=studio.url, project=studio.project, token=token, timeout=60)  # type: ignore[arg-type]
        self.delivery = LabelStudioDelivery(options, Path())
        self.studio = studio

    def held(self) -> dict[int, Any]:
        """By the mark in each task's meta."""
        return {int(task["meta"]["labelfeed"]["key"]): task["data"] for task in self.studio.export()}


class TestFolder(FilesContract):
    """JSON lines in a folder."""

    @pytest.fixture
    def room(self, tmp_path: Path) -> Room:
        """A folder."""
        root = tmp_path / "out"

        def read() -> dict[str, bytes]:
            return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

        return FileRoom(JsonLinesDelivery(JsonLines(url="out"), tmp_path), read)

    @pytest.fixture
    def cut(self, room: Room, tmp_path: Path) -> Delivery:
        """Into a folder like the room's in which no manifest can be written."""
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / "manifests").write_text("a file")
        return JsonLinesDelivery(JsonLines(url="cut"), tmp_path)

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        """What is in the way of the folder is said, and may be mended."""
        (tmp_path / "out").write_text("a file")
        delivery = JsonLinesDelivery(JsonLines(url="out"), tmp_path)
        with pytest.raises(UnavailableError, match="out"):
            send(delivery, [item(1)])


class TestBucket(FilesContract):
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

    @pytest.fixture
    def front(self, seaweedfs: Service) -> Iterator[Front]:
        """A server before the bucket's that a test can let fail."""
        with front_of(seaweedfs.url) as front:
            yield front

    @pytest.fixture
    def cut(self, front: Front, room: Room, unique: str, tmp_path: Path) -> Iterator[Delivery]:
        """By way of a proxy that lets the copy to a manifest's name through, and answers nothing that says so."""
        front.edit = lambda asked, answer: Answer(500) if _copies(asked, MANIFESTS) else answer
        with closing(_by_way_of(front, unique, tmp_path)) as delivery:
            yield delivery

    @pytest.mark.parametrize("hangs", ["PUT", "COPY"])
    def test_a_store_that_hangs(self, front: Front, room: Room, unique: str, tmp_path: Path, hangs: str) -> None:
        """Whichever request is not answered, all attempts at it end within the time for a file."""
        released = threading.Event()
        front.guard = lambda asked: _hung(released) if _kind(asked) == hangs else None
        with closing(_by_way_of(front, unique, tmp_path)) as delivery:
            begun = time.monotonic()
            with pytest.raises(UnavailableError):
                send(delivery, [item(1)])
            assert time.monotonic() - begun < TIMEOUT
            released.set()
        assert room.delivery.find(BATCH, None) == "absent"

    def test_a_slow_store_gets_no_name_too_late(self, aws: None, tmp_path: Path) -> None:
        """Where an answer has come so slowly that a copy might be made after the time for a file, none is asked for."""
        asked: list[str | None] = []

        class Slow(Handler):
            def answered(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                asked.append(self.headers.get("x-amz-copy-source"))
                self.send_response_only(200)
                begun = time.monotonic()
                while time.monotonic() - begun < 0.6 * TIMEOUT:
                    self.send_header("x-slow", "still")
                    self.flush_headers()
                    time.sleep(TIMEOUT / 60)
                self.send_header("Content-Length", "0")
                self.end_headers()

        with serving(Slow) as url:
            options = JsonLines(url="s3://bucket", endpoint=url, timeout=TIMEOUT)
            with closing(JsonLinesDelivery(options, tmp_path)) as delivery, pytest.raises(UnavailableError):
                send(delivery, [item(1)])
        assert asked == [None]

    def test_a_file_is_there_whatever_becomes_of_its_first_name(
        self, front: Front, room: Room, unique: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A batch whose manifest is visible is delivered, also where what was written first cannot be deleted; that is
        told."""
        front.fault = lambda method, _target: Answer(403) if method == "DELETE" else None
        with closing(_by_way_of(front, unique, tmp_path)) as delivery:
            made = send(delivery, [item(1)])
        assert room.delivery.find(BATCH, None) == made
        assert {row.message for row in caplog.records} == {"part_left"}

    def test_the_environment_s_keys_count(
        self, seaweedfs: Service, aws: None, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The keys are those that the environment has now, not those that boto3 found for somebody else before."""
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session("somebody", "else"))
        s3_client(seaweedfs).create_bucket(Bucket=unique)

        assert unique in JsonLinesDelivery(JsonLines(url=f"s3://{unique}", endpoint=seaweedfs.url), tmp_path).ping()


def _by_way_of(front: Front, bucket: str, folder: Path) -> JsonLinesDelivery:
    return JsonLinesDelivery(JsonLines(url=f"s3://{bucket}/tasks", endpoint=front.url, timeout=TIMEOUT), folder)


def _kind(asked: Asked) -> str:
    return "COPY" if "x-amz-copy-source" in asked.headers else asked.method


def _copies(asked: Asked, name: str) -> bool:
    return _kind(asked) == "COPY" and name in asked.target


def _hung(released: threading.Event) -> Answer:
    released.wait(60)
    return Answer(503)


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
            "0a1b2c3d-2",
            ready,
            MOST,
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
