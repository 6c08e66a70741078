"""Two ways to a bucket, with one face: `Plain` by obstore, which is quick, and `Full` by boto3, which knows all
of S3: keys that obstore can't name, versions, signing."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import boto3
import botocore.session
import obstore
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as ObstoreS3

from pipeline.errors import UnavailableError, UsageError
from pipeline.stores import READING_THREADS_LIMIT, SMALL_BYTES
from pipeline.stores.s3.failures import DENIED, NOT_FOUND, code_of, refused_role
from pipeline.stores.s3.options import S3Options

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CONNECT_SECONDS = 5
REQUEST_SECONDS = 60
ATTEMPTS = 4
VERSIONS_PAGE = 1000
FALLBACK_REGION = "us-east-1"
CREDENTIALS_MINUTES = 10
"""obstore asks for credentials again after this less five minutes; boto3 gives none that end before ten."""


class Meta(NamedTuple):
    """What S3 says of one object; `key` is whole, `etag` as it came."""

    key: str
    etag: str | None
    version_id: str | None
    size: int
    modified: datetime


def session(options: S3Options) -> boto3.Session:
    """A boto3 session with the credentials that the options ask for. Raises UsageError where there are none."""
    # boto3 knows AWS_DEFAULT_REGION alone; all others of AWS's programs know this one, and pods are given it.
    named = options.region or os.environ.get("AWS_REGION") or None
    try:
        found = boto3.Session(profile_name=options.profile, region_name=named)
        if options.role_arn is not None:
            found = _assumed(found, options)
        if not options.anonymous and found.get_credentials() is None:
            raise UsageError(f"{options.canonical}: no AWS credentials found in environment, profile or role")
    except BotoCoreError as error:
        raise UsageError(f"{options.canonical}: {error}") from None
    return found


def _assumed(base: boto3.Session, options: S3Options) -> boto3.Session:
    core = botocore.session.Session(profile=options.profile)
    extra = {"ExternalId": options.external_id} if options.external_id else {}
    fetcher = AssumeRoleCredentialFetcher(
        base._session.create_client,  # noqa: SLF001 - botocore's own way to make the STS client
        base.get_credentials(),
        options.role_arn or "",
        extra_args=extra,
    )
    refreshed = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
    core._credentials = refreshed  # type: ignore[attr-defined]  # noqa: SLF001 - a session takes none otherwise
    return boto3.Session(botocore_session=core, region_name=base.region_name)


def region(credentials: boto3.Session) -> str:
    """The region for which all that goes by a session is signed, unless its address names another."""
    return str(credentials.region_name or FALLBACK_REGION)


def _trusted(options: S3Options, credentials: boto3.Session) -> bytes | None:
    """The certificates of AWS_CA_BUNDLE, or of a profile's `ca_bundle`. Raises UsageError where they can't be read."""
    path = credentials._session.get_config_variable("ca_bundle")  # noqa: SLF001 - what boto3 itself goes by
    if not path:
        return None
    try:
        ssl.create_default_context(cafile=path)
        return Path(path).read_bytes()
    except OSError as error:
        why = f"AWS_CA_BUNDLE is no file of certificates ({error.strerror or type(error).__name__})"
        raise UsageError(f"{options.canonical}: {why}") from None


class Plain:
    """A bucket by obstore. Thread-safe."""

    def __init__(self, options: S3Options, credentials: boto3.Session) -> None:
        self._options = options
        settings: dict[str, Any] = {}
        client: ClientConfig = {
            "allow_http": (options.endpoint or "").startswith("http:"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
        }
        trusted = _trusted(options, credentials)
        if trusted is not None:
            client["root_certificate"] = trusted
        if options.requester_pays:
            settings["request_payer"] = True
        key = options.sse_key()
        if key is not None:
            settings["aws_server_side_encryption"] = "sse-c"
            settings["aws_sse_customer_key_base64"] = base64.b64encode(key).decode()
        if options.anonymous:
            settings["skip_signature"] = True
        else:
            settings["credential_provider"] = Boto3CredentialProvider(
                credentials, ttl=timedelta(minutes=CREDENTIALS_MINUTES)
            )
        if options.endpoint is not None:
            settings["endpoint"] = options.endpoint if _path_style(options) else options.host_of_bucket
        self._store = ObstoreS3(
            options.bucket,
            region=region(credentials),
            virtual_hosted_style_request=not _path_style(options),
            client_options=client,
            retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
            **settings,
        )

    def pages(self, prefix: str, after: str | None, limit: int) -> Iterator[tuple[list[Meta], bool]]:
        """Pages of `limit` keys, each with whether it is the last. Raises InvalidPathError at what it can't name.

        A key that ends with a slash comes without it: see `maybe_mark`.
        """
        chunks = obstore.list(self._store, prefix.rstrip("/") or None, offset=after, chunk_size=limit)
        for chunk in chunks:
            found = [_meta(meta) for meta in chunk]
            yield found, len(found) < limit
            if len(found) < limit:
                return
        yield [], True

    def head(self, key: str) -> Meta | None:
        """What is there now; None for a 404, which does not say whether it is the object or the bucket."""
        try:
            return _meta(obstore.head(self._store, key))
        except FileNotFoundError:
            return None

    def first(self, key: str) -> tuple[Meta, bytes | None]:
        """What is there now, with its bytes if it is small."""
        result = obstore.get(self._store, key)
        meta = _meta(result.meta)
        return meta, bytes(result.bytes()) if meta.size <= SMALL_BYTES else None

    def part(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of the object if it still has this ETag."""
        result = obstore.get(self._store, key, options={"range": (start, end), "if_match": etag})
        return bytes(result.bytes())


def maybe_mark(meta: Meta) -> bool:
    """Whether what obstore lists may be a folder's mark, `key/`: those are empty."""
    return meta.size == 0


def _meta(found: Any) -> Meta:
    return Meta(found["path"], found["e_tag"], found["version"], found["size"], found["last_modified"])


def _path_style(options: S3Options) -> bool:
    return options.endpoint is not None if options.path_style is None else options.path_style


def _addressing(options: S3Options) -> Literal["path", "virtual", "auto"]:
    if _path_style(options):
        return "path"
    return "auto" if options.endpoint is None else "virtual"


class Full:
    """A bucket by boto3. Thread-safe."""

    def __init__(self, options: S3Options, credentials: boto3.Session) -> None:
        self._options = options
        self._client = credentials.client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=region(credentials),
            config=Config(
                signature_version=UNSIGNED if options.anonymous else "s3v4",
                s3={"addressing_style": _addressing(options)},
                retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=REQUEST_SECONDS,
                max_pool_connections=READING_THREADS_LIMIT,
            ),
        )
        self._common: dict[str, Any] = {"Bucket": options.bucket}
        if options.requester_pays:
            self._common["RequestPayer"] = "requester"
            self._client.meta.events.register("before-sign.s3.GetObject", _pay_by_query)
        key = options.sse_key()
        self._sse = {} if key is None else {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}

    def pages(self, prefix: str, after: str | None, limit: int) -> Iterator[tuple[list[Meta], bool]]:
        """Pages of at most `limit` keys, each with whether it is the last."""
        place = {"StartAfter": after} if after else {}
        while True:
            answer = self._client.list_objects_v2(**self._common, Prefix=prefix, MaxKeys=limit, **place)
            rows = answer.get("Contents", [])
            token = answer.get("NextContinuationToken")
            found = [Meta(row["Key"], row.get("ETag"), None, row["Size"], row["LastModified"]) for row in rows]
            yield found, token is None
            if token is None:
                return
            place = {"ContinuationToken": token}

    def latest_pages(self, prefix: str, after: str | None, limit: int) -> Iterator[tuple[list[Meta], bool]]:
        """As `pages`, with version ids, and without what has a deletion's mark as its latest version."""
        waiting: list[Meta] = []
        seen = after or ""
        for rows in self._versions(prefix, after):
            latest = [row for row in rows if row["IsLatest"] and row["Key"] > seen]
            seen = latest[-1]["Key"] if latest else seen
            waiting += [
                Meta(row["Key"], row.get("ETag"), row["VersionId"], row["Size"], row["LastModified"]) for row in latest
            ]
            while len(waiting) > limit:
                yield waiting[:limit], False
                waiting = waiting[limit:]
        yield waiting, True

    def _versions(self, prefix: str, after: str | None) -> Iterator[Any]:
        # Always whole pages: versitygw stands still where it is asked for one version at a time.
        place = {"KeyMarker": after} if after else {}
        while True:
            answer = self._client.list_object_versions(**self._common, Prefix=prefix, MaxKeys=VERSIONS_PAGE, **place)
            yield answer.get("Versions", [])
            if not answer.get("IsTruncated"):
                return
            following = {"KeyMarker": answer["NextKeyMarker"]}
            if answer.get("NextVersionIdMarker"):
                following["VersionIdMarker"] = answer["NextVersionIdMarker"]
            if following == place:
                raise UnavailableError(f"{self._options.canonical}: the listing of versions stands still")
            place = following

    def server(self) -> str:
        """What the server calls itself."""
        answer = self._client.list_objects_v2(**self._common, MaxKeys=1)
        return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", ""))

    def head(self, key: str) -> Meta | None:
        """What is there now; None for a 404, which does not say whether it is the object or the bucket."""
        try:
            return _of_answer(key, self._client.head_object(**self._common, **self._sse, Key=key))
        except ClientError as error:
            if code_of(error) in NOT_FOUND:
                return None
            raise

    def first(self, key: str) -> tuple[Meta, bytes | None]:
        """What is there now, with its bytes if it is small."""
        answer = self._client.get_object(**self._common, **self._sse, Key=key)
        meta = _of_answer(key, answer)
        with answer["Body"] as body:
            return meta, body.read() if meta.size <= SMALL_BYTES else None

    def part(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of the object if it still has this ETag."""
        span = f"bytes={start}-{end - 1}"
        answer = self._client.get_object(**self._common, **self._sse, Key=key, Range=span, IfMatch=etag)
        with answer["Body"] as body:
            content: bytes = body.read()
            return content

    def versioned(self) -> bool:
        """Whether the bucket names contents by version ids; False where we may not know."""
        try:
            answer = self._client.get_bucket_versioning(Bucket=self._options.bucket)
        except ClientError as error:
            unknown = DENIED | {"NotImplemented", "MethodNotAllowed"}
            if refused_role(error) is None and code_of(error) in unknown:
                return False
            raise
        return answer.get("Status") in ("Enabled", "Suspended")

    def sign(self, key: str, ttl: float) -> str:
        """A presigned URL. Raises UsageError where it would need headers beside it."""
        if self._sse:
            raise UsageError(
                f"{self._options.canonical}: no URL can bear the key of sse_c_key_variable; use links: durable"
            )
        params = {"Bucket": self._options.bucket, "Key": key}
        signed: str = self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=int(ttl))
        return signed

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _pay_by_query(request: Any, signature_version: str, **_: Any) -> None:
    """Say in a presigned URL that we pay: who follows it sends no header of ours."""
    if signature_version.endswith("-query"):
        request.params["x-amz-request-payer"] = "requester"


def _of_answer(key: str, answer: Any) -> Meta:
    return Meta(key, answer.get("ETag"), answer.get("VersionId"), answer["ContentLength"], answer["LastModified"])
