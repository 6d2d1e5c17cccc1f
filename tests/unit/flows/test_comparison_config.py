from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cohort.errors import ConfigError
from flows.comparison_config import Comparison, load_comparison
from flows.config import load_config

WriteComparison = Callable[..., Path]
CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def write(tmp_path: Path, write_campaign_yaml: Callable[..., Path]) -> WriteComparison:
    """Write a comparison of a tiny campaign and give its path; what is given replaces a key."""
    (tmp_path / "base").mkdir()
    write_campaign_yaml(tmp_path / "base" / "tiny.yaml", tmp_path / "scans", {"name": None})

    def make(**changes: object) -> Path:
        values: dict[str, Any] = {
            "campaign": "base/tiny.yaml",
            "root": str(tmp_path / "comparisons"),
            "seeds": [0, 1],
            "arms": {"random": {"set": {"strategy": "random"}}, "entropy": {"set": {"strategy": "entropy"}}},
        }
        values |= changes
        path = tmp_path / "which.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return make


def names(comparison: Comparison) -> list[str]:
    return [unit.name for unit in comparison.units]


def arms(**changes: Mapping[str, object]) -> dict[str, object]:
    return {"random": {"set": {"strategy": "random"}}, **changes}


class TestUnits:
    def test_arms_come_in_order_with_their_seeds(self, write: WriteComparison, tmp_path: Path) -> None:
        chosen = arms(quality={"seeds": [1]}, entropy={"set": {"strategy": "entropy"}})
        comparison = load_comparison(write(arms=chosen))
        assert names(comparison) == [
            "random-seed0",
            "random-seed1",
            "quality-seed1",
            "entropy-seed0",
            "entropy-seed1",
        ]
        assert comparison.config.folder == tmp_path / "comparisons" / "which"
        assert comparison.units[0].folder == comparison.config.folder / "campaigns" / "random-seed0"

    def test_a_unit_is_the_campaign_with_what_is_set(self, write: WriteComparison, tmp_path: Path) -> None:
        changed = {"strategy": "entropy", "sentinel": {"steps": 7}}
        path = write(set={"rounds": 2, "segmenter.steps": 5}, arms=arms(entropy={"set": changed}))
        unit = load_comparison(path).units[2]
        alone = load_config(
            tmp_path / "base" / "tiny.yaml",
            [
                "name=entropy-seed0",
                "experiment=which",
                f"campaigns_root={tmp_path / 'comparisons' / 'which' / 'campaigns'}",
                "seed=0",
                "rounds=2",
                "segmenter.steps=5",
                "strategy=entropy",
                "sentinel.steps=7",
            ],
        )
        assert unit.config == alone

    def test_overrides_reach_the_campaigns_or_the_comparison(self, write: WriteComparison) -> None:
        path = write(set={"rounds": 2})
        comparison = load_comparison(path, ["data.root=elsewhere", "rounds=4", "keep=light", "seeds=[3]"])
        assert {unit.config.data.root for unit in comparison.units} == {Path("elsewhere")}
        assert {unit.rounds for unit in comparison.units} == {4}
        assert comparison.config.keep == "light"
        assert names(comparison) == ["random-seed3", "entropy-seed3"]

    def test_only_some_are_taken(self, write: WriteComparison) -> None:
        comparison = load_comparison(write())
        assert [unit.name for unit in comparison.only(["entropy"], [1])] == ["entropy-seed1"]
        assert comparison.only() == comparison.units
        with pytest.raises(ConfigError, match="which has no arm typo; it has random, entropy"):
            comparison.only(["typo"])
        with pytest.raises(ConfigError, match="which has no seed 7; it has 0, 1"):
            comparison.only([], [7])

    def test_an_arm_that_reads_references_is_marked(self, write: WriteComparison) -> None:
        units = load_comparison(write(arms=arms(best={"set": {"strategy": "oracle-worst"}}))).units
        assert {unit.arm: unit.reads_references for unit in units} == {"random": False, "best": True}

    def test_semi_supervised_trainings_are_compared_too(self, write: WriteComparison, tmp_path: Path) -> None:
        chosen = {
            "random": {"set": {"filter.kind": "random"}},
            "oracle": {"set": {"filter.estimator": "oracle"}, "seeds": [1]},
            "teacher": {"set": {"segmenter.semi_supervision.consistency": 0.1}, "seeds": [0]},
        }
        settings = tmp_path / "base" / "semi.yaml"
        own = yaml.safe_load((tmp_path / "base" / "tiny.yaml").read_text())
        kept = {key: value for key, value in own.items() if key not in ("rounds", "budget", "strategy")}
        settings.write_text(yaml.safe_dump({**kept, "generations": 2}))
        path = write(campaign=None, semi_supervised="base/semi.yaml", arms=chosen)
        comparison = load_comparison(path)
        assert names(comparison) == ["random-seed0", "random-seed1", "oracle-seed1", "teacher-seed0"]
        assert [unit.reads_references for unit in comparison.units] == [False, False, True, False]
        assert {unit.rounds for unit in comparison.units} == {3}

        chosen["oracle"]["set"] = {"unlabelled": 2}
        with pytest.raises(ConfigError, match=r"arms\.oracle\.set\.unlabelled: 2 here, None in the control"):
            load_comparison(write(campaign=None, semi_supervised="base/semi.yaml", arms=chosen))
        chosen["oracle"]["set"] = {"good_dsc": 0.5}
        with pytest.raises(ConfigError, match=r"arms\.oracle\.set\.good_dsc: 0\.5 here, 0\.8 in the control"):
            load_comparison(write(campaign=None, semi_supervised="base/semi.yaml", arms=chosen))
        with pytest.raises(ConfigError, match="semi_supervised trainings has no tables of groups"):
            load_comparison(path, ["groups=groups.csv"])

    @pytest.mark.parametrize("campaign", [None, "base/tiny.yaml"])
    def test_there_is_one_thing_to_vary(self, write: WriteComparison, campaign: str | None) -> None:
        both = {"campaign": campaign, "semi_supervised": campaign}
        with pytest.raises(ConfigError, match="either 'campaign' or 'semi_supervised', the path of its YAML"):
            load_comparison(write(**both))

    @pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "comparison").glob("*.yaml")))
    def test_the_examples_can_be_run(self, name: str) -> None:
        comparison = load_comparison(CONFIGS / "comparison" / f"{name}.yaml")
        assert comparison.config.primary is not None
        assert len(comparison.units) >= 12


class TestRefusals:
    def test_all_mistakes_are_told_at_once(self, write: WriteComparison) -> None:
        path = write(sedes=[1], keep="most", arms=arms(entropy={"seed": [1]}))
        with pytest.raises(ConfigError) as refused:
            load_comparison(path)
        assert str(refused.value).splitlines()[1:] == [
            "  keep: Input should be 'all' or 'light'",
            "  arms.entropy.seed: unknown key; remove it or correct its spelling",
            "  sedes: unknown key; remove it or correct its spelling",
        ]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"control": "rnadom"}, "control is 'rnadom', which is none of the arms random, entropy"),
            (
                {"primary": {"arm": "quality", "against": "random"}},
                "primary.arm is 'quality', which is none of the arms random, entropy",
            ),
            ({"primary": {"arm": "random", "against": "random"}}, "primary compares 'random' with itself"),
            (
                {"primary": {"arm": "entropy", "against": "random", "seeds": [0, 5]}},
                r"primary.seeds: the arm 'entropy' is not run with the seeds \[5\]",
            ),
            ({"seeds": [1, 1]}, r"seeds names a seed twice: \[1, 1\]"),
            (
                {"arms": arms(quality={"seeds": [1, 2]})},
                r"arms.quality: seeds \[2\] have no run of the control 'random' to be paired with",
            ),
        ],
    )
    def test_what_cannot_be_compared(
        self, write: WriteComparison, changes: Mapping[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            load_comparison(write(**changes))

    @pytest.mark.parametrize(
        ("key", "value", "control"),
        [
            ("segmenter.steps", 9, "3"),
            ("start.cases", 5, "3"),
            ("rounds", 2, "3"),
            ("data.held_out_cases", 3, "2"),
            ("budget.minutes_per_slice", 0.5, "0.2"),
            ("threads", 2, "1"),
        ],
    )
    def test_an_arm_keeps_what_pairs_it(
        self, write: WriteComparison, key: str, value: object, control: str
    ) -> None:
        with pytest.raises(
            ConfigError, match=f"arms.entropy.set.{key}: {value} here, {control} in the control"
        ):
            load_comparison(write(arms=arms(entropy={"set": {"strategy": "entropy", key: value}})))

    @pytest.mark.parametrize("key", ["seed", "name", "experiment", "campaigns_root"])
    def test_names_and_seeds_are_the_comparisons(self, write: WriteComparison, key: str) -> None:
        with pytest.raises(ConfigError, match=rf"  set.{key}: the comparison gives this to its campaigns"):
            load_comparison(write(set={key: 3}))

    def test_a_mistake_in_one_arm_names_the_arm(self, write: WriteComparison) -> None:
        with pytest.raises(ConfigError, match=r"arms.entropy: .*\n.*strategy: .*Unknown strategy 'entropi'"):
            load_comparison(write(arms=arms(entropy={"set": {"strategy": "entropi"}})))


def test_an_arm_whose_pseudo_labels_read_references_is_an_upper_bound(
    make_comparison: Callable[..., Comparison],
) -> None:
    promoting = {"strategy": "random", "pseudo_labels": {"filter": {"estimator": "oracle"}}}
    comparison = make_comparison(
        primary=None, arms={"random": {"set": {"strategy": "random"}}, "promoting": {"set": promoting}}
    )
    reading = {unit.arm: unit.reads_references for unit in comparison.units}
    assert reading == {"random": False, "promoting": True}
