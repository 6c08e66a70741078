"""Who a source is to S3, who pays and who has the key: each kind of credentials against a SeaweedFS that gives
temporary ones by its STS and checks them, SSE-C against the same, and fronts that demand what no server here does."""

from __future__ import annotations

import base64
import json
import os
import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from deploy import services
from deploy.services import Service
from deploy.services.amazon import GUEST_KEY
from deploy.services.model import ACCESS_KEY, REGION, SECRET_KEY
from pipeline.config import Source
from pipeline.errors import LabelfeedError, ObjectFailed, UnavailableError, UsageError
from pipeline.stores import SMALL_BYTES
from pipeline.stores.s3 import S3Store, access, open_store
from tests.servers import s3_client
from tests.stores.contract import listed
from tests.stores.front import Answer, Asked, Front, front_of

pytestmark = pytest.mark.usefixtures("aws")
Open = Callable[..., S3Store]

ROLE = "arn:aws:iam::role/Reader"
EXTERNAL_ID = "an-opossum"
ISSUER, AUDIENCE = "https://issuer.invalid", "labelfeed"
KEYS = ["a b+ü%.txt", "large", "odd\ttab"]
"""What obstore reads at once, what it reads in ranges, and what boto3 must read."""
LARGE = 3 * SMALL_BYTES
REFUSED = b"<Error><Code>%s</Code><Message>no</Message></Error>"


def content_of(key: str) -> bytes:
    """What is in an object."""
    return key.encode() * (LARGE // len(key) if key == "large" else 1)


def read(store: S3Store) -> dict[str, bytes]:
    """All that is listed, looked at and read, by every way there is."""
    found = {}
    for entry in listed(store):
        head = store.head(entry.key)
        assert head is not None
        with store.open(entry.key) as reading:
            found[entry.key] = reading.stream().read() if reading.content is None else reading.content
            assert {entry.version, head.version} == {reading.entry.version}
    return found


ALL = {key: content_of(key) for key in KEYS}


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens stores, which are closed at the end."""
    stores: list[S3Store] = []

    def open_one(bucket: str, endpoint: str, **options: str) -> S3Store:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        source = Source(name="s", project="p", url=f"s3://{bucket}?{query}", endpoint=endpoint)
        stores.append(open_store(source, Path()))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def filled(service: Service, bucket: str, **encryption: Any) -> None:
    """A bucket with the objects of KEYS."""
    s3_client(service).create_bucket(Bucket=bucket)
    for key in KEYS:
        s3_client(service).put_object(Bucket=bucket, Key=key, Body=content_of(key), **encryption)


# --- credentials -------------------------------------------------------------------------------------------------


@dataclass
class Guarded:
    """A SeaweedFS with roles, the bucket of these tests, and the front by which its STS is asked."""

    service: Service
    bucket: str
    sts: Front
    issuer: Issuer


class Issuer:
    """Who gives web identities: tokens, and the key by which they are checked."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)

    def keys(self) -> bytes:
        """The public key as a set of JSON web keys."""
        numbers = self._key.public_key().public_numbers()
        exponent, modulus = (_encoded(n.to_bytes((n.bit_length() + 7) // 8)) for n in (numbers.e, numbers.n))
        return json.dumps(
            {"keys": [{"kty": "RSA", "kid": "k", "use": "sig", "alg": "RS256", "e": exponent, "n": modulus}]}
        ).encode()

    def token(self) -> str:
        """A token of a pod, good for ten minutes."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "pod", "iat": now, "exp": now + 600}
        parts = ({"alg": "RS256", "typ": "JWT", "kid": "k"}, claims)
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def roles(keys_url: str) -> dict[str, Any]:
    """SeaweedFS's file of roles: `guest` may assume ROLE, and so may whom the issuer names."""
    version = "2012-10-17"
    trusted = [
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:user/guest"}, "Action": ["sts:AssumeRole"]},
        {"Effect": "Allow", "Principal": {"Federated": "pods"}, "Action": ["sts:AssumeRoleWithWebIdentity"]},
    ]
    reading = [{"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": ["*"]}]
    issuer = {"issuer": ISSUER, "clientId": AUDIENCE, "jwksUri": keys_url}
    signing = base64.b64encode(b"k" * 32).decode()
    return {
        "sts": {"tokenDuration": "1h", "maxSessionLength": "12h", "issuer": "sts", "signingKey": signing},
        "providers": [{"name": "pods", "type": "oidc", "enabled": True, "config": issuer}],
        "policy": {"defaultEffect": "Deny"},
        "policies": [{"name": "Reading", "document": {"Version": version, "Statement": reading}}],
        "roles": [
            {
                "roleName": "Reader",
                "roleArn": ROLE,
                "trustPolicy": {"Version": version, "Statement": trusted},
                "attachedPolicies": ["Reading"],
            }
        ],
    }


@pytest.fixture(scope="module")
def seaweed_with_roles(
    seaweedfs: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Issuer]]:
    """A SeaweedFS whose STS gives temporary credentials."""
    file, issuer = tmp_path_factory.mktemp("iam") / "iam.json", Issuer()
    with front_of(seaweedfs.url) as keys:
        keys.fault = lambda _method, _target: Answer(200, issuer.keys(), [("content-type", "application/json")])
        file.write_text(json.dumps(roles(f"{keys.url}/keys")))
        with services.using("seaweedfs", f"iam-{uuid.uuid4().hex[:8]}", settings={"iam": str(file)}) as service:
            filled(service, "guarded")
            yield service, issuer


@pytest.fixture
def guarded(seaweed_with_roles: tuple[Service, Issuer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """The same, asked for credentials through a front, by a user who may do nothing but assume the role."""
    service, issuer = seaweed_with_roles
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", GUEST_KEY)
    with front_of(service.url) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        yield Guarded(service, "guarded", sts, issuer)


def needs_external_id(asked: Asked) -> Answer | None:
    """A trust policy with a condition on the external id, which SeaweedFS does not know."""
    given = parse_qs(asked.body.decode()).get("ExternalId")
    if given == [EXTERNAL_ID]:
        return None
    return Answer(403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")


def test_a_role_is_assumed_with_its_external_id(guarded: Guarded, opened: Open) -> None:
    """Who may do nothing but assume a role lists and reads in that role, if the external id is the right one."""
    guarded.sts.guard = needs_external_id
    url = guarded.service.url

    assert read(opened(guarded.bucket, url, role_arn=ROLE, external_id=EXTERNAL_ID)) == ALL
    for options in ({}, {"role_arn": ROLE}, {"role_arn": ROLE, "external_id": "another"}):
        with pytest.raises(LabelfeedError) as caught:
            opened(guarded.bucket, url, **options).list(None, 10)
        assert caught.value.code == "permission", (options, caught.value)
        assert SECRET_KEY not in f"{caught.value} {caught.value.args}"


def test_credentials_that_end_are_replaced(guarded: Guarded, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role's session is taken anew before it ends, for every way to read, and what is under way goes on."""
    monkeypatch.setattr(access, "CREDENTIALS_MINUTES", 0)  # obstore asks for each request, not each five minutes
    soon = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    guarded.sts.edit = lambda _, answer: answer._replace(body=re.sub(rb"(?<=<Expiration>)[^<]*", soon, answer.body))
    store = opened(guarded.bucket, guarded.service.url, role_arn=ROLE)
    assert read(store) == ALL
    before = len(guarded.sts.asked)
    assert read(store) == ALL
    assert len(guarded.sts.asked) > before


def test_a_pod_s_web_identity_counts(
    guarded: Guarded, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With no keys at all, the token that a pod is given is exchanged for credentials."""
    token = tmp_path / "token"
    token.write_text(guarded.issuer.token())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "pod")

    assert read(opened(guarded.bucket, guarded.service.url)) == ALL
    token.write_text(Issuer().token())
    with pytest.raises(LabelfeedError) as caught:
        opened(guarded.bucket, guarded.service.url).list(None, 10)
    assert token.read_text() not in f"{caught.value} {caught.value.args}"


def test_an_instance_s_role_counts(guarded: Guarded, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no keys at all, the machine's metadata service is asked for those of its role."""
    sts = boto3.Session().client(
        "sts", endpoint_url=guarded.service.url, region_name=REGION,
        aws_access_key_id=GUEST_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip
    given = sts.assume_role(RoleArn=ROLE, RoleSessionName="machine")["Credentials"]
    credentials = {
        "Code": "Success", "Type": "AWS-HMAC", "Expiration": given["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AccessKeyId": given["AccessKeyId"], "SecretAccessKey": given["SecretAccessKey"],
        "Token": given["SessionToken"],
    }  # fmt: skip

    def metadata(asked: Asked) -> Answer:
        """IMDSv2: a session's token first, which everything else must bear."""
        if asked.method == "PUT":
            return Answer(200, b"session")
        if asked.headers.get("x-aws-ec2-metadata-token") != "session":
            return Answer(401)
        return Answer(200, json.dumps(credentials).encode() if asked.target.endswith("/machine") else b"machine")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    with front_of(guarded.service.url) as machine:
        machine.guard = metadata
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.url)
        assert read(opened(guarded.bucket, guarded.service.url)) == ALL


def test_a_profile_counts_before_the_environment(
    guarded: Guarded, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`profile` names the credentials of the shared files, also where it assumes a role itself."""
    credentials, config = tmp_path / "credentials", tmp_path / "config"
    credentials.write_text(
        f"[owner]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
        f"[guest]\naws_access_key_id={GUEST_KEY}\naws_secret_access_key={SECRET_KEY}\n"
    )
    config.write_text(f"[profile reader]\nrole_arn={ROLE}\nsource_profile=guest\nexternal_id={EXTERNAL_ID}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    guarded.sts.guard = needs_external_id

    for profile in ("owner", "reader"):
        assert read(opened(guarded.bucket, guarded.service.url, profile=profile)) == ALL
    with pytest.raises(LabelfeedError):
        opened(guarded.bucket, guarded.service.url, profile="guest").list(None, 10)
    with pytest.raises(UsageError, match="nobody"):
        opened(guarded.bucket, guarded.service.url, profile="nobody")


# --- keys of the customer's own --------------------------------------------------------------------------------


@pytest.fixture
def encrypted(seaweedfs: Service, unique: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of objects that can be read with the key in MY_KEY only."""
    key = os.urandom(32)
    monkeypatch.setenv("MY_KEY", base64.b64encode(key).decode())
    filled(seaweedfs, unique, SSECustomerAlgorithm="AES256", SSECustomerKey=key)
    return unique


def test_objects_are_read_with_the_customers_key(seaweedfs: Service, encrypted: str, opened: Open) -> None:
    """Small objects, ranges of large ones and odd names come decrypted; no signed URL is promised for them."""
    store = opened(encrypted, seaweedfs.url, sse_c_key_variable="MY_KEY")

    assert read(store) == ALL
    with pytest.raises(UsageError, match="durable"):
        store.sign(KEYS[0], 60)


@pytest.mark.parametrize("key", [KEYS[0], KEYS[2]])
def test_without_the_right_key_the_object_is_refused(
    seaweedfs: Service, encrypted: str, opened: Open, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing key and a wrong one are the object's own failure: waiting would not help it."""
    monkeypatch.setenv("WRONG_KEY", base64.b64encode(os.urandom(32)).decode())
    for options in ({}, {"sse_c_key_variable": "WRONG_KEY"}):
        store = opened(encrypted, seaweedfs.url, **options)
        with pytest.raises(ObjectFailed) as caught, store.open(key):
            pass
        assert caught.value.code == "permission"
    assert "sse_c_key_variable" in (caught.value.hint or "")


# --- who pays -----------------------------------------------------------------------------------------------------


def demands_payer(asked: Asked) -> Answer | None:
    """A bucket whose requester pays: who does not say so is denied."""
    said = asked.headers.get("x-amz-request-payer") == "requester" or "x-amz-request-payer=requester" in asked.target
    # Only the owner can ask whether there is versioning, and he pays himself.
    return None if said else Answer(403, REFUSED % b"AccessDenied", [("content-type", "application/xml")])


@pytest.mark.parametrize("server", ["seaweedfs", "versitygw"])
def test_who_pays_says_so_in_every_request(
    request: pytest.FixtureRequest, server: str, unique: str, opened: Open
) -> None:
    """Listing (with versions, too), looking, reading and signed URLs pass a front that demands it."""
    service: Service = request.getfixturevalue(server)
    filled(service, unique)
    versions = server == "versitygw"
    if versions:
        s3_client(service).put_bucket_versioning(Bucket=unique, VersioningConfiguration={"Status": "Enabled"})
    with front_of(service.url) as front:
        front.guard = demands_payer
        said = {"versions": str(versions).lower()}
        store = opened(unique, front.url, requester_pays="true", **said)
        assert read(store) == ALL
        with urllib.request.urlopen(store.sign(KEYS[0], 60)) as answer:
            assert answer.read() == ALL[KEYS[0]]
        with pytest.raises(UnavailableError) as caught:
            opened(unique, front.url, **said).list(None, 10)
        assert caught.value.code == "permission"
        with pytest.raises(HTTPError):
            urllib.request.urlopen(opened(unique, front.url, **said).sign(KEYS[0], 60))
