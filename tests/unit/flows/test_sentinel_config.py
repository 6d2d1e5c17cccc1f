from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cohort.errors import CampaignError, ConfigError
from flows import campaign as campaigns
from flows.config_files import as_dict, config_sha256, differences
from flows.sentinel_config import SentinelTrainingConfig, load_sentinel_training

CONFIGS = Path(__file__).parents[3] / "configs" / "sentinel"
SEGMENTER: Mapping[str, Any] = {"channels": [4, 8], "patch": [8, 8, 8]}


def write(path: Path, **values: object) -> Path:
    path.write_text(yaml.safe_dump({"data": {"root": "scans"}, "segmenter": dict(SEGMENTER), **values}))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "livers.yaml")


def mistakes(path: Path, *overrides: str) -> dict[str, str]:
    """Dotted key -> message of everything that is wrong with a config."""
    with pytest.raises(ConfigError, match=r"has \d+ mistake") as caught:
        load_sentinel_training(path, overrides)
    _, *lines = str(caught.value).splitlines()
    return dict(line.strip().split(": ", 1) for line in lines)


def test_segmenters_of_the_same_network_are_told_apart(path: Path) -> None:
    assert load_sentinel_training(path).architectures == {"seen": "unet"}
    unseen = ["unseen.segmenter.patch=[8,8,8]", "unseen.segmenter.channels=[8,16]"]
    same = load_sentinel_training(path, unseen)
    assert same.architectures == {"seen": "unet", "unseen": "unet, set otherwise"}
    other = load_sentinel_training(path, [*unseen, "unseen.segmenter.network=segresnet"])
    assert other.architectures == {"seen": "unet", "unseen": "segresnet"}


def test_the_name_comes_from_the_file_and_the_seed(path: Path) -> None:
    assert load_sentinel_training(path).folder == Path("sentinels/livers-seed0")
    assert load_sentinel_training(path, ["seed=3", "root=out"]).folder == Path("out/livers-seed3")
    assert load_sentinel_training(path, ["name=mine"]).folder == Path("sentinels/mine")


def test_settings_reach_their_models(tmp_path: Path) -> None:
    other = {"segmenter": {**SEGMENTER, "network": "segresnet"}, "steps": 9, "checkpoint_steps": [3]}
    masks = {"folds": 3, "steps": 7, "checkpoint_steps": [2, 4]}
    path = write(tmp_path / "x.yaml", unseen=other, masks=masks, sentinel={"image_size": 48})
    config = load_sentinel_training(path, ["split.training_patients=5"])
    assert config.segmenter.network == "unet"
    assert config.unseen is not None
    assert (config.unseen.segmenter.network, config.unseen.checkpoint_steps) == ("segresnet", (3,))
    assert (config.masks.folds, config.masks.checkpoint_steps) == (3, (2, 4))
    assert (config.sentinel.image_size, config.split.training_patients) == (48, 5)


@pytest.mark.parametrize(
    ("override", "key", "message"),
    [
        (
            "data={labelled: a, unlabelled: b, held_out: c, structures: {liver: 1}}",
            "(whole file)",
            "'folders'",
        ),
        ("masks.steps=200", "masks", "checkpoint_steps [320] lie after the last step 200"),
        ("masks.folds=1", "masks.folds", "greater than or equal to 2"),
        ("masks.colour=blue", "masks.colour", "unknown key"),
        ("split.calibration_patients=0", "split.calibration_patients", "greater than 0"),
        ("split.training_patients=0", "split.training_patients", "greater than 0"),
        ("level=1.0", "level", "less than 1"),
        ("bad_below=0", "bad_below", "greater than 0"),
        ("seed=-1", "seed", "greater than or equal to 0"),
        ("name=../x", "name", "cannot name a folder"),
        ("unseen={steps: 400}", "unseen.segmenter", "required"),
        ("sentinel.image_size=8", "sentinel", "image_size is 8, expected at least 32"),
        ("strategy=random", "strategy", "unknown key"),
    ],
)
def test_a_mistake_is_told_with_its_key(path: Path, override: str, key: str, message: str) -> None:
    found = mistakes(path, override)
    assert found.keys() == {key}
    assert message in found[key]


def test_all_mistakes_are_told_at_once(path: Path) -> None:
    assert mistakes(path, "level=2", "threads=-1", "split.test=3").keys() == {
        "level",
        "threads",
        "split.test",
    }


def test_the_unseen_segmenter_ends_after_its_last_checkpoint(path: Path) -> None:
    found = mistakes(path, "unseen={segmenter: {channels: [4, 8], patch: [8, 8, 8]}, steps: 200}")
    assert found == {"unseen": "checkpoint_steps [320] lie after the last step 200"}


def test_where_the_files_lie_is_no_other_training(path: Path) -> None:
    known = as_dict(load_sentinel_training(path))
    moved = as_dict(load_sentinel_training(path, ["root=out", "data.root=here", "experiment=other"]))
    assert config_sha256(moved) == config_sha256(known)
    other = as_dict(load_sentinel_training(path, ["name=livers-seed0", "split.calibration_patients=7"]))
    assert differences(known, other) == ["split.calibration_patients: 20 -> 7"]


def test_a_folder_keeps_the_config_that_it_was_made_with(path: Path, tmp_path: Path) -> None:
    config = load_sentinel_training(path, [f"root={tmp_path}"])
    campaigns.keep_config(config)
    assert load_sentinel_training(config.folder / "config.yaml") == config
    with pytest.raises(CampaignError, match=r"made with another config \(level: 0\.9 -> 0\.8\)"):
        campaigns.check_config(config.model_copy(update={"level": 0.8}))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_sound(path: Path) -> None:
    config = load_sentinel_training(path)
    assert isinstance(config, SentinelTrainingConfig)
    assert config.unseen is not None
    assert config.unseen.segmenter.network != config.segmenter.network
    assert config.licence
