"""Names and colours of labels as viewers read them."""

from collections.abc import Sequence

from cohort.case import Structure

_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Colours that colour-blind people can tell apart. Source: Okabe and Ito, "Color universal design", 2008."""


def slicer_table(structures: Sequence[Structure]) -> str:
    """A colour table of 3D Slicer (.ctbl): `index name R G B A`, spaces in names as underscores.

    >>> print(slicer_table([Structure(name="left kidney", label=2)]), end="")
    # Color table of the label maps beside it
    0 background 0 0 0 0
    2 left_kidney 230 159 0 255
    """
    lines = ["# Color table of the label maps beside it", "0 background 0 0 0 0"]
    for structure, (red, green, blue) in coloured(structures):
        lines.append(f"{structure.label} {'_'.join(structure.name.split())} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def itksnap_table(structures: Sequence[Structure]) -> str:
    """Label descriptions of ITK-SNAP: `IDX R G B A VIS MSH "LABEL"`.

    >>> print(itksnap_table([Structure(name="left kidney", label=2)]), end="")
    0 0 0 0 0 0 0 "Clear Label"
    2 230 159 0 1 1 1 "left kidney"
    """
    lines = ['0 0 0 0 0 0 0 "Clear Label"']
    for structure, (red, green, blue) in coloured(structures):
        name = structure.name.replace('"', "'")
        lines.append(f'{structure.label} {red} {green} {blue} 1 1 1 "{name}"')
    return "\n".join(lines) + "\n"


def coloured(structures: Sequence[Structure]) -> list[tuple[Structure, tuple[int, int, int]]]:
    """Each structure with its colour, red, green and blue from 0 to 255."""
    return [(structure, _COLOURS[number % len(_COLOURS)]) for number, structure in enumerate(structures)]
