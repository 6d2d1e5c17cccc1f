"""Handing out annotation: who annotates, what they are shown, and what a campaign then waits for."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from cohort.annotation import Request
from cohort.annotator_noise import AnnotatorNoise
from cohort.case import Dataset
from cohort.records import QualityScore
from flows import report
from flows.annotators.base import Annotator, WorkItem
from flows.annotators.folder import Folder
from flows.annotators.monailabel import MonaiLabel
from flows.annotators.oracle import Errors, Oracle
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig
from flows.data import Cohort
from flows.intake import Taken, refusal
from flows.portable import placed, portable

ANNOTATION = "annotation"


def make_annotator(
    config: ActiveLearningConfig, campaign: Campaign, cohort: Cohort, number: int, asked: Iterable[str]
) -> Annotator:
    """The annotator of a round.

    Args:
        config: of the campaign.
        campaign: whose folder holds the work.
        cohort: of the campaign.
        number: of the round.
        asked: ids of the cases that the round asks for.
    """
    by_id, structures = cohort.dataset.by_id, cohort.dataset.structures
    cases = tuple(asked)
    images = {case_id: case.image for case_id, case in by_id.items()}
    folder = campaign.folder / ANNOTATION / f"round_{number:03d}"
    if config.annotator.kind == "folder":
        suffix = f".{config.annotator.format}"
        return Folder(folder=folder, images=images, structures=structures, asked=cases, suffix=suffix)
    if config.annotator.kind == "monailabel":
        return MonaiLabel(folder=folder, images=images, structures=structures, asked=cases)
    noise = AnnotatorNoise(**config.annotator.noise.model_dump())
    if noise.exact:
        return Oracle(by_id=by_id)
    errors = Errors(noise=noise, structures=structures, folder=folder / "drawn", seed=config.seed)
    return Oracle(by_id=by_id, name="oracle that errs", errors=errors)


def work_items(
    requests: Sequence[Request],
    masks: Mapping[str, Path],
    scores: Sequence[QualityScore],
    dataset: Dataset,
    annotator: Annotator,
    strategy: str,
) -> tuple[WorkItem, ...]:
    """What goes out with each request: the proposal, why it was chosen, and a picture for people.

    Args:
        requests: in rank order.
        masks: case id -> the model's label map.
        scores: of these masks; may be none.
        dataset: of the cases.
        annotator: who gets them; only people get pictures.
        strategy: that chose them.
    """
    by_case: dict[str, dict[str, QualityScore]] = {}
    for score in scores:
        by_case.setdefault(score.case_id, {})[score.structure] = score
    items = []
    for request in requests:
        known = by_case.get(request.case_id, {})
        mask = masks[request.case_id]
        picture = _picture(request, mask, known, dataset, annotator.pictures) if annotator.pictures else None
        why = _why(request, known, strategy)
        items.append(WorkItem(request=request, proposal=mask, why=why, picture=picture))
    return tuple(items)


def note_waiting(campaign: Campaign, number: int, annotator: Annotator, taken: Taken) -> str:
    """Write into the ledger what a round waits for, unless it says so already.

    Returns:
        What a person has to do, "" where all is back.
    """
    if not taken.open:
        return ""
    waits_for = annotator.waits_for(taken.open)
    if taken.unsettled:
        waits_for += "; left where it is: " + " / ".join(taken.unsettled.values())
    refused = _refused(campaign, number, {request.case_id for request in taken.open})
    if refused:
        waits_for += "; put aside, to be corrected: " + " / ".join(refused)
    last, kept = campaign.ledger.entries()[-1], portable(waits_for, campaign.folder)
    if last.event != "awaiting" or last.payload["waits_for"] != kept:
        campaign.append("awaiting", round=number, waits_for=kept)
    return waits_for


def _refused(campaign: Campaign, number: int, cases: Collection[str]) -> list[str]:
    """Why the last file of each of some cases was refused in a round, where it lies and goes back."""
    last = {str(entry.payload["case_id"]): entry.payload for entry in campaign.events("refused", number)}
    return [_refusal(campaign.folder, found) for case_id, found in sorted(last.items()) if case_id in cases]


def _refusal(folder: Path, found: Mapping[str, str]) -> str:
    reason, back = placed(found["reason"], folder), found.get("put_back")
    if not found["path"]:
        return reason
    return refusal(reason, folder / found["path"], folder / back if back else None)


def _why(request: Request, scores: Mapping[str, QualityScore], strategy: str) -> str:
    """Why a case was chosen, for people: worst structure first."""
    known = [scores[name] for name in request.structures if name in scores]
    if not known:
        return f"chosen by the strategy {strategy}"
    ordered = sorted(known, key=lambda score: (not score.missing, score.raw if not score.missing else 0.0))
    return "; ".join(_judged(score) for score in ordered)


def _judged(score: QualityScore) -> str:
    if score.missing:
        return f"{score.structure}: {score.reason}"
    if math.isnan(score.predicted_dsc):
        return f"{score.structure}: {score.estimator} {abs(score.raw):.3g}"
    bounds = "" if math.isnan(score.lower) else f" ({score.lower:.2f} to {score.upper:.2f})"
    return f"{score.structure}: predicted DSC {score.predicted_dsc:.2f}{bounds}"


def _picture(
    request: Request, mask: Path, scores: Mapping[str, QualityScore], dataset: Dataset, folder: Path
) -> Path:
    """A picture of each requested structure's mask, worst first."""
    path = folder / f"{request.case_id}.png"
    if path.exists():  # drawn when the work went out first
        return path
    labels = {structure.name: structure.label for structure in dataset.structures}

    def urgency(name: str) -> tuple[float, str]:
        score = scores.get(name)
        return (-math.inf if score is None or score.missing else score.raw, name)

    panels = [
        report.Panel(
            case=dataset.by_id[request.case_id],
            mask=mask,
            label=labels[name],
            title=_judged(scores[name]).replace(": ", "\n", 1) if name in scores else name,
            slabs=request.slabs,
        )
        for name in sorted(request.structures, key=urgency)[: report.COLUMNS]
    ]
    with report.drawing(f"picture of case {request.case_id}"):
        report.overlays(path, {"": panels}, f"{request.case_id}: to annotate")
    return path
