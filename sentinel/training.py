"""Training of a sentinel on graded masks, within minutes on a few cores."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cohort.agreement import agreement
from cohort.case import Structure
from cohort.errors import ConfigError, ModelError
from cohort.records import GradedMask
from cohort.seeds import derive_seed, generator
from cohort.slabs import bounds
from sentinel.aggregation import aggregate
from sentinel.batches import Batch, Batches
from sentinel.config import Report, SentinelConfig
from sentinel.dense import dense_loss, halved
from sentinel.hardware import autocast, resolve_device
from sentinel.losses import pair_ranking, weighted_mse
from sentinel.pairs import Pairs, make_pairs
from sentinel.scoring import Sentinel
from sentinel.text import TABLE_DIM, Embeddings, embed_names

VALIDATIONS = 5
"""How often in a training the weights are validated; the best of them are kept."""

WARM_UP = 0.1
GRADIENT_NORM = 2.0
_VALIDATION_SHARE = 0.2


def trainable_embeddings(names: Sequence[str], config: SentinelConfig) -> Embeddings:
    """Text embeddings of the structures, with every check that needs no data.

    Args:
        names: of the structures.
        config: of the sentinel.

    Returns:
        (len(names), text_dim) float32.

    Raises:
        ConfigError: for a text_dim that the shipped text table does not have, a name that it refuses, or a
            device that is not there.
    """
    resolve_device(config.device)
    if config.text_dim != TABLE_DIM:
        raise ConfigError(
            f"text_dim is {config.text_dim}, but the shipped text embeddings have {TABLE_DIM}; "
            f"set it to {TABLE_DIM} to train (512 belongs to the published weights)"
        )
    return embed_names(names, unknown=config.unknown_names)


def train_sentinel(
    graded: Sequence[GradedMask],
    structures: Sequence[Structure],
    config: SentinelConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> Sentinel:
    """Train a sentinel from random weights.

    Args:
        graded: masks of labelled cases by models that did not see them.
        structures: of the data set; the sentinel can score these.
        config: of the sentinel and its training.
        seed: of everything random; the same seed gives the same sentinel at the same number of threads.
        report: told of steps done, steps in all, and the losses; at validations also of "validation_pearson"
            and the like.

    Returns:
        The sentinel with the weights that correlated best with the true DSC of held-back patients' masks
        (the last weights where too few patients are there to hold one back), its history and metrics.

    Raises:
        ConfigError: for a text_dim that the shipped text table does not have.
        ModelError: if not one training pair can be made.
        DataError: for a structure that is unknown where the config refuses those.
    """
    embeddings = trainable_embeddings([s.name for s in structures], config)
    held_back = choose_validation_patients([mask.patient_id for mask in graded], config, seed)
    train, validation = _split_pairs(graded, structures, config, held_back, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "sentinel", "weights"))
        sentinel = Sentinel(config=config, structures=[s.name for s in structures], embeddings=embeddings)
    fitted = _Fit(sentinel=sentinel, train=train, validation=validation, seed=seed, report=report)
    history = fitted.run([s.name for s in structures])
    return Sentinel(
        config=config,
        structures=sentinel.structures,
        embeddings=embeddings,
        network=sentinel.network,
        dense=sentinel.dense,
        training_sha256=_training_sha256(graded, structures, seed),
        history=history,
        metrics=fitted.metrics(),
    )


def choose_validation_patients(
    patient_ids: Sequence[str], config: SentinelConfig, seed: int
) -> frozenset[str]:
    """Patients to hold back for validation: the config's fraction of them, at least one of three or more.

    Args:
        patient_ids: in any order, repeated or not.
        config: for `validation_fraction`.
        seed: of the choice.

    >>> len(choose_validation_patients(["a", "b", "c", "d", "d"], SentinelConfig(), 0))
    1
    """
    patients = sorted(set(patient_ids))
    if config.validation_fraction == 0.0 or len(patients) < 3:
        return frozenset()
    count = min(len(patients) - 2, max(1, round(config.validation_fraction * len(patients))))
    chosen = generator(seed, "sentinel", "validation").permutation(len(patients))[:count]
    return frozenset(patients[int(index)] for index in chosen)


def validate(sentinel: Sentinel, pairs: Pairs) -> dict[str, float]:
    """How well a sentinel's scores agree with the true DSC of whole masks.

    Args:
        sentinel: to validate.
        pairs: of patients that it did not learn from; the slices of a mask make its score as they would when
            it is scored whole.

    Returns:
        "pearson", "spearman", "mae" of predictions clamped to [0, 1], "masks"; the same with "natural_" in
        front over masks that a segmenter made. A correlation that is not defined is left out.
    """
    judged = sentinel.judge(pairs.slices, pairs.structure)
    masks = [np.flatnonzero(pairs.mask_index == number) for number in np.unique(pairs.mask_index)]
    aggregation = sentinel.config.aggregation
    score = np.array([aggregate(judged[own], pairs.sizes[own].tolist(), aggregation) for own in masks])
    true = np.array([pairs.volume_dsc[own[0]] for own in masks], dtype=float)
    natural = np.array([pairs.natural[own[0]] for own in masks])
    found: dict[str, float] = {}
    for prefix, chosen in (("", np.ones_like(natural)), ("natural_", natural)):
        agreed = agreement(score[chosen], np.clip(score[chosen], 0.0, 1.0), true[chosen])
        found |= {prefix + name: value for name, value in agreed.items() if value is not None}
        found[prefix + "masks"] = float(chosen.sum())
    return found


def _split_pairs(
    graded: Sequence[GradedMask],
    structures: Sequence[Structure],
    config: SentinelConfig,
    held_back: frozenset[str],
    seed: int,
) -> tuple[Pairs, Pairs | None]:
    learned = [mask for mask in graded if mask.patient_id not in held_back]
    train = make_pairs(learned, structures, config, seed=derive_seed(seed, "train"))
    kept = [mask for mask in graded if mask.patient_id in held_back]
    if not kept:
        return train, None
    count = max(1, round(_VALIDATION_SHARE * config.training_slices))
    try:
        return train, make_pairs(
            kept, structures, config, seed=derive_seed(seed, "held back"), target_count=count
        )
    except ModelError:
        return train, None


@dataclass(slots=True, kw_only=True, eq=False)
class _Fit:
    """One training: the loop, and what it found."""

    sentinel: Sentinel
    train: Pairs
    validation: Pairs | None
    seed: int
    report: Report | None
    best: dict[str, float] | None = None
    best_weights: dict[str, Tensor] | None = None

    def run(self, names: Sequence[str]) -> list[dict[str, float]]:
        config = self.sentinel.config
        device = resolve_device(config.device)
        learner = _Learner(self.sentinel).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(
            learner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_learning_rate, steps=config.steps))
        batches = Batches(self.train, self.sentinel.embeddings, names, config, self.seed, device)
        due = {round(config.steps * (part + 1) / VALIDATIONS) for part in range(VALIDATIONS)}
        history = []
        for step in range(1, config.steps + 1):
            learner.train()
            metrics = _step(learner, batches.draw(), optimiser, config, device)
            schedule.step()
            if step in due and self.validation is not None:
                metrics |= self._validate()
            if step in due:
                history.append({"step": float(step), **metrics})
            if self.report is not None:
                self.report(step, config.steps, metrics)
        if self.best_weights is not None:
            learner.load_state_dict(self.best_weights)
        learner.eval()
        return history

    def metrics(self) -> Mapping[str, float]:
        return dict(self.best or {})

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        found = {
            f"validation_{name}": value for name, value in validate(self.sentinel, self.validation).items()
        }
        key = "validation_pearson"
        if self.best is None or found.get(key, -1.0) >= self.best.get(key, -1.0):
            self.best = found
            self.best_weights = {
                name: value.clone() for name, value in _Learner(self.sentinel).state_dict().items()
            }
        return found


class _Learner(nn.Module):
    """Network and dense head of a sentinel as one module, so that both learn together."""

    def __init__(self, sentinel: Sentinel) -> None:
        super().__init__()
        self.network, self.dense = sentinel.network, sentinel.dense

    def forward(self, slices: Tensor, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (N,), and logits of the reference (N, S / 2, S / 2) where there is a dense head."""
        pyramid = self.network.pyramid(slices)
        logits = self.dense(pyramid, text).float() if self.dense is not None else None
        return self.network.head(pyramid[-1], text).float(), logits


def _step(
    learner: _Learner,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    config: SentinelConfig,
    device: torch.device,
) -> dict[str, float]:
    with autocast(config.precision, device):
        predicted, logits = learner(batch.slices, batch.text)
    predicted = torch.where(batch.hidden, batch.target, predicted)
    error = weighted_mse(predicted, batch.target)
    ranking = pair_ranking(predicted, batch.target, batch.partner)
    loss = error + config.ranking_weight * ranking
    metrics = {"weighted_mse": error.item(), "pair_ranking": ranking.item()}
    if logits is not None:
        drawn = dense_loss(logits, halved(batch.references))
        loss = loss + config.dense_weight * drawn
        metrics["dense"] = drawn.item()
    if not torch.isfinite(loss):
        raise ModelError("The training of the sentinel diverged: its loss is not finite; lower learning_rate")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(learner.parameters(), GRADIENT_NORM)
    optimiser.step()
    return {"loss": loss.item(), **metrics}


def _learning_rate(step: int, steps: int) -> float:
    """Factor of the learning rate: up in a straight line, then down along a cosine."""
    warm = max(1.0, WARM_UP * steps)
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / max(1, steps))))


def _training_sha256(graded: Sequence[GradedMask], structures: Sequence[Structure], seed: int) -> str:
    """Hash of what the training saw: the voxels' files, by content."""
    rows = sorted(
        [
            mask.case_id,
            mask.source,
            sorted(mask.evaluated),
            *(_file_sha256(path) for path in (mask.image, mask.mask, mask.reference)),
            *bounds(mask.slabs),
        ]
        for mask in graded
    )
    about = [rows, [[s.name, s.label] for s in structures], seed]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
