import pytest

import sentinel
from sentinel.scoring import Sentinel


def test_the_room_hands_out_what_it_names() -> None:
    assert sentinel.Sentinel is Sentinel
    for name in sentinel.__all__:
        assert getattr(sentinel, name).__name__ == name


def test_it_names_nothing_else() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sentry'"):
        _ = sentinel.sentry
