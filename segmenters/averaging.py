"""The moving average of a network's weights, which is what a training gives."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a network's weights, warmed up so that early ones fade."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._source = network
        self._average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present weights."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates)) if self._decay else 0.0
        for name, tensor in self._source.state_dict().items():
            if tensor.is_floating_point() and decay:
                self._average[name].lerp_(tensor, 1.0 - decay)
            else:
                self._average[name].copy_(tensor)

    def weights(self) -> Mapping[str, Tensor]:
        """Name -> averaged tensor."""
        return self._average

    def state(self) -> dict[str, Any]:
        """What to remember, to be given back to `restore`."""
        return {"weights": self._average, "updates": self._updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, tensor in state["weights"].items():
            self._average[name].copy_(tensor)
        self._updates = int(state["updates"])
