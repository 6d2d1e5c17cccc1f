import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.errors import ConfigError
from cohort.records import QualityScore
from cohort.selection import resolve
from flows import campaign as campaigns
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig, load_config
from flows.trial import Trial, trial_entry

Make = Callable[..., Path]
Load = Callable[..., ActiveLearningConfig]

PATIENTS = {f"c{number}": f"p{number}" for number in range(100)}


@pytest.fixture
def load(make_campaign_yaml: Make) -> Load:
    def read(*overrides: str) -> ActiveLearningConfig:
        return load_config(
            make_campaign_yaml("scans"),
            ["strategy=quality", "estimator=entropy", *overrides],
        )

    return read


def score(case_id: str, raw: float, predicted_dsc: float = math.nan) -> QualityScore:
    return QualityScore(
        case_id=case_id, structure="liver", raw=raw, predicted_dsc=predicted_dsc, estimator="entropy"
    )


def annotated(campaign: Campaign, *, sign: float, rounds: int, cases: int = 6) -> None:
    """Rounds in which the estimator ranked the cases by their DSC, or the other way round."""
    for number in range(rounds):
        names = [f"c{number * cases + case}" for case in range(cases)]
        scores = [score(name, sign * case) for case, name in enumerate(names)]
        revealed = {(name, "liver"): 0.3 + 0.1 * case for case, name in enumerate(names)}
        campaign.append("trial", round=number, **trial_entry(scores, revealed, PATIENTS, number))


class TestEntry:
    def test_comes_back_from_the_ledger(self, load: Load) -> None:
        config = load()
        campaign = campaigns.create_or_open(config)
        scores = [score("c1", -0.5), score("c2", math.nan), score("c3", -0.1, predicted_dsc=0.75)]
        revealed = {("c1", "liver"): 0.25, ("c2", "liver"): 0.0, ("c3", "liver"): 0.5}
        entry = trial_entry(scores, revealed, PATIENTS, 2)
        json.dumps(entry, allow_nan=False)
        campaign.append("trial", round=2, **entry)

        assert Trial.before(campaign, config, 2).masks == ()
        first, second, third = Trial.before(campaign, config, 3).masks
        assert (first.case_id, first.patient_id, first.structure, first.round) == ("c1", "p1", "liver", 2)
        assert (first.raw, first.dsc) == (-0.5, 0.25)
        assert math.isnan(first.predicted_dsc)
        assert math.isnan(second.raw)
        assert third.predicted_dsc == 0.75
        assert entry["estimator"]["n"] == 2
        assert entry["estimator"]["mae"] == pytest.approx(0.25)

    def test_of_a_strategy_without_scores_has_no_verdict(self) -> None:
        entry = trial_entry([], {("c1", "liver"): 0.5}, PATIENTS, 0)
        assert entry == {"estimator": {}, "revealed_dsc": [["c1", "liver", 0.5]], "masks": []}

    def test_a_ledger_from_before_masks_were_kept_can_be_read(self, load: Load) -> None:
        config = load()
        campaign = campaigns.create_or_open(config)
        campaign.append("trial", round=0, estimator={}, revealed_dsc=[])
        assert Trial.before(campaign, config, 1).masks == ()


class TestStrategy:
    def test_stays_where_the_order_is_borne_out(self, load: Load) -> None:
        config = load()
        campaign = campaigns.create_or_open(config)
        annotated(campaign, sign=1.0, rounds=2)
        strategy, used, evidence = Trial.before(campaign, config, 2).strategy()
        assert (strategy, used) == (resolve("quality")[0], "quality")
        assert evidence is not None
        assert evidence.p < 0.01
        assert evidence.cases == 12

    def test_falls_back_where_it_is_not(self, load: Load) -> None:
        config = load("trial.fallback=random")
        campaign = campaigns.create_or_open(config)
        annotated(campaign, sign=-1.0, rounds=2)
        strategy, used, evidence = Trial.before(campaign, config, 2).strategy()
        assert (strategy, used) == (resolve("random")[0], "random")
        assert evidence is not None
        assert evidence.correlation == pytest.approx(-1.0)

    @pytest.mark.parametrize(
        "overrides",
        [
            pytest.param(["trial.fallback=null"], id="no fallback is wanted"),
            pytest.param(["trial.min_cases=13"], id="too few annotated cases"),
            pytest.param(["strategy=random", "estimator=null"], id="nothing to judge"),
            pytest.param(["strategy=oracle-worst", "estimator=null"], id="an upper bound"),
        ],
    )
    def test_is_not_judged(self, load: Load, overrides: list[str]) -> None:
        config = load(*overrides)
        campaign = campaigns.create_or_open(config)
        annotated(campaign, sign=-1.0, rounds=2)
        _, used, evidence = Trial.before(campaign, config, 2).strategy()
        assert (used, evidence) == (config.strategy, None)

    def test_a_fallback_that_needs_scores_is_refused(self, load: Load) -> None:
        with pytest.raises(ConfigError, match=r"trial\.fallback: 'entropy' needs an estimator itself"):
            load("trial.fallback=entropy")


class TestRecalibration:
    def test_gives_an_uncertainty_a_predicted_dsc(self, load: Load) -> None:
        config = load()
        campaign = campaigns.create_or_open(config)
        annotated(campaign, sign=1.0, rounds=2)
        (found,) = Trial.before(campaign, config, 2).recalibrated([score("c50", 2.5)])
        assert found.raw == 2.5
        assert found.predicted_dsc == pytest.approx(0.55, abs=0.01)
        assert found.lower <= found.predicted_dsc <= found.upper

    def test_can_be_left_out(self, load: Load) -> None:
        config = load("trial.recalibrate=false")
        campaign = campaigns.create_or_open(config)
        annotated(campaign, sign=1.0, rounds=2)
        before = score("c50", 2.5)
        (found,) = Trial.before(campaign, config, 2).recalibrated([before])
        assert found is before
