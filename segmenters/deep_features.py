"""What a network makes of an image at its deepest level: how alike two cases are to the segmenter."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class DeepFeatures:
    """Collects the mean activations at a network's deepest level while it predicts.

    The deepest level is the last convolution of those whose output has the fewest voxels. Its output is
    averaged over space, and over all windows (and mirrorings) of a pass.

    Args:
        network: with at least one 3D convolution.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._layer: nn.Module | None = None
        self._heard: tuple[int, nn.Module] | None = None
        self._deepest: Tensor | None = None
        self._total: Tensor | None = None
        self._batch = self._windows = 0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Listen to the passes of a block; what was collected before is forgotten."""
        self._total, self._windows = None, 0
        self._heard = self._deepest = None
        layers = [module for module in self._network.modules() if isinstance(module, nn.Conv3d)]
        handles = [layer.register_forward_hook(self._hear) for layer in layers]
        handles.append(self._network.register_forward_hook(self._end_pass))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def values(self) -> tuple[float, ...]:
        """(C,) means over the passes of the last block; nothing if there were none."""
        if self._total is None:
            return ()
        return tuple((self._total / self._windows).tolist())

    def _hear(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """Keep what the deepest level gives; which one it is, the first pass tells, whatever its window."""
        voxels = output.shape[2:].numel()
        if self._layer is module or (
            self._layer is None and (self._heard is None or voxels <= self._heard[0])
        ):
            self._heard = voxels, module
            self._deepest = output.detach().float().mean(dim=(2, 3, 4)).sum(dim=0).double().cpu()
            self._batch = output.shape[0]

    def _end_pass(self, module: nn.Module, inputs: object, output: object) -> None:
        if self._deepest is None or self._heard is None:
            return
        self._layer = self._heard[1]
        self._total = self._deepest if self._total is None else self._total + self._deepest
        self._windows += self._batch
        self._deepest = None


def rounded(values: tuple[float, ...], digits: int = 6) -> tuple[float, ...]:
    """Values with so many significant digits: what lies beyond is noise of the arithmetic.

    >>> rounded((0.123456789, -1234567.8))
    (0.123457, -1234570.0)
    """
    return tuple(float(f"{value:.{digits - 1}e}") for value in values)
