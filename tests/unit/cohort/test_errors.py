import inspect

import pytest

from cohort import errors

FAMILIES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_error_has_one_root(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.SentinelLoopError)


def test_geometry_and_annotation_are_errors_of_data() -> None:
    assert issubclass(errors.GeometryError, errors.DataError)
    assert issubclass(errors.AnnotationError, errors.DataError)


def test_a_missing_extra_says_what_to_install() -> None:
    with pytest.raises(errors.MissingExtraError, match=r"nnU-Net needs .*'sentinel-loop\[nnunet\]'"):
        raise errors.MissingExtraError("nnU-Net", "nnunet")
