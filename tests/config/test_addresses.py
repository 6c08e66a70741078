"""Addresses that name more than their scheme says."""

from __future__ import annotations

import pytest

from pipeline.config import Config
from pipeline.config.addresses import blob_account
from pipeline.config.checks import conflicts
from pipeline.registry import scheme

CONTAINER = "https://acc1.blob.core.windows.net/box"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (CONTAINER, ("acc1", "core.windows.net")),
        (f"{CONTAINER}/in/it?concurrency=8", ("acc1", "core.windows.net")),
        ("https://acc1.dfs.core.windows.net/box", ("acc1", "core.windows.net")),
        ("https://acc1.blob.core.usgovcloudapi.net:443/box", ("acc1", "core.usgovcloudapi.net")),
        (f"{CONTAINER}?sv=1&sr=c&sig=x", ("acc1", "core.windows.net")),
        (f"{CONTAINER}/a.json?sv=1&sr=b&sig=x", None),
        ("http://acc1.blob.core.windows.net/box", None),
        ("https://acc1.blob.example.com/box", None),
        ("https://example.com/acc1.blob.core.windows.net/box", None),
        ("az://box/in", None),
    ],
)
def test_a_containers_address_is_known(url: str, found: tuple[str, str] | None) -> None:
    """The https address of a container is Azure's; a signed link to one blob is a link like any other."""
    assert blob_account(url) == found
    assert (scheme(url) == "az") == (found is not None or url.startswith("az:"))


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ({"url": "az://box/in", "account": "acc1"}, {"url": f"{CONTAINER}/in/deep"}, True),
        ({"url": "az://box/in", "account": "acc1"}, {"url": "az://box/in", "account": "acc2"}, False),
        ({"url": "az://box", "account": "acc1"}, {"url": "az://box2", "account": "acc1"}, False),
    ],
)
def test_sources_overlap_in_one_account_only(first: dict[str, str], second: dict[str, str], overlap: bool) -> None:
    """Both ways to write a container are one place; containers of one name in two accounts are two."""
    sources = [{"name": f"s{at}", "project": "p", **source} for at, source in enumerate((first, second))]
    config = Config.model_validate({"projects": {"p": {}}, "sources": sources})

    assert bool(list(conflicts(config))) == overlap
