"""What every layout promises: one small cohort, written the way each layout wants it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cohort.case import Dataset
from cohort.errors import DataError
from cohort.layouts import decathlon, folders
from cohort.validation import validate_cases

IDS = ("case_00", "case_01", "case_02", "case_03")


@dataclass
class Layout:
    """A cohort on disk and how to read it again."""

    read: Callable[[], Dataset]
    roots: list[Path]

    def find(self, case_id: str, kind: str) -> Path:
        (path,) = [p for root in self.roots for p in sorted(root.glob(f"{kind}*/{case_id}*"))]
        return path


@pytest.fixture(params=["decathlon", "folders", "folders of nnU-Net"])
def layout(
    request: pytest.FixtureRequest, make_decathlon: Callable[..., Path], make_folder: Callable[..., Path]
) -> Layout:
    """Four cases: the last is held out, the one before it has no label map."""
    if request.param == "decathlon":
        root = make_decathlon(4, splits={"held_out": ["case_03"]})
        (root / "labelsTr" / "case_02.nii.gz").unlink()
        return Layout(lambda: decathlon.read(root), [root])
    nnunet = request.param == "folders of nnU-Net"
    parts = [
        make_folder("start", IDS[:2], nnunet=nnunet),
        make_folder("pool", IDS[2:3], labels=False, nnunet=nnunet),
        make_folder("test", IDS[3:], nnunet=nnunet),
    ]
    return Layout(lambda: folders.read(*parts, {"spleen": 2, "liver": 1}).dataset, parts)


class TestEveryLayout:
    def test_gives_the_same_cohort(self, layout: Layout) -> None:
        dataset = layout.read()
        assert tuple(case.case_id for case in dataset.cases) == IDS
        assert [(s.name, s.label) for s in dataset.structures] == [("liver", 1), ("spleen", 2)]
        assert dataset.held_out == ("case_03",)
        assert [case.reference is None for case in dataset.cases] == [False, False, True, False]
        assert [len(case.annotated) for case in dataset.cases] == [2, 2, 0, 2]
        assert not dataset.patients_known
        assert layout.read() == dataset

    def test_keeps_axes_and_spacing_together(self, layout: Layout) -> None:
        for case in layout.read().cases:
            assert case.shape == (8, 12, 16)
            assert case.spacing_mm == pytest.approx((3.0, 1.0, 0.5))

    def test_gives_cases_that_pass_validation(self, layout: Layout) -> None:
        dataset = layout.read()
        needing = [case_id for case_id in IDS if case_id != "case_02"]
        validate_cases(dataset.cases, dataset.structures, needs_reference=needing)
        with pytest.raises(DataError, match="case_02 has no reference"):
            validate_cases(dataset.cases, dataset.structures, needs_reference=IDS)

    def test_leaves_truncated_voxels_to_validation(self, layout: Layout) -> None:
        image = layout.find("case_01", "images")
        image.write_bytes(image.read_bytes()[:-20])
        dataset = layout.read()
        with pytest.raises(DataError, match=r"case_01.*\.nii\.gz cannot be read"):
            validate_cases(dataset.cases, dataset.structures, needs_reference=False)

    def test_names_an_image_whose_header_is_broken(self, layout: Layout) -> None:
        layout.find("case_01", "images").write_bytes(b"no scan")
        with pytest.raises(DataError, match=r"case_01.*\.nii\.gz cannot be read"):
            layout.read()

    def test_knows_patients_where_they_are_given(self, layout: Layout) -> None:
        for root in layout.roots:
            ids = [case_id for case_id in IDS if list(root.glob(f"images*/{case_id}*"))]
            rows = [f"{case_id},p{case_id[-1]}" for case_id in ids]
            (root / "patients.csv").write_text("\n".join(["case_id,patient_id", *rows]))
        dataset = layout.read()
        assert dataset.patients_known
        assert [case.patient_id for case in dataset.cases] == ["p0", "p1", "p2", "p3"]

    def test_refuses_a_patient_list_that_does_not_fit(self, layout: Layout) -> None:
        (layout.roots[0] / "patients.csv").write_text("case_id,patient_id\n../case_00,p\n")
        with pytest.raises(DataError, match=r"patients\.csv: Case id '../case_00' cannot be used"):
            layout.read()

    def test_a_missing_root_is_one_line(self, layout: Layout) -> None:
        layout.roots[0].rename(layout.roots[0].with_name("moved"))
        with pytest.raises(DataError, match=r"folder .* does not exist") as caught:
            layout.read()
        assert "\n" not in str(caught.value)
