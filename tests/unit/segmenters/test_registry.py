from dataclasses import dataclass
from pathlib import Path

import pytest

from cohort.errors import ConfigError
from segmenters.bundle import BundleSegmenter
from segmenters.bundle_config import BundleConfig
from segmenters.command import CommandSegmenter
from segmenters.command_config import CommandConfig
from segmenters.config import SegmenterConfig
from segmenters.registry import make_segmenter
from segmenters.torch_segmenter import TorchSegmenter


def test_our_own_networks_are_the_family_torch(config, tmp_path):
    assert isinstance(make_segmenter(config, tmp_path / "work"), TorchSegmenter)
    assert not (tmp_path / "work").exists()


def test_a_bundle_and_a_command_are_families(tmp_path):
    bundle = make_segmenter(BundleConfig(path="b", trust=True), tmp_path / "work")
    command = make_segmenter(CommandConfig(predict="true {images} {output}"), tmp_path / "work")

    assert (type(bundle), type(command)) == (BundleSegmenter, CommandSegmenter)
    assert not (tmp_path / "work").exists()


def test_an_unknown_family_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Other:
        family: str = "yolo"
        steps: int = 1
        architecture: str = "yolo"
        measures: frozenset[str] = frozenset()
        files: tuple[Path, ...] = ()

    with pytest.raises(ConfigError, match=r"Unknown family of segmenters 'yolo'; expected one of .*torch"):
        make_segmenter(Other(), tmp_path)


def test_passes_with_dropout_take_dropout():
    without, with_dropout = (SegmenterConfig(patch=(8, 8, 16), dropout=p) for p in (0.0, 0.1))

    assert with_dropout.measures - without.measures == {"mc_dropout", "predictive_entropy", "bald"}
    assert "entropy" in without.measures
