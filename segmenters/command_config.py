"""How somebody else's program is called as a segmenter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from cohort.errors import ConfigError
from segmenters.command_template import Template
from segmenters.config import check_choice, check_range

Source = int | str
Masks = Literal["label_map", "per_structure"]
Unmapped = Literal["refuse", "background"]

MASKS: tuple[str, ...] = ("label_map", "per_structure")
UNMAPPED: tuple[str, ...] = ("refuse", "background")

_FIT_NEEDS = frozenset({"images", "labels", "weights"})
_FIT_ALLOWS = frozenset({"steps", "seed"})
_MAX_LABEL = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandConfig:
    """Any command that reads images and writes masks. Command lines are split into words, no shell runs.

    Args:
        family: "command".
        predict: command line with `{output}`, and either `{images}` (a folder of `<case_id>.nii.gz`; the
            program runs once for many cases and `{output}` is a folder) or `{image}` (one file; the program
            runs once per case, and `{output}` is that case's label map or folder). With `fit` also
            `{weights}`.
        fit: command line of a training with `{images}`, `{labels}` (folders of `<case_id>.nii.gz`),
            `{weights}` (an empty folder for what it learns), and where it wants them `{steps}` and `{seed}`;
            "" where the program is used as it is.
        steps: told to `fit` as `{steps}`.
        masks: what the program writes for a case: "label_map" is `<case_id>.nii.gz`, "per_structure" is a
            folder `<case_id>/` with one mask `<name>.nii.gz` per structure.
        labels: structure of the cohort -> its label, or the name of its mask, in the program's output; a list
            is put together, an empty list is a structure that the program does not know. A structure that is
            not named has its own label or name there.
        unmapped: what a label in a label map is that no structure has: "refuse" is an error, "background"
            ignores it. Masks of other names are always ignored.
    """

    family: Literal["command"] = "command"
    predict: str
    fit: str = ""
    steps: int = 1
    masks: Masks = "label_map"
    labels: Mapping[str, Source | tuple[Source, ...]] = field(default_factory=dict)
    unmapped: Unmapped = "refuse"

    def __post_init__(self) -> None:
        check_choice("masks", self.masks, MASKS)
        check_choice("unmapped", self.unmapped, UNMAPPED)
        check_range("steps", self.steps, 1, math.inf)
        for structure in self.labels:
            self._check_sources(structure)
        self._check_predict(Template.parse("predict", self.predict))
        if self.fit:
            Template.parse("fit", self.fit).check("fit", needed=_FIT_NEEDS, allowed=_FIT_ALLOWS)

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        return PurePath(Template.parse("predict", self.predict).program).name

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield: none, a program writes masks alone."""
        return frozenset()

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that its results depend on: none that can be known."""
        return ()

    @property
    def one_by_one(self) -> bool:
        """Whether the program runs once per case."""
        return "image" in Template.parse("predict", self.predict).placeholders

    def sources(self, structure: str) -> tuple[Source, ...] | None:
        """Labels or names of masks that mean a structure, None where `labels` does not say."""
        if structure not in self.labels:
            return None
        found = self.labels[structure]
        return tuple(found) if isinstance(found, tuple | list) else (found,)

    def _check_predict(self, template: Template) -> None:
        images = template.placeholders & {"images", "image"}
        if len(images) == 2:
            raise ConfigError(
                "predict has {images} and {image}; expected one: a folder for many cases, or one file"
            )
        needed = (images or {"images"}) | {"output"} | ({"weights"} if self.fit else frozenset())
        template.check("predict", needed=frozenset(needed), allowed=frozenset())

    def _check_sources(self, structure: str) -> None:
        kind, words = (
            (int, f"whole numbers from 1 to {_MAX_LABEL}") if self.masks == "label_map" else (str, "names")
        )
        for source in self.sources(structure) or ():
            fits = isinstance(source, kind) and not isinstance(source, bool)
            if not fits or (isinstance(source, int) and not 1 <= source <= _MAX_LABEL):
                raise ConfigError(
                    f"labels.{structure} has {source!r}, but masks is {self.masks!r}: expected {words}"
                )
