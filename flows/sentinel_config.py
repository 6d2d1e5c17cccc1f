"""The YAML of a sentinel's training as pydantic models."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from flows.config_files import read_values, validated
from flows.data_config import DataModel
from flows.network_config import SegmenterModel, SentinelModel
from flows.strict_model import CampaignName, Configured, Model


class CheckpointsModel(Model):
    """How long segmenters train, and after which steps they make masks."""

    steps: PositiveInt = 600
    checkpoint_steps: tuple[PositiveInt, ...] = (40, 80, 160, 320)

    @model_validator(mode="after")
    def _within(self) -> "CheckpointsModel":
        late = [step for step in self.checkpoint_steps if step > self.steps]
        if late:
            raise ValueError(f"checkpoint_steps {late} lie after the last step {self.steps}")
        return self


class GradedMasksModel(CheckpointsModel):
    """How masks of graded quality are made: checkpoints of cross-fitted segmenters."""

    folds: Annotated[int, Field(ge=2)] = 2


class UnseenModel(CheckpointsModel):
    """A segmenter whose masks the sentinel never learns from: a test of what is new to it."""

    segmenter: SegmenterModel


class SplitModel(Model):
    """Who trains and who calibrates; `data.held_out_cases` test."""

    calibration_patients: PositiveInt = 20
    training_patients: PositiveInt | None = None


class SentinelTrainingConfig(Configured):
    """A sentinel from labelled scans: trained, calibrated, tested."""

    name: CampaignName = "sentinel"
    experiment: str = "sentinels"
    root: Path = Path("sentinels")
    seed: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    data: DataModel
    split: SplitModel = SplitModel()
    segmenter: SegmenterModel
    masks: GradedMasksModel = GradedMasksModel()
    unseen: UnseenModel | None = None
    sentinel: SentinelModel = SentinelModel()
    level: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    bad_below: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    rivals: bool = True
    licence: str = ""

    @model_validator(mode="after")
    def _no_folders(self) -> "SentinelTrainingConfig":
        if self.data.layout == "folders":
            raise ValueError("data.layout is 'folders'; a sentinel is trained on 'decathlon' or 'phantom'")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the sentinel, its stages and its report."""
        return self.root / self.name

    @property
    def architectures(self) -> dict[str, str]:
        """What to call who made the masks of a test: "seen", and "unseen" where there is one."""
        seen = self.segmenter.architecture
        if self.unseen is None:
            return {"seen": seen}
        other = self.unseen.segmenter.architecture
        return {"seen": seen, "unseen": f"{other}, set otherwise" if other == seen else other}


def load_sentinel_training(path: Path, overrides: Iterable[str] = ()) -> SentinelTrainingConfig:
    """Read a YAML file and apply `key=value` overrides with dotted keys.

    Raises:
        ConfigError: with one line per mistake, each with its dotted key.
    """
    values = read_values(path, overrides)
    values.setdefault("name", f"{path.stem}-seed{values.get('seed', 0)}")
    return validated(SentinelTrainingConfig, values, path)
