from collections.abc import Callable

import pytest

from cohort.errors import CampaignError
from flows.campaign import Campaign, open_campaign
from flows.comparison_config import Comparison
from flows.pruning import prune
from flows.stages import write_json


def with_masks(comparison: Comparison) -> Campaign:
    """The first campaign, with a stage of masks and weights in rounds 0 and 1."""
    campaign = open_campaign(comparison.units[0].folder)
    for number in (0, 1):
        folder = campaign.round_folder(number) / "segment-pool-0123456789ab"
        (folder / "deep").mkdir(parents=True)
        for name in ("p1.nii.gz", "p1.json", "weights.safetensors", "deep/mask.nii.gz", "scores.csv"):
            (folder / name).write_bytes(b"12345")
        write_json(folder / "curves.json", [])
        write_json(folder / "stage.json", {"stage": "segment-pool"})
        (campaign.round_folder(number) / "ranked.csv").write_text("rank\n")
    (campaign.folder / "segmenter").mkdir()
    (campaign.folder / "segmenter" / "plan.json").write_text("{}")
    return campaign


def files(campaign: Campaign, number: int) -> set[str]:
    return {path.name for path in campaign.round_folder(number).rglob("*") if path.is_file()}


def test_tables_stay_and_the_ledger_says_what_went(measured: Comparison) -> None:
    campaign = with_masks(measured)
    before = files(campaign, 0)
    assert prune(campaign) == 20
    assert files(campaign, 1) == {"scores.csv", "curves.json", "stage.json", "ranked.csv", "results.csv"}
    assert files(campaign, 0) == before, "an arm that is added later starts from round 0"
    assert not (campaign.folder / "segmenter").exists()
    (said,) = campaign.events("pruned")
    assert said.payload["stages"] == ["rounds/001/segment-pool-0123456789ab"]
    assert (said.payload["files"], said.payload["bytes"]) == (4, 20)


def test_a_second_time_there_is_nothing_to_do(measured: Comparison) -> None:
    campaign = with_masks(measured)
    prune(campaign)
    before = campaign.ledger.entries()
    assert prune(campaign) == 0
    assert campaign.ledger.entries() == before


def test_what_a_kill_left_is_removed_without_a_second_line(measured: Comparison) -> None:
    campaign = with_masks(measured)
    prune(campaign)
    (campaign.round_folder(1) / "segment-pool-0123456789ab" / "p2.nii.gz").write_bytes(b"1")
    assert prune(campaign) == 1
    assert len(campaign.events("pruned")) == 1


def test_an_unfinished_campaign_keeps_everything(
    make_comparison: Callable[..., Comparison], write_measured: Callable[..., None]
) -> None:
    comparison = make_comparison()
    write_measured(comparison.units[0], finished=False)
    campaign = with_masks(comparison)
    with pytest.raises(CampaignError, match="random-seed0 is not finished: its masks are still needed"):
        prune(campaign)
    assert "p1.nii.gz" in files(campaign, 1)
