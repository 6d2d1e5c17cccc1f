from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cohort.case import Case
from cohort.errors import DataError
from cohort.records import Prediction
from cohort.volume import write_volume
from flows import data
from flows.config import load_config
from flows.features import FeatureTable, feature_stage, image_features, segmenter_table
from flows.progress import Display

Make = Callable[..., Path]


@pytest.fixture
def cases(make_decathlon: Make, make_campaign_yaml: Make) -> tuple[Case, ...]:
    return data.load_cohort(load_config(make_campaign_yaml(make_decathlon(9)))).dataset.cases


@pytest.fixture
def build(cases: tuple[Case, ...], tmp_path: Path) -> Callable[..., FeatureTable]:
    def make(order: int = 1) -> FeatureTable:
        views = [case.view() for case in cases][::order]
        prints = dict(data.fingerprints(cases))
        return feature_stage(tmp_path / "c", views, prints, tmp_path / "cache", Display(quiet=True).step)

    return make


def test_every_image_is_read_once(
    cases: tuple[Case, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [case.image for case in cases]
    told: list[tuple[int, int]] = []
    first = image_features(images, tmp_path / "cache", lambda done, total: told.append((done, total)))
    assert told == [(n, 9) for n in range(1, 10)]
    monkeypatch.setattr("flows.features.read_features", None)
    again = image_features(images[::-1], tmp_path / "cache")
    for each, other in zip(first, again[::-1], strict=True):
        np.testing.assert_array_equal(each.values, other.values)


def test_a_broken_scan_is_looked_at_again(cases: tuple[Case, ...], tmp_path: Path) -> None:
    image, good = cases[0].image, cases[0].image.read_bytes()
    image.write_bytes(good[:100])
    (found,) = image_features([image], tmp_path / "cache")
    assert found.broken.startswith("cannot be read")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_copies_of_one_image_are_one_file(cases: tuple[Case, ...], tmp_path: Path) -> None:
    image_features([cases[0].image] * 20, tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_the_table_does_not_depend_on_the_order(build: Callable[..., FeatureTable]) -> None:
    one, other = build(), build(-1)
    assert one.rows.keys() == other.rows.keys()
    for name, row in one.rows.items():
        np.testing.assert_array_equal(row, other.rows[name])
    assert list(one.of(["case_03", "nobody"])) == ["case_03"]


def test_it_says_which_scans_are_broken(
    cases: tuple[Case, ...], build: Callable[..., FeatureTable], affine: np.ndarray
) -> None:
    write_volume(cases[4].image, np.zeros(cases[4].shape, dtype=np.float32), affine)
    assert build().broken == {"case_04": "constant: every voxel is 0"}


class TestSegmenterTable:
    @staticmethod
    def prediction(case_id: str, *features: float) -> Prediction:
        return Prediction(case_id=case_id, mask=Path("m.nii.gz"), checkpoint_sha256="c", features=features)

    def test_like_cases_are_near(self) -> None:
        seen = [("b", 9.0, 1.0), ("a", 0.0, 2.0), ("c", 9.1, 1.1)]
        predictions = [self.prediction(*each) for each in seen]
        found = segmenter_table(predictions, {"a": "constant"})
        rows = found.rows
        assert np.linalg.norm(rows["b"] - rows["c"]) < np.linalg.norm(rows["b"] - rows["a"])
        assert found.broken == {"a": "constant"}
        other = segmenter_table(predictions[::-1], {})
        assert all(np.array_equal(rows[name], other.rows[name]) for name in "abc")

    def test_predictions_that_have_none(self) -> None:
        with pytest.raises(DataError, match="case b has no features of the segmenter"):
            segmenter_table([self.prediction("a", 1.0), self.prediction("b")], {})


class TestDiverseStart:
    def test_it_is_drawn_from_the_same_cases_and_kept(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        path = make_campaign_yaml(make_decathlon(9, unlabelled=2))
        plain = data.load_cohort(load_config(path))
        config = load_config(path, ["start.method=diverse"])
        cohort = data.load_cohort(config)
        assert cohort.held_out == plain.held_out
        assert len(set(cohort.start)) == 3
        assert not set(cohort.start) & {"case_07", "case_08", *cohort.held_out}
        assert data.load_cohort(config) == cohort
        seeds = [load_config(path, ["start.method=diverse", f"seed={seed}"]) for seed in range(6)]
        assert len({data.load_cohort(each).start for each in seeds}) > 1

    def test_a_broken_scan_is_not_labelled(
        self, make_decathlon: Make, make_campaign_yaml: Make, affine: np.ndarray
    ) -> None:
        root = make_decathlon(9)
        path = make_campaign_yaml(root)
        cohort = data.load_cohort(load_config(path))
        broken = cohort.start[0]
        image = cohort.dataset.by_id[broken].image
        write_volume(image, np.zeros(cohort.dataset.by_id[broken].shape, dtype=np.float32), affine)
        for seed in range(5):
            config = load_config(path, ["start.method=diverse", f"seed={seed}", "start.cases=6", "rounds=1"])
            assert broken not in data.load_cohort(config).start
