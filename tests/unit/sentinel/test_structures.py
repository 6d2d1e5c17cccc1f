import pytest

from cohort.errors import DataError
from sentinel.structures import find_structure, known_structures, name_key, nearest_names, require_structure


def test_the_atlas_is_complete() -> None:
    indices = [s.atlas_index for s in known_structures().values() if s.atlas_index is not None]
    assert indices == list(range(145))


def test_no_name_or_alias_means_two_structures() -> None:
    owner: dict[str, str] = {}
    for structure in known_structures().values():
        for name in (structure.name, *structure.aliases):
            assert owner.setdefault(name_key(name), structure.name) == structure.name, name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kidney_left", "kidney_left"),
        ("Right Kidney", "kidney_right"),
        ("rkid", "kidney_right"),
        ("postcava", "inferior_vena_cava"),
        ("rib_left_10", "rib_left_10"),
        ("costa 10 left", "rib_left_10"),
        ("anterior hippocampus", "hippocampus_anterior"),
        ("parotid gland right", "parotid_gland_right"),
        ("oesophagus", "esophagus"),
        ("spinal cord", "spinal_cord"),
        ("vertebrae_L1", "vertebrae_L1"),
        ("heart atrium left", "heart_atrium_left"),
    ],
)
def test_aliases(name: str, expected: str) -> None:
    assert require_structure(name).name == expected


@pytest.mark.parametrize(
    ("name", "index"),
    [("esophagus", 6), ("kidney_right", 16), ("rib_right_12", 90), ("subclavian_artery_left", 144)],
)
def test_atlas_index(name: str, index: int) -> None:
    assert require_structure(name).atlas_index == index


def test_sides_differ() -> None:
    assert find_structure("left kidney") != find_structure("right kidney")


def test_phrase() -> None:
    assert require_structure("hippocampus_anterior_left").phrase == "left anterior hippocampus"


def test_unknown_name_suggests() -> None:
    assert find_structure("brainsten") is None
    with pytest.raises(DataError, match=r"'brainsten' is not in the table .* did you mean brainstem"):
        require_structure("brainsten")


def test_nothing_to_suggest() -> None:
    assert nearest_names("qqqqqq") == ()
    with pytest.raises(DataError, match="no known name is spelled like it"):
        require_structure("qqqqqq")
