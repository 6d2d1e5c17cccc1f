"""What every part of a configuration is."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A part of the configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
