"""One-task objects of other clouds' stores on their emulators → Kafka → Redis → PostgreSQL, against a bare GET loop.

As `s3_objects`: what a round is, what is timed and what the loop does are the same.
"""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import orjson
from azure.storage.blob import BlobServiceClient
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from obstore.store import AzureStore, GCSStore

from benchmarks.distributed import THREADS, get_and_copy, import_all
from benchmarks.measuring import Figure
from benchmarks.rig import Bench
from deploy.services import azure
from deploy.services.model import Service

OBJECTS = 5_000
ROUNDS = 3
TEXT = "an opossum came to the feeder at dusk and ate two plums before it left for the night. " * 22
"""What makes an object about 2 KB."""


class Cloud(NamedTuple):
    """A cloud's emulator: the server's name, what opens a new bucket of it for obstore, and a source's URL of one."""

    name: str
    server: str
    bucket: Callable[[Service, str], Any]
    url: str


def _azure_container(service: Service, name: str) -> Any:
    with BlobServiceClient.from_connection_string(service.env["AZURE_STORAGE_CONNECTION_STRING"]) as client:
        client.create_container(name)
    return AzureStore(
        name, endpoint=service.url, account_name=azure.ACCOUNT, account_key=azure.KEY,
        client_options={"allow_http": True},
    )  # fmt: skip


class _GoogleBucket(NamedTuple):
    """A bucket whose objects obstore gets; the emulator doesn't understand how it puts them, and Google's own client
    takes ten times as long as a bare request."""

    name: str
    asking: httpx.Client
    reading: GCSStore

    def put(self, key: str, body: bytes) -> None:
        place = f"/upload/storage/v1/b/{self.name}/o"
        answer = self.asking.post(place, params={"uploadType": "media", "name": key}, content=body)
        answer.raise_for_status()

    def get(self, key: str) -> Any:
        return self.reading.get(key)


def _google_bucket(service: Service, name: str) -> Any:
    client = Client("bench", AnonymousCredentials(), client_options={"api_endpoint": service.url})
    reading = GCSStore(name, base_url=service.url, skip_signature=True, client_options={"allow_http": True})
    client.create_bucket(name)
    return _GoogleBucket(name, httpx.Client(base_url=service.url, trust_env=False, timeout=60.0), reading)


AZURE = Cloud("azure_objects", "azurite", _azure_container, "az://{name}")
GOOGLE = Cloud("gcs_objects", "fakegcs", _google_bucket, "gs://{name}")


def measure(cloud: Cloud, rounds: int = ROUNDS, objects: int = OBJECTS) -> list[Figure]:
    """Objects per second of both, on one bucket of the cloud."""
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), cloud.server)
        service = bench.servers[cloud.server]
        bench.env |= service.env
        name = f"bench-{uuid.uuid4().hex[:12]}"
        store = cloud.bucket(service, name)
        keys = [f"{number // 1000:03}/{number:06}.json" for number in range(objects)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: store.put(key, orjson.dumps({"id": key, "text": TEXT})), keys))
        runs = []
        for _ in range(rounds):
            bare = get_and_copy(bench, store, keys)
            runs.append((import_all(bench, cloud.url.format(name=name), objects)[0], bare))
    ratio = statistics.median(ours / bare for ours, bare in runs)
    mine, raw = (statistics.median(pair[side] for pair in runs) for side in (0, 1))
    return [Figure(cloud.name, "objects/s", mine, raw, ratio, "≥ 0.6 of GET and COPY", ratio >= 0.6, runs)]


def measure_azure() -> list[Figure]:
    """Azure Blob, on Azurite."""
    return measure(AZURE)


def measure_google() -> list[Figure]:
    """Google Cloud Storage, on fake-gcs-server."""
    return measure(GOOGLE)
