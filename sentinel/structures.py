"""Anatomical structures by name: our own spelling, the published weights' atlas index, and aliases."""

import csv
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from cohort.errors import DataError

_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
_QUALIFIERS = ("left", "right", "anterior", "posterior")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownStructure:
    """A structure that the shipped tables know.

    Args:
        name: our spelling, lower case with underscores.
        atlas_index: its label in DAP Atlas, which keys the published text embeddings; None where it is not
            in that atlas.
        aliases: other names, in TotalSegmentator, BTCV, AMOS and common speech.
    """

    name: str
    atlas_index: int | None
    aliases: tuple[str, ...]

    @property
    def phrase(self) -> str:
        """The name as one would say it.

        >>> known_structures()["kidney_left"].phrase
        'left kidney'
        """
        words = self.name.split("_")
        front = [word for word in words if word in _QUALIFIERS]
        return " ".join(front[::-1] + [word for word in words if word not in _QUALIFIERS])


def name_key(name: str) -> str:
    """What two spellings of one name have in common: sorted lower-case words, sides spelled out.

    >>> name_key("Kidney_L") == name_key("left kidney")
    True
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    return " ".join(sorted(_SIDES.get(word, word) for word in words))


@cache
def known_structures() -> Mapping[str, KnownStructure]:
    """All structures of the shipped table, by name.

    Returns:
        Read-only, in the order of the table: the atlas first, by index.
    """
    table = resources.files("sentinel").joinpath("structures.csv").read_text(encoding="utf-8")
    known = {}
    for row in csv.DictReader(table.splitlines()):
        index = int(row["atlas_index"]) if row["atlas_index"] else None
        aliases = tuple(alias for alias in row["aliases"].split("|") if alias)
        known[row["name"]] = KnownStructure(name=row["name"], atlas_index=index, aliases=aliases)
    return MappingProxyType(known)


@cache
def _by_key() -> Mapping[str, KnownStructure]:
    found: dict[str, KnownStructure] = {}
    for structure in known_structures().values():
        for name in (structure.name, *structure.aliases):
            found.setdefault(name_key(name), structure)
    return MappingProxyType(found)


def find_structure(name: str) -> KnownStructure | None:
    """The known structure of that name or alias, None for an unknown one.

    >>> find_structure("Right Kidney").name
    'kidney_right'
    >>> find_structure("flux capacitor") is None
    True
    """
    return _by_key().get(name_key(name))


def nearest_names(name: str, count: int = 3) -> tuple[str, ...]:
    """Known names that are spelled most like `name`, best first; may be empty.

    >>> nearest_names("hipocampus anterior")[0]
    'hippocampus_anterior'
    """
    keys = difflib.get_close_matches(name_key(name), _by_key(), n=3 * count, cutoff=0.6)
    return tuple(dict.fromkeys(_by_key()[key].name for key in keys))[:count]


def require_structure(name: str) -> KnownStructure:
    """The known structure of that name or alias.

    Raises:
        DataError: for an unknown name; the message suggests the nearest known ones.
    """
    structure = find_structure(name)
    if structure is None:
        nearest = nearest_names(name)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "no known name is spelled like it;"
        raise DataError(
            f"Structure {name!r} is not in the table of known structures: {hint} rename it, or set "
            "unknown_names to 'hash' to give it an embedding made from its spelling"
        )
    return structure
