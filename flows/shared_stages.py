"""Finished stages of one folder taken over by another, as hard links: arms of a seed share their teacher."""

from collections.abc import Iterable
from pathlib import Path

from flows.stages import is_whole, link_stage

PLANS_IN_THE_WORKSPACE = frozenset({"nnunet"})
"""Families whose first training leaves a plan behind that later ones read: their stages are not shared."""


def take_over(source: Path, target: Path, stages: Iterable[str]) -> tuple[str, ...]:
    """Link the finished stages of a folder into another; where links do not work, copy.

    A stage's folder is named after the hash of its inputs, so a stage that computes something else is never
    mistaken for it: it is only not used.

    Args:
        source: folder of stages, such as a round of another campaign; may be in use or not there.
        target: folder that gets them; what it has already is left alone.
        stages: beginnings of the names to take over, such as "train-".

    Returns:
        Names of the folders that were taken over.
    """
    wanted = tuple(stages)
    taken = []
    for folder in sorted(source.glob("[!.]*/")) if source.is_dir() else []:
        finished = target / folder.name
        if not folder.name.startswith(wanted) or finished.exists() or not is_whole(folder):
            continue
        link_stage(folder, finished)
        taken.append(folder.name)
    return tuple(taken)
