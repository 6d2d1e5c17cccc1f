import os
import random
import sys

import numpy as np
import pytest
import torch

from cohort.errors import ConfigError, MissingExtraError
from segmenters import nnunet_package
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_package import RAW, RESULTS, inside_nnunet, planner_class, seeded
from segmenters.registry import make_segmenter


def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(nnunet_package, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match=r"'nnunet' needs .* pip install 'sentinel-loop\[nnunet\]'"):
        make_segmenter(NnUNetConfig(), tmp_path)


def test_the_users_environment_comes_back(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(RAW, "of the user")
    monkeypatch.delenv(RESULTS, raising=False)
    before = dict(os.environ)

    with pytest.raises(KeyError), inside_nnunet(tmp_path, workers=0):
        assert os.environ[RAW] == str(tmp_path / "nnUNet_raw")
        assert os.environ[RESULTS] == str(tmp_path / "nnUNet_results")
        sys.stdout.write("chatter\n")
        raise KeyError

    assert dict(os.environ) == before
    sys.stdout.write("heard\n")
    assert capsys.readouterr().out == "heard\n"


def draw():
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def test_seeding_is_for_the_block_alone():
    with seeded(3):
        expected = draw(), draw()

    with seeded(3):
        found = [draw()]
        with seeded(1):
            first = draw()
        with seeded(2):
            other = draw()
        with seeded(1):
            again = draw()
        found.append(draw())

    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert tuple(found) == expected


@pytest.mark.usefixtures("needs_nnunet")
def test_an_unknown_planner_is_refused(tmp_path):
    assert planner_class("nnUNetPlannerResEncM").__name__ == "nnUNetPlannerResEncM"
    # a name in a module of planners, but no planner
    for name in ("Planner", "PlainConvUNet"):
        with pytest.raises(ConfigError, match=rf"segmenter.planner is '{name}', but nnU-Net has no planner"):
            make_segmenter(NnUNetConfig(planner=name), tmp_path)
