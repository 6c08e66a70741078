"""The configuration: what one `labelfeed.yaml` may say (`models`), and how a file becomes it (`loading`)."""

from pipeline.config.loading import DEFAULT_NAME, build, load
from pipeline.config.models import (
    Config,
    Delivery,
    JsonLines,
    LabelStudio,
    Limits,
    ParseOptions,
    Project,
    Server,
    Source,
    Throttle,
)
from pipeline.config.values import Duration, Globs, Secret, Size, parse_duration, parse_size

__all__ = [
    "DEFAULT_NAME",
    "Config",
    "Delivery",
    "Duration",
    "Globs",
    "JsonLines",
    "LabelStudio",
    "Limits",
    "ParseOptions",
    "Project",
    "Secret",
    "Server",
    "Size",
    "Source",
    "Throttle",
    "build",
    "load",
    "parse_duration",
    "parse_size",
]
