"""The simulated annotator: reveals the reference that no strategy could see. The only reader of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cohort.annotation import Request
from cohort.case import Case
from cohort.errors import DataError
from flows.annotators.base import Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Gives back the references of a data set.

    Args:
        by_id: the cases, with their references.
        name: written beside the annotations.
    """

    by_id: Mapping[str, Case] = field(hash=False)
    name: str = "oracle"

    def send(self, requests: Sequence[Request], proposals: Mapping[str, Path]) -> None:
        """Nothing to hand out: the references are there."""

    def collect(self, requests: Sequence[Request]) -> tuple[Returned, ...]:
        """The reference of each requested case, for the structures that its annotator contoured.

        Raises:
            DataError: for a case without a reference.
        """
        return tuple(self._reveal(request) for request in requests)

    def waits_for(self, requests: Sequence[Request]) -> str:
        """An oracle answers at once."""
        return ""

    def _reveal(self, request: Request) -> Returned:
        case = self.by_id[request.case_id]
        if case.reference is None:
            raise DataError(
                f"Case {case.case_id} has no reference that the oracle could reveal; "
                "give it a label or use annotator.kind=folder"
            )
        contoured = {name: f for name, f in case.annotated.items() if name in request.structures}
        return Returned(case_id=case.case_id, path=case.reference, structures=contoured)
