"""What the loop refuses when a campaign is started again; whole campaigns are in tests/integration."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.errors import CampaignError
from flows import campaign as campaigns
from flows import data
from flows.active_learning import Loop
from flows.config import load_config
from flows.progress import Display
from flows.tracking import Tracker

Make = Callable[..., Path]


@pytest.fixture
def loop(make_decathlon: Make, make_campaign_yaml: Make) -> Callable[[], Loop]:
    path = make_campaign_yaml(make_decathlon(9))

    def build() -> Loop:
        config = load_config(path)
        cohort = data.load_cohort(config)
        campaign = campaigns.create_or_open(config)
        return Loop(
            config=config,
            campaign=campaign,
            cohort=cohort,
            fingerprints=dict(data.fingerprints(cohort.dataset.cases)),
            display=Display(quiet=True),
            tracker=Tracker(campaign=campaign),
        )

    return build


def test_the_start_set_is_let_in_once(loop: Callable[[], Loop]) -> None:
    for _ in range(2):
        loop()._start()
    campaign = loop().campaign
    assert len(campaign.events("start")) == 1
    assert [a.case_id for a in campaign.annotations()] == list(loop().cohort.start)


def test_another_split_is_refused(loop: Callable[[], Loop]) -> None:
    first = loop()
    first._start()
    root = first.config.data.root
    assert root is not None
    (root / "splits.json").write_text(
        f'{{"held_out": ["{first.cohort.start[0]}", "{first.cohort.pool[0]}"]}}'
    )
    with pytest.raises(CampaignError, match=r"started with other data: held_out, .*changed since then"):
        loop()._start()


def test_other_labels_are_refused(loop: Callable[[], Loop]) -> None:
    first = loop()
    first._start()
    assert first.config.data.root is not None
    described = first.config.data.root / "dataset.json"
    text = described.read_text()
    described.write_text(text.replace("liver", "x").replace("spleen", "liver").replace("x", "spleen"))
    with pytest.raises(CampaignError, match=r"structures"):
        loop()._start()


def test_an_altered_annotation_is_refused(loop: Callable[[], Loop]) -> None:
    first = loop()
    first._start()
    path = first.campaign.annotations()[0].path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CampaignError, match=r"is not the file that was let in"):
        loop()._stages(0)


def test_what_was_skipped_waits_until_nothing_else_is_left(loop: Callable[[], Loop]) -> None:
    running = loop()
    running._start()
    first, *others = running.cohort.pool
    running.campaign.append("skip", round=0, case_id=first, reason="motion")
    this, later = running._stages(0), running._stages(1)
    assert set(running._askable(this)) == set(running.cohort.pool), "the pool of a round stays as it was"
    assert set(running._askable(later)) == set(others)
    for case_id in others:
        running.campaign.append("skip", round=0, case_id=case_id, reason="no time")
    assert set(running._askable(later)) == set(running.cohort.pool)
