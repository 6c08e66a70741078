"""Files in a bucket that speaks S3, with the credentials of the environment."""

from __future__ import annotations

import logging
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline import logs
from pipeline.errors import UnavailableError
from pipeline.sinks.jsonl.places import UNFINISHED

REQUESTS, ATTEMPTS = 3, 2
"""A file takes so many requests, each of them tried so often at most: the time for a file is divided among all."""
CONNECT_SECONDS = 10.0
LATEST = 0.5
"""A file is given its name within this part of its time, so that all attempts at that end within the whole."""
_MISSING = ("NoSuchKey", "404", "NotFound")

_log = logging.getLogger(__name__)


class Bucket:
    """`pipeline.sinks.jsonl.places.Place` in a bucket, under a prefix."""

    def __init__(self, name: str, prefix: str, endpoint: str | None, timeout: float) -> None:
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._timeout = timeout
        part = timeout / (REQUESTS * ATTEMPTS)
        config = Config(
            connect_timeout=min(part / 2, CONNECT_SECONDS),
            read_timeout=part,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            s3={"addressing_style": "path" if endpoint else "auto"},
        )
        # A session of its own: the module's keeps the first credentials that it found, and isn't made for threads.
        self._client = boto3.Session().client("s3", endpoint_url=endpoint, config=config)

    def write(self, name: str, content: bytes) -> None:
        """As `Place.write`: under another name first, as some that speak S3 show half a file."""
        key = self._prefix + name
        begun = time.monotonic()
        try:
            self._client.put_object(Bucket=self._name, Key=key + UNFINISHED, Body=content)
            if time.monotonic() - begun > LATEST * self._timeout:
                # A copy that is made after the time might replace what another sender has written by then.
                raise UnavailableError(f"s3://{self._name}: the store takes too long for a file's time-out")
            self._client.copy_object(
                Bucket=self._name, Key=key, CopySource={"Bucket": self._name, "Key": key + UNFINISHED}
            )
        except (BotoCoreError, ClientError) as error:
            raise _unavailable(self._name, error) from error
        self._tidy(key + UNFINISHED)

    def read(self, name: str) -> bytes | None:
        """As `Place.read`."""
        try:
            content: bytes = self._client.get_object(Bucket=self._name, Key=self._prefix + name)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise _unavailable(self._name, error) from error
        except BotoCoreError as error:
            raise _unavailable(self._name, error) from error
        return content

    def ping(self) -> str:
        """As `Place.ping`."""
        try:
            self._client.head_bucket(Bucket=self._name)
        except (BotoCoreError, ClientError) as error:
            raise _unavailable(self._name, error) from error
        return f"bucket {self._name}, under {self._prefix or 'no prefix'}"

    def close(self) -> None:
        """As `Place.close`."""
        self._client.close()

    def _tidy(self, key: str) -> None:
        try:
            self._client.delete_object(Bucket=self._name, Key=key)
        except (BotoCoreError, ClientError) as error:
            # The file is there under its own name, whatever becomes of the other one.
            _log.warning(logs.PART_LEFT, extra={"file": f"s3://{self._name}/{key}", "error": str(error)})


def _unavailable(bucket: str, error: BotoCoreError | ClientError) -> UnavailableError:
    return UnavailableError(f"s3://{bucket}: {error}", code="unavailable")
