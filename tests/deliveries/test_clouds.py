"""What every delivery promises, in Google's and Azure's stores, and what those say when they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deploy.services.azure import ACCOUNT, KEY
from deploy.services.model import Service
from pipeline.config import build
from pipeline.config.projects import JsonLines
from pipeline.errors import ConfigError, UnavailableError, UsageError
from pipeline.sinks import Delivery
from pipeline.sinks.jsonl import JsonLinesDelivery
from tests.deliveries.contract_delivery import BATCH, FileRoom, FilesContract, Room, item, send
from tests.google_front import front_of as google_front_of
from tests.google_front import refused
from tests.servers import gcs_client
from tests.stores.front import Answer, front_of


class TestGoogleBucket(FilesContract):
    """JSON lines in a bucket of Google Cloud Storage."""

    @pytest.fixture
    def room(self, fakegcs: Service, google: None, unique: str, tmp_path: Path) -> Iterator[Room]:
        """A bucket of its own."""
        client = gcs_client(fakegcs)
        client.create_bucket(unique)

        def read() -> dict[str, bytes]:
            found = client.list_blobs(unique, prefix="tasks/")
            return {blob.name.removeprefix("tasks/"): blob.download_as_bytes() for blob in found}

        made = FileRoom(JsonLinesDelivery(JsonLines(url=f"gs://{unique}/tasks", endpoint=fakegcs.url), tmp_path), read)
        yield made
        made.delivery.close()

    @pytest.fixture
    def cut(self, fakegcs: Service, room: Room, unique: str, tmp_path: Path) -> Iterator[Delivery]:
        """By way of a proxy that answers every manifest with an error."""
        with google_front_of(fakegcs.url) as front:
            front.rules.append(lambda asked: refused(500, "backendError") if b"manifests/" in asked.body else None)
            options = JsonLines(url=f"gs://{unique}/tasks", endpoint=front.url, timeout=1)
            with closing(JsonLinesDelivery(options, tmp_path)) as delivery:
                yield delivery

    def test_a_large_file_arrives_whole(self, room: Room) -> None:
        """What Google's library sends in several requests appears once, whole, under its own name."""
        made = send(room.delivery, [item(n, "x" * 1_000_000) for n in range(1, 11)])
        assert {len(data["text"]) for data in room.held().values()} == {1_000_000}
        assert room.delivery.find(BATCH, None) == made

    def test_the_emulators_variable_holds(
        self, fakegcs: Service, room: Room, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """STORAGE_EMULATOR_HOST is the endpoint where the delivery names none, with or without its scheme."""
        made = send(room.delivery, [item(1)])
        for host in (fakegcs.url, fakegcs.url.removeprefix("http://")):
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
            with closing(JsonLinesDelivery(JsonLines(url=f"gs://{unique}/tasks"), tmp_path)) as delivery:
                assert delivery.find(BATCH, None) == made

    def test_a_bucket_that_is_not_there_is_told(self, fakegcs: Service, google: None, tmp_path: Path) -> None:
        """It is said by `check` and when something is sent, and may be mended."""
        options = JsonLines(url="gs://nobodys", endpoint=fakegcs.url)
        with closing(JsonLinesDelivery(options, tmp_path)) as delivery:
            for ask in (delivery.ping, lambda: send(delivery, [item(1)])):
                with pytest.raises(UnavailableError, match="gs://nobodys: there is no such bucket"):
                    ask()

    @pytest.mark.parametrize(
        ("status", "code", "said"),
        [
            (403, "permission", "gcp-deliver-jsonl.yaml"),
            (401, "permission", "asks for a token"),
            (429, "unavailable", "slow down"),
            (500, "unavailable", "answers 500"),
        ],
    )
    def test_what_google_answers_is_told_without_its_text(
        self, fakegcs: Service, google: None, tmp_path: Path, status: int, code: str, said: str
    ) -> None:
        """Each refusal has a code of ours, and nothing of what the server wrote; a wait that it asks for is kept."""
        with google_front_of(fakegcs.url) as front:
            front.rules.append(lambda asked: refused(status, "forbidden", "token ya29.secret", Retry_After="7"))
            options = JsonLines(url="gs://b", endpoint=front.url, timeout=1)
            with closing(JsonLinesDelivery(options, tmp_path)) as delivery:
                for ask in (delivery.ping, lambda: send(delivery, [item(1)]), lambda: delivery.find(BATCH, None)):
                    with pytest.raises(UnavailableError, match=said) as caught:
                        ask()
                    assert caught.value.code == code
                    assert caught.value.retry_after == (7 if status == 429 else None)
                    assert "secret" not in str(caught.value)

    def test_nobody_answers(self, google: None, tmp_path: Path) -> None:
        """A server that is away is told within the time-out."""
        options = JsonLines(url="gs://b", endpoint="http://127.0.0.1:1", timeout=1)
        with closing(JsonLinesDelivery(options, tmp_path)) as delivery, pytest.raises(UnavailableError, match="gs://b"):
            send(delivery, [item(1)])

    def test_without_credentials(self, google: None, tmp_path: Path) -> None:
        """Where there are none it says where they are looked for."""
        with pytest.raises(UsageError, match="GOOGLE_APPLICATION_CREDENTIALS"):
            JsonLinesDelivery(JsonLines(url="gs://b"), tmp_path)


class TestContainer(FilesContract):
    """JSON lines in a container of Azure Blob."""

    @pytest.fixture
    def room(self, azure: Any, unique: str, tmp_path: Path) -> Iterator[Room]:
        """A container of its own, found by the connection string."""
        container = azure.create_container(unique)

        def read() -> dict[str, bytes]:
            names = container.list_blob_names(name_starts_with="tasks/")
            return {name.removeprefix("tasks/"): container.download_blob(name).readall() for name in names}

        made = FileRoom(JsonLinesDelivery(JsonLines(url=f"az://{unique}/tasks"), tmp_path), read)
        yield made
        made.delivery.close()
        container.delete_container()

    @pytest.fixture
    def cut(self, azurite: Service, room: Room, unique: str, tmp_path: Path) -> Iterator[Delivery]:
        """By way of a proxy that lets every manifest through, and answers it with an error."""
        with front_of(azurite.url) as front:
            front.edit = lambda asked, answer: Answer(500) if "manifests" in asked.target else answer
            options = JsonLines(url=f"az://{unique}/tasks", endpoint=front.url, timeout=1)
            with closing(JsonLinesDelivery(options, tmp_path)) as delivery:
                yield delivery

    def test_the_account_s_key_counts(
        self, room: Room, azurite: Service, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Account and key of the environment do where no connection string logs in, or one of another account."""
        made = send(room.delivery, [item(1)])
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
        monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
        place = f"AccountName={ACCOUNT};BlobEndpoint={azurite.url}"
        for string in ("", f"AccountName=other;AccountKey={KEY}", place):
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
            options = JsonLines(url=f"az://{unique}/tasks", endpoint=azurite.url)
            with closing(JsonLinesDelivery(options, tmp_path)) as delivery:
                assert delivery.find(BATCH, None) == made

    def test_a_container_that_is_not_there_is_told(self, azure: Any, tmp_path: Path) -> None:
        """It is said by `check`, when something is sent and when it is looked for; it may be mended."""
        with closing(JsonLinesDelivery(JsonLines(url="az://nobodys"), tmp_path)) as delivery:
            for ask in (delivery.ping, lambda: send(delivery, [item(1)]), lambda: delivery.find(BATCH, None)):
                with pytest.raises(UnavailableError, match="az://nobodys: there is no such container"):
                    ask()

    def test_a_wrong_key_is_told(
        self, azure: Any, azurite: Service, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A refusal has a code of ours, and says which permissions it takes, and not the key."""
        key = "aHVudGVyMmh1bnRlcjI="
        string = f"AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={azurite.url}"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
        with closing(JsonLinesDelivery(JsonLines(url=f"az://{unique}"), tmp_path)) as delivery:
            for ask in (delivery.ping, lambda: send(delivery, [item(1)])):
                with pytest.raises(UnavailableError, match=r"azure-deliver-jsonl\.json") as caught:
                    ask()
                assert caught.value.code == "permission"
                assert key not in str(caught.value)

    def test_without_an_account(self, azure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no account is named, or the connection string is none, the variables are."""
        for string in ("", "hunter2"):
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
            with pytest.raises(UsageError, match="AZURE_STORAGE_CONNECTION_STRING") as caught:
                JsonLinesDelivery(JsonLines(url="az://c"), tmp_path)
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["az://c?sig=hunter2", "gs://user:hunter2@b/tasks", "gs://b/tasks?key=hunter2", "s3://key:hunter2@b/t", "gs://b?x"],
)
def test_urls_that_hold_too_much(url: str, tmp_path: Path) -> None:
    """A URL of a cloud names a place and nothing else: more is refused, and what is secret in it not repeated."""
    projects = {"p": {"deliveries": [{"jsonl": {"url": url}}]}}
    with pytest.raises(ConfigError, match="neither credentials nor options") as caught:
        build({"projects": projects, "sources": []}, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_url_that_names_no_bucket(tmp_path: Path) -> None:
    """A scheme alone is no place."""
    with pytest.raises(UsageError, match="names no bucket"):
        JsonLinesDelivery(JsonLines(url="gs://"), tmp_path)


def test_what_cannot_be_written_to(tmp_path: Path) -> None:
    """A scheme without a place is told, with those that have one."""
    with pytest.raises(UsageError, match=r"ftp://.*folders, s3://, gs://, az://"):
        JsonLinesDelivery(JsonLines(url="ftp://host/tasks"), tmp_path)
