"""Servers that go away, forget and are slow, one after another, under roles that never end."""

from __future__ import annotations

import hashlib
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import orjson
import psycopg
import pytest
import redis
import yaml

from deploy import services
from deploy.services import Service
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY
from deploy.services.processes import free_ports
from tests.faults.installation import Bucket, Installation, Role, until
from tests.faults.network import Proxy
from tests.servers import needed, sqs_client

SERVERS = ("kafka", "redis", "postgres", "versitygw")
REACHED = (*SERVERS, "elasticmq")
"""Servers behind proxies. ElasticMQ keeps no queue beyond its end, so that it is not restarted."""
RECEIVED_SECONDS = 90.0
"""How long until the queue is empty: a message whose answer was cut off on its way is kept from all for a minute."""
NEEDED_BY = {
    "kafka": ("watch", "dispatch"),
    "redis": ("dispatch", "work"),
    "postgres": ("watch", "dispatch", "work"),
    "versitygw": ("watch",),
    "elasticmq": ("watch",),
}
"""Which roles cannot work without a server."""
PARTS = {"watch": ("watch",), "dispatch": ("dispatch", "schedule"), "work": ("work",)}
"""What a role's process tells of in `up`."""
SAYING = {"watch": {"watch", "lead"}, "dispatch": {"dispatcher", "scheduler"}, "work": {"work"}}
"""What a role's process tells of in its log while the database is away."""
ATTEMPTS = 5
"""So many failures while a server is away are a long outage: they come ever later."""
END_SECONDS = 10.0 + 8.0
"""How long a role may take to end: its `shutdown_timeout`, and time to say good-bye."""
LINES = 2
"""A part says that it waits once for each reason; a watcher's passes and its notifications say so each."""
SILENT_LINES = 4
"""A connection on which nothing comes, new ones that nobody answers, none that is free, and what was begun before and
is ended at last."""


class Telling:
    """A bucket that tells a queue of its objects, as S3 does and no server here can."""

    def __init__(self, bucket: Bucket, queue: Service) -> None:
        self.url = bucket.url
        self._bucket = bucket
        self._client = sqs_client(queue)
        self._queue = self._client.create_queue(QueueName=bucket.name)["QueueUrl"]

    def put(self, key: str, content: bytes) -> None:
        """As `Place.put`, and tell of it."""
        self._bucket.put(key, content)
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        told: dict[str, Any] = {"bucket": {"name": self._bucket.name}, "object": {"key": quote_plus(key), "eTag": etag}}
        body = orjson.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": told}]}).decode()
        self._client.send_message(QueueUrl=self._queue, MessageBody=body)

    def delete(self, key: str) -> None:
        """As `Place.delete`; a pass finds it."""
        self._bucket.delete(key)

    def left(self) -> int:
        """How many messages are on the queue, received or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self._client.get_queue_attributes(QueueUrl=self._queue, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@dataclass
class World:
    """One installation whose servers are its own, each behind a proxy; `watch`, `dispatch` and `work` run."""

    installation: Installation
    place: Telling
    services: dict[str, Service]
    proxies: dict[str, Proxy]

    def restart(self, name: str) -> None:
        """Kill a server, put files meanwhile, and start it again on its data."""
        services.kill(self.services[name])
        if name != "versitygw":
            self.installation.put(20)
        self.services[name] = services.restart(self.services[name], hard=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, toxiproxy: Service) -> Iterator[World]:
    """Servers, proxies and roles, for all tests of this module."""
    unique = f"t{uuid.uuid4().hex[:16]}"
    port = free_ports(("main",))["main"]
    settings = {"kafka": {"advertised.listeners": f"PLAINTEXT://{services.HOST}:{port}"}}
    with ExitStack() as stack:
        with needed():
            own = {
                name: stack.enter_context(services.using(name, unique, settings=settings.get(name))) for name in REACHED
            }
        proxies = {
            name: Proxy.to(toxiproxy, f"{unique}-{name}", service.port, port if name == "kafka" else None)
            for name, service in own.items()
        }
        for proxy in proxies.values():
            stack.callback(proxy.remove)
        place = Telling(Bucket(own["versitygw"], unique), own["elasticmq"])
        queue = f"http://{services.HOST}:{proxies['elasticmq'].port}/000000000000/{unique}"
        installation = Installation(
            tmp_path_factory.mktemp("world"),
            place,
            database=f"postgresql://postgres@{services.HOST}:{proxies['postgres'].port}/postgres",
            events=f"kafka://{services.HOST}:{port}/{unique}?partitions=4&session=3",
            queue=f"redis://{services.HOST}:{proxies['redis'].port}/0",
            source={"endpoint": f"http://{services.HOST}:{proxies['versitygw'].port}", "notifications": queue},
            env={"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION},
        )
        stack.callback(installation.close)
        installation.start("watch", "dispatch", "work")
        for role in installation.roles:
            until(lambda role=role: role.said("started"))
        yield World(installation, place, own, proxies)


@pytest.fixture(autouse=True)
def _once(world: World, aws: None) -> Iterator[None]:
    """Before and after every test all roles are ready; after it, everything was imported exactly once, and every
    notification was taken from the queue."""
    installation = world.installation
    yield
    installation.imported()
    until(lambda: not world.place.left(), RECEIVED_SECONDS, "an empty queue")
    for role in installation.roles:
        until(lambda role=role: role.ready()[0] == 200, what=lambda role=role: f"{role.name} ready: {role.ready()}")
    installation.exactly_once()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", REACHED)
def test_network_cut(world: World, server: str) -> None:
    """While a server cannot be reached, every role that needs it says so, in /readyz and in `up`; then they go on."""
    world.installation.put(20)
    world.proxies[server].cut()
    try:
        world.installation.put(20)
        for role in [role for role in world.installation.roles if role.name in NEEDED_BY[server]]:
            until(lambda role=role: role.ready()[0] == 503, what=f"{role.name} unready")
            until(
                lambda role=role: not all(role.metric("up", role=part) for part in PARTS[role.name]), what="a part down"
            )
        world.installation.put(20)
    finally:
        world.proxies[server].mend()


@pytest.fixture
def resting(world: World, tmp_path: Path, unique: str) -> Iterator[Role]:
    """A watcher in a database of its own behind the same proxy, whose next pass is an hour away."""
    own = world.services
    with psycopg.connect(own["postgres"].url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {unique}")
    installation = Installation(
        tmp_path,
        Bucket(own["versitygw"], unique),
        database=f"{world.installation.database.removesuffix('/postgres')}/{unique}",
        events=f"{own['kafka'].url}/{unique}",
        queue=world.installation.queue,
        source={"endpoint": own["versitygw"].url, "poll": "1h"},
        env=world.installation.env,
    )
    role = installation.start("watch")
    until(lambda: role.said("pass_finished") and role.ready()[0] == 200, what="its pass")
    yield role
    installation.close()


def test_network_cut_between_passes(world: World, resting: Role) -> None:
    """A watcher that rests says that the database is away, too, by one line in its log, and by one when it is back."""
    world.proxies["postgres"].cut()
    try:
        until(lambda: resting.ready()[0] == 503 and not resting.metric("up", role="watch"), what="unready")
        assert "unavailable" in (resting.ready()[1]["source bucket"] or "")
        until(lambda: resting.metric("errors_total", stage="lead") >= 2, what="another try")
        assert len(resting.lines("waiting")) == 1
    finally:
        world.proxies["postgres"].mend()
    until(lambda: resting.ready()[0] == 200 and resting.metric("up", role="watch"), what="ready")
    assert len(resting.lines("recovered")) == 1


def test_a_long_outage_of_the_database(world: World) -> None:
    """A database that is away for many attempts makes every role wait: each of its parts says so, and that it goes on,
    but not at every attempt."""
    roles = world.installation.roles
    dispatch = next(role for role in roles if role.name == "dispatch")
    before = {role.name: told(role) for role in roles}
    tried = dispatch.metric("errors_total", stage="record")
    world.proxies["postgres"].cut()
    try:
        world.installation.put(20)
        until(lambda: dispatch.metric("errors_total", stage="record") >= tried + ATTEMPTS, what="many attempts")
        for role in roles:
            until(lambda role=role: role.ready()[0] == 503, what=f"{role.name} unready")
    finally:
        world.proxies["postgres"].mend()
    for role in roles:
        until(lambda role=role: role.ready()[0] == 200, what=lambda role=role: f"{role.name} ready: {role.ready()}")
        wanted = {(event, part) for event in ("waiting", "recovered") for part in SAYING[role.name]}
        until(lambda role=role, wanted=wanted: wanted <= set(told(role) - before[role.name]), what=f"{wanted} said")
        assert max((told(role) - before[role.name]).values()) <= LINES


def test_a_database_that_goes_silent(world: World) -> None:
    """A database that takes what is sent and answers nothing is one that is away: each part of every role says so once,
    `work` ends at SIGTERM meanwhile, and the others go on when it answers."""
    installation, proxy = world.installation, world.proxies["postgres"]
    roles = list(installation.roles)
    before = {role.name: told(role) for role in roles}
    ending = installation.start("work")
    installation.roles.remove(ending)
    until(lambda: ending.said("started") and ending.ready()[0] == 200, what="another worker")
    installation.put(20)
    proxy.hang()
    try:
        installation.put(20)
        for role in (*roles, ending):
            until(lambda role=role: role.ready()[0] == 503, what=f"{role.name} unready")
            assert any("unavailable" in (why or "") for why in role.ready()[1].values())
        assert ending.end() == 0
    finally:
        proxy.answer()
        ending.kill()
    for role in roles:
        until(lambda role=role: role.ready()[0] == 200, what=lambda role=role: f"{role.name} ready: {role.ready()}")
        new = told(role) - before[role.name]
        assert {"waiting", "recovered"} <= {event for event, _ in new}
        assert max(new.values()) <= SILENT_LINES, [line["error"] for line in role.lines("waiting")]


def told(role: Role) -> Counter[tuple[str, str]]:
    """How often each part of a role has said that it waits, or that it goes on."""
    return Counter((event, str(line["role"])) for event in ("waiting", "recovered") for line in role.lines(event))


@pytest.mark.parametrize("server", REACHED)
def test_network_slow(world: World, server: str) -> None:
    """A server whose answers take 150 ms longer only makes things slower."""
    world.proxies[server].slow(150)
    try:
        world.installation.put(40)
        world.installation.imported()
    finally:
        world.proxies[server].hurry()


@pytest.mark.parametrize("server", SERVERS)
def test_restart(world: World, server: str) -> None:
    """A server that is killed and started again loses nothing and doubles nothing; Redis comes back empty."""
    world.installation.put(40)
    world.restart(server)
    world.installation.put(20)


def test_redis_flushed(world: World) -> None:
    """Flushing Redis again and again while there is work loses nothing."""
    client = redis.Redis(port=world.services["redis"].port)
    for _ in range(4):
        world.installation.put(30)
        client.flushall()
    client.close()


@pytest.fixture
def committing(world: World, tmp_path: Path) -> Iterator[Role]:
    """A worker that is suspended within its first commit, while all others are suspended, too. Its lease outlasts a
    restart: what it lost is its own still, and whoever else read it would do so in a child that is suspended, too."""
    settings = yaml.safe_load(world.installation.config.read_text())
    settings["limits"]["lease"] = "2m"
    patient = tmp_path / "labelfeed.yaml"
    patient.write_text(yaml.safe_dump(settings))
    others = [role for role in world.installation.roles if role.name == "work"]
    for role in others:
        role.suspend()
    role = world.installation.start("work", fault="worker.committing:1:STOP", config=patient)
    world.installation.put(60)
    role.stopped()
    yield role
    for other in others:
        other.resume()
    # Where the test has failed it is suspended still.
    role.resume()
    world.installation.imported()
    assert role.end() == 0
    world.installation.roles.remove(role)


@pytest.mark.timeout(300)
def test_postgres_restarts_within_a_commit(world: World, committing: Role) -> None:
    """A database that restarts while a worker has written tasks, and not committed them, has each once."""
    postgres = world.services["postgres"]
    open_ = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE relation = 'task_rows'::regclass AND mode = 'RowExclusiveLock' AND state = 'idle in transaction'"
    )
    with psycopg.connect(postgres.url) as connection:
        # Another one may have been suspended within its own.
        ((found,),) = connection.execute(open_).fetchall()
        assert found >= 1
    before = len(world.installation.tasks())
    world.services["postgres"] = services.restart(postgres, hard=True)
    until(world.installation.counts, what="the database")
    assert len(world.installation.tasks()) == before
    committing.resume()
    until(lambda: committing.said("batch_committed"), what="its commit")
    assert not committing.lines("batch_cancelled")


@pytest.fixture
def anew(world: World) -> Iterator[None]:
    """Afterwards there are new roles in place of those that a test has ended."""
    yield
    world.installation.roles[:] = [role for role in world.installation.roles if role.alive]
    for name in {"watch", "dispatch", "work"} - {role.name for role in world.installation.roles}:
        role = world.installation.start(name)
        until(lambda role=role: role.said("started"))


@pytest.mark.usefixtures("anew")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", ["kafka", "redis", "postgres"])
def test_stopped_while_a_server_is_away(world: World, server: str) -> None:
    """A role that is stopped while a server cannot be reached ends by itself, soon after its `shutdown_timeout`."""
    roles = list(world.installation.roles)
    world.proxies[server].cut()
    try:
        world.installation.put(40)
        for role in [role for role in roles if role.name in NEEDED_BY[server]]:
            until(lambda role=role: role.ready()[0] == 503, what=f"{role.name} unready")
        for role in roles:
            role.process.send_signal(signal.SIGTERM)
        until(
            lambda: not any(role.alive for role in roles),
            END_SECONDS,
            lambda: f"the end of {[role.name for role in roles if role.alive]}: {world.installation.explain()}",
        )
        assert [role.process.returncode for role in roles] == [0, 0, 0]
    finally:
        world.proxies[server].mend()


def test_connections_ended(world: World) -> None:
    """Ending all of our connections to the database, as a fail-over does, is noticed by nobody outside."""
    url = f"postgresql://postgres@{services.HOST}:{world.services['postgres'].port}/postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(3):
            world.installation.put(30)
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
