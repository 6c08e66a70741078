"""A bucket whose objects go into several projects, on real servers: one listing serves them all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deploy.services import Service
from tests.e2e.house import House, until
from tests.servers import s3_client
from tests.stores.front import Front, front_of

pytestmark = [pytest.mark.usefixtures("aws"), pytest.mark.timeout(300)]

PROJECTS = ("p", "cats", "dogs")
ROUTES = [{"match": "cats/**", "project": "cats"}, {"match": "dogs/**", "project": "dogs"}]
KEYS = [f"{kind}/{number:04}.json" for number in range(350) for kind in ("birds", "cats", "dogs")]
"""More than a page."""


def project_of(key: str) -> str:
    """Where an object has to go."""
    kind = key.partition("/")[0]
    return kind if kind in PROJECTS else "p"


class Bucket:
    """A bucket behind a front that sees what is asked."""

    def __init__(self, service: Service, name: str, front: Front) -> None:
        self.client = s3_client(service)
        self.client.create_bucket(Bucket=name)
        self.name = name
        self.front = front

    def put(self, key: str) -> None:
        """An object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=b"{}")

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def listings(self) -> int:
        """How many pages were asked for since the last call, without the questions of what the server is."""
        asked = [target for _, target in self.front.asked if "list-type=2" in target and "max-keys=1&" not in target]
        self.front.asked.clear()
        return len([target for target in asked if not target.endswith("max-keys=1")])

    def configure(self, house: House, **options: Any) -> None:
        """One source, with routes or not."""
        # By reference: what is listed is at stake here, not what is read.
        source = {"name": "in", "project": "p", "url": f"s3://{self.name}?endpoint={self.front.url}", "as": "files"}
        house.configure(sources=[source | options], projects={name: {} for name in PROJECTS})


def tasks(house: House) -> list[tuple[str, str]]:
    """Project and key of all tasks, sorted."""
    found = [json.loads(line) for line in house.look("tasks").out.splitlines()]
    return sorted((task["project"], uri.split("/", 3)[3]) for task in found for uri in task["data"].values())


def expected(keys: list[str]) -> list[tuple[str, str]]:
    """The tasks that these objects have to make."""
    return sorted((project_of(key), key) for key in keys)


@pytest.mark.parametrize("server", ["versitygw", "seaweedfs"])
def test_routes_share_one_listing(house: House, request: pytest.FixtureRequest, server: str, unique: str) -> None:
    """Fewer pages are asked for than by each for itself; each object is imported once, and what goes is archived, in
    its own project. SeaweedFS lists in no order."""
    service: Service = request.getfixturevalue(server)
    with front_of(service.url) as front:
        bucket = Bucket(service, unique, front)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(bucket.put, KEYS))
        bucket.configure(house)
        assert house.look("plan", "--json").code == 0
        alone = bucket.listings()
        bucket.configure(house, routes=ROUTES, on_delete="archive")
        house.once()
        # As many as for one, unless a machine is so slow that they don't begin together.
        assert alone <= bucket.listings() < len(PROJECTS) * alone
        assert tasks(house) == expected(KEYS)

        gone, new = ["birds/0007.json", "cats/0349.json", "dogs/0000.json"], ["cats/new.json", "a.json"]
        for key in gone:
            bucket.delete(key)
        for key in new:
            bucket.put(key)
        house.once()
        assert tasks(house) == expected([key for key in KEYS if key not in gone] + new)
        assert house.look("verify").code == 0


def test_one_process_leads_all_routes(house: House, versitygw: Service, unique: str) -> None:
    """Of two processes, one lists for all projects; the other takes over all of them when it ends."""
    with front_of(versitygw.url) as front:
        bucket = Bucket(versitygw, unique, front)
        bucket.configure(house, routes=ROUTES, poll="1s")
        with house.continuously() as other:
            with house.continuously() as one:
                until(lambda: len(one.says("leading")) + len(other.says("leading")) >= len(PROJECTS), what="the leads")
                bucket.put("cats/1.json")
                until(lambda: tasks(house) == expected(["cats/1.json"]), what="the import")
                led = [len(each.says("leading")) for each in (one, other)]
                assert sorted(led) == [0, len(PROJECTS)]
            until(lambda: len(other.says("leading")) == len(PROJECTS), what="the other's leads")
            bucket.put("dogs/1.json")
            bucket.put("x.json")
            until(lambda: tasks(house) == expected(["cats/1.json", "dogs/1.json", "x.json"]), what="the import")
