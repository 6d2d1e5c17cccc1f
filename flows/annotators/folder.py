"""People who correct label maps in a folder, with any tool that reads and writes NIfTI."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cohort.annotation import Request
from cohort.volume import SUFFIXES, write_bytes
from flows.annotators.base import Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Puts the work into `folder/todo` and takes it back from `folder/done`.

    Args:
        folder: of one round's annotation.
        images: case id -> image.
        name: written beside the annotations.
    """

    folder: Path
    images: Mapping[str, Path]
    name: str = "folder"

    def send(self, requests: Sequence[Request], proposals: Mapping[str, Path]) -> None:
        """Write the model's label maps to correct, and a work list in rank order."""
        todo = self.folder / "todo"
        todo.mkdir(parents=True, exist_ok=True)
        (self.folder / "done").mkdir(exist_ok=True)
        rows = []
        for rank, request in enumerate(requests):
            name = f"{request.case_id}.nii.gz"
            if not (todo / name).exists():  # somebody may be at work on it
                partial = todo / f".{name}.tmp"
                shutil.copyfile(proposals[request.case_id], partial)
                partial.replace(todo / name)
            rows.append(
                {
                    "rank": rank,
                    "case_id": request.case_id,
                    "image": str(self.images[request.case_id]),
                    "proposal": f"todo/{name}",
                    "put_back": f"done/{name}",
                    "structures": "; ".join(request.structures),
                }
            )
        write_bytes(self.folder / "worklist.csv", pd.DataFrame(rows).to_csv(index=False).encode())

    def collect(self, requests: Sequence[Request]) -> tuple[Returned, ...]:
        """The label maps that lie in `done`; every requested structure counts as annotated."""
        found = []
        for request in requests:
            for suffix in SUFFIXES:
                path = self.folder / "done" / f"{request.case_id}{suffix}"
                if path.is_file():
                    complete = dict.fromkeys(request.structures, 1.0)
                    found.append(Returned(case_id=request.case_id, path=path, structures=complete))
                    break
        return tuple(found)

    def waits_for(self, requests: Sequence[Request]) -> str:
        """Which files have to be put where."""
        names = ", ".join(f"{request.case_id}.nii.gz" for request in requests)
        where, strange = self.folder / "done", self._strange()
        return f"corrected label maps in {where}: {names} (work list: worklist.csv beside it){strange}"

    def _strange(self) -> str:
        """Files that were put back under a name that nobody asked for."""
        asked = {path.name.removesuffix(".nii.gz") for path in (self.folder / "todo").glob("*.nii.gz")}
        files = sorted(path.name for path in (self.folder / "done").glob("[!.]*"))
        strange = [name for name in files if name.removesuffix(".gz").removesuffix(".nii") not in asked]
        return f"; not asked for, so not read: {', '.join(strange)}" if strange else ""
