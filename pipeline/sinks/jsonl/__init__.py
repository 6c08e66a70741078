"""Deliveries as files of JSON lines, into a folder or a bucket."""

from pipeline.sinks.jsonl.delivery import JsonLinesDelivery

__all__ = ["JsonLinesDelivery"]
