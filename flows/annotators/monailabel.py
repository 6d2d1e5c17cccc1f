"""People behind a MONAI Label server: its local datastore, written and read as files.

The server finds images and labels that are put into the folder within seconds, and writes what people save
into `labels/final`; nothing here talks to it.

Source: MONAI Label 0.8, `monailabel/datastore/local.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.annotation import Request
from cohort.case import Structure
from cohort.volume import SUFFIXES, write_bytes
from flows.annotators.answers import answers, handed_back, not_read, read_names
from flows.annotators.base import Answer, Returned, WorkItem
from flows.annotators.returns import RETURNS
from flows.annotators.worklist import PICTURES, hand_out, put_aside, quarantine_place, write_worklist

INDEX = "datastore_v2.json"
STUDIES = "studies"
"""The datastore lies in a folder of its own: the server takes every volume in it for an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonaiLabel:
    """A datastore below `folder/studies`, with the work list beside it.

    Args:
        folder: of one round's annotation: a server is started for the round.
        images: case id -> image.
        structures: of the label maps.
        asked: ids of all cases of the round.
        name: written beside the annotations.
    """

    folder: Path
    images: Mapping[str, Path]
    structures: tuple[Structure, ...]
    asked: tuple[str, ...]
    name: str = "monailabel"

    @property
    def studies(self) -> Path:
        """What the server is started with."""
        return self.folder / STUDIES

    @property
    def pictures(self) -> Path | None:
        """Beside the work list."""
        return self.folder / PICTURES

    def send(self, items: Sequence[WorkItem]) -> None:
        """Put images and proposals into the datastore, and a work list beside it."""
        for place in (self.studies, self._labels("original"), self._labels("final")):
            place.mkdir(parents=True, exist_ok=True)
        for item in items:
            case_id = item.request.case_id
            hand_out(self.images[case_id], self.studies / f"{case_id}{_suffix(self.images[case_id])}")
            hand_out(item.proposal, self._labels("original") / f"{case_id}.nii.gz")
        self._write_index(items)
        write_worklist(self.folder, items, self.structures, self._places)

    def collect(self, requests: Sequence[Request]) -> Answer:
        """The label maps that people saved, with what `returns.csv` says of them."""
        return answers(self.folder, requests, self.files, asked=self.asked, structures=self.structures)

    def files(self, case_id: str) -> tuple[Path, ...]:
        """Its files among the labels that were saved as final."""
        return handed_back(self._labels("final"), case_id)

    def aside(self, returned: Returned) -> Path | None:
        """A file of its own in `quarantine`."""
        return quarantine_place(self.folder, returned)

    def refuse(self, returned: Returned, reason: str) -> None:
        """Move it out of the datastore into `quarantine`, so that the case is open again for the server."""
        put_aside(self.folder, returned, reason)

    def waits_for(self, requests: Sequence[Request]) -> str:
        """Which cases have to be saved in the server's client."""
        names = ", ".join(request.case_id for request in requests)
        return (
            f"labels saved through a MONAI Label server on {self.studies} (as final): {names} "
            f"(remarks: {RETURNS} beside it){self._passed_over(requests)}"
        )

    def _write_index(self, items: Sequence[WorkItem]) -> None:
        """What the server shows of each case: rank and reason. Once it is there, it is the server's."""
        path = self.studies / INDEX
        if path.exists():
            return
        objects = {}
        for rank, item in enumerate(items):
            image = self.images[item.request.case_id]
            about = {"strategy": {"sentinel-loop": {"rank": rank, "why": item.why}}}
            objects[item.request.case_id] = {
                "image": {"ext": _suffix(image), "info": about},
                "labels": {"original": {"ext": ".nii.gz", "info": {}}},
            }
        index = {
            "name": "sentinel-loop",
            "description": "Cases to annotate, with the proposals of a campaign's model",
            "images_dir": ".",
            "labels_dir": "labels",
            "objects": objects,
        }
        write_bytes(path, (json.dumps(index, indent=1) + "\n").encode())

    def _passed_over(self, requests: Sequence[Request]) -> str:
        """Labels that nobody asked for, and those of cases that wait which were not saved as final."""
        waiting = {request.case_id for request in requests}
        read = {f"labels/final/{name}" for case_id in self.asked for name in read_names(case_id)}
        owners = {name: self._case_of(name) for name in self._saved() - read}
        strange = [name for name, case_id in owners.items() if case_id is None]
        elsewhere = [name for name, case_id in owners.items() if case_id in waiting]
        wrong_place = "not saved as labels/final/<case>.nii.gz"
        return not_read("not asked for", strange) + not_read(wrong_place, elsewhere)

    def _saved(self) -> set[str]:
        """Everything but the proposals that lies among the labels, as seen from the datastore."""
        files = (path for path in (self.studies / "labels").rglob("*") if path.is_file())
        found = (path.relative_to(self.studies) for path in files)
        return {
            path.as_posix()
            for path in found
            if path.parts[1] != "original" and not any(part.startswith(".") for part in path.parts)
        }

    def _case_of(self, name: str) -> str | None:
        """Whose file it is by its name, whatever it ends in; None for no case of the round."""
        own = [case_id for case_id in self.asked if Path(name).name.startswith(f"{case_id}.")]
        return max(own, key=len, default=None)

    def _labels(self, kind: str) -> Path:
        return self.studies / "labels" / kind

    def _places(self, item: WorkItem) -> Mapping[str, str]:
        case_id = item.request.case_id
        return {
            "image": f"{STUDIES}/{case_id}{_suffix(self.images[case_id])}",
            "proposal": f"{STUDIES}/labels/original/{case_id}.nii.gz",
            "put_back": f"{STUDIES}/labels/final/{case_id}.nii.gz",
        }


def _suffix(path: Path) -> str:
    return next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
