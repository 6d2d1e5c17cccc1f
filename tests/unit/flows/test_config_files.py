from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.errors import ConfigError
from flows.config import load_config
from flows.config_files import as_dict, config_sha256, differences, flatten

MakeYaml = Callable[..., Path]


@pytest.fixture
def path(make_campaign_yaml: MakeYaml) -> Path:
    return make_campaign_yaml("scans")


class TestSet:
    def test_nested_values_of_every_kind(self, path: Path) -> None:
        config = load_config(
            path,
            [
                "seed=7",
                "data.root=other/scans",
                "segmenter.augmentation.flip=[true, false, false]",
                "segmenter.spacing_mm=[3.0, 1, 0.5]",
                "segmenter.learning_rate=2e-3",
                "evaluation.tolerance_mm={liver: 2.0, spleen: 3}",
                "strategy=quality",
                "estimator=null",
            ],
        )
        assert config.seed == 7
        assert config.data.root == Path("other/scans")
        assert config.segmenter.augmentation.flip == (True, False, False)
        assert config.segmenter.spacing_mm == (3.0, 1.0, 0.5)
        assert config.segmenter.learning_rate == 0.002
        assert config.evaluation.tolerance_mm == {"liver": 2.0, "spleen": 3.0}
        assert config.estimator_name == "sentinel"

    def test_the_last_one_wins(self, path: Path) -> None:
        assert load_config(path, ["seed=1", "seed=2"]).seed == 2

    def test_an_equals_sign_may_be_in_the_value(self, path: Path) -> None:
        assert load_config(path, ["experiment=a=b"]).experiment == "a=b"

    @pytest.mark.parametrize("override", ["seed", "=7", "", "seed 7"])
    def test_not_of_the_form_key_value(self, path: Path, override: str) -> None:
        with pytest.raises(ConfigError, match=r"^--set '.*' is not of the form key=value"):
            load_config(path, [override])

    def test_below_a_value(self, path: Path) -> None:
        with pytest.raises(ConfigError, match="'rounds' holds a value, so nothing can be set below it"):
            load_config(path, ["rounds.of=7"])

    def test_a_value_that_is_no_yaml(self, path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--set 'seed=\[1,': the value is not valid YAML"):
            load_config(path, ["seed=[1,"])


class TestFile:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"nothing\.yaml does not exist"):
            load_config(tmp_path / "nothing.yaml")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: [1,", "is not valid YAML"),
            (b"\xff\xfe\x00bad", "is not valid YAML"),
            (b"", "holds NoneType, expected keys and values"),
            (b"- 1\n- 2\n", "holds list, expected keys and values"),
        ],
    )
    def test_broken(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "broken.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert "\n" not in str(caught.value)


class TestDifferences:
    def test_where_the_data_lie_does_not_count(self, path: Path) -> None:
        old = as_dict(load_config(path))
        new = as_dict(load_config(path, ["data.root=moved", "campaigns_root=elsewhere", "experiment=other"]))
        assert differences(old, new) == []
        assert config_sha256(old) == config_sha256(new)

    def test_what_a_training_may_use_does_not_count(self, path: Path) -> None:
        old = as_dict(load_config(path))
        changes = ["cache_gib=0.5", "loaders=3", "save_every=7"]
        new = as_dict(load_config(path, [f"segmenter.resources.{change}" for change in changes]))
        assert old["segmenter"]["resources"] != new["segmenter"]["resources"]
        assert differences(old, new) == []
        assert config_sha256(old) == config_sha256(new)

    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ("segmenter.processes=2", "segmenter.processes: 1 -> 2"),
            ("segmenter.steps=4", "segmenter.steps: 3 -> 4"),
            ("seed=1", "seed: 0 -> 1"),
            ("threads=2", "threads: 1 -> 2"),
            ("evaluation.tolerance_mm=2", "evaluation.tolerance_mm: 1.0 -> 2.0"),
        ],
    )
    def test_what_is_computed_counts(self, path: Path, override: str, told: str) -> None:
        old, new = as_dict(load_config(path)), as_dict(load_config(path, [override]))
        assert differences(old, new) == [told]
        assert config_sha256(old) != config_sha256(new)

    def test_a_value_that_became_a_table(self, path: Path) -> None:
        old = as_dict(load_config(path))
        new = as_dict(load_config(path, ["evaluation.tolerance_mm={liver: 1.0}"]))
        assert differences(old, new) == [
            "evaluation.tolerance_mm: 1.0 -> None",
            "evaluation.tolerance_mm.liver: None -> 1.0",
        ]


def test_the_hash_does_not_depend_on_the_order_of_keys(path: Path) -> None:
    values = as_dict(load_config(path))
    turned = {key: values[key] for key in reversed(values)}
    assert config_sha256(turned) == config_sha256(values)


def test_the_hash_is_that_of_the_decisive_keys_alone() -> None:
    # printf '{"data.layout": "phantom", "seed": 1}' | sha256sum
    known = "d9b96554272454fa0c3852c799c1bd3f7116ead5b5aa4a91f5eb800d9e6faf99"
    assert config_sha256({"seed": 1, "data": {"root": "anywhere", "layout": "phantom"}}) == known


def test_flatten_keeps_empty_tables() -> None:
    assert flatten({"a": {}, "b": {"c": [1]}}) == {"a": {}, "b.c": [1]}
