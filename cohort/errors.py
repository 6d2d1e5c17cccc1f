"""Every error that the project raises on purpose, one family per kind of mistake.

A message says what was found, where (which case, which file), what was expected and what to do.
"""


class SentinelLoopError(Exception):
    """Root of all errors that a user can act on; the command line prints them without a traceback."""


class ConfigError(SentinelLoopError, ValueError):
    """The configuration names something unknown or contradicts itself."""


class DataError(SentinelLoopError):
    """A file of the cohort is missing, broken or not what its place in the data set promises."""


class GeometryError(DataError):
    """Two volumes that must lie on one grid do not (shape, affine or orientation)."""


class AnnotationError(DataError):
    """An annotation that came back cannot be let in."""


class SelectionError(SentinelLoopError):
    """A selection cannot be made from what is in the pool or the budget."""


class ModelError(SentinelLoopError):
    """A model, its checkpoint or its training does not fit what it is used for."""


class CampaignError(SentinelLoopError):
    """A campaign folder is in use, belongs to another config, or is not whole."""


class BusyError(CampaignError):
    """Another process works in the folder."""


class MissingExtraError(SentinelLoopError):
    """An optional part of the package is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional part that is not installed: pip install 'sentinel-loop[{extra}]'"
        )
