import pytest
import torch

from cohort.case import Structure
from cohort.errors import ConfigError, ModelError
from segmenters.bundle_channels import channels_of_structures, check_any_meant, merged_probabilities
from segmenters.bundle_config import BundleConfig

NAMES = {0: "background", 1: "kidney_left", 2: "Lung Upper Lobe", 3: "lung-lower-lobe", 4: "liver"}


def structures(*names):
    return tuple(Structure(name=name, label=label) for label, name in enumerate(names, start=1))


def resolve(channels, *names, background=True, channel_names=NAMES):
    config = BundleConfig(path="zoo/body", trust=True, channels=channels)
    return channels_of_structures(config, structures(*names), channel_names, 5, background)


def test_names_meet_whatever_their_case_order_and_joints():
    assert resolve({}, "Left kidney", "LIVER", "spleen") == {"Left kidney": (1,), "LIVER": (4,)}


def test_the_configuration_comes_first():
    assert resolve({"lung": (2, 3), "liver": 1}, "lung", "liver") == {"lung": (2, 3), "liver": (1,)}


def test_channel_0_is_a_structure_only_where_there_is_no_background():
    names = {0: "liver", 1: "spleen"}

    assert resolve({}, "liver", "spleen", channel_names=names) == {"spleen": (1,)}
    assert resolve({}, "liver", background=False, channel_names=names) == {"liver": (0,)}


@pytest.mark.parametrize(
    ("channels", "names", "message"),
    [
        (
            {"heart": 1},
            ("liver",),
            r"channels names \['heart'\], but the structures of the cohort are \['liver'\]",
        ),
        ({"liver": 5}, ("liver",), r"channels.liver is 5, .* have the channels 1 to 4"),
        ({"liver": 0}, ("liver",), r"channels.liver is 0"),
        ({"spleen": 4}, ("liver", "spleen"), r"Channel 4 of the bundle means both 'liver' and 'spleen'"),
    ],
)
def test_channels_that_cannot_be_are_refused(channels, names, message):
    with pytest.raises(ConfigError, match=message):
        resolve(channels, *names)


def test_a_name_of_two_channels_is_refused():
    with pytest.raises(
        ModelError, match=r"\[1, 2\] of the bundle are all called 'rib left'; say in channels"
    ):
        resolve({}, "rib left", channel_names={1: "left_rib", 2: "rib_left"})


def test_a_structure_that_no_channel_means_is_told(caplog):
    config = BundleConfig(path="zoo/body", trust=True)
    check_any_meant(config, structures("liver", "spleen"), {"liver": (4,)}, NAMES)

    assert [record.getMessage() for record in caplog.records] == [
        "No channel of the bundle zoo/body means 'spleen': it will have no voxels"
    ]


def test_a_bundle_that_knows_no_structure_is_refused():
    config = BundleConfig(path="zoo/body", trust=True)

    with pytest.raises(
        ModelError, match=r"\(0: background, .* 4: liver\) means a structure of the cohort \(rib\)"
    ):
        check_any_meant(config, structures("rib"), {}, NAMES)


def test_other_channels_are_background():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.3]).log().reshape(5, 1, 1, 1)

    merged = merged_probabilities(logits, [(4,), (1, 3)], sigmoid=False)

    torch.testing.assert_close(merged.flatten(), torch.tensor([0.4, 0.3, 0.3]))


def test_one_channel_alone_has_its_sigmoid():
    logits = torch.tensor([-2.0, 0.0, 0.7]).reshape(1, 1, 1, 3)

    merged = merged_probabilities(logits, [(0,)], sigmoid=True)

    torch.testing.assert_close(merged[1], torch.sigmoid(logits[0]))
    torch.testing.assert_close(merged.sum(dim=0), torch.ones(1, 1, 3))
