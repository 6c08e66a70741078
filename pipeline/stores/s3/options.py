"""What a source's URL says of its bucket: `s3://bucket/prefix?option=value&…`.

Credentials are found as boto3 finds them: environment, profile, web identity, container or instance role. No
secret is ever in the URL.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UsageError

SSE_KEY_BYTES = 32


class S3Options(BaseModel):
    """Where a bucket is and how to get in. `endpoint` is that of the source, else of AWS_ENDPOINT_URL[_S3]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str = Field(min_length=1, description="The bucket.")
    prefix: str = Field("", description="The folder in it, without a slash at the end.")
    endpoint: str | None = Field(None, description="The URL of a store that speaks like S3.")
    region: str | None = Field(
        None, description="The bucket's region, else that of AWS_REGION, AWS_DEFAULT_REGION or the profile."
    )
    profile: str | None = Field(None, description="A profile of the shared AWS configuration.")
    role_arn: str | None = Field(None, description="A role to assume.")
    external_id: str | None = Field(None, description="The external id that the role asks for.")
    anonymous: bool = Field(default=False, description="Ask without credentials, as public buckets allow.")
    requester_pays: bool = Field(default=False, description="We pay for requests to the bucket.")
    path_style: bool | None = Field(
        None, description="Whether the bucket is in the path, as with an endpoint; else it begins the host."
    )
    sse_c_key_variable: str | None = Field(
        None, description="The environment variable with the key (32 bytes in base64) that objects are encrypted with."
    )
    versions: bool | None = Field(None, description="Whether the bucket has versioning; by default it is asked.")
    ordered: bool | None = Field(None, description="Whether the server lists in byte order; by default it is asked.")
    concurrency: int = Field(
        64, ge=1, le=512, description="Requests under way at once for each worker thread, 256 at most for a process."
    )

    @property
    def folder(self) -> str:
        """What all keys of the store begin with in the bucket."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def canonical(self) -> str:
        """The store's URI: what logs and errors may show."""
        return f"s3://{self.bucket}/{self.folder}"

    @property
    def host_of_bucket(self) -> str:
        """The endpoint with the bucket as a part of its host."""
        scheme, _, rest = (self.endpoint or "").partition("://")
        return f"{scheme}://{self.bucket}.{rest}"

    def sse_key(self) -> bytes | None:
        """The key of SSE-C, from its variable. Raises UsageError if that doesn't hold one."""
        if self.sse_c_key_variable is None:
            return None
        try:
            key = base64.b64decode(os.environ.get(self.sse_c_key_variable, ""), validate=True)
        except ValueError:
            key = b""
        if len(key) != SSE_KEY_BYTES:
            raise UsageError(f"{self.canonical}: {self.sse_c_key_variable} holds no key of 32 bytes in base64")
        return key


def parse(url: str, endpoint: str | None = None) -> S3Options:
    """The options that an `s3://` URL says.

    Raises:
        UsageError: it names no bucket, an unknown option or a value that can't be, or holds a user and password.
    """
    parts = urlsplit(url, allow_fragments=False)
    if "@" in parts.netloc:
        raise UsageError("an s3:// URL holds no credentials; they come from the environment, a profile or a role")
    said: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    said["bucket"] = parts.netloc
    said["prefix"] = unquote(parts.path).strip("/")
    said["endpoint"] = (
        said.get("endpoint")
        or endpoint
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or None
    )
    try:
        return _checked(S3Options.model_validate(said))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(S3Options.model_fields.keys() - {"bucket", "prefix"}))
        where = f"s3://{parts.netloc}{parts.path}"
        raise UsageError(f"{where}: {name}: {first['msg']} (options: {known})") from None


def _checked(options: S3Options) -> S3Options:
    """Raises UsageError where a bucket should be a part of an endpoint's host, and that is an address."""
    if options.path_style is False and options.endpoint is not None:
        host = urlsplit(options.endpoint).hostname or ""
        with suppress(ValueError):
            ip_address(host)
            raise UsageError(f"{options.canonical}: path_style=false needs an endpoint with a name, not {host}")
    return options
