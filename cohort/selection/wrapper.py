"""What all strategies that wrap another one have in common."""

from dataclasses import dataclass
from typing import ClassVar

from cohort.selection.base import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """A strategy around another one, which needs what that one needs.

    Args:
        inner: the other strategy.
    """

    label: ClassVar[str]
    inner: Strategy

    @property
    def name(self) -> str:
        """It and what it wraps."""
        return f"{self.label}({self.inner.name})"

    @property
    def needs_scores(self) -> bool:
        """As the inner strategy."""
        return self.inner.needs_scores

    @property
    def needs_features(self) -> bool:
        """As the inner strategy."""
        return self.inner.needs_features
