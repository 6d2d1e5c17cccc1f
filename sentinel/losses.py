"""The published loss: weighted squared error plus optimal pair ranking."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cohort.errors import ModelError

DSC_EDGES = (0.3, 0.5, 0.7, 0.9)
DSC_WEIGHTS = (7.0, 5.0, 3.0, 2.0, 1.0)
RANKING_MARGIN = 1e-4


def dsc_weights(target: Tensor) -> Tensor:
    """Weight of each pair in the squared error: the worse its mask, the more.

    Args:
        target: (N,) true DSC in [0, 1].

    Returns:
        (N,): 7 up to and with 0.3, 5 to 0.5, 3 to 0.7, 2 to 0.9, 1 above.

    Source: Chen et al., arXiv 2406.00327, section 3.

    >>> dsc_weights(torch.tensor([0.3, 0.31, 0.95]))
    tensor([7., 5., 1.])
    """
    edges = torch.tensor(DSC_EDGES, dtype=target.dtype, device=target.device)
    weights = torch.tensor(DSC_WEIGHTS, dtype=target.dtype, device=target.device)
    return weights[torch.bucketize(target, edges)]


def weighted_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, weighted by `dsc_weights`.

    Args:
        predicted: (N,) predicted DSC.
        target: (N,) true DSC in [0, 1].
    """
    return (dsc_weights(target) * (predicted - target).square()).mean()


def optimal_pairing(text: NDArray[np.float32]) -> NDArray[np.intp]:
    """Give every element of a batch a partner, so that partners' names are as similar as possible in total.

    Args:
        text: (N, text_dim) embeddings of the elements' structures, N at least 2.

    Returns:
        (N,) index of each element's partner: the permutation without fixed points of largest total cosine
        similarity (a linear assignment, exact; not a matching, so partners need not be mutual).

    Raises:
        ModelError: for fewer than 2 elements, which cannot be paired.

    Source: Chen et al., arXiv 2406.00327, section 3, optimal pair ranking.
    """
    if len(text) < 2:
        raise ModelError(f"A batch of {len(text)} cannot be paired; expected at least 2 slices in a batch")
    unit = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)
    similarity = (unit @ unit.T).astype(np.float64)
    np.fill_diagonal(similarity, -4.0 * len(text))
    _, partner = linear_sum_assignment(similarity, maximize=True)
    return np.asarray(partner)


def pair_ranking(predicted: Tensor, target: Tensor, partner: Tensor) -> Tensor:
    """How far partners are from being ranked as their true DSC ranks them.

    Args:
        predicted: (N,) predicted DSC.
        target: (N,) true DSC in [0, 1].
        partner: (N,) index of each element's partner.

    Returns:
        Mean over the N ordered pairs of relu(-(p_i - p_j) (y_i - y_j) + 1e-4).
    """
    agreement = (predicted - predicted[partner]) * (target - target[partner])
    return torch.relu(RANKING_MARGIN - agreement).mean()
