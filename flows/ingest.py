"""Taking in what people have put back, without going on: `sentinel-loop ingest`."""

from dataclasses import dataclass

from cohort.errors import CampaignError
from flows import data
from flows.annotation_work import make_annotator, note_waiting
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig
from flows.intake import Intake, Taken
from flows.requests import requested


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of a campaign's open requests.

    Args:
        round: that waits for annotation.
        taken: what was let in, refused and skipped, and what is open.
        waits_for: what a person has to do, "" where all is back.
    """

    round: int
    taken: Taken
    waits_for: str


def ingest(campaign: Campaign, config: ActiveLearningConfig) -> Ingested | None:
    """Take in what is back of the round that waits; the caller holds the campaign's lock.

    Returns:
        None where no round waits for annotation.

    Raises:
        CampaignError: for a campaign whose ledger has no start, or whose proposals are gone.
        AnnotationError: where what people wrote beside their work cannot be read.
    """
    if campaign.event("start") is None:
        raise CampaignError(f"The campaign {campaign.folder} has not started; run it first")
    selections = [e.payload for e in campaign.events("selection")]
    if not selections or campaign.event("trial", selections[-1]["round"]) is not None:
        return None
    selection = selections[-1]
    number = int(selection["round"])
    cohort = data.read_cohort(config)
    intake = Intake(
        campaign=campaign, dataset=cohort.dataset, costs=config.budget.cost_model, unit=config.unit
    )
    requests = requested(selection, [structure.name for structure in cohort.dataset.structures])
    annotator = make_annotator(config, campaign, cohort, number, [request.case_id for request in requests])
    masks = campaign.round_folder(number).glob("segment-pool-*/*.nii.gz")
    proposals = {path.name.removesuffix(".nii.gz"): path for path in masks}
    gone = [r.case_id for r in intake.open(number, requests) if r.case_id not in proposals]
    if gone:
        raise CampaignError(
            f"The masks that round {number} of {campaign.folder} sent out are gone, of case {gone[0]} among "
            "others, so nothing tells whether they were corrected; 'sentinel-loop resume' makes them again"
        )
    taken = intake.take_in(number, requests, annotator, proposals)
    return Ingested(round=number, taken=taken, waits_for=note_waiting(campaign, number, annotator, taken))
