"""Where a network computes, and in which arithmetic."""

from contextlib import AbstractContextManager

import torch

from cohort.errors import ConfigError


def resolve_device(device: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: for "cuda" on a machine without a CUDA device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch finds no CUDA device here; set it to 'auto' or 'cpu'")
    return torch.device(device)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A context in which networks compute in float32 or bfloat16.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes in it.
        device: that computes.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(precision, device))


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `autocast` of the same arguments computes in bfloat16."""
    return precision == "bfloat16" or (precision == "auto" and _computes_bfloat16(device))


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
