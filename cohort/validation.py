"""Reads every voxel of a cohort once, before anything is trained, and tells all problems together."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cohort.case import Case, Structure
from cohort.errors import ConfigError, DataError, GeometryError
from cohort.volume import Array, Volume, check_same_grid, read_grid, read_image, read_label_map

SHOWN = 10
"""Problems that an error names; the rest is counted."""

Progress = Callable[[int, int], None]
"""Told how many cases are done, of how many."""

Usable = Callable[[Volume], None]
"""Raises DataError, in one sentence, for an image that a later step could not use."""


def validate_case(case: Case, structures: Sequence[Structure], *, needs_reference: bool) -> tuple[str, ...]:
    """Read a case's image and reference in full and say what is wrong with them.

    Voxels of a structure that `case.annotated` does not name are no problem: the label map simply does not
    answer for that structure, and neither the loss nor a metric reads it. Nor is an annotated structure
    without voxels: it was looked for and is not there.

    Args:
        case: to check.
        structures: declared in the data set; any other label in the reference is a problem.
        needs_reference: whether a case without a reference, or whose reference answers for no structure, is
            a problem.

    Returns:
        One sentence a problem, each naming the file; empty if all is well.
    """
    return _validate(case, structures, needs_reference)[0]


def _validate(
    case: Case, structures: Sequence[Structure], needs_reference: bool, usable: Usable | None = None
) -> tuple[tuple[str, ...], frozenset[str]]:
    """What is wrong with a case, and which annotated structures have a voxel in its reference."""
    problems = _problems(lambda: _read(case.image, usable))
    if case.reference is None:
        if needs_reference:
            problems.append(f"Case {case.case_id} has no reference label map; add one or leave the case out")
        return tuple(problems), frozenset()
    reference, there = case.reference, frozenset[str]()
    labels = {s.name: s.label for s in structures}
    try:
        found = _labels_in(read_label_map(reference, frozenset(labels.values())).array)
        there = frozenset(name for name, label in labels.items() if name in case.annotated and label in found)
    except DataError as error:
        problems.append(str(error))
    problems += _grid_problems(case.image, reference)
    undeclared = sorted(case.annotated.keys() - labels.keys())
    if undeclared:
        problems.append(f"Case {case.case_id} names the structure {undeclared[0]!r}, which is not declared")
    if needs_reference and not case.annotated:
        problems.append(f"Case {case.case_id} has a reference, but no structure was annotated in it")
    return tuple(dict.fromkeys(problems)), there


def _read(image: Path, usable: Usable | None) -> None:
    volume = read_image(image)
    if usable is None:
        return
    try:
        usable(volume)
    except DataError as error:
        raise DataError(f"{image}: {error}") from error


def _labels_in(label_map: Array) -> frozenset[int]:
    """Labels that occur, a slice at a time: indexing widens what it is given to eight bytes."""
    occurs = np.zeros(256, dtype=bool)
    for plane in label_map:
        occurs[plane] = True
    return frozenset(np.flatnonzero(occurs).tolist())


def validate_cases(
    cases: Sequence[Case],
    structures: Sequence[Structure],
    *,
    needs_reference: bool | Collection[str],
    usable: Usable | None = None,
    progress: Progress | None = None,
    threads: int = 4,
) -> Mapping[str, frozenset[str]]:
    """Validate cases in threads; see `validate_case`.

    Args:
        cases: to check.
        structures: declared in the data set.
        needs_reference: ids of the cases that need a reference, or True for all and False for none.
        usable: what else an image has to be; its sentence is told with the file.
        progress: called after each case, in the order of the cases.
        threads: at once; each holds one case's voxels.

    Returns:
        Case id -> annotated structures that have a voxel in its reference; empty without a reference.

    Raises:
        DataError: with all problems in the order of the cases; the first ten are shown, the others counted.
        ConfigError: if `threads` is less than 1.
    """
    if threads < 1:
        raise ConfigError(f"Validation was given {threads} threads; expected 1 or more")
    if isinstance(needs_reference, bool):
        needing = frozenset(c.case_id for c in cases) if needs_reference else frozenset[str]()
    else:
        needing = frozenset(needs_reference)

    def check(case: Case) -> tuple[tuple[str, ...], frozenset[str]]:
        return _validate(case, structures, case.case_id in needing, usable)

    problems: list[str] = []
    there: dict[str, frozenset[str]] = {}
    with ThreadPoolExecutor(max_workers=threads) as executor:
        for done, (case, found) in enumerate(zip(cases, executor.map(check, cases), strict=True), start=1):
            problems += found[0]
            there[case.case_id] = found[1]
            if progress is not None:
                progress(done, len(cases))
    if problems:
        raise DataError(_told(problems, len(cases)))
    return there


def _problems(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except DataError as error:
        return [str(error)]
    return []


def _grid_problems(image: Path, reference: Path) -> list[str]:
    try:
        check_same_grid(read_grid(image), read_grid(reference), image, reference)
    except GeometryError as error:
        return [str(error)]
    except DataError:
        return []  # told already, when all of the file was read
    return []


def _told(problems: Sequence[str], cases: int) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"The data set has {count} in {cases} cases:", *(f"  {problem}" for problem in problems[:SHOWN])]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    return "\n".join(lines)
