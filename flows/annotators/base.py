"""One protocol for whoever annotates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cohort.annotation import Request
from cohort.slabs import Slab


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """What an annotator is shown with a request.

    Args:
        request: the case and its structures.
        proposal: label map of the model, to correct.
        why: why it was chosen, for people.
        picture: of the worst slice, None where there is none.
    """

    request: Request
    proposal: Path
    why: str = ""
    picture: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What an annotator gave back for a case, before the intake gate.

    Args:
        case_id: of the case.
        path: of the label map.
        structures: structure -> fraction of it in the field of view, for what was annotated.
        minutes: that it took, None where nobody measured.
        absent: structures that are declared not to be there; None where an empty one counts as looked for.
        confirmed: whether a label map that equals the proposal was looked at.
        annotator: who made it, "" for the annotator's own name.
        slabs: slices that were asked for and count; none: all.
    """

    case_id: str
    path: Path
    structures: Mapping[str, float]
    minutes: float | None = None
    absent: frozenset[str] | None = None
    confirmed: bool = True
    annotator: str = ""
    slabs: tuple[Slab, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Everything that is back.

    Args:
        returned: label maps.
        skipped: case id -> why nobody annotates it.
        unsettled: case id -> a sentence on why what is back of it is neither read nor refused, such as a file
            that is still being written.
    """

    returned: tuple[Returned, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    unsettled: Mapping[str, str] = field(default_factory=dict)


class Annotator(Protocol):
    """Takes requests and gives back label maps, at once or later."""

    @property
    def name(self) -> str:
        """Written beside every annotation."""

    @property
    def pictures(self) -> Path | None:
        """Folder for pictures of the work, None where nobody looks at them."""

    def send(self, items: Sequence[WorkItem]) -> None:
        """Hand out the work, in rank order; sending it again changes nothing that people may work on."""

    def collect(self, requests: Sequence[Request]) -> Answer:
        """What is back of these requests; what is not there yet is simply left out.

        Raises:
            AnnotationError: where what people wrote beside their work cannot be read.
        """

    def files(self, case_id: str) -> tuple[Path, ...]:
        """What lies of a case where people put it back, whether or not it was read."""

    def aside(self, returned: Returned) -> Path | None:
        """Where something goes that cannot be let in; None where it stays."""

    def refuse(self, returned: Returned, reason: str) -> None:
        """Put it there, with the reason.

        Raises:
            OSError: where it cannot be moved.
        """

    def waits_for(self, requests: Sequence[Request]) -> str:
        """What a person has to do for the rest to come back."""
