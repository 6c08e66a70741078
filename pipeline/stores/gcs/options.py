"""What a source's URL says of its bucket: `gs://bucket/prefix?option=value&…`.

Credentials are found as Google's own libraries find them: GOOGLE_APPLICATION_CREDENTIALS, gcloud, the metadata
server of the machine or the pod (workload identity). No secret is ever in the URL.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UsageError

EMULATOR = "STORAGE_EMULATOR_HOST"
_LOGIN = frozenset({"credentials_file", "impersonate"})


class GcsOptions(BaseModel):
    """Where a bucket is and how to get in. `endpoint` is that of the source, else of STORAGE_EMULATOR_HOST."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str = Field(min_length=1, description="The bucket.")
    prefix: str = Field("", description="The folder in it, without a slash at the end.")
    endpoint: str | None = Field(None, description="The URL of a store that speaks like Google Cloud Storage.")
    credentials_file: Path | None = Field(
        None, description="A service account's key, or a workload identity federation's configuration, as JSON."
    )
    impersonate: str | None = Field(
        None, description="A service account to act as; of several, with commas, each acts as the next."
    )
    signer: str | None = Field(
        None, description="The service account in whose name URLs are signed, by IAM, without a key of it."
    )
    anonymous: bool | None = Field(
        None, description="Ask without credentials, as public buckets allow; so by default of plain http endpoints."
    )
    user_project: str | None = Field(None, description="The project that pays, for buckets whose requester does.")
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
        return f"gs://{self.bucket}/{self.folder}"

    @property
    def unsigned(self) -> bool:
        """Whether requests bear no token. One never goes over plain HTTP unless `anonymous: false` is said."""
        if self.anonymous is None:
            return (self.endpoint or "").startswith("http:")
        return self.anonymous


def parse(url: str, endpoint: str | None = None, folder: Path | None = None) -> GcsOptions:
    """The options that a `gs://` URL says; a relative `credentials_file` starts from `folder`.

    Raises:
        UsageError: it names no bucket, an unknown option or a value that can't be, or holds a user and password.
    """
    parts = urlsplit(url, allow_fragments=False)
    if "@" in parts.netloc:
        raise UsageError("a gs:// URL holds no credentials; they come from the environment, a file or the machine")
    said: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    said["bucket"] = parts.netloc
    said["prefix"] = unquote(parts.path).strip("/")
    _place(said, endpoint)
    if "credentials_file" in said:
        said["credentials_file"] = (folder or Path()) / Path(str(said["credentials_file"])).expanduser()
    try:
        return GcsOptions.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(GcsOptions.model_fields.keys() - {"bucket", "prefix"}))
        where = f"gs://{parts.netloc}{parts.path}"
        raise UsageError(f"{where}: {name}: {first['msg']} (options: {known})") from None


def _place(said: dict[str, object], endpoint: str | None) -> None:
    """Settle where the bucket is. Raises UsageError where a token would go over plain HTTP unasked."""
    emulator = os.environ.get(EMULATOR, "")
    said["endpoint"] = said.get("endpoint") or endpoint
    if said["endpoint"] is None and emulator:
        said["endpoint"] = emulator if "://" in emulator else f"http://{emulator}"
        said.setdefault("anonymous", "true")
    if str(said["endpoint"]).startswith("http:") and "anonymous" not in said and _LOGIN & said.keys():
        raise UsageError(
            f"gs://{said['bucket']}: {said['endpoint']} would get tokens without TLS; say anonymous=false if it may"
        )
