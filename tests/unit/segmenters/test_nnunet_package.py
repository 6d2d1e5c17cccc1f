import os
import random

import numpy as np
import pytest
import torch

from cohort.errors import ConfigError, MissingExtraError
from segmenters import nnunet_package
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_package import inside_nnunet, planner_class, seeded
from segmenters.registry import make_segmenter


def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(nnunet_package, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match=r"'nnunet' needs .* pip install 'sentinel-loop\[nnunet\]'"):
        make_segmenter(NnUNetConfig(), tmp_path)


def test_the_users_environment_comes_back(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("nnUNet_raw", "of the user")
    monkeypatch.delenv("nnUNet_results", raising=False)
    before = dict(os.environ)

    with pytest.raises(KeyError), inside_nnunet(tmp_path, workers=0):
        assert os.environ["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
        assert os.environ["nnUNet_results"] == str(tmp_path / "nnUNet_results")
        assert os.environ["nnUNet_n_proc_DA"] == "0"
        print("chatter")
        raise KeyError

    assert dict(os.environ) == before
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def draw():
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_seeding_is_for_the_block_alone():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = draw()

    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    with seeded(1):
        first = draw()
    with seeded(2):
        other = draw()
    with seeded(1):
        again = draw()

    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert draw() == expected


@pytest.mark.usefixtures("needs_nnunet")
def test_an_unknown_planner_is_refused(tmp_path):
    assert planner_class("nnUNetPlannerResEncM").__name__ == "nnUNetPlannerResEncM"
    # a name in a module of planners, but no planner
    for name in ("Planner", "PlainConvUNet"):
        with pytest.raises(ConfigError, match=rf"segmenter.planner is '{name}', but nnU-Net has no planner"):
            make_segmenter(NnUNetConfig(planner=name), tmp_path)
