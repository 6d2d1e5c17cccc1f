"""How the processor treats numbers too small to be normal, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals(*, flush: bool) -> Iterator[None]:
    """Flush denormal numbers to zero, or keep them, and go back to what was before.

    Training and prediction flush them: some steps are 5 to 10 times slower otherwise. Surface distances
    must keep them: the KD-tree of SciPy splits at the next number above 0, and without denormals it never
    ends (the process dies).

    Args:
        flush: True to flush, False to keep.
    """
    before = _flushing()
    torch.set_flush_denormal(flush)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushing() -> bool:
    return float(torch.tensor([1e-40]) * 0.5) == 0.0
