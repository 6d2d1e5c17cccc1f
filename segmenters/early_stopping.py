"""Ends a training by patients that are held back: whom, how they are measured, and when it is enough."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cohort.errors import ConfigError, ModelError
from cohort.metrics import dsc
from cohort.records import TrainingCase
from cohort.seeds import generator
from segmenters.checkpoints import snapshot
from segmenters.config import SegmenterConfig
from segmenters.distributed import Group
from segmenters.inference import Windows, predict_probabilities
from segmenters.preprocessing import IGNORED, PreparedCase
from segmenters.training_config import EarlyStopping
from segmenters.uncertainty import Variation


def hold_back(
    cases: Sequence[TrainingCase], settings: EarlyStopping, seed: int
) -> tuple[tuple[TrainingCase, ...], tuple[TrainingCase, ...]]:
    """Divide cases by patient into those to learn from and those to measure.

    Patients are held back in a random order; one that is the last to annotate a structure stays. Only what
    people annotated measures, and pseudo-labels of a patient who is held back are not learned from.

    Args:
        cases: all.
        settings: the fraction of patients; 0 holds nobody back.
        seed: of the order.

    Returns:
        Cases to learn from and cases to measure, each in their order.

    Raises:
        ConfigError: if there are too few patients for the fraction.
    """
    if not settings.fraction:
        return tuple(cases), ()
    patients = sorted({case.patient_id for case in cases if not case.pseudo})
    wanted = math.floor(settings.fraction * len(patients))
    held: set[str] = set()
    for patient in generator(seed, "early stopping").permutation(patients).tolist():
        if len(held) < wanted and _annotated(cases, {*held, patient}) == _annotated(cases, set()):
            held.add(patient)
    if not wanted or len(held) < wanted:
        raise ConfigError(
            f"early_stopping.fraction is {settings.fraction}, but of the {len(patients)} labelled patients "
            f"{len(held)} can be held back for it (every structure must stay annotated in another); expected "
            f"at least {max(wanted, 1)}: label more patients, raise the fraction, or set it to 0 to train "
            "without early stopping"
        )
    return (
        tuple(case for case in cases if case.patient_id not in held),
        tuple(case for case in cases if case.patient_id in held and not case.pseudo),
    )


def _annotated(cases: Sequence[TrainingCase], without: set[str]) -> frozenset[str]:
    """Structures that people annotated in some case; what a model labelled does not replace that."""
    own = (case for case in cases if case.patient_id not in without and not case.pseudo)
    return frozenset[str]().union(*(case.annotated for case in own))


class Validation:
    """Measures weights on cases that the training does not learn from.

    Args:
        cases: that are held back.
        network: of the training's kind, for this use alone.
        config: of the segmenter; windows overlap as it says, and nothing is mirrored.
        device: that the network is on.
        group: of processes, each of which measures a part of the cases.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        network: nn.Module,
        config: SegmenterConfig,
        device: torch.device,
        group: Group,
    ) -> None:
        self._cases, self._network, self._config = cases, network.eval(), config
        self._device, self._group = device, group
        self._windows = Windows(
            overlap=config.overlap, batch=config.window_batch, mirror=(False, False, False)
        )

    def mean_dsc(self, weights: Mapping[str, Tensor]) -> float:
        """DSC in [0, 1] on the network's grid: mean over cases, then over structures.

        Only structures that a case annotates and holds count, in the slices that are annotated.

        Raises:
            ModelError: if no case holds a structure that it annotates.
        """
        self._network.load_state_dict(weights)
        table = torch.zeros(len(self._cases), len(self._cases[0].known) - 1, dtype=torch.float64)
        for index in range(self._group.rank, len(self._cases), self._group.size):
            table[index] = self._measured(self._cases[index])
        found = self._group.total(table.to(self._device)).cpu().numpy()
        means = [float(np.nanmean(column)) for column in found.T if not np.isnan(column).all()]
        if not means:
            raise ModelError(
                f"None of the {len(self._cases)} cases held back for early stopping holds a structure that "
                "it annotates; set early_stopping.fraction to 0, or hold back more patients"
            )
        return math.fsum(means) / len(means)

    def _measured(self, case: PreparedCase) -> Tensor:
        whole = (slice(None),) * 3
        image = case.image[whole].to(self._device)
        prob = predict_probabilities(self._network, image, self._config, self._windows, Variation())
        reference = case.channels[whole].numpy()
        predicted = np.where(reference == IGNORED, 0, prob.argmax(dim=0).numpy())
        return torch.tensor(
            [
                dsc(predicted == channel, reference == channel) if known else math.nan
                for channel, known in enumerate(case.known.tolist())
                if channel
            ],
            dtype=torch.float64,
        )


class Stopping:
    """Remembers the best weights, and how long ago they were found.

    Args:
        settings: how long to wait for a gain.
    """

    def __init__(self, settings: EarlyStopping) -> None:
        self._settings = settings
        self._best: dict[str, Any] = {}
        self._without_gain = 0

    def take(self, step: int, mean_dsc: float, weights: Mapping[str, Tensor]) -> None:
        """Hear how good the weights after a step are."""
        if not self._best or mean_dsc > self._best["dsc"]:
            self._best = {"step": step, "dsc": mean_dsc, "weights": snapshot(weights)}
            self._without_gain = 0
        else:
            self._without_gain += 1

    @property
    def is_enough(self) -> bool:
        """Whether there were too many measurements without a gain."""
        return self._without_gain >= self._settings.patience

    @property
    def best_step(self) -> int:
        """After which the best weights were found."""
        return int(self._best["step"])

    @property
    def best_dsc(self) -> float:
        """Of the best weights."""
        return float(self._best["dsc"])

    @property
    def best_weights(self) -> Mapping[str, Tensor]:
        """Name -> tensor."""
        weights: Mapping[str, Tensor] = self._best["weights"]
        return weights

    def state(self) -> dict[str, Any]:
        """What to remember, to be given back to `restore`."""
        return {"best": self._best, "without_gain": self._without_gain}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._best, self._without_gain = dict(state["best"]), int(state["without_gain"])
