"""The part of a YAML that says where the scans are."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from flows.strict_model import Model


class PhantomModel(Model):
    """The generated cohort."""

    cases: Annotated[int, Field(ge=2)] = 40
    seed: int = 0
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (40, 96, 128)
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (5.0, 3.2, 3.2)


class DataModel(Model):
    """Where the scans are.

    `decathlon` reads `root`; `folders` reads `labelled`, `unlabelled` and `held_out` (each with `images/`
    and `labels/`) and needs `structures`; `phantom` generates the cohort into `root` (by default beside the
    campaigns).
    """

    layout: Literal["decathlon", "folders", "phantom"] = "decathlon"
    root: Path | None = None
    labelled: Path | None = None
    unlabelled: Path | None = None
    held_out: Path | None = None
    structures: dict[str, PositiveInt] = Field(default_factory=dict)
    held_out_cases: PositiveInt | None = None
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    phantom: PhantomModel = PhantomModel()

    @model_validator(mode="before")
    @classmethod
    def _infer_layout(cls, values: Any) -> Any:
        if isinstance(values, dict) and "layout" not in values and values.get("labelled"):
            return {**values, "layout": "folders"}
        return values

    @model_validator(mode="after")
    def _needs(self) -> "DataModel":
        if self.layout == "decathlon" and self.root is None:
            raise ValueError("the layout 'decathlon' needs data.root, the folder that holds dataset.json")
        if self.layout == "folders":
            missing = [
                f"data.{key}"
                for key in ("labelled", "unlabelled", "held_out", "structures")
                if not getattr(self, key)
            ]
            if missing:
                raise ValueError(f"the layout 'folders' needs {', '.join(missing)}")
            if self.root is not None:
                raise ValueError(
                    "the layout 'folders' reads data.labelled and not data.root; give one of them"
                )
        return self
