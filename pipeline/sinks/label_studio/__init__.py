"""Deliveries into Label Studio, by its official import API, with personal access tokens or legacy ones."""

from pipeline.sinks.label_studio.delivery import LabelStudioDelivery

__all__ = ["LabelStudioDelivery"]
