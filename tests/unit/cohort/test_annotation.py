import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort.annotation import Annotation, CheckedAnnotation, Request, check_annotation, merged
from cohort.budget import Cost
from cohort.case import CaseView, Structure
from cohort.errors import AnnotationError, DataError
from cohort.slabs import Slab
from cohort.volume import Grid, Volume, read_grid, read_label_map, write_volume

Structures = tuple[Structure, ...]
Make = Callable[[int], np.ndarray]
BOTH = Request(case_id="scan_1", structures=("liver", "spleen"))


@pytest.fixture
def grid(case_view: CaseView) -> Grid:
    return read_grid(case_view.image)


@pytest.fixture
def returned(tmp_path: Path) -> Path:
    return tmp_path / "returned.nii.gz"


def test_a_good_annotation_is_let_in(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
) -> None:
    write_volume(returned, make_label_map(0), affine)
    checked = check_annotation(returned, case_view, grid, BOTH, structures)
    np.testing.assert_array_equal(checked.label_map.array, make_label_map(0))
    assert checked.sha256 == hashlib.sha256(returned.read_bytes()).hexdigest()
    assert checked.voxels == {"liver": 3 * 5 * 6, "spleen": 3 * 3 * 10}
    assert checked.absent == ()


def test_a_requested_structure_may_be_absent(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
) -> None:
    labels = make_label_map(0)
    labels[labels == 2] = 0
    write_volume(returned, labels, affine)
    checked = check_annotation(returned, case_view, grid, BOTH, structures)
    assert checked.absent == ("spleen",)


def test_a_declared_structure_that_was_not_requested_is_let_through(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
) -> None:
    write_volume(returned, make_label_map(0), affine)
    request = Request(case_id="scan_1", structures=("liver",))
    assert check_annotation(returned, case_view, grid, request, structures).voxels == {"liver": 90}


def test_a_missing_file(case_view: CaseView, grid: Grid, returned: Path, structures: Structures) -> None:
    with pytest.raises(
        AnnotationError, match=r"of case scan_1 cannot be used: .*returned\.nii\.gz cannot be"
    ):
        check_annotation(returned, case_view, grid, BOTH, structures)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_file_that_is_not_whole(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
    kept: int,
) -> None:
    write_volume(returned, make_label_map(0), affine)
    returned.write_bytes(returned.read_bytes()[:kept])
    with pytest.raises(AnnotationError, match=r"of case scan_1 cannot be used: .*may be truncated") as told:
        check_annotation(returned, case_view, grid, BOTH, structures)
    assert "The labels are" not in str(told.value)


def test_a_file_of_four_dimensions(
    case_view: CaseView, grid: Grid, returned: Path, structures: Structures, affine: np.ndarray
) -> None:
    nib.save(nib.Nifti1Image(np.ones((16, 12, 8, 2), np.uint8), affine), returned)
    with pytest.raises(AnnotationError, match="expected three dimensions") as told:
        check_annotation(returned, case_view, grid, BOTH, structures)
    assert "The labels are" not in str(told.value)


def test_a_label_that_is_not_declared(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
) -> None:
    labels = make_label_map(0)
    labels[7, 11, 15] = 4
    write_volume(returned, labels, affine)
    with pytest.raises(AnnotationError, match=r"holds the labels 4, .*The labels are: 1 liver, 2 spleen"):
        check_annotation(returned, case_view, grid, BOTH, structures)


@pytest.mark.parametrize("wrong", ["shape", "affine"])
def test_another_grid(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
    wrong: str,
) -> None:
    labels = make_label_map(0)
    if wrong == "shape":
        write_volume(returned, np.swapaxes(labels, 0, 2), affine)
    else:
        write_volume(returned, labels, np.eye(4))
    with pytest.raises(AnnotationError, match=f"case scan_1 does not fit its scan.*{wrong}"):
        check_annotation(returned, case_view, grid, BOTH, structures)


def test_a_file_that_is_still_being_written(
    case_view: CaseView,
    grid: Grid,
    returned: Path,
    structures: Structures,
    affine: np.ndarray,
    make_label_map: Make,
) -> None:
    write_volume(returned, make_label_map(0), affine)

    def read_while_saved_again(path: Path) -> Volume:
        volume = read_label_map(path)
        write_volume(returned, make_label_map(1), affine)
        return volume

    with pytest.raises(AnnotationError, match="changed while it was read"):
        check_annotation(returned, case_view, grid, BOTH, structures, read=read_while_saved_again)


def test_a_request_that_does_not_fit(
    case_view: CaseView, grid: Grid, returned: Path, structures: Structures
) -> None:
    other = dataclasses.replace(case_view, case_id="scan_2")
    with pytest.raises(AnnotationError, match="Case scan_2 came back for a request of case scan_1"):
        check_annotation(returned, other, grid, BOTH, structures)
    request = Request(case_id="scan_1", structures=("aorta",))
    with pytest.raises(AnnotationError, match="names 'aorta', which the data set does not declare"):
        check_annotation(returned, case_view, grid, request, structures)


def test_a_request_names_structures_once() -> None:
    with pytest.raises(AnnotationError, match="names no structure"):
        Request(case_id="a", structures=())
    with pytest.raises(AnnotationError, match="names a structure twice"):
        Request(case_id="a", structures=("liver", "liver"))
    with pytest.raises(DataError, match="cannot be used as a file name"):
        Request(case_id="a/b", structures=("liver",))


def test_an_annotation_is_checked_and_hashes() -> None:
    annotation = Annotation(
        case_id="a",
        structures={"liver": 1.0},
        path=Path("a.nii.gz"),
        sha256="0" * 64,
        annotator="oracle",
        cost=Cost(cases=1.0),
    )
    assert len({annotation, annotation}) == 1
    with pytest.raises(AnnotationError, match=r"took -1.0 minutes"):
        dataclasses.replace(annotation, minutes=-1.0)
    with pytest.raises(AnnotationError, match=r"has 1.5 of 'liver'; expected 0 to 1"):
        dataclasses.replace(annotation, structures={"liver": 1.5})


class TestNothingThere:
    """The model found no spleen, and there is none: what comes back is what was sent."""

    @pytest.fixture
    def check(
        self,
        case_view: CaseView,
        grid: Grid,
        returned: Path,
        structures: Structures,
        affine: np.ndarray,
        make_label_map: Make,
        tmp_path: Path,
    ) -> Callable[..., CheckedAnnotation]:
        proposal = tmp_path / "proposal.nii.gz"
        labels = np.where(make_label_map(0) == 2, 0, make_label_map(0))
        write_volume(proposal, labels, affine)
        write_volume(returned, labels, affine)

        def check(
            *asked: str, absent: tuple[str, ...] = (), sent: Path | None = proposal
        ) -> CheckedAnnotation:
            request = Request(case_id="scan_1", structures=asked)
            return check_annotation(
                returned, case_view, grid, request, structures, absent=absent, proposal=sent
            )

        return check

    def test_declaring_it_absent_is_enough(self, check: Callable[..., CheckedAnnotation]) -> None:
        with pytest.raises(AnnotationError, match=r"no voxel of spleen.*declare it absent in returns\.csv$"):
            check("spleen")
        assert check("spleen", absent=("spleen",)).absent == ("spleen",)

    def test_of_two_structures_both_remarks_are_asked_for_at_once(
        self, check: Callable[..., CheckedAnnotation]
    ) -> None:
        with pytest.raises(
            AnnotationError, match=r"no voxel of spleen.*\. It is the proposal as it was sent"
        ):
            check("liver", "spleen")
        with pytest.raises(AnnotationError, match="scan_1 is the proposal as it was sent"):
            check("liver", "spleen", absent=("spleen",))
        assert check("liver", "spleen", absent=("spleen",), sent=None).absent == ("spleen",)


class TestSlabs:
    """The liver lies in slices 1 to 3, the spleen in 2 to 4."""

    SLAB = (Slab(first=4, last=5),)
    REQUEST = Request(case_id="scan_1", structures=("liver", "spleen"), slabs=SLAB)

    def check(self, returned: Path, case_view: CaseView, grid: Grid, structures: Structures, **more: object):
        return check_annotation(returned, case_view, grid, self.REQUEST, structures, **more)  # type: ignore[arg-type]

    def test_a_structure_may_end_before_the_slab(
        self,
        case_view: CaseView,
        grid: Grid,
        returned: Path,
        structures: Structures,
        affine: np.ndarray,
        make_label_map: Make,
    ) -> None:
        write_volume(returned, make_label_map(0), affine)
        checked = self.check(returned, case_view, grid, structures, absent=frozenset())
        assert checked.voxels == {"liver": 0, "spleen": 3 * 10}
        assert checked.absent == ("liver",)
        with pytest.raises(AnnotationError, match="declares spleen absent, but has voxels of it"):
            self.check(returned, case_view, grid, structures, absent=frozenset({"spleen"}))

    def test_the_proposal_is_compared_in_the_slab_alone(
        self,
        case_view: CaseView,
        grid: Grid,
        returned: Path,
        structures: Structures,
        affine: np.ndarray,
        make_label_map: Make,
        tmp_path: Path,
    ) -> None:
        proposal = tmp_path / "proposal.nii.gz"
        write_volume(proposal, make_label_map(0), affine)
        elsewhere, inside = make_label_map(0), make_label_map(0)
        elsewhere[2] = 0
        inside[5, 0, 0] = 2
        write_volume(returned, elsewhere, affine)
        with pytest.raises(AnnotationError, match="is in slices 4-5 the proposal as it was sent; correct it"):
            self.check(returned, case_view, grid, structures, proposal=proposal)
        write_volume(returned, inside, affine)
        assert self.check(returned, case_view, grid, structures, proposal=proposal).voxels["spleen"] == 31

    def test_what_was_annotated_elsewhere_stays(self) -> None:
        earlier, new = np.zeros((4, 2, 2), np.uint8), np.full((4, 2, 2), 2, np.uint8)
        earlier[:2] = 1
        found = merged(earlier, new, [1, 2], [Slab(first=2, last=2)])
        assert found[:, 0, 0].tolist() == [1, 1, 2, 0]
        again = merged(found, new * 0, [1, 2], [Slab(first=0, last=0), Slab(first=3, last=3)])
        assert again[:, 0, 0].tolist() == [0, 1, 2, 0]
