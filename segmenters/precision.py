"""Which arithmetic a network runs in."""

from contextlib import AbstractContextManager

import torch

from segmenters.config import Precision


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether a network runs in bfloat16: as asked, or for "auto" where the processor computes in it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """A context that runs convolutions in bfloat16 where `uses_bfloat16` says so."""
    return torch.autocast(
        device_type=device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(precision, device)
    )
