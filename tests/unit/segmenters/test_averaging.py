import pytest
import torch
from torch import nn

from segmenters.averaging import WeightAverage


def test_average_follows_the_weights_slowly():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    slow, plain = WeightAverage(layer, 0.9), WeightAverage(layer, 0.0)
    nn.init.ones_(layer.weight)
    slow.update()
    plain.update()

    # the first update keeps min(0.9, 2 / 11) of the old weights
    assert float(slow.weights()["weight"]) == pytest.approx(9 / 11)
    assert float(plain.weights()["weight"]) == 1.0


def test_average_goes_on_from_a_state():
    def make() -> nn.Linear:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(layer.weight)
        return layer

    first, second = make(), make()
    whole, resumed = WeightAverage(first, 0.9), WeightAverage(second, 0.9)
    nn.init.ones_(first.weight)
    nn.init.ones_(second.weight)
    whole.update()
    resumed.restore(whole.state())
    whole.update()
    resumed.update()

    assert torch.equal(whole.weights()["weight"], resumed.weights()["weight"])
    assert float(whole.weights()["weight"]) == pytest.approx(1 - 2 / 11 * 3 / 12)
