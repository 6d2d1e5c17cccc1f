import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort.case import Dataset
from cohort.errors import ConfigError, DataError
from cohort.volume import read_grid, write_volume
from flows import data
from flows.config import ActiveLearningConfig, load_config

Make = Callable[..., Path]


def _root(config: ActiveLearningConfig) -> Path:
    return data.phantom_root(config.data, config.campaigns_root)


class TestDecathlon:
    def test_every_case_has_one_place(self, make_decathlon: Make, make_campaign_yaml: Make) -> None:
        cohort = data.load_cohort(load_config(make_campaign_yaml(make_decathlon(9))))
        assert (len(cohort.held_out), len(cohort.start), len(cohort.pool)) == (2, 3, 4)
        assert sorted((*cohort.held_out, *cohort.start, *cohort.pool)) == [f"case_{n:02d}" for n in range(9)]

    def test_the_held_out_cases_are_the_same_for_every_seed(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        path = make_campaign_yaml(make_decathlon(9))
        arms = [data.load_cohort(load_config(path, [f"seed={seed}"])) for seed in range(6)]
        assert len({arm.held_out for arm in arms}) == 1
        assert len({arm.start for arm in arms}) > 1
        assert data.load_cohort(load_config(path)) == arms[0]

    def test_the_data_set_s_own_list_goes_first(self, make_decathlon: Make, make_campaign_yaml: Make) -> None:
        root = make_decathlon(9, splits={"held_out": ["case_07", "case_01", "case_03"]})
        path = make_campaign_yaml(root)
        assert data.load_cohort(load_config(path)).held_out == ("case_07", "case_01")
        whole = make_campaign_yaml(root, {"data.held_out_cases": None, "rounds": 2})
        assert data.load_cohort(load_config(whole)).held_out == ("case_07", "case_01", "case_03")

    def test_a_fraction_where_the_data_set_has_no_list(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        changes = {"data.held_out_cases": None, "data.held_out_fraction": 0.34, "rounds": 2}
        cohort = data.load_cohort(load_config(make_campaign_yaml(make_decathlon(9), changes)))
        assert len(cohort.held_out) == 3

    def test_a_patient_is_never_on_both_sides(self, make_decathlon: Make, make_campaign_yaml: Make) -> None:
        patients = {f"case_{n:02d}": f"patient_{n // 2}" for n in range(10)}
        root = make_decathlon(10, patients=patients)
        path = make_campaign_yaml(root, {"data.held_out_cases": 3, "rounds": 2})
        cohort = data.load_cohort(load_config(path))
        outside = {patients[case_id] for case_id in (*cohort.start, *cohort.pool)}
        assert not outside & {patients[case_id] for case_id in cohort.held_out}
        assert len(cohort.held_out) == 4, "whole patients are held out"

    def test_unlabelled_cases_are_in_the_pool_alone(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        path = make_campaign_yaml(make_decathlon(9, unlabelled=4))
        for seed in range(5):
            cohort = data.load_cohort(load_config(path, [f"seed={seed}"]))
            assert set(cohort.pool) == {"case_05", "case_06", "case_07", "case_08"}


class TestFolders:
    def test_the_folders_say_who_is_who(self, make_folder: Make, make_campaign_yaml: Make) -> None:
        folders = {
            "labelled": str(make_folder("known", ("a", "b"))),
            "unlabelled": str(make_folder("new", ("c", "d", "e", "f"), labels=False)),
            "held_out": str(make_folder("test", ("g",))),
            "structures": {"liver": 1, "spleen": 2},
        }
        cohort = data.load_cohort(load_config(make_campaign_yaml("", {"data": folders})))
        assert (cohort.start, cohort.pool, cohort.held_out) == (("a", "b"), ("c", "d", "e", "f"), ("g",))


class TestPhantom:
    CHANGES = {  # noqa: RUF012
        "data": {"layout": "phantom", "phantom": {"cases": 4, "shape": [24, 32, 40]}},
        "start.cases": 1,
        "rounds": 2,
        "budget.per_round": 1,
    }

    def test_beside_the_campaigns_unless_told_otherwise(
        self, make_campaign_yaml: Make, tmp_path: Path
    ) -> None:
        path = make_campaign_yaml("", self.CHANGES)
        config = load_config(path)
        assert _root(config).parent == config.campaigns_root / ".phantom"
        moved = load_config(path, [f"data.root={tmp_path / 'there'}"])
        assert _root(moved) == tmp_path / "there"

    @pytest.mark.parametrize(
        "override",
        [
            "data.phantom.seed=1",
            "data.phantom.cases=5",
            "data.held_out_cases=2",
            "data.held_out_fraction=0.5",
        ],
    )
    def test_another_cohort_is_another_folder(self, make_campaign_yaml: Make, override: str) -> None:
        path = make_campaign_yaml("", self.CHANGES)
        assert _root(load_config(path, [override])) != _root(load_config(path))

    def test_generated_once_and_read_like_any_data_set(self, make_campaign_yaml: Make) -> None:
        config = load_config(make_campaign_yaml("", self.CHANGES))
        told: list[tuple[int, int]] = []
        data.generate_phantom(
            config.data, config.campaigns_root, lambda done, total: told.append((done, total))
        )
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
        root = _root(config)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}
        data.generate_phantom(config.data, config.campaigns_root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")} == before

        cohort = data.load_cohort(config)
        assert cohort.held_out == ("phantom_003",)
        data.validate_cohort(config, cohort)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"budget.per_round": 3}, r"per_round 3 x 2 selecting rounds = 6 cases, but the pool holds 4"),
            ({"rounds": 4}, r"per_round 2 x 3 selecting rounds = 6 cases, but the pool holds 4"),
            (
                {"budget.currency": "structures", "budget.per_round": 4.5},
                "per_round 4.5 x 2 selecting rounds = 9 structures, but the pool holds 8",
            ),
            ({"start.cases": 7}, "The pool is empty: every case is held out or labelled already"),
            ({"start.cases": 8}, "The start set needs 8 cases, but only 7 of the data set 'Tiny'"),
            ({"data.held_out_cases": 9}, "Holding out 9 cases takes all 9 cases .* leaves nothing to learn"),
            ({"data.held_out_cases": 10}, "10 cases are to be held out, but only 9 .* hold out fewer"),
            (
                {"data.held_out_cases": None, "data.held_out_fraction": 0.97},
                "takes all 9 cases .* leaves nothing to learn from",
            ),
            (
                {"data.held_out_cases": None, "data.held_out_fraction": 0.01},
                "No case of the 9 .* leaves nothing to evaluate on",
            ),
        ],
    )
    def test_a_split_or_budget_that_the_data_cannot_give(
        self, make_decathlon: Make, make_campaign_yaml: Make, changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            data.load_cohort(load_config(make_campaign_yaml(make_decathlon(9), changes)))

    @pytest.mark.parametrize(
        "changes",
        [
            {"budget.per_round": 2},
            {"budget.currency": "structures", "budget.per_round": 4},
            {"budget.currency": "minutes", "budget.per_round": 1e6},
            {"rounds": 1, "budget.per_round": 100},
            {"rounds": 1, "start.cases": 7},
        ],
    )
    def test_what_just_fits(
        self, make_decathlon: Make, make_campaign_yaml: Make, changes: dict[str, object]
    ) -> None:
        data.load_cohort(load_config(make_campaign_yaml(make_decathlon(9), changes)))

    def test_a_sentinel_that_could_not_be_trained(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        path = make_campaign_yaml(make_decathlon(9), {"sentinel.text_dim": 77})
        with pytest.raises(ConfigError, match="text_dim is 77, but the shipped text embeddings have"):
            data.load_cohort(load_config(path, ["strategy=quality"]))
        data.load_cohort(load_config(path))

    def test_a_sentinel_needs_two_patients_to_start_from(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        held_out = ["case_00", "case_01"]
        patients = {f"case_{n:02d}": "out" if n < 2 else "same" for n in range(9)}
        path = make_campaign_yaml(make_decathlon(9, splits={"held_out": held_out}, patients=patients))
        with pytest.raises(ConfigError, match="at least 2 labelled patients, but the campaign starts with 1"):
            data.load_cohort(load_config(path, ["strategy=quality"]))
        data.load_cohort(load_config(path, ["strategy=entropy"]))

    def test_held_out_cases_that_measure_nothing(
        self, make_decathlon: Make, make_campaign_yaml: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        listed = {f"case_{n:02d}": {"liver": "complete", "spleen": "complete"} for n in range(9)}
        listed["case_00"] = {"liver": "partial 0.3", "spleen": "partial 0.2"}
        splits = {"held_out": ["case_00", "case_01"]}
        root = make_decathlon(9, extra={"annotated_structures": listed}, splits=splits)
        path = make_campaign_yaml(root, {"data.held_out_cases": 1, "rounds": 2})
        with pytest.raises(ConfigError, match="No held-out case has a structure that could be measured"):
            data.load_cohort(load_config(path))

        listed["case_00"]["liver"] = "partial 0.6"
        make_decathlon(9, extra={"annotated_structures": listed}, splits=splits)
        with caplog.at_level(logging.WARNING, logger="flows.data"):
            data.load_cohort(load_config(path))
        assert "No held-out case can measure spleen; the mean DSC leaves them out" in caplog.text


class TestValidation:
    @pytest.fixture
    def path(self, make_decathlon: Make, make_campaign_yaml: Make) -> Path:
        splits = {"held_out": ["case_00", "case_01"]}
        return make_campaign_yaml(make_decathlon(9, unlabelled=2, splits=splits))

    def test_the_oracle_needs_every_label(self, path: Path) -> None:
        config = load_config(path)
        with pytest.raises(DataError, match="2 problems in 9 cases") as caught:
            data.validate_cohort(config, data.load_cohort(config))
        assert "Case case_07 has no reference" in str(caught.value)
        assert "Case case_08 has no reference" in str(caught.value)
        assert str(caught.value).splitlines()[-1] == (
            "The simulated annotator (annotator.kind: oracle, the default) reads the label maps of the "
            "unlabelled cases, and 2 of 4 have none; set annotator.kind: folder where people annotate"
        )
        with pytest.raises(DataError, match=r"oracle reads the label maps .* have none; take another one$"):
            data.validate_cohort(load_config(path, ["strategy=oracle-worst"]), data.load_cohort(config))

    def test_other_problems_have_nothing_to_do_with_the_annotator(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        root = make_decathlon(9, splits={"held_out": ["case_00", "case_01"]})
        (root / "imagesTr" / "case_05.nii.gz").write_bytes(
            (root / "imagesTr" / "case_05.nii.gz").read_bytes()[:-20]
        )
        config = load_config(make_campaign_yaml(root))
        with pytest.raises(DataError, match="1 problem in 9 cases") as caught:
            data.validate_cohort(config, data.load_cohort(config))
        assert "annotator" not in str(caught.value)

    def test_images_that_the_sentinel_could_not_read_are_told_before_any_training(
        self, path: Path, tmp_path: Path
    ) -> None:
        image = tmp_path / "decathlon" / "imagesTr" / "case_05.nii.gz"
        write_volume(image, np.ones((8, 12, 16), np.float32), read_grid(image).affine)
        config = load_config(path, ["annotator.kind=folder", "sentinel.intensity=ct_hu", "strategy=quality"])
        with pytest.raises(DataError) as caught:
            data.validate_cohort(config, data.load_cohort(config))
        told = [line.strip() for line in str(caught.value).splitlines()]
        assert f"{image}: The image holds values from 1 to 1 and is not in Hounsfield units" in " ".join(told)
        other = load_config(path, ["annotator.kind=folder", "sentinel.intensity=ct_hu", "strategy=random"])
        data.validate_cohort(other, data.load_cohort(other))
        with pytest.raises(DataError, match="not in Hounsfield units"):
            data.validate_cohort(other, data.load_cohort(other), judges=["ct_hu"])  # a filter's own sentinel

    def test_a_structure_that_no_label_map_has_is_named(
        self, make_folder: Make, make_campaign_yaml: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Most often its label was mistyped: nothing else would tell, a mean leaves it out."""
        folders = {
            "labelled": str(make_folder("known", ("a", "b"))),
            "unlabelled": str(make_folder("new", ("c", "d", "e", "f"))),
            "held_out": str(make_folder("test", ("g",))),
            "structures": {"liver": 1, "spleen": 2},
        }
        config = load_config(make_campaign_yaml("", {"data": folders}))
        data.validate_cohort(config, data.load_cohort(config))
        assert "has a voxel of" not in caplog.text
        folders["structures"] = {"liver": 1, "spleen": 2, "kidney": 99}
        config = load_config(make_campaign_yaml("", {"data": folders}))
        data.validate_cohort(config, data.load_cohort(config))
        assert "No held-out case has a voxel of kidney: the mean DSC leaves them out" in caplog.text
        assert "No labelled case has a voxel of kidney: the first round learns" in caplog.text

    def test_people_need_none_in_the_pool(self, path: Path) -> None:
        config = load_config(path, ["annotator.kind=folder"])
        told: list[tuple[int, int]] = []
        data.validate_cohort(config, data.load_cohort(config), lambda done, total: told.append((done, total)))
        assert told[-1] == (9, 9)

    def test_a_held_out_case_needs_a_label_whoever_annotates(
        self, make_decathlon: Make, make_campaign_yaml: Make
    ) -> None:
        root = make_decathlon(9, splits={"held_out": ["case_00", "case_01"]})
        (root / "labelsTr" / "case_01.nii.gz").unlink()
        config = load_config(make_campaign_yaml(root), ["annotator.kind=folder"])
        with pytest.raises(ConfigError, match="2 cases are to be held out, but only 1"):
            data.load_cohort(config)


class TestFingerprints:
    def test_all_of_a_case_counts_and_nothing_else(
        self, make_decathlon: Make, make_campaign_yaml: Make, affine: np.ndarray, tmp_path: Path
    ) -> None:
        root = make_decathlon(9)
        config = load_config(make_campaign_yaml(root))
        before = data.fingerprints(data.load_cohort(config).dataset.cases)
        assert len(set(before.values())) == 9
        assert data.fingerprints(data.load_cohort(config).dataset.cases) == before

        write_volume(root / "imagesTr" / "case_00.nii.gz", np.ones((8, 12, 16), np.float32), affine)
        write_volume(root / "labelsTr" / "case_01.nii.gz", np.ones((8, 12, 16), np.uint8), affine)
        after = data.fingerprints(data.load_cohort(config).dataset.cases)
        assert {name for name in before if before[name] != after[name]} == {"case_00", "case_01"}

    def test_the_place_of_a_data_set_does_not_count(
        self, make_decathlon: Make, make_campaign_yaml: Make, tmp_path: Path
    ) -> None:
        here, there = make_decathlon(9), make_decathlon(9, root=tmp_path / "there")
        one, other = (data.load_cohort(load_config(make_campaign_yaml(root))) for root in (here, there))
        assert data.fingerprints(one.dataset.cases) == data.fingerprints(other.dataset.cases)

    def test_what_was_contoured_counts(self, make_decathlon: Make, make_campaign_yaml: Make) -> None:
        config = load_config(make_campaign_yaml(make_decathlon(9)))
        before = data.fingerprints(data.load_cohort(config).dataset.cases)
        complete = {"liver": "complete", "spleen": "complete"}
        listed = {f"case_{n:02d}": complete for n in range(9)}
        make_decathlon(9, extra={"annotated_structures": {**listed, "case_04": {"liver": "complete"}}})
        after = data.fingerprints(data.load_cohort(config).dataset.cases)
        assert {name for name in before if before[name] != after[name]} == {"case_04"}


class TestRefusedBeforeARound:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"budget.per_round": 0.5}, r"budget\.per_round is 0\.5 cases.* takes at least 1"),
            ({"budget.currency": "structures", "budget.per_round": 1}, r"takes at least 2"),
            (
                {"budget.currency": "structures", "budget.per_round": 0.5, "unit": "structure"},
                r"annotating a structure of one case takes at least 1",
            ),
            ({"budget.currency": "minutes", "budget.per_round": 3}, r"3 minutes.* takes at least 4\.2"),
            ({"evaluation.tolerance_mm": {"spleen": 1.0}}, r"tolerance_mm names no tolerance for liver"),
            (
                {"evaluation.tolerance_mm": {"spleen": 1.0, "liver": 1.0, "kidney": 9.0}},
                r"tolerance_mm names kidney, and the structures are liver, spleen; correct the name",
            ),
        ],
    )
    def test_what_could_never_work(
        self, make_decathlon: Make, make_campaign_yaml: Make, changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            data.load_cohort(load_config(make_campaign_yaml(make_decathlon(9), changes)))


class TestUnlabelled:
    @pytest.fixture
    def cohort(self, make_dataset: Callable[..., Dataset]) -> data.Cohort:
        names = [f"c{n:02d}" for n in range(12)]
        return data.Cohort(
            dataset=make_dataset({name: name for name in names}),
            held_out=("c00",),
            start=("c01",),
            pool=tuple(names[2:]),
        )

    def test_a_larger_number_holds_the_cases_of_a_smaller_one(self, cohort: data.Cohort) -> None:
        few, many = (set(data.limit_pool(cohort, count, 3).pool) for count in (4, 7))
        assert (len(few), len(many)) == (4, 7)
        assert few < many < set(cohort.pool)
        assert data.limit_pool(cohort, None, 3).pool == cohort.pool

    def test_seeds_draw_others(self, cohort: data.Cohort) -> None:
        assert len({data.limit_pool(cohort, 4, seed).pool for seed in range(6)}) > 1

    def test_too_few_cases_are_refused(self, cohort: data.Cohort) -> None:
        with pytest.raises(ConfigError, match="unlabelled is 11, but only 10 cases"):
            data.limit_pool(cohort, 11, 0)
        with pytest.raises(ConfigError, match="There is no unlabelled case in 'Tiny'"):
            data.limit_pool(replace(cohort, pool=()), None, 0)
