import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cohort.errors import ConfigError
from flows.config import ActiveLearningConfig, load_config
from flows.filter_config import FilterModel, PseudoLabelsModel
from flows.semi_supervised_config import SemiSupervisedConfig, load_semi_supervised

MakeYaml = Callable[..., Path]
NOT_A_CAMPAIGN = dict.fromkeys(("rounds", "budget", "strategy"))


@pytest.fixture
def load(make_campaign_yaml: MakeYaml) -> Callable[..., SemiSupervisedConfig]:
    def read(changes: Mapping[str, object] | None = None, *overrides: str) -> SemiSupervisedConfig:
        path = make_campaign_yaml("scans", {**NOT_A_CAMPAIGN, "name": None, **(changes or {})})
        return load_semi_supervised(path, overrides)

    return read


class TestFilter:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"keep": 0.0}, "keep is 0.0; expected a fraction above 0 and up to 1"),
            ({"kind": "random", "keep": 1.5}, "keep is 1.5"),
            ({"kind": "best"}, "Unknown filter 'best'"),
            ({"estimator": "sentinal"}, "Unknown estimator 'sentinal'"),
            (
                {"kind": "threshold", "estimator": "entropy"},
                "'entropy' is not calibrated to DSC and only ranks",
            ),
            ({"weights": "predicted_dsc", "estimator": "bald"}, "'bald' is not calibrated to DSC"),
            ({"kind": "lower_bound"}, "'sentinel' has none in a campaign"),
            ({"kind": "lower_bound", "estimator": "mc_dropout"}, "'mc_dropout' is not calibrated to DSC"),
            (
                {"estimator": "entropy", "sentinel": "a.safetensors"},
                "filter.estimator is 'entropy'; remove one",
            ),
            ({"kind": "threshold", "size_strata": 4}, "size_strata is for filter.kind top_fraction"),
            ({"per": "case", "size_strata": 4}, "size_strata is for filter.kind top_fraction"),
            ({"estimator": "oracle", "keep_absent": True}, "'oracle' names the empty masks that are wrong"),
            ({"threshold": 0.5}, "Extra inputs are not permitted"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            FilterModel.model_validate(values)

    @pytest.mark.parametrize(
        ("values", "estimator", "arm"),
        [
            ({}, "sentinel", "sentinel"),
            ({"estimator": "entropy"}, "entropy", "entropy"),
            ({"kind": "random"}, None, "random"),
            ({"size_strata": 4}, "sentinel", "sentinel-of-each-size"),
            ({"kind": "unfiltered", "estimator": "entropy"}, None, "unfiltered"),
            ({"kind": "threshold"}, "sentinel", "sentinel-threshold"),
            ({"kind": "lower_bound", "estimator": "fused"}, "fused", "fused-lower_bound"),
            ({"kind": "lower_bound", "sentinel": "a.safetensors"}, "sentinel", "sentinel-lower_bound"),
            ({"weights": "rank", "estimator": "entropy"}, "entropy", "entropy-weighted"),
            ({"kind": "threshold", "weights": "predicted_dsc"}, "sentinel", "sentinel-threshold-weighted"),
        ],
    )
    def test_who_judges_and_what_it_is_called(
        self, values: dict[str, object], estimator: str | None, arm: str
    ) -> None:
        model = FilterModel.model_validate(values)
        assert (model.estimator_name, model.arm, model.reads_references) == (estimator, arm, False)

    def test_an_oracle_is_marked(self) -> None:
        assert FilterModel(estimator="oracle").reads_references
        assert not FilterModel(estimator="oracle", kind="random").reads_references

    def test_a_sentinel_from_a_file_learns_nothing(self) -> None:
        rivals = ("entropy", "fused")
        assert PseudoLabelsModel(rivals=rivals).learning == ("sentinel", "fused")
        given = PseudoLabelsModel(filter=FilterModel(sentinel=Path("a.safetensors")), rivals=rivals)
        assert given.learning == ("fused",)
        assert given.estimator_names == ("sentinel", "entropy", "fused")


class TestTraining:
    def test_a_training_is_named_after_its_arm_and_seed(
        self, load: Callable[..., SemiSupervisedConfig]
    ) -> None:
        assert load().name == "tiny-sentinel-seed0"
        assert load(None, "filter.kind=random", "seed=3").name == "tiny-random-seed3"
        assert load(None, "name=mine").name == "mine"

    def test_it_is_a_campaign_that_annotates_nothing(self, load: Callable[..., SemiSupervisedConfig]) -> None:
        config = load({"generations": 2, "rivals": ["entropy"]})
        campaign = config.campaign
        assert (campaign.rounds, campaign.strategy, campaign.annotator.kind) == (3, "random", "folder")
        assert campaign.folder == config.folder
        assert campaign.estimator_names == ("sentinel", "entropy")
        assert load(None, "filter.estimator=oracle").campaign.annotator.kind == "oracle"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rivals": ["entropy", "mc_dropout"]}, "estimator is 'mc_dropout', but segmenter.dropout is 0"),
            (
                {"start.cases": 1},
                "start.cases is 1, but the estimator sentinel learns from cross-fitted masks",
            ),
            ({"rounds": 3}, "rounds: unknown key"),
            ({"generations": 0}, "generations: Input should be greater than 0"),
            (
                {"filter": {"kind": "threshold", "estimator": "entropy"}},
                "filter: the filter reads the predicted DSC",
            ),
            ({"rivals": ["guess"]}, "rivals: Unknown estimator 'guess'"),
        ],
    )
    def test_mistakes_are_told_in_words(
        self, load: Callable[..., SemiSupervisedConfig], changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            load(changes)


class TestCampaign:
    def test_pseudo_labels_are_an_option_of_a_campaign(self, make_campaign_yaml: MakeYaml) -> None:
        plain = load_config(make_campaign_yaml("scans"))
        assert plain.pseudo_labels is None
        hybrid = load_config(
            make_campaign_yaml("scans", {"pseudo_labels": {"filter": {"estimator": "inconsistency"}}})
        )
        assert hybrid.estimator_names == ("inconsistency",)
        assert hybrid.patients_needed == 1

    @pytest.mark.parametrize("key", ["rivals=[entropy]", "good_dsc=0.7"])
    def test_what_only_a_training_measures_is_refused(self, make_campaign_yaml: MakeYaml, key: str) -> None:
        path = make_campaign_yaml("scans", {"pseudo_labels": {"filter": {"estimator": "inconsistency"}}})
        with pytest.raises(
            ConfigError, match="rivals and good_dsc cannot be set in a campaign that annotates"
        ):
            load_config(path, [f"pseudo_labels.{key}"])
        kept = load_config(path).model_dump(mode="json")
        assert ActiveLearningConfig.model_validate(kept) == load_config(path), (
            "a campaign's own file says all"
        )

    def test_an_oracle_needs_references_whoever_annotates(self, make_campaign_yaml: MakeYaml) -> None:
        path = make_campaign_yaml("scans", {"pseudo_labels": {"filter": {"estimator": "oracle"}}})
        assert load_config(path).reads_references
        assert not load_config(path, ["pseudo_labels.filter.estimator=entropy"]).reads_references

    def test_the_filters_sentinel_needs_labelled_patients_too(self, make_campaign_yaml: MakeYaml) -> None:
        path = make_campaign_yaml("scans", {"pseudo_labels": {}, "start.cases": 1})
        with pytest.raises(
            ConfigError, match="sentinel learns from cross-fitted masks, which take at least 2"
        ):
            load_config(path)

    def test_weights_need_a_loss_that_they_reach(self, make_campaign_yaml: MakeYaml) -> None:
        segmenter = {"family": "nnunet", "steps": 5}
        weighted = {"filter": {"weights": "predicted_dsc"}}
        path = make_campaign_yaml("scans", {"pseudo_labels": weighted, "segmenter": segmenter})
        with pytest.raises(ConfigError, match="family 'nnunet' has its own loss, which no weight reaches"):
            load_config(path)
        assert isinstance(load_config(path, ["pseudo_labels.filter.weights=none"]), ActiveLearningConfig)
