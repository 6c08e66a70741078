"""What a source says of its container: `az://container/prefix?option=value&…`, or the container's https address.

The account is the https address's, else the source's `account`, else of AZURE_STORAGE_ACCOUNT, else of the
connection string. No secret is ever in the URL: options name the environment's variables that hold them.
"""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config.addresses import blob_account
from pipeline.errors import UsageError

ACCOUNT_VARIABLE = "AZURE_STORAGE_ACCOUNT"
CONNECTION_VARIABLE = "AZURE_STORAGE_CONNECTION_STRING"
KEY_VARIABLE = "AZURE_STORAGE_KEY"
SAS_VARIABLE = "AZURE_STORAGE_SAS_TOKEN"
PUBLIC_SUFFIX = "core.windows.net"
EMULATOR = {
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "blobendpoint": "http://127.0.0.1:10000/devstoreaccount1",
    "queueendpoint": "http://127.0.0.1:10001/devstoreaccount1",
}
"""What `UseDevelopmentStorage=true` stands for in a connection string: the same on every machine."""

Login = Literal[
    "auto", "connection_string", "key", "sas", "default", "managed_identity", "service_principal", "anonymous"
]


class AzureOptions(BaseModel):
    """Where a container is and how to get in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    container: str = Field(min_length=1, description="The container.")
    prefix: str = Field("", description="The folder in it, without a slash at the end.")
    account: str = Field(min_length=1, description="The storage account.")
    endpoint: str = Field(description="The address of the account's blob service.")
    queues: str = Field(description="The address of the account's queue service.")
    credential: Login = Field("auto", description="What to log in with; `auto` takes the first that there is.")
    connection_string_variable: str = Field(CONNECTION_VARIABLE, description="The variable of a connection string.")
    key_variable: str = Field(KEY_VARIABLE, description="The variable of the account's key.")
    sas_variable: str = Field(SAS_VARIABLE, description="The variable of a shared access signature.")
    client_id: str | None = Field(None, description="The client id of a user-assigned managed identity.")
    ordered: bool | None = Field(None, description="Whether blobs are listed in byte order; by default it is asked.")
    concurrency: int = Field(
        64, ge=1, le=512, description="Requests under way at once for each worker thread, 256 at most for a process."
    )

    @property
    def folder(self) -> str:
        """What all keys of the store begin with in the container."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def canonical(self) -> str:
        """The store's URI: what logs and errors may show."""
        return f"azure-blob://{self.container}/{self.folder}"

    @property
    def bucket(self) -> str:
        """How notifications name the container."""
        return f"{self.account}/{self.container}"


def parse(url: str, account: str | None = None, endpoint: str | None = None) -> AzureOptions:
    """The options that a URL says, with the account and the endpoint that the source says.

    Raises:
        UsageError: it names no container or account, an unknown option or a value that can't be, or holds a secret.
    """
    parts = urlsplit(url, allow_fragments=False)
    said: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or "sig" in said:
        raise UsageError("an Azure URL holds no credentials; name the variable that holds them, as sas_variable=NAME")
    if parts.scheme == "az":
        said["container"], said["prefix"] = parts.netloc, unquote(parts.path).strip("/")
        where = f"az://{parts.netloc}{parts.path}"
    else:
        container, _, rest = unquote(parts.path).strip("/").partition("/")
        said["container"], said["prefix"] = container, rest.strip("/")
        where = f"https://{parts.netloc}{parts.path}"
    variable = str(said.get("connection_string_variable") or CONNECTION_VARIABLE)
    said |= _place(where, blob_account(url), account, endpoint, connection(variable))
    try:
        return AzureOptions.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(AzureOptions.model_fields.keys() - {"container", "prefix", *_PLACE}))
        raise UsageError(f"{where}: {name}: {first['msg']} (options: {known})") from None


_PLACE = ("account", "endpoint", "queues")


def _place(
    where: str, address: tuple[str, str] | None, account: str | None, endpoint: str | None, string: dict[str, str]
) -> dict[str, str]:
    """Account and addresses; those of the connection string where it is of the same account."""
    suffix = string.get("endpointsuffix", PUBLIC_SUFFIX)
    if address is not None:
        if account not in (None, address[0]):
            raise UsageError(f"{where}: the URL is in the account {address[0]}, and `account` says {account}")
        account, suffix = address
    account = account or os.environ.get(ACCOUNT_VARIABLE) or string.get("accountname")
    if not account:
        raise UsageError(f"{where}: no account: set `account`, {ACCOUNT_VARIABLE} or {CONNECTION_VARIABLE}")
    if string.get("accountname") != account or address is not None:
        string = {}
    blobs = endpoint or string.get("blobendpoint") or f"https://{account}.blob.{suffix}"
    queues = string.get("queueendpoint") or blobs.replace(".blob.", ".queue.", 1)
    return {"account": account, "endpoint": blobs.rstrip("/"), "queues": queues.rstrip("/")}


def connection(variable: str) -> dict[str, str]:
    """The words of the connection string in a variable, names in lower case; empty if there is none."""
    string = os.environ.get(variable, "")
    words = dict(part.partition("=")[::2] for part in string.split(";") if "=" in part)
    found = {name.strip().lower(): value.strip() for name, value in words.items()}
    if found.get("usedevelopmentstorage", "").lower() == "true":
        return EMULATOR
    if found and "accountname" not in found:
        # With a signature instead of a key, the account is told by the address alone.
        address = blob_account(found.get("blobendpoint", ""))
        if address is not None:
            found["accountname"] = address[0]
    return found
