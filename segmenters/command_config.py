"""How somebody else's program is called as a segmenter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandConfig:
    """Any command that reads images from a folder and writes masks to another.

    Args:
        family: "command".
        predict: template with {images} and {output}, each a folder.
        fit: template of a command that trains, "" where the program is used as it is.
        steps: told to `fit` as {steps}.
        labels: structure of the cohort -> label in the program's output, where it is another.
    """

    family: Literal["command"] = "command"
    predict: str
    fit: str = ""
    steps: int = 1
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        return self.predict.split()[0].rsplit("/", 1)[-1]

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""
        return frozenset()
