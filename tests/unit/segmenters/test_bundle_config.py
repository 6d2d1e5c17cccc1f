import pytest

from cohort.errors import ConfigError
from segmenters.bundle_config import BundleConfig


def test_a_bundle_must_be_trusted():
    with pytest.raises(
        ConfigError, match=r"trust is false, .* any Python code: look at .* of zoo/spleen, and set"
    ):
        BundleConfig(path="zoo/spleen")


@pytest.mark.parametrize(
    ("path", "name"),
    [("zoo/spleen_ct/", "spleen_ct"), ("a/b.zip", "b"), ("hub:spleen_ct@0.5.9", "spleen_ct")],
)
def test_is_named_after_its_bundle(path, name):
    assert BundleConfig(path=path, trust=True).architecture == name


def test_mc_dropout_takes_dropout():
    without, with_dropout = (BundleConfig(path="b", trust=True, dropout=dropout) for dropout in (False, True))

    assert without.measures == {"entropy", "inconsistency"}
    assert with_dropout.measures - without.measures == {"mc_dropout", "predictive_entropy", "bald"}


def test_channels_are_one_or_many():
    config = BundleConfig(path="b", trust=True, channels={"lung": (1, 2), "liver": 0})

    assert [config.named_channels(name) for name in ("lung", "liver", "spleen")] == [(1, 2), (0,), None]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "hub:"}, r"path is 'hub:', expected the folder or zip file of a bundle, or hub:<name>"),
        ({"activation": "tanh"}, r"activation is 'tanh', expected one of auto, softmax, sigmoid"),
        ({"steps": -1}, r"steps is -1, expected a number from 0"),
        ({"overlap": 1.0}, r"overlap is 1.0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0.0, expected a number above 0"),
        ({"patch": (8, 8, 7)}, r"patch is \(8, 8, 7\), expected three even numbers"),
        ({"channels": {"liver": -1}}, r"channels.liver is \(-1,\), expected different channels from 0 on"),
        ({"channels": {"liver": (2, 2)}}, r"channels.liver is \(2, 2\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        BundleConfig(**{"path": "b", "trust": True, **settings})
