"""Who trains, who calibrates and who tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.case import Dataset
from cohort.errors import ConfigError
from flows.launch import launch_sentinel_training
from flows.progress import Display
from flows.sentinel_config import SentinelTrainingConfig, load_sentinel_training
from flows.sentinel_split import Split, split_cases
from flows.sentinel_training import calibrated
from sentinel.config import SentinelConfig
from sentinel.evaluation import ScoredMask
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

MakeDataset = Callable[..., Dataset]
PATIENTS = {f"p{patient:02d}_{scan}": f"p{patient:02d}" for patient in range(12) for scan in "ab"}
TEST = ("p03_b", "p07_a", "p07_b")


def split(dataset: Dataset, **changes: int | None) -> Split:
    asked: dict[str, int | None] = {"calibration": 4, "training": None, "seed": 0, **changes}
    return split_cases(dataset, TEST, **asked)  # type: ignore[arg-type]


def patients(case_ids: tuple[str, ...]) -> set[str]:
    return {PATIENTS[case_id] for case_id in case_ids}


class TestSplit:
    @pytest.fixture
    def dataset(self, make_dataset: MakeDataset) -> Dataset:
        return make_dataset(PATIENTS)

    @pytest.mark.parametrize("seed", range(5))
    def test_patients_are_apart_and_every_scan_of_theirs_has_one_role(
        self, dataset: Dataset, seed: int
    ) -> None:
        found = split(dataset, seed=seed)
        train, calibrate, test = (patients(part) for part in (found.train, found.calibrate, found.test))
        assert (len(train), len(calibrate)) == (6, 4)
        assert train | calibrate | test == set(PATIENTS.values())
        assert len(train) + len(calibrate) + len(test) == 12
        assert found.test == TEST
        assert len(found.train) == 12
        assert len(found.calibrate) == 8
        assert "p03_a" not in {*found.train, *found.calibrate}, "its patient is held out"

    def test_fewer_patients_train_where_asked_and_the_others_stay_the_same(self, dataset: Dataset) -> None:
        whole, few = split(dataset), split(dataset, training=3)
        assert few.calibrate == whole.calibrate
        assert len(patients(few.train)) == 3
        assert set(few.train) < set(whole.train)

    def test_cases_without_a_reference_take_no_part(self, make_dataset: MakeDataset) -> None:
        dataset = make_dataset(PATIENTS, unlabelled=("p00_a", "p01_a", "p01_b"))
        found = split(dataset)
        taking = {*found.train, *found.calibrate}
        assert taking == set(PATIENTS) - {"p00_a", "p01_a", "p01_b", "p03_a", *TEST}

    def test_the_seed_chooses_and_the_order_of_cases_does_not(
        self, dataset: Dataset, make_dataset: MakeDataset
    ) -> None:
        turned = make_dataset(dict(reversed(PATIENTS.items())))
        assert set(split(turned).train) == set(split(dataset).train)
        assert len({split(dataset, seed=seed).calibrate for seed in range(8)}) > 4

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"calibration": 9}, "but 9 shall calibrate and at least 2 train"),
            ({"calibration": 40}, "but 40 shall calibrate and at least 2 train"),
            ({"training": 7}, "but 4 shall calibrate and 7 train"),
        ],
    )
    def test_too_few_patients(self, dataset: Dataset, changes: dict[str, int], wanted: str) -> None:
        with pytest.raises(ConfigError, match=f"10 patients with references are not held out, {wanted}"):
            split(dataset, **changes)

    def test_all_patients_may_be_used(self, dataset: Dataset) -> None:
        assert len(patients(split(dataset, calibration=8).train)) == 2
        assert len(patients(split(dataset, training=6).train)) == 6

    def test_one_patient_cannot_be_cross_fitted(self, dataset: Dataset) -> None:
        with pytest.raises(ConfigError, match="10 patients"):
            split(dataset, training=1)


class TestCalibrated:
    @pytest.fixture
    def config(self, tmp_path: Path) -> SentinelTrainingConfig:
        path = tmp_path / "x.yaml"
        path.write_text("{data: {root: scans}, segmenter: {channels: [4, 8], patch: [8, 8, 8]}, level: 0.75}")
        return load_sentinel_training(path)

    def test_from_masks_with_a_score_at_the_level_of_the_config(self, config: SentinelTrainingConfig) -> None:
        sentinel = Sentinel(config=SentinelConfig(), structures=["liver"], embeddings=embed_names(["liver"]))
        nan = float("nan")
        known = [
            ScoredMask(
                case_id=f"c{number}",
                patient_id=f"c{number}",
                structure="liver",
                source="step1",
                raw=nan if number == 9 else 0.05 * number,
                predicted_dsc=nan,
                lower=nan,
                upper=nan,
                dsc=0.0 if number == 9 else 0.3 + 0.025 * number,
            )
            for number in range(10)
        ]
        found = calibrated(sentinel, known, config).calibration
        assert found.level == 0.75
        line = found.structures["liver"]
        assert [value for knot in line.knots for value in knot] == pytest.approx([0.0, 0.3, 1.0, 0.8])
        assert (line.patients, line.masks) == (9, 9)
        assert line.quantile == pytest.approx(0.0, abs=1e-9)


class TestRefusals:
    """What a data set cannot give is said before any training, and leaves nothing behind."""

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("split.calibration_patients=5", "6 patients with references are not held out, but 5 shall"),
            ("sentinel.text_dim=512", "text_dim is 512, but the shipped text embeddings have 384"),
            ("data.held_out_cases=9", "9 cases are to be held out"),
        ],
    )
    def test_before_any_training(
        self, make_decathlon: Callable[..., Path], tmp_path: Path, override: str, message: str
    ) -> None:
        root = make_decathlon(8)
        path = tmp_path / "x.yaml"
        path.write_text(
            f"{{data: {{root: {root}, held_out_cases: 2}}, split: {{calibration_patients: 3}}, "
            "segmenter: {channels: [4, 8], patch: [8, 8, 8]}}"
        )
        config = load_sentinel_training(path, [f"root={tmp_path / 'sentinels'}", override])
        with pytest.raises(ConfigError, match=message):
            launch_sentinel_training(config, Display(quiet=True))
        assert not (tmp_path / "sentinels").exists()
