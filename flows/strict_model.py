"""What every part of a configuration is, and what a whole one has."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cohort.case import check_case_id
from cohort.errors import DataError


class Model(BaseModel):
    """A part of the configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Configured(Model):
    """A configuration of a flow that works in a folder of its own."""

    @property
    def folder(self) -> Path:
        """Where everything that the flow makes goes."""
        raise NotImplementedError


def _campaign_name(value: str) -> str:
    try:
        check_case_id(value)
    except DataError as error:
        raise ValueError(f"{value!r} cannot name a folder; use letters, digits, '.', '_' and '-'") from error
    return value


CampaignName = Annotated[str, AfterValidator(_campaign_name)]
