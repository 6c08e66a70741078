"""A bucket that only a role may read: a whole run by somebody who may do nothing but assume it."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import services
from deploy.services import Service
from deploy.services.amazon import GUEST_KEY
from deploy.services.model import SECRET_KEY
from pipeline.stores import SMALL_BYTES
from tests.e2e.house import House
from tests.servers import s3_client
from tests.stores.test_s3_access import ROLE, roles

pytestmark = [pytest.mark.usefixtures("aws"), pytest.mark.timeout(300)]

KEYS = ["a.json", "odd\ttab.json", "media/cat.png"]


@pytest.fixture
def guarded(seaweedfs: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A SeaweedFS with roles, and the login of a user who may assume one of them."""
    del seaweedfs  # installed for it
    file = tmp_path / "iam.json"
    file.write_text(json.dumps(roles("http://127.0.0.1:1/keys")))
    with services.using("seaweedfs", f"role-{uuid.uuid4().hex[:8]}", settings={"iam": str(file)}) as service:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", GUEST_KEY)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        yield service


def test_a_run_in_a_role(house: House, guarded: Service, unique: str) -> None:
    """It lists, reads small objects and large ones, and signs links in the role; without it nothing fails and the run
    says that it is not allowed."""
    client = s3_client(guarded)
    client.create_bucket(Bucket=unique)
    for key in KEYS:
        client.put_object(Bucket=unique, Key=key, Body=json.dumps({"text": key}).encode())
    rows = [json.dumps({"text": f"row {number} {'x' * 1000}"}) for number in range(3 * SMALL_BYTES // 1000)]
    client.put_object(Bucket=unique, Key="large.jsonl", Body="\n".join(rows).encode())
    url = f"s3://{unique}?endpoint={guarded.url}"

    house.configure({"url": url, "links": "signed"})
    (row,) = house.once("--json", code=1).json()
    assert (row["failed"], row["problem"].partition(":")[0]) == (0, "permission")

    house.configure({"url": f"{url}&role_arn={ROLE}", "links": "signed"})
    checked = house.look("check", "--json")
    assert all(row["ok"] for row in checked.json() if row["component"].startswith("source")), checked.out
    house.once()
    tasks = house.tasks()
    assert set(tasks) == {*KEYS, "large.jsonl"}
    assert tasks["odd\ttab.json"] == [{"text": "odd\ttab.json"}]
    assert tasks["large.jsonl"] == [json.loads(row) for row in rows]
    (media,) = tasks["media/cat.png"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(*media.values()) as answer:
        assert json.loads(answer.read()) == {"text": "media/cat.png"}
    told = b"".join(path.read_bytes() for path in house.folder.glob("*.db*") if path.is_file()).decode(errors="replace")
    assert SECRET_KEY not in told
    house.verify()
