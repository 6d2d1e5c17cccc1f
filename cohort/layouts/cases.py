"""Cases from the files that a layout names: headers of images are read, never voxels."""

from collections.abc import Mapping
from pathlib import Path

from cohort.case import Case
from cohort.errors import DataError
from cohort.volume import SUFFIXES, read_grid, volume_id

Files = Mapping[str, tuple[Path, Path | None]]
"""Case id -> image, and its label map if there is one."""


def volume_files(folder: Path) -> list[Path]:
    """The images or label maps in a folder, in the order of their names; hidden files are none."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.name[0] != ".")


def volumes_in(folder: Path) -> dict[str, Path]:
    """Name without its ending -> file, of the images or label maps in a folder, in the order of the names.

    Raises:
        DataError: for one that is there as .nii and as .nii.gz.
    """
    volumes: dict[str, Path] = {}
    for path in volume_files(folder):
        name = volume_id(path)
        if name in volumes:
            raise DataError(f"{folder} holds {name!r} as .nii and as .nii.gz; keep one of them")
        volumes[name] = path
    return volumes


def read_cases(
    files: Files, patients: Mapping[str, str], annotated: Mapping[str, Mapping[str, float]]
) -> tuple[Case, ...]:
    """Read the headers of all images.

    Args:
        files: of the cases.
        patients: case id -> patient id; a case that is not listed is a patient of its own.
        annotated: case id -> structure -> fraction in the field of view; of a case that is not listed none.

    Returns:
        The cases, in the order of their ids.

    Raises:
        DataError: with the problems of all headers, a line each.
    """
    cases, problems = [], []
    for case_id, (image, label) in sorted(files.items()):
        try:
            grid = read_grid(image)
        except DataError as error:
            problems.append(str(error))
            continue
        cases.append(
            Case(
                case_id=case_id,
                patient_id=patients.get(case_id, case_id),
                image=image,
                reference=label,
                annotated=annotated.get(case_id, {}),
                shape=grid.shape,
                spacing_mm=grid.spacing_mm,
            )
        )
    if problems:
        raise DataError("\n".join(problems))
    return tuple(cases)
