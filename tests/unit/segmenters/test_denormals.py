import pytest
import torch

from segmenters.denormals import denormals


def tiny() -> float:
    return float(torch.tensor([1e-40]) * 0.5)


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_block_sets_and_goes_back(outer, inner):
    with denormals(flush=outer):
        with pytest.raises(KeyError, match="x"), denormals(flush=inner):
            assert (tiny() == 0.0) is inner
            raise KeyError("x")
        assert (tiny() == 0.0) is outer
