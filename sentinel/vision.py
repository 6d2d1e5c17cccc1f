"""The one door to torchvision: makes it import beside a torch that its compiled operators were not built for.

A torchvision built against CUDA does not load its operators beside a CPU torch, and then fails to import,
because it describes two operators that nobody declared. The residual networks need neither: they are plain
Python. So the two are declared, without an implementation, where importing failed for that reason alone.
"""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import nn

from cohort.errors import ConfigError

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT_ALIVE: list[torch.library.Library] = []

BACKBONES: Mapping[str, int] = MappingProxyType(
    {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048, "resnet152": 2048}
)
"""Name of a residual network -> size of its pooled feature."""


def import_torchvision() -> None:
    """Import torchvision, declaring the operators it misses where that is why it cannot be imported.

    Raises:
        RuntimeError: what torchvision raised, if it fails for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _OPERATORS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _KEPT_ALIVE.append(library)
        importlib.import_module("torchvision")


def residual_network(backbone: str) -> nn.Module:
    """A torchvision ResNet with random weights from torch's current generator.

    Args:
        backbone: one of `BACKBONES`.

    Raises:
        ConfigError: for an unknown backbone.
    """
    if backbone not in BACKBONES:
        raise ConfigError(f"Unknown backbone {backbone!r}; expected one of {', '.join(BACKBONES)}")
    import_torchvision()
    models = importlib.import_module("torchvision.models")
    build = cast(Callable[..., nn.Module], getattr(models, backbone))
    return build(weights=None)
