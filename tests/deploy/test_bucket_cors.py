"""The rules by which a labelling page in a browser may read what signed links lead to."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from deploy.services import Service
from pipeline.config import Source
from pipeline.stores.s3 import open_store
from tests.servers import s3_client

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "cors"
ORIGIN = "https://labels.example.org"


def asked(url: str, method: str, origin: str, **headers: str) -> Any:
    """The headers of what a server says to a page of an origin; None if it refuses."""
    request = urllib.request.Request(url, headers={"Origin": origin} | headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.headers
    except HTTPError:
        return None


@pytest.mark.usefixtures("aws")
def test_a_page_may_read_by_signed_links(seaweedfs: Service, unique: str) -> None:
    """One of the origin that the rules name gets object and range, and sees its place; another one may not."""
    client = s3_client(seaweedfs)
    client.create_bucket(Bucket=unique)
    client.put_object(Bucket=unique, Key="cat.png", Body=b"0123456789")
    client.put_bucket_cors(Bucket=unique, CORSConfiguration=json.loads((FOLDER / "s3.json").read_text()))
    store = open_store(Source(name="s", project="p", url=f"s3://{unique}", endpoint=seaweedfs.url), Path())
    link = store.sign("cat.png", 60)
    store.close()

    whole = asked(link, "GET", ORIGIN)
    assert whole["Access-Control-Allow-Origin"] == ORIGIN
    part = asked(link, "GET", ORIGIN, Range="bytes=2-5")
    assert part["Content-Range"] == "bytes 2-5/10"
    assert "Content-Range" in part["Access-Control-Expose-Headers"]
    before = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
    assert asked(link, "OPTIONS", ORIGIN, **before)["Access-Control-Allow-Origin"] == ORIGIN
    other = asked(link, "GET", "https://elsewhere.example.org")
    assert other is None or other["Access-Control-Allow-Origin"] is None


def test_the_page_names_each_file() -> None:
    """And each of them is of the same origin, for the same methods."""
    page = (ROOT / "docs" / "operations.md").read_text()
    for path in FOLDER.iterdir():
        assert f"deploy/cors/{path.name}" in page
        text = path.read_text()
        assert all(word in text for word in (ORIGIN, "GET", "HEAD", "Content-Range"))
        json.loads(text)
