"""One text that changes when any built-in parser gives other tasks for the same bytes."""

from __future__ import annotations

from pipeline.parsers import csv, html, json, media, text

ARROW_VERSION = 1
"""The version of the parser of Parquet and Arrow, which is loaded only where it is needed."""


def versions() -> str:
    """Names and versions of the built-in parsers."""
    parsers = [json.parser, csv.parser, csv.tsv_parser, text.parser, html.parser, *media.PARSERS.values()]
    return " ".join(sorted({f"{parser.name}:{parser.version}" for parser in parsers} | {f"arrow:{ARROW_VERSION}"}))
