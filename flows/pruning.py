"""What a finished campaign may lose: masks and weights of its rounds, never its tables or its ledger."""

import shutil
from pathlib import Path

from cohort.errors import CampaignError
from flows.campaign import WORKSPACE, Campaign
from flows.segmenter_stages import CURVES
from flows.stages import MANIFEST

KEPT = ("*.csv", CURVES, MANIFEST)
"""Files of a stage that stay."""


def prune(campaign: Campaign) -> int:
    """Remove the masks and weights of a finished campaign's rounds, but for round 0.

    Round 0 is what all arms of a seed share: an arm that is added later starts from it. Tables, manifests
    and curves of every stage stay, and so do rankings, figures and annotations. The ledger says what is
    removed before it is.

    Returns:
        Bytes of the files that were removed; those that another folder links to count too.

    Raises:
        CampaignError: for a campaign that is not finished.
    """
    if campaign.event("finished") is None:
        raise CampaignError(f"The campaign {campaign.folder} is not finished: its masks are still needed")
    doomed = _doomed(campaign)
    size = sum(path.stat().st_size for path in doomed)
    if doomed and campaign.event("pruned") is None:
        stages = sorted({_stage(path, campaign.folder) for path in doomed})
        campaign.append("pruned", stages=stages, kept=list(KEPT), files=len(doomed), bytes=size)
    for path in doomed:
        path.unlink(missing_ok=True)
    shutil.rmtree(campaign.folder / WORKSPACE, ignore_errors=True)
    return size


def _doomed(campaign: Campaign) -> list[Path]:
    rounds = [folder for folder in (campaign.folder / "rounds").glob("[0-9]*") if int(folder.name) > 0]
    stages = [stage.parent for folder in rounds for stage in folder.glob(f"*/{MANIFEST}")]
    return sorted(
        path
        for stage in stages
        for path in stage.rglob("*")
        if path.is_file() and not any(path.match(pattern) for pattern in KEPT)
    )


def _stage(path: Path, folder: Path) -> str:
    """The stage that a file belongs to, such as `rounds/001/train-0123456789ab`."""
    return "/".join(path.relative_to(folder).parts[:3])
