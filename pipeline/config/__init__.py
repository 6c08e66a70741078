"""The configuration: what one `labelfeed.yaml` may say (`models`), and how a file becomes it (`loading`)."""

from pipeline.config.loading import DEFAULT_NAME, build, load
from pipeline.config.models import (
    Config,
    Duration,
    Globs,
    Limits,
    ParseOptions,
    Project,
    Secret,
    Server,
    Size,
    Source,
    Throttle,
    parse_duration,
    parse_size,
)

__all__ = [
    "DEFAULT_NAME",
    "Config",
    "Duration",
    "Globs",
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
