"""The figures of one round: its worst and best masks, what was selected, scores against revealed DSC."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cohort.annotation import Annotation
from cohort.records import QualityScore
from flows import report
from flows.round_stages import RoundStages


def draw_round(
    stages: RoundStages,
    returned: Sequence[Annotation],
    masks: Mapping[str, Path],
    scores: Sequence[QualityScore],
    revealed: Mapping[tuple[str, str], float],
    campaign: str,
) -> None:
    """Draw them into the folder of the round.

    Args:
        stages: of the round.
        returned: annotations of the round.
        masks: case id -> label map of the model.
        scores: of the pool's masks.
        revealed: (case id, structure) -> DSC of the mask against its annotation.
        campaign: to put into the headings.
    """
    folder, by_id = stages.folder / report.FIGURES, stages.cohort.dataset.by_id
    heading = f"{campaign}, round {stages.number}"
    worst, best = report.score_panels(scores, by_id, masks, stages.structures, returned, revealed)
    rows = {"worst scored": worst, "best scored": best}
    report.overlays(folder / "worst_and_best.png", rows, f"{heading}: worst and best scored masks")
    panels = report.selected_panels(returned, by_id, masks, stages.structures, revealed)
    split = {"selected": panels[: report.COLUMNS], "selected ": panels[report.COLUMNS :]}
    report.overlays(folder / "selected.png", split, f"{heading}: selected cases")
    report.trial_scatter(folder / "trial.png", scores, revealed, heading)
