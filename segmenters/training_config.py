"""How a training is ended early, and what it may use of the machine."""

import math
from dataclasses import dataclass

from cohort.errors import ConfigError
from segmenters.checks import check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Ends a training when patients that it does not learn from are segmented no better.

    Args:
        fraction: of the labelled patients that is held back to measure, rounded down; 0 is off.
        validate_every: steps between two measurements.
        patience: measurements without a gain after which the training ends.
    """

    fraction: float = 0.0
    validate_every: int = 100
    patience: int = 5

    def __post_init__(self) -> None:
        check_range("early_stopping.fraction", self.fraction, 0.0, 0.9)
        check_range("early_stopping.validate_every", self.validate_every, 1, math.inf)
        check_range("early_stopping.patience", self.patience, 1, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemiSupervision:
    """How a training uses cases that a model labelled. Without such cases it changes nothing.

    Args:
        pseudo_share: largest share of the patches that is cut from pseudo-labelled cases, so that a batch
            always holds what people annotated too.
        consistency: weight of the difference between the network and the average of its weights on patches
            that no human annotated, kept masks or not; 0 is off. See `segmenters.consistency`.
        consistency_rise: fraction of the steps over which that weight rises.
    """

    pseudo_share: float = 0.5
    consistency: float = 0.0
    consistency_rise: float = 0.3

    def __post_init__(self) -> None:
        check_range("semi_supervision.pseudo_share", self.pseudo_share, 0.0, 1.0)
        check_range("semi_supervision.consistency", self.consistency, 0.0, math.inf)
        check_range("semi_supervision.consistency_rise", self.consistency_rise, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a training may use. None of it changes a weight.

    Args:
        cache_gib: gibibytes of prepared cases that stay in memory; the others lie on disk beside the
            checkpoints until the training ends, and are read patch by patch. With several processes all do.
        loaders: threads that prepare cases and cut patches while the network trains, 0 is none.
        save_every: steps after which the state of the training is saved, so that one that was killed goes
            on from there; 0 is never.
    """

    cache_gib: float = 4.0
    loaders: int = 1
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("cache_gib", "loaders", "save_every"):
            check_range(f"resources.{name}", getattr(self, name), 0, math.inf)


def check_shares(batch_size: int, processes: int) -> None:
    """Refuse a batch that cannot be shared evenly.

    Raises:
        ConfigError: naming both numbers.
    """
    if batch_size % processes:
        raise ConfigError(
            f"batch_size is {batch_size}, but {processes} processes share every batch evenly; expected a "
            f"multiple of {processes}: change batch_size or processes"
        )
