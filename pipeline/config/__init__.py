"""The configuration: what a `labelfeed.yaml` may say (`models`, `projects`), and how a file becomes it (`loading`)."""

from pipeline.config.loading import DEFAULT_NAME, build, load
from pipeline.config.models import Config, Limits, ParseOptions, Server, Source
from pipeline.config.projects import Delivery, JsonLines, LabelStudio, Project, Throttle
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
