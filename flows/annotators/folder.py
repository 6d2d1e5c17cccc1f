"""People who correct label maps in a folder, with any tool that writes NIfTI, or with 3D Slicer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.annotation import Request
from cohort.case import Structure
from flows.annotators.answers import answers, handed_back, not_read, read_names
from flows.annotators.base import Answer, Returned, WorkItem
from flows.annotators.returns import RETURNS
from flows.annotators.segmentations import SUFFIX, write_segmentation
from flows.annotators.worklist import (
    PICTURES,
    WORKLIST,
    hand_out,
    put_aside,
    quarantine_place,
    seen_from,
    write_worklist,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Puts the work into `folder/todo` and takes it back from `folder/done`.

    Args:
        folder: of one round's annotation.
        images: case id -> image.
        structures: of the label maps.
        asked: ids of all cases of the round.
        suffix: of the files that are handed out, ".nii.gz" or ".seg.nrrd"; both may come back.
        name: written beside the annotations.
    """

    folder: Path
    images: Mapping[str, Path]
    structures: tuple[Structure, ...]
    asked: tuple[str, ...]
    suffix: str = ".nii.gz"
    name: str = "folder"

    @property
    def pictures(self) -> Path | None:
        """Beside the work list."""
        return self.folder / PICTURES

    def send(self, items: Sequence[WorkItem]) -> None:
        """Write the model's label maps to correct, the work list, tables of labels and `returns.csv`."""
        todo = self.folder / "todo"
        todo.mkdir(parents=True, exist_ok=True)
        (self.folder / "done").mkdir(exist_ok=True)
        for item in items:
            self._hand_out(item.proposal, todo / f"{item.request.case_id}{self.suffix}")
        write_worklist(self.folder, items, self.structures, self._places)

    def collect(self, requests: Sequence[Request]) -> Answer:
        """The label maps that lie in `done`, with what `returns.csv` says of them."""
        return answers(self.folder, requests, self.files, asked=self.asked, structures=self.structures)

    def files(self, case_id: str) -> tuple[Path, ...]:
        """Its files in `done`."""
        return handed_back(self.folder / "done", case_id)

    def aside(self, returned: Returned) -> Path | None:
        """A file of its own in `quarantine`."""
        return quarantine_place(self.folder, returned)

    def refuse(self, returned: Returned, reason: str) -> None:
        """Move it into `quarantine`, with the reason beside it."""
        put_aside(self.folder, returned, reason)

    def waits_for(self, requests: Sequence[Request]) -> str:
        """Which files have to be put where."""
        names = ", ".join(f"{request.case_id}{self.suffix}" for request in requests)
        where, strange = self.folder / "done", self._strange()
        return (
            f"corrected label maps in {where}: {names} (work list: {WORKLIST}, remarks: {RETURNS}, both "
            f"beside it){strange}"
        )

    def _hand_out(self, proposal: Path, target: Path) -> None:
        if self.suffix != SUFFIX:
            hand_out(proposal, target)
        elif not target.exists():
            write_segmentation(proposal, target, self.structures)

    def _places(self, item: WorkItem) -> Mapping[str, str]:
        name = f"{item.request.case_id}{self.suffix}"
        image = seen_from(self.folder, self.images[item.request.case_id])
        return {"image": image, "proposal": f"todo/{name}", "put_back": f"done/{name}"}

    def _strange(self) -> str:
        """Files that were put back under a name that nobody asked for."""
        read = {name for case_id in self.asked for name in read_names(case_id)}
        found = {path.name for path in (self.folder / "done").glob("[!.]*")}
        return not_read("not asked for", found - read)
