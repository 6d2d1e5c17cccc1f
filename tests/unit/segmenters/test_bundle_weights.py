import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from cohort.errors import ModelError
from segmenters.bundle_definition import BundleDefinition
from segmenters.bundle_files import find_bundle
from segmenters.bundle_weights import network_for_structures, network_with, read_bundle_weights

IMAGE = torch.linspace(-1, 1, 8 * 8 * 8).reshape(1, 1, 8, 8, 8)


@pytest.fixture
def open_bundle(write_bundle, tmp_path):
    def make(changes=None, **options) -> BundleDefinition:
        root = write_bundle(tmp_path / f"bundle{len(list(tmp_path.iterdir()))}", changes, **options)
        return BundleDefinition(find_bundle(str(root), tmp_path), torch.device("cpu"))

    return make


def logits(network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(IMAGE)[0]


def unet(**changes):
    plain = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4}
    return {**plain, "channels": [4, 8], "strides": [2], "num_res_units": 0, **changes}


class TestCarriedOver:
    @pytest.fixture
    def definition(self, open_bundle):
        """A U-Net whose last layer is one convolution, so that logits can be compared one by one."""
        network = unet()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            weights = UNet(**{key: value for key, value in network.items() if key != "_target_"}).state_dict()
        return open_bundle({"network_def": network}, weights=weights)

    @pytest.fixture
    def weights(self, definition):
        return read_bundle_weights(definition, "models/model.pt")

    @pytest.fixture
    def own(self, definition, weights):
        return logits(network_with(definition, None, weights))

    def test_channels_that_are_the_structures_already(self, definition, weights, own):
        same = network_for_structures(definition, weights, [(0,), (1,), (2,), (3,)], seed=0)

        torch.testing.assert_close(logits(same), own)

    @pytest.mark.parametrize("rows", [[(0,), (3,)], [(0,), (2,), (1,), (3,)], [(0,), (3,), (1,)]])
    def test_channels_in_another_number_or_order(self, definition, weights, own, rows):
        network = network_for_structures(definition, weights, rows, seed=0)

        torch.testing.assert_close(logits(network), own[[channel for (channel,) in rows]])

    def test_several_channels_are_averaged(self, definition, weights, own):
        network = network_for_structures(definition, weights, [(0,), (1, 3)], seed=0)

        torch.testing.assert_close(logits(network)[1], (own[1] + own[3]) / 2)

    def test_a_structure_that_no_channel_means_is_drawn_from_the_seed(self, definition, weights, own):
        first, again, other = (
            logits(network_for_structures(definition, weights, [(0,), None, (2,)], seed=seed))
            for seed in (1, 1, 2)
        )

        torch.testing.assert_close(first[[0, 2]], own[[0, 2]])
        torch.testing.assert_close(first, again)
        assert not torch.allclose(first[1], other[1])
        assert not torch.allclose(first[1], own[1])

    def test_a_background_that_the_bundle_does_not_have_is_0(self, definition, weights, own):
        network = network_for_structures(definition, weights, [(), (1,), (2,)], seed=0)

        torch.testing.assert_close(logits(network)[0], torch.zeros(8, 8, 8))
        torch.testing.assert_close(logits(network)[1:], own[1:3])


def test_a_last_layer_from_outputs_to_outputs_is_carried_over(open_bundle):
    """The tiny network ends in a residual unit, whose convolution has the outputs on both sides."""
    definition = open_bundle()
    weights = read_bundle_weights(definition, "models/model.pt")

    network = network_for_structures(definition, weights, [(0,), (2,), (1,)], seed=0)

    name = "model.2.1.conv.unit0.conv.weight"
    torch.testing.assert_close(network.state_dict()[name], weights[name][[0, 2, 1]][:, [0, 2, 1]])


def test_a_network_that_does_not_say_its_outputs_cannot_be_changed(open_bundle):
    definition = open_bundle(
        {"network_def": "$monai.networks.nets.UNet(3, 1, 4, [4, 8], [2], num_res_units=1)"}
    )
    weights = dict(definition.network().state_dict())

    with pytest.raises(
        ModelError, match=r"network_def .* has none of out_channels, .* to 2 channels .* steps 0"
    ):
        network_for_structures(definition, weights, [(0,), (1,)], seed=0)


class TestReading:
    @pytest.mark.parametrize("key", ["model", "state_dict"])
    def test_weights_may_lie_among_other_things(self, open_bundle, key):
        plain = open_bundle()
        weights = read_bundle_weights(plain, "models/model.pt")
        nested = open_bundle(weights={key: weights, "epoch": 3})

        found = read_bundle_weights(nested, "models/model.pt")

        assert all(torch.equal(found[name], weights[name]) for name in weights)

    def test_weights_of_another_network(self, open_bundle):
        definition = open_bundle({"network_def": unet(channels=[8, 16], num_res_units=1)})

        with pytest.raises(ModelError, match=r"model.pt does not fit network_def .* of another network"):
            read_bundle_weights(definition, "models/model.pt")

    def test_no_weights(self, open_bundle):
        with pytest.raises(ModelError, match=r"model.ts does not exist; .* name their file in weights"):
            read_bundle_weights(open_bundle(), "models/model.ts")

    def test_weights_that_hold_code(self, open_bundle):
        definition = open_bundle(weights=nn.Conv3d(1, 1, 1))

        with pytest.raises(ModelError, match=r"model.pt holds more than weights \(torch.*Conv3d\)"):
            read_bundle_weights(definition, "models/model.pt")

    def test_truncated_weights(self, open_bundle):
        definition = open_bundle()
        path = definition.files.root / "models" / "model.pt"
        path.write_bytes(path.read_bytes()[:500])

        with pytest.raises(ModelError, match=r"model.pt cannot be read \(.*copy it again"):
            read_bundle_weights(definition, "models/model.pt")

    def test_something_else(self, open_bundle):
        with pytest.raises(ModelError, match=r"model.pt holds list, expected names and tensors"):
            read_bundle_weights(open_bundle(weights=[1, 2]), "models/model.pt")
