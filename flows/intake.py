"""What comes back from annotators: through the gate, into the campaign's folder, into its ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.annotation import Annotation, CheckedAnnotation, Reader, Request, check_annotation, merged
from cohort.budget import CostModel, annotation_cost
from cohort.case import Dataset, Structure
from cohort.errors import AnnotationError, MissingExtraError
from cohort.slabs import Slab, bounds, slices_in, union, within
from cohort.volume import Grid, Volume, read_grid, read_label_map, write_volume
from flows.annotators.base import Annotator, Returned
from flows.annotators.segmentations import SUFFIX, read_segmentation
from flows.annotators.worklist import goes_back
from flows.campaign import Campaign
from flows.portable import portable
from flows.requests import Unit, unanswered
from flows.stages import file_sha256

ANNOTATIONS = "annotations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a round's requests in one look.

    Args:
        let_in: case ids.
        refused: case id -> a sentence for its annotator.
        skipped: case id -> why nobody annotates it.
        unsettled: case id -> a sentence on why what is back was left where it is; also of cases that were
            skipped or let in at an earlier look.
        open: requests that nothing has come back for yet.
    """

    let_in: tuple[str, ...]
    refused: Mapping[str, str]
    skipped: Mapping[str, str]
    unsettled: Mapping[str, str]
    open: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Takes annotations into a campaign.

    Args:
        campaign: its folder and ledger.
        dataset: its cases and structures.
        costs: of annotations whose time nobody kept.
        unit: of selection.
    """

    campaign: Campaign
    dataset: Dataset
    costs: CostModel
    unit: Unit

    def open(self, number: int | None, requests: Sequence[Request]) -> tuple[Request, ...]:
        """Requests that neither an annotation nor a skip answers yet.

        Args:
            number: of the round, None for the start set.
            requests: of that round.
        """
        return unanswered(requests, self.campaign.annotations(), self.campaign.skipped(number), self.unit)

    def take_in(
        self,
        number: int | None,
        requests: Sequence[Request],
        annotator: Annotator,
        proposals: Mapping[str, Path] | None = None,
    ) -> Taken:
        """Pass what is back through the gate; each file is written before its line in the ledger.

        Args:
            number: of the round, None for the start set.
            requests: of that round.
            annotator: who has them.
            proposals: case id -> label map that was sent out.

        Raises:
            AnnotationError: where what people wrote beside their work cannot be read.
        """
        waiting = self.open(number, requests)
        settled = [request.case_id for request in requests if request not in waiting]
        let_in, refused, unsettled = [], {}, self._settled_before(number, settled, annotator)
        answer = annotator.collect(waiting)
        for case_id, why in answer.skipped.items():
            self.campaign.append("skip", round=number, case_id=case_id, reason=why)
        for returned in answer.returned:
            try:
                self._let_in(number, returned, annotator.name, (proposals or {}).get(returned.case_id))
                let_in.append(returned.case_id)
            except AnnotationError as error:
                refused[returned.case_id] = self._put_aside(number, returned, annotator, str(error))
            except MissingExtraError as error:  # nobody's mistake who annotated
                unsettled[returned.case_id] = f"case {returned.case_id}: {error}"
        return Taken(
            let_in=tuple(let_in),
            refused=refused,
            skipped=answer.skipped,
            unsettled={**answer.unsettled, **unsettled},
            open=self.open(number, requests),
        )

    def _settled_before(
        self, number: int | None, settled: Sequence[str], annotator: Annotator
    ) -> dict[str, str]:
        """Case id -> a sentence on files of it that nobody reads, since it was skipped or let in before."""
        skipped = self.campaign.skipped(number)
        found = {}
        for case_id in settled:
            files = annotator.files(case_id)
            unread = files if case_id in skipped else self._not_let_in(case_id, files)
            if unread:
                why = "skipped" if case_id in skipped else "let in"
                names = " and ".join(path.name for path in unread)
                found[case_id] = f"case {case_id} was {why} before in this round, so {names} stays unread"
        return found

    def _not_let_in(self, case_id: str, files: Sequence[Path]) -> tuple[Path, ...]:
        """Those of a case's files that are none of its annotations."""
        annotations = (entry.payload for entry in self.campaign.events("annotation"))
        known = {each["source_sha256"] for each in annotations if each["case_id"] == case_id}
        return tuple(path for path in files if _hash(path) not in known)

    def _put_aside(self, number: int | None, returned: Returned, annotator: Annotator, reason: str) -> str:
        """Tell the ledger where it goes, then move it: after a kill in between, the next look does both.

        Returns:
            The sentence for its annotator.
        """
        place = annotator.aside(returned)
        if place is None:
            return reason
        try:
            sha256 = file_sha256(returned.path) if returned.path.is_file() else ""
            back = {"put_back": self._named(returned.path)}
            self._note_refused(number, returned.case_id, sha256, reason, place, **back)
            annotator.refuse(returned, reason)
        except OSError as error:  # it stays where it is, and the others' work goes on
            why = f"{reason}; it could not be put aside ({error.strerror})"
            self._note_refused(number, returned.case_id, "", why, returned.path)
            return why
        return refusal(reason, place, returned.path)

    def _note_refused(
        self, number: int | None, case_id: str, sha256: str, reason: str, place: Path, **more: str
    ) -> None:
        why = portable(reason, self.campaign.folder)
        about = {"case_id": case_id, "sha256": sha256, "reason": why, "path": self._named(place), **more}
        told = [entry.payload for entry in self.campaign.events("refused", number)]
        if not any(about.items() <= payload.items() for payload in told):
            self.campaign.append("refused", round=number, **about)

    def _named(self, path: Path) -> str:
        """A path from the folder of the campaign, where it lies in there."""
        inside = path.is_relative_to(self.campaign.folder)
        return str(path.relative_to(self.campaign.folder) if inside else path)

    def _let_in(self, number: int | None, returned: Returned, annotator: str, proposal: Path | None) -> None:
        case = self.dataset.by_id[returned.case_id]
        asked = tuple(returned.structures)
        request = Request(case_id=returned.case_id, structures=asked, slabs=returned.slabs)
        grid, structures = read_grid(case.image), self.dataset.structures
        checked = check_annotation(
            returned.path,
            case.view(),
            grid,
            request,
            structures,
            absent=returned.absent,
            proposal=None if returned.confirmed else proposal,
            read=_reader(returned.path, grid, structures),
        )
        self._check_new(returned, checked)
        annotated = [s for s in structures if s.name in returned.structures]
        cost = annotation_cost(
            checked.label_map.array, annotated, self.costs, minutes=returned.minutes, slabs=returned.slabs
        )
        earlier = [a for a in self.campaign.annotations() if a.case_id == returned.case_id]
        path, contoured, slabs = self._write(returned, checked, earlier)
        self.campaign.append(
            "annotation",
            round=number,
            case_id=returned.case_id,
            structures=contoured,
            answered=sorted(returned.structures),
            absent=list(checked.absent),
            path=str(path.relative_to(self.campaign.folder)),
            sha256=file_sha256(path),
            source_sha256=checked.sha256,
            turned=checked.turned,
            annotator=returned.annotator or annotator,
            minutes=cost.minutes,
            cost=cost.as_dict(),
            **({"slabs": bounds(slabs), "answered_slabs": bounds(returned.slabs)} if returned.slabs else {}),
        )

    def _check_new(self, returned: Returned, checked: CheckedAnnotation) -> None:
        """Refuse a file that was let in before, for another round or case, unless somebody looked at it."""
        if returned.confirmed or not checked.label_map.array.any():
            return
        for entry in self.campaign.events("annotation"):
            earlier = entry.payload
            if earlier["source_sha256"] == checked.sha256:
                when = "" if earlier["round"] is None else f" in round {earlier['round']}"
                raise AnnotationError(
                    f"The annotation of case {returned.case_id} is the very file that was let in for case "
                    f"{earlier['case_id']}{when}; hand in the one of this round, or say in returns.csv that "
                    "it was looked at and is right (confirmed: yes)"
                )

    def _write(
        self, returned: Returned, checked: CheckedAnnotation, earlier: Sequence[Annotation]
    ) -> tuple[Path, dict[str, float], tuple[Slab, ...]]:
        """Write the label map of a case beside its earlier versions; with what it answers for now.

        Slabs of which all structures are known add up; without slabs (none) the whole case is answered for.
        """
        folder, name = self.campaign.folder / ANNOTATIONS, f"{returned.case_id}.nii.gz"
        label_map = checked.label_map
        if not earlier:
            write_volume(folder / name, within(label_map.array, 0, returned.slabs), label_map.affine)
            return folder / name, dict(returned.structures), _or_whole(returned.slabs, label_map)
        before = read_label_map(earlier[-1].path)
        labels = [s.label for s in self.dataset.structures if s.name in returned.structures]
        path = folder / f"version_{len(earlier) + 1}" / name
        found = merged(before.array, label_map.array, labels, returned.slabs)
        write_volume(path, found, label_map.affine)
        structures = {**earlier[-1].structures, **returned.structures}
        if returned.slabs:  # a structure counts in all slabs or in none
            both = earlier[-1].structures.keys() & returned.structures.keys()
            structures = {name: fraction for name, fraction in structures.items() if name in both}
        return path, structures, _or_whole(union(earlier[-1].slabs, returned.slabs), label_map)


def _hash(path: Path) -> str | None:
    """None for a file that cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return None


def refusal(reason: str, place: Path, put_back: Path | None) -> str:
    """Why a file was refused, where it lies, and what brings it back.

    Args:
        reason: a sentence for its annotator.
        place: where it lies.
        put_back: where it is read again, None where that is not known.
    """
    return f"{reason} (it lies in {place}{f'; {goes_back(put_back)}' if put_back else ''})"


def _or_whole(slabs: tuple[Slab, ...], label_map: Volume) -> tuple[Slab, ...]:
    """Slabs; none, which is the whole case, once they hold every slice."""
    return () if slices_in(slabs, len(label_map.array)).all() else slabs


def _reader(path: Path, grid: Grid, structures: Sequence[Structure]) -> Reader:
    if path.name.endswith(SUFFIX):
        return lambda file: read_segmentation(file, grid, structures)
    return read_label_map
