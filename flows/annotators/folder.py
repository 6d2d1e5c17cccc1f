"""People who correct label maps in a folder, with any tool that reads and writes NIfTI."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.annotation import Request
from cohort.case import Structure
from cohort.volume import SUFFIXES
from flows.annotators.base import Answer, Returned, WorkItem
from flows.annotators.worklist import RETURNS, WORKLIST, answers, put_aside, write_worklist


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Puts the work into `folder/todo` and takes it back from `folder/done`.

    Args:
        folder: of one round's annotation.
        images: case id -> image.
        structures: of the label maps.
        name: written beside the annotations.
    """

    folder: Path
    images: Mapping[str, Path]
    structures: tuple[Structure, ...]
    name: str = "folder"

    def send(self, items: Sequence[WorkItem]) -> None:
        """Write the model's label maps to correct, the work list, tables of labels and `returns.csv`."""
        todo = self.folder / "todo"
        todo.mkdir(parents=True, exist_ok=True)
        (self.folder / "done").mkdir(exist_ok=True)
        for item in items:
            name = f"{item.request.case_id}.nii.gz"
            if not (todo / name).exists():  # somebody may be at work on it
                partial = todo / f".{name}.tmp"
                shutil.copyfile(item.proposal, partial)
                partial.replace(todo / name)
        write_worklist(self.folder, items, self.structures, self._places)

    def collect(self, requests: Sequence[Request]) -> Answer:
        """The label maps that lie in `done`, with what `returns.csv` says of them."""
        return answers(self.folder, requests, self._done)

    def refuse(self, returned: Returned, reason: str) -> Path | None:
        """Move it into `quarantine`, with the reason beside it."""
        return put_aside(self.folder, returned, reason)

    def waits_for(self, requests: Sequence[Request]) -> str:
        """Which files have to be put where."""
        names = ", ".join(f"{request.case_id}.nii.gz" for request in requests)
        where, strange = self.folder / "done", self._strange()
        return (
            f"corrected label maps in {where}: {names} (work list: {WORKLIST}, remarks: {RETURNS}, both "
            f"beside it){strange}"
        )

    def _places(self, item: WorkItem) -> Mapping[str, str]:
        name = f"{item.request.case_id}.nii.gz"
        image = str(self.images[item.request.case_id])
        return {"image": image, "proposal": f"todo/{name}", "put_back": f"done/{name}"}

    def _done(self, case_id: str) -> Path | None:
        found = (self.folder / "done" / f"{case_id}{suffix}" for suffix in SUFFIXES)
        return next((path for path in found if path.is_file()), None)

    def _strange(self) -> str:
        """Files that were put back under a name that nobody asked for."""
        asked = {path.name.removesuffix(".nii.gz") for path in (self.folder / "todo").glob("*.nii.gz")}
        files = sorted(path.name for path in (self.folder / "done").glob("[!.]*"))
        strange = [name for name in files if name.removesuffix(".gz").removesuffix(".nii") not in asked]
        return f"; not asked for, so not read: {', '.join(strange)}" if strange else ""
