"""The simulated annotator: reveals the reference that no strategy could see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cohort.annotation import Request
from cohort.annotator_noise import AnnotatorNoise, annotate_with_noise
from cohort.case import Case, Structure
from cohort.errors import DataError
from cohort.seeds import generator
from cohort.volume import read_label_map, write_volume
from flows.annotators.base import Answer, Returned, WorkItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """An annotator who errs.

    Args:
        noise: how much.
        structures: of the data set.
        folder: gets the label maps that it draws.
        seed: of every draw, together with the case's id.
    """

    noise: AnnotatorNoise
    structures: tuple[Structure, ...]
    folder: Path
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Gives back the references of a data set.

    Args:
        by_id: the cases, with their references.
        name: written beside the annotations.
        errors: what it draws wrongly, None for the reference as it is.
    """

    by_id: Mapping[str, Case] = field(hash=False)
    name: str = "oracle"
    errors: Errors | None = None

    @property
    def pictures(self) -> Path | None:
        """It needs none."""
        return None

    def send(self, items: Sequence[WorkItem]) -> None:
        """Nothing to hand out: the references are there."""

    def collect(self, requests: Sequence[Request]) -> Answer:
        """The reference of each requested case, for the structures that its annotator contoured.

        Where slabs were asked for, the whole file comes back, and the gate takes no more than these.

        Raises:
            DataError: for a case without a reference.
        """
        return Answer(returned=tuple(self._reveal(request) for request in requests))

    def files(self, case_id: str) -> tuple[Path, ...]:
        """Nobody puts anything back."""
        return ()

    def aside(self, returned: Returned) -> Path | None:
        """A reference stays where it is: the data set has to be mended."""
        return None

    def refuse(self, returned: Returned, reason: str) -> None:
        """Nothing to do."""

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
        path = case.reference if self.errors is None else self._drawn(case, case.reference, self.errors)
        return Returned(case_id=case.case_id, path=path, structures=contoured, slabs=request.slabs)

    @staticmethod
    def _drawn(case: Case, reference: Path, errors: Errors) -> Path:
        path = errors.folder / f"{case.case_id}.nii.gz"
        true = read_label_map(reference)
        rng = generator(errors.seed, "annotator", case.case_id)
        drawn = annotate_with_noise(true.array, errors.structures, true.spacing_mm, errors.noise, rng)
        write_volume(path, drawn, true.affine)
        return path
