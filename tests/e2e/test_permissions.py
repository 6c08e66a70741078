"""`labelfeed check` asks for all that a source must be allowed to do, and names the permission that is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import grpc
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from azure.storage.queue import QueueServiceClient
from google.auth import _regional_access_boundary_utils, iam

from deploy.services import Service
from deploy.services.azure import ACCOUNT, KEY
from tests.e2e.house import House
from tests.google_front import ACCOUNT as GOOGLE_ACCOUNT
from tests.google_front import Asked, federation_file, refused
from tests.google_front import front_of as google_front_of
from tests.servers import gcs_client
from tests.simulated_s3 import BUCKET, Bucket, Failure, credentials, served
from tests.stores.front import Answer, front_of
from tests.stores.front import Asked as Passing

ROOT = Path(__file__).parents[2]
OF_S3 = {
    "list": "s3:ListBucket", "get": "s3:GetObject", "head": "s3:GetObject", "versioning": "s3:GetBucketVersioning",
}  # fmt: skip
"""What a policy calls what is asked of S3."""
DENIED = Failure(403, "AccessDenied")
SQS_ACTIONS = ("GetQueueAttributes", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")


def checked(house: House) -> dict[str, tuple[bool, str]]:
    """What `check` says of the source: of the listing under "", of the rest by its name."""
    rows = house.look("check", "--json").json()
    name = "source inbox"
    return {
        row["component"].removeprefix(name).removeprefix(", "): (row["ok"], row["found"])
        for row in rows
        if row["component"].startswith(name)
    }


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of one object."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    with served(Bucket(1)) as made:
        yield made


def test_a_bucket_that_may_be_listed_and_read(house: House, bucket: Bucket) -> None:
    """All that is allowed is told of; the object is opened, but nothing of it is imported."""
    house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url, "links": "signed"})

    assert checked(house) == {
        "": (True, f"bucket {BUCKET} without versioning, not empty"),
        "reading": (True, "00000000.json can be read, 15 bytes"),
        "signing": (True, "links to 00000000.json can be signed"),
    }
    assert house.states() == {}


@pytest.mark.parametrize(
    ("operation", "what", "named"), [("list", "", "s3:ListBucket"), ("get", "reading", "s3:GetObject")]
)
def test_what_amazon_s3_denies(house: House, bucket: Bucket, operation: str, what: str, named: str) -> None:
    """The action that the policy does not allow is named, and the others are told to be well as far as can be known."""
    bucket.fails = lambda asked: DENIED if asked.operation == operation else None
    house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url})
    ok, found = checked(house)[what]

    assert not ok
    assert named in found
    assert house.look("check").code == 1


def test_an_empty_bucket_can_be_listed_and_nothing_more_is_known(house: House, bucket: Bucket) -> None:
    """Where there is no object, `check` does not say that it could be read."""
    bucket.count = 0
    house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url})

    assert checked(house)["reading"] == (True, "there is nothing to try it with")


@pytest.fixture
def queue(elasticmq: Service, bucket: Bucket, unique: str) -> Iterator[Any]:
    """A queue of SQS with one message on it: its client and its URL."""
    client = boto3.Session().client("sqs", endpoint_url=elasticmq.url)
    url = client.create_queue(QueueName=unique)["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="{}")
    yield client, url
    client.delete_queue(QueueUrl=url)
    client.close()


def test_a_queue_of_sqs_is_asked_and_gives_no_message(house: House, bucket: Bucket, queue: Any) -> None:
    """Afterwards the message is there as before, received by nobody."""
    client, url = queue
    house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url, "notifications": url})
    found = checked(house)["notifications"]
    (message,) = client.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"]

    assert found == (True, f"the queue {url.rpartition('/')[2]} answers")
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


@pytest.mark.parametrize("action", SQS_ACTIONS)
def test_what_sqs_denies(house: House, elasticmq: Service, bucket: Bucket, queue: Any, action: str) -> None:
    """Whichever of the queue's actions the policy leaves out, it is the one that is named."""
    _, url = queue

    def refuse(asked: Passing) -> Answer | None:
        if asked.headers.get("x-amz-target") != f"AmazonSQS.{action}":
            return None
        told = {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "not authorized"}
        return Answer(403, json.dumps(told).encode(), [("Content-Type", "application/x-amz-json-1.0")])

    with front_of(elasticmq.url) as front:
        front.guard = refuse
        place = url.replace(elasticmq.url, front.url)
        house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url, "notifications": place})
        ok, found = checked(house)["notifications"]

    assert (ok, f"it takes sqs:{action}" in found) == (False, True), found


def allowed(name: str) -> set[str]:
    """The actions of one of our policies for Amazon."""
    document = json.loads((ROOT / "deploy" / "iam" / name).read_text())
    return {action for statement in document["Statement"] for action in statement["Action"]}


def test_the_policy_for_reading_allows_what_a_run_asks_and_no_more(house: House, bucket: Bucket) -> None:
    """A pass, an import, `check` and `verify` together ask for just the actions that the file has."""
    house.environment = credentials()
    house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url})
    house.once()
    checked(house)
    house.verify()

    assert {OF_S3[operation] for operation in bucket.asked} == allowed("aws-read.json")


def test_the_policy_for_notifications_is_what_check_asks_for(
    house: House, elasticmq: Service, bucket: Bucket, queue: Any
) -> None:
    """`check` tries each action of the file, and no other."""
    asked: set[str] = set()
    with front_of(elasticmq.url) as front:
        front.guard = lambda one: asked.add(one.headers["x-amz-target"].partition(".")[2])  # type: ignore[func-returns-value]
        place = queue[1].replace(elasticmq.url, front.url)
        house.configure({"url": f"s3://{BUCKET}", "endpoint": bucket.url, "notifications": place})
        checked(house)

    assert {f"sqs:{action}" for action in asked} == allowed("aws-notify.json")


# --- Google ----------------------------------------------------------------------------------------------------


def reads(request: Asked) -> bool:
    """Whether bytes are asked for, by either of Google's interfaces."""
    return request.method == "GET" and request.path.startswith(("/download/", "/t"))


@pytest.mark.usefixtures("google")
@pytest.mark.parametrize(
    ("denied", "what", "named"),
    [
        (lambda one: one.path.endswith("/o"), "", "storage.objects.list"),
        (reads, "reading", "storage.objects.get"),
        (lambda one: one.path.endswith(":signBlob"), "signing", "roles/iam.serviceAccountTokenCreator"),
    ],
)
def test_what_google_denies(
    house: House,
    fakegcs: Service,
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
    denied: Callable[[Asked], bool],
    what: str,
    named: str,
) -> None:
    """Of listing, reading and signing the one that is not granted is told with its role, the others are well."""
    gcs_client(fakegcs).create_bucket(unique)
    gcs_client(fakegcs).bucket(unique).blob("a.json").upload_from_string('{"text": "a"}')
    monkeypatch.setattr(_regional_access_boundary_utils, "_get_domain", lambda: "127.0.0.1:1")
    with google_front_of(fakegcs.url) as front:
        monkeypatch.setattr(iam, "_IAM_SIGN_ENDPOINT", f"{front.url}/v1/projects/-/serviceAccounts/{{}}:signBlob")
        federation_file(house.folder / "pool.json", front)
        url = f"gs://{unique}?anonymous=false&credentials_file=pool.json&signer={GOOGLE_ACCOUNT}"
        house.configure({"url": url, "endpoint": front.url, "links": "signed", "ttl": "1h"})
        well = checked(house)
        front.rules.append(lambda one: refused(403, "forbidden") if denied(one) else None)
        found = checked(house)

    assert [ok for ok, _ in well.values()] == [True, True, True], well
    assert (found[what][0], named in found[what][1]) == (False, True), found


@contextmanager
def denying_pubsub() -> Iterator[str]:
    """A server of Pub/Sub that denies everything: its address."""

    class Denies(grpc.GenericRpcHandler):
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                lambda _request, context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
            )

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Denies(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.usefixtures("google")
def test_a_subscription_that_is_denied(
    house: House, fakegcs: Service, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role is named that the subscription takes; the bucket is well."""
    gcs_client(fakegcs).create_bucket(unique)
    with denying_pubsub() as address:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
        notifications = f"projects/test/subscriptions/{unique}"
        house.configure({"url": f"gs://{unique}", "endpoint": fakegcs.url, "notifications": notifications})
        found = checked(house)

    assert found[""][0]
    assert (found["notifications"][0], "roles/pubsub.subscriber" in found["notifications"][1]) == (False, True), found


# --- Azure -----------------------------------------------------------------------------------------------------


def sas(**permissions: bool) -> str:
    """A shared access signature of the account."""
    return generate_account_sas(
        ACCOUNT, KEY, ResourceTypes(service=True, container=True, object=True), AccountSasPermissions(**permissions),
        datetime.now(UTC) + timedelta(hours=1), services="bq",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("granted", "what", "named"),
    [
        ({"read": True, "process": True}, "", "Storage Blob Data Reader"),
        ({"list": True, "process": True}, "reading", "Storage Blob Data Reader"),
        ({"list": True, "read": True}, "notifications", "Storage Queue Data Message Processor"),
    ],
)
def test_what_azure_denies(
    house: House, azure: Any, azurite: Service, unique: str, monkeypatch: pytest.MonkeyPatch, granted: dict[str, bool],
    what: str, named: str,
) -> None:  # fmt: skip
    """Of listing, reading and taking messages the one that a signature leaves out is told with its role."""
    azure.create_container(unique).upload_blob("a.json", b'{"text": "a"}')
    connection = azurite.env["AZURE_STORAGE_CONNECTION_STRING"]
    with closing(QueueServiceClient.from_connection_string(connection)) as queues:
        queues.create_queue(unique).send_message("e30=")
        place = f"{queues.url.rstrip('/')}/{unique}".partition("?")[0]
        source = {"url": f"az://{unique}?credential=sas", "account": ACCOUNT, "endpoint": azurite.url}
        house.configure(source | {"notifications": place})
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas(list=True, read=True, process=True))
        well = checked(house)
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas(**granted))
        found = checked(house)
        waiting = queues.get_queue_client(unique).get_queue_properties().approximate_message_count
        queues.delete_queue(unique)
    azure.delete_container(unique)

    assert [ok for ok, _ in well.values()] == [True, True, True], well
    assert (found[what][0], named in found[what][1]) == (False, True), found
    assert waiting == 1
