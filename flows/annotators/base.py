"""One protocol for whoever annotates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cohort.annotation import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What an annotator gave back for a case, before the intake gate.

    Args:
        case_id: of the case.
        path: of the label map.
        structures: structure -> fraction of it in the field of view, for what was annotated.
        minutes: that it took, None where nobody measured.
    """

    case_id: str
    path: Path
    structures: Mapping[str, float]
    minutes: float | None = None


class Annotator(Protocol):
    """Takes requests and gives back label maps, at once or later."""

    @property
    def name(self) -> str:
        """Written beside every annotation."""

    def send(self, requests: Sequence[Request], proposals: Mapping[str, Path]) -> None:
        """Hand out the work: each request with the model's label map to correct."""

    def collect(self, requests: Sequence[Request]) -> tuple[Returned, ...]:
        """What is back of these requests; what is not there yet is simply left out."""

    def waits_for(self, requests: Sequence[Request]) -> str:
        """What a person has to do for the rest to come back."""
