from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cohort.errors import ConfigError
from cohort.selection.stratified import Stratified
from flows.config import ActiveLearningConfig, load_config
from flows.config_files import as_dict, config_sha256, differences

MakeYaml = Callable[..., Path]


@pytest.fixture
def path(make_campaign_yaml: MakeYaml) -> Path:
    return make_campaign_yaml("scans")


def mistakes(path: Path, *overrides: str) -> dict[str, str]:
    """Dotted key -> message of everything that is wrong with a config."""
    with pytest.raises(ConfigError, match=r"has \d+ mistake") as caught:
        load_config(path, overrides)
    heading, *lines = str(caught.value).splitlines()
    count = int(heading.split(" has ")[1].split()[0])
    assert count == len(lines)
    return dict(line.strip().split(": ", 1) for line in lines)


def test_a_sound_config_is_read_into_the_settings_of_every_room(path: Path) -> None:
    config = load_config(path)
    assert config.data.root == Path("scans")
    assert config.segmenter.patch == (8, 8, 8)
    assert config.segmenter.channels == (4, 8)
    assert config.sentinel.image_size == 32
    assert config.folder == config.campaigns_root / "tiny"
    assert config.estimator_name is None


def test_all_mistakes_are_told_at_once_with_their_dotted_keys(make_campaign_yaml: MakeYaml) -> None:
    path = make_campaign_yaml(
        "scans",
        {
            "seed": -1,
            "rounds": 0,
            "budget.currency": "euros",
            "budget.per_round": "much",
            "data.held_out_fraction": 1.5,
            "segmenter.steps": "many",
            "segmenter.augmentation.noise": "loud",
            "sentinel.image_size": "big",
            "evaluation.tolerance_mm": -1,
            "annotator.kind": "nobody",
            "name": "a/b",
        },
    )
    found = mistakes(path)
    assert found.keys() >= {
        "seed",
        "rounds",
        "budget.currency",
        "budget.per_round",
        "data.held_out_fraction",
        "segmenter.steps",
        "segmenter.augmentation.noise",
        "sentinel.image_size",
        "annotator.kind",
        "name",
    }
    assert any(key.startswith("evaluation.tolerance_mm") for key in found)  # one for each form it may have
    assert found["budget.currency"].startswith("unknown currency 'euros'; expected one of cases")
    assert found["name"] == "'a/b' cannot name a folder; use letters, digits, '.', '_' and '-'"


def test_segmentations_of_slicer_are_for_a_folder(make_campaign_yaml: MakeYaml) -> None:
    path = make_campaign_yaml("scans", {"annotator.kind": "oracle", "annotator.format": "seg.nrrd"})
    assert mistakes(path) == {
        "annotator": "format seg.nrrd is for the annotator 'folder', but annotator.kind is 'oracle'"
    }


@pytest.mark.parametrize(
    "key",
    [
        "lucky_number",
        "data.rot",
        "data.phantom.case",
        "start.case",
        "budget.per_rounds",
        "segmenter.step",
        "segmenter.augmentation.flips",
        "cross_fitting.fold",
        "sentinel.step",
        "evaluation.tolerance",
        "annotator.name",
    ],
)
def test_unknown_keys_are_mistakes_at_every_level(make_campaign_yaml: MakeYaml, key: str) -> None:
    path = make_campaign_yaml("scans", {key: 1})
    assert mistakes(path) == {key: "unknown key; remove it or correct its spelling"}


def test_an_unknown_key_and_a_bad_value_are_told_together(path: Path) -> None:
    found = mistakes(path, "segmenter.step=4", "sentinel.imagesize=3", "threads=x")
    assert found.keys() == {"segmenter.step", "sentinel.imagesize", "threads"}


@pytest.mark.parametrize(
    ("override", "key", "message"),
    [
        ("strategy=best", "strategy", "Unknown strategy 'best'; expected one of"),
        (
            "estimator=oracel",
            "estimator",
            "Unknown estimator 'oracel'; expected one of bald, entropy, fused, incon",
        ),
        ("segmenter.patch=[8, 8, 7]", "segmenter", "patch is (8, 8, 7), expected three multiples of 2"),
        ("segmenter.network=vnet", "segmenter", "network is 'vnet', expected one of"),
        ("segmenter.augmentation.scale=2", "segmenter.augmentation", "augmentation.scale is 2.0, expected"),
        ("sentinel.image_size=8", "sentinel", "Sentinel: image_size is 8, expected at least 32"),
        ("cross_fitting.checkpoint_steps=[1, 9]", "cross_fitting", "checkpoint_steps [9] lie after the last"),
        ("cross_fitting.folds=1", "cross_fitting.folds", "Input should be greater than or equal to 2"),
        ("budget.per_round=.inf", "budget.per_round", "Input should be a finite number"),
        ("segmenter.learning_rate=.nan", "segmenter.learning_rate", "Input should be a finite number"),
        ("sentinel.margin=.inf", "sentinel.margin", "Input should be a finite number"),
        ("data.root=null", "data", "the layout 'decathlon' needs data.root"),
        (
            "data.layout=folders",
            "data",
            "the layout 'folders' needs data.labelled, data.unlabelled",
        ),
    ],
)
def test_values_that_a_room_refuses_are_told_with_their_key(
    path: Path, override: str, key: str, message: str
) -> None:
    found = mistakes(path, override)
    assert found.keys() == {key}
    assert found[key].startswith(message)


def test_an_unknown_strategy_is_told_together_with_other_mistakes(path: Path) -> None:
    assert mistakes(path, "strategy=best", "rounds=0").keys() == {"strategy", "rounds"}


def test_an_estimator_that_contradicts_the_strategy(path: Path) -> None:
    (message,) = mistakes(path, "strategy=random", "estimator=entropy").values()
    assert "ranks without quality scores" in message


def test_a_sentinel_needs_two_cases_to_start_from(path: Path) -> None:
    (message,) = mistakes(path, "strategy=quality", "start.cases=1").values()
    assert message.startswith("start.cases is 1, but the estimator sentinel learns from cross-fitted masks")
    assert load_config(path, ["strategy=entropy", "start.cases=1"]).start.cases == 1


def test_labelled_without_a_layout_means_folders(make_campaign_yaml: MakeYaml) -> None:
    path = make_campaign_yaml(
        "scans",
        {
            "data": {
                "labelled": "a",
                "unlabelled": "b",
                "held_out": "c",
                "structures": {"liver": 1},
            }
        },
    )
    assert load_config(path).data.layout == "folders"
    (message,) = mistakes(path, "data.root=scans").values()
    assert message.startswith("the layout 'folders' reads data.labelled and not data.root")


class TestNames:
    def test_the_default_name_tells_file_strategy_and_seed(
        self, make_campaign_yaml: MakeYaml, tmp_path: Path
    ) -> None:
        path = make_campaign_yaml("scans", {"name": None}, path=tmp_path / "liver.yaml")
        config = load_config(path, ["strategy=entropy", "seed=3"])
        assert (config.name, config.experiment) == ("liver-entropy-seed3", "liver")

    def test_given_names_stay(self, path: Path) -> None:
        config = load_config(path, ["name=mine", "experiment=ours", "seed=3"])
        assert (config.name, config.experiment) == ("mine", "ours")

    @pytest.mark.parametrize("name", ["..", "../up", ".hidden", "two words", ""])
    def test_a_name_is_a_folder_beside_the_others(self, path: Path, name: str) -> None:
        assert mistakes(path, f"name={name!r}").keys() == {"name"}


@pytest.mark.parametrize(
    ("override", "key", "told"),
    [
        ("segmenter.resources.gpus=8", "segmenter.resources.gpus", "unknown key"),
        (
            "segmenter.early_stopping.fraction=2",
            "segmenter.early_stopping",
            "expected a number from 0.0 to 0.9",
        ),
        ("segmenter.processes=3", "segmenter", "a multiple of 3"),
    ],
)
def test_mistakes_in_how_a_training_runs_are_told(path: Path, override: str, key: str, told: str) -> None:
    found = mistakes(path, override)
    assert list(found) == [key]
    assert told in found[key]


def test_the_config_survives_its_own_yaml(path: Path) -> None:
    """A campaign's config.yaml is compared with the next start's: writing and reading must change nothing."""
    config = load_config(path, ["segmenter.spacing_mm=[3, 1, 0.5]", "strategy=quality"])
    values = yaml.safe_load(yaml.safe_dump(as_dict(config)))
    assert differences(values, as_dict(config)) == []
    assert ActiveLearningConfig.model_validate(values) == config
    assert config_sha256(values) == config_sha256(as_dict(config))


def test_mc_dropout_needs_dropout(path: Path) -> None:
    settings = ["strategy=quality", "estimator=mc_dropout"]
    (message,) = mistakes(path, *settings).values()
    assert message.startswith("estimator is 'mc_dropout', but segmenter.dropout is 0")
    assert load_config(path, [*settings, "segmenter.dropout=0.1"]).estimator_name == "mc_dropout"


def test_the_fused_estimator_needs_three_patients_to_start_from(path: Path) -> None:
    settings = ["strategy=quality", "estimator=fused"]
    (message,) = mistakes(path, *settings, "start.cases=2").values()
    assert message.startswith("start.cases is 2, but the estimator fused learns from cross-fitted masks")
    assert load_config(path, [*settings, "start.cases=3"]).patients_needed == 3


class TestFamilies:
    """Settings of segmenters of other families: told apart by `family`, refused with their own key."""

    @staticmethod
    def written(make_campaign_yaml: MakeYaml, segmenter: dict[str, object], **changes: object) -> Path:
        return make_campaign_yaml("scans", {"segmenter": segmenter, **changes})

    def test_a_command(self, make_campaign_yaml: MakeYaml) -> None:
        labels = {"liver": 5, "spleen": [1, 2]}
        settings = {"family": "command", "predict": "true {images} {output}", "labels": labels}
        config = load_config(self.written(make_campaign_yaml, settings))

        assert config.segmenter.labels == {"liver": 5, "spleen": (1, 2)}
        assert as_dict(config)["segmenter"]["labels"] == labels

    def test_a_bundle(self, make_campaign_yaml: MakeYaml) -> None:
        settings = {
            "family": "bundle",
            "path": "zoo/spleen.zip",
            "trust": True,
            "channels": {"liver": [1, 2]},
        }
        config = load_config(self.written(make_campaign_yaml, settings))

        assert config.segmenter.channels == {"liver": (1, 2)}
        assert config.segmenter.architecture == "spleen"

    @pytest.mark.parametrize(
        ("settings", "key", "message"),
        [
            ({"family": "command", "predict": "true"}, "segmenter", "predict has no {images}, {output}"),
            (
                {"family": "command", "predict": "no-such-program {images} {output}"},
                "segmenter",
                "on the PATH",
            ),
            (
                {"family": "command", "predict": "true {images} {output}", "patch": [8]},
                "segmenter.patch",
                "unknown key",
            ),
            ({"family": "bundle", "path": "zoo/spleen"}, "segmenter", "set trust to true"),
        ],
    )
    def test_a_mistake_is_told(
        self, make_campaign_yaml: MakeYaml, settings: dict[str, object], key: str, message: str
    ) -> None:
        assert message in mistakes(self.written(make_campaign_yaml, settings))[key]

    @pytest.mark.parametrize(
        ("settings", "family"),
        [
            ({"family": "command", "predict": "true {images} {output}"}, "command"),
            ({"family": "bundle", "path": "zoo/spleen", "trust": True}, "bundle"),
            ({"family": "nnunet"}, "nnunet"),
        ],
    )
    def test_a_family_that_cannot_ignore_slices(
        self, make_campaign_yaml: MakeYaml, settings: dict[str, object], family: str
    ) -> None:
        path = self.written(make_campaign_yaml, settings, unit="slices")
        (message,) = mistakes(path).values()
        assert f"a segmenter of the family {family!r} cannot ignore slices that nobody annotated" in message
        assert load_config(path, ["unit=case"]).segmenter.family == family

    @pytest.mark.parametrize(
        ("settings", "estimator"),
        [
            ({"family": "command", "predict": "true {images} {output}"}, "entropy"),
            ({"family": "bundle", "path": "zoo/spleen", "trust": True}, "mc_dropout"),
        ],
    )
    def test_an_estimator_that_reads_what_is_not_yielded(
        self, make_campaign_yaml: MakeYaml, settings: dict[str, object], estimator: str
    ) -> None:
        path = self.written(make_campaign_yaml, settings, strategy="quality", estimator=estimator)

        with pytest.raises(ConfigError, match=rf"do not yield {estimator}; take the estimator 'sentinel'"):
            load_config(path)


def test_early_stopping_that_leaves_a_fold_nobody_is_told_at_once(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: {root: scans}\nstart: {cases: 4}\nstrategy: quality\n"
        "segmenter: {patch: [16, 16, 16], early_stopping: {fraction: 0.3}}\n"
    )
    with pytest.raises(ConfigError, match=r"nobody of the 2 that a cross-fitted segmenter starts with"):
        load_config(path)
    assert load_config(path, ["start.cases=8"]).segmenter.early_stopping.fraction == 0.3
    assert load_config(path, ["strategy=random"]).start.cases == 4


def test_an_unknown_family_of_segmenters_lists_the_known(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {root: scans}\nstrategy: random\nsegmenter: {family: yolo}\n")
    with pytest.raises(
        ConfigError, match=r"segmenter: unknown family 'yolo'; expected one of bundle, command"
    ):
        load_config(path)


class TestStrategy:
    def test_options_reach_the_strategy(self, path: Path) -> None:
        config = load_config(path, ["strategy=stratified", "strategy_options.sizes=2"])
        assert config.resolved_strategy == (Stratified(sizes=2), None)
        assert not config.uses_features

    def test_an_option_that_the_strategy_does_not_have(self, path: Path) -> None:
        found = mistakes(path, "strategy=random", "strategy_options.sizes=2")
        assert "'random' has no option 'sizes'; it has: none" in found["(whole file)"]

    def test_a_gain_needs_an_estimator_that_predicts_a_dsc(self, path: Path) -> None:
        told = mistakes(path, "strategy=gain_per_cost", "estimator=entropy")
        assert told["(whole file)"].startswith(
            "strategy is 'gain_per_cost', which reads how much DSC a mask lacks"
        )
        assert load_config(path, ["strategy=gain_per_cost"]).estimator_name == "sentinel"

    def test_which_strategies_look_at_images(self, path: Path) -> None:
        assert not load_config(path, ["strategy=random"]).uses_features
        assert load_config(path, ["strategy=entropy"]).uses_features
        assert load_config(path, ["strategy=core_set"]).uses_features
        unguarded = ["strategy=entropy", "strategy_options.guards=false"]
        assert not load_config(path, unguarded).uses_features
        assert load_config(path, [*unguarded, "trial.fallback=core_set"]).uses_features

    def test_the_unit_is_in_the_name_of_a_campaign(self, make_campaign_yaml: MakeYaml) -> None:
        path = make_campaign_yaml("scans", {"name": None, "unit": "structure"})
        assert load_config(path).name == "tiny-random-by-structure-seed0"
        assert load_config(path, ["unit=slices"]).name == "tiny-random-by-slices-seed0"
        assert "Input should be 'case', 'structure' or 'slices'" in mistakes(path, "unit=voxel")["unit"]

    def test_folders_say_themselves_what_is_labelled(self, path: Path) -> None:
        folders = {
            "layout": "folders",
            "labelled": "a",
            "unlabelled": "b",
            "held_out": "c",
            "structures": {"x": 1},
        }
        found = mistakes(path, f"data={folders}", "start.method=diverse")
        assert "start.method is 'diverse', but the layout 'folders'" in found["(whole file)"]

    def test_features_of_a_segmenter_that_gives_none(self, make_campaign_yaml: MakeYaml) -> None:
        path = make_campaign_yaml("scans", {"segmenter": {"family": "nnunet"}, "features": "segmenter"})
        assert "does not give any; set it to image" in mistakes(path)["(whole file)"]
