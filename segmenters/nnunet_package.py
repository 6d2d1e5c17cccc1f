"""The one door to nnU-Net's own package: whether it is there, and how to use it without its side effects."""

import io
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cohort.errors import ConfigError, MissingExtraError
from cohort.seeds import derive_seed

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
"""Folders of a workspace, named after the environment variables that nnU-Net reads."""


def require_nnunet() -> None:
    """Refuse to go on without the package.

    Raises:
        MissingExtraError: naming the command that installs it.
    """
    if find_spec("nnunetv2") is None:
        raise MissingExtraError("The segmenter family 'nnunet'", "nnunet")


@contextmanager
def inside_nnunet(root: Path, *, workers: int = 1) -> Iterator[None]:
    """Let nnU-Net work in a folder for the length of a block, whatever the user's environment says.

    What it prints is dropped; other threads that print in the block are not heard either, so keep it short.

    Args:
        root: gets nnU-Net's three folders.
        workers: processes that augment patches, 0 augments in this one. Planning needs 1 or more.
    """
    ours = {name: str(root / name) for name in (RAW, PREPROCESSED, RESULTS)}
    ours |= {"nnUNet_n_proc_DA": str(workers), "nnUNet_wandb_enabled": "0", "nnUNet_compile": "f"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that nnU-Net draws from, and put them back as they were.

    Args:
        seed: of the block.
    """
    numpy_before = np.random.get_state()  # noqa: NPY002
    python_before = random.getstate()
    try:
        with torch.random.fork_rng():
            np.random.seed(derive_seed(seed, "nnunet", "numpy") % 2**32)  # noqa: NPY002
            random.seed(derive_seed(seed, "nnunet", "python"))
            torch.manual_seed(derive_seed(seed, "nnunet", "torch"))
            yield
    finally:
        np.random.set_state(numpy_before)  # noqa: NPY002
        random.setstate(python_before)


def planner_class(name: str) -> Any:
    """A class of nnU-Net's that makes plans.

    Args:
        name: of the class, such as "ExperimentPlanner" or "nnUNetPlannerResEncM".

    Raises:
        ConfigError: if nnU-Net has none of that name.
    """
    import nnunetv2
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = Path(nnunetv2.__path__[0]) / "experiment_planning"
    found = recursive_find_python_class(str(folder), name, "nnunetv2.experiment_planning")
    if not (isinstance(found, type) and issubclass(found, ExperimentPlanner)):
        raise ConfigError(
            f"segmenter.planner is {name!r}, but nnU-Net has no planner of that name; take for example "
            "ExperimentPlanner (the default), nnUNetPlannerResEncM, nnUNetPlannerResEncL or "
            "nnUNetPlannerResEncXL"
        )
    return found
