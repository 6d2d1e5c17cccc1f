"""The YAML of a semi-supervised training as pydantic models."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt, ValidationError, model_validator

from flows.config import ActiveLearningConfig
from flows.config_files import read_values, validated
from flows.data_config import DataModel
from flows.filter_config import PseudoLabelsModel
from flows.network_config import SegmenterModel, SentinelModel
from flows.round_config import AnnotatorModel, CrossFittingModel, EvaluationModel, StartModel
from flows.strict_model import CampaignName, Configured


class SemiSupervisedConfig(Configured, PseudoLabelsModel):
    """A teacher, and students that learn from its masks too.

    `generations` is the number of students. `unlabelled` is how many cases without annotation are used, drawn
    by `seed`; left out, all. `cost_cases` is on how many of them the cost of estimating quality is measured
    (0: not at all). With `share`, the finished stages of the teacher of other trainings beside this one are
    taken over where they are the same. `contoured_only` is for experiments: of cases whose references leave
    structures out, only the masks of structures that they have can become pseudo-labels, so that a filter
    that reads references chooses among the same masks as the others.
    """

    name: CampaignName = "semi_supervised"
    experiment: str = ""
    campaigns_root: Path = Path("campaigns")
    seed: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    data: DataModel
    start: StartModel = StartModel(cases=8)
    unlabelled: PositiveInt | None = None
    generations: PositiveInt = 1
    segmenter: SegmenterModel
    cross_fitting: CrossFittingModel = CrossFittingModel()
    sentinel: SentinelModel = SentinelModel()
    evaluation: EvaluationModel = EvaluationModel()
    contoured_only: bool = False
    cost_cases: NonNegativeInt = 5
    share: bool = True

    @model_validator(mode="after")
    def _could_be_a_campaign(self) -> "SemiSupervisedConfig":
        try:
            self._as_campaign()
        except ValidationError as error:
            mistakes = [each["msg"].removeprefix("Value error, ") for each in error.errors()]
            raise ValueError("; ".join(mistakes)) from error
        return self

    @property
    def folder(self) -> Path:
        """Folder of the training."""
        return self.campaigns_root / self.name

    @property
    def campaign(self) -> ActiveLearningConfig:
        """The same as a campaign that annotates nothing: a generation is one of its rounds."""
        return self._as_campaign()

    def _as_campaign(self) -> ActiveLearningConfig:
        return ActiveLearningConfig(
            name=self.name,
            experiment=self.experiment,
            campaigns_root=self.campaigns_root,
            seed=self.seed,
            threads=self.threads,
            data=self.data,
            start=self.start,
            rounds=self.generations + 1,
            strategy="random",
            segmenter=self.segmenter,
            cross_fitting=self.cross_fitting,
            sentinel=self.sentinel,
            evaluation=self.evaluation,
            annotator=AnnotatorModel(kind="oracle" if self.filter.reads_references else "folder"),
            pseudo_labels=PseudoLabelsModel(filter=self.filter, good_dsc=self.good_dsc, rivals=self.rivals),
        )


def load_semi_supervised(path: Path, overrides: Iterable[str] = ()) -> SemiSupervisedConfig:
    """Read a YAML file and apply `key=value` overrides with dotted keys.

    Raises:
        ConfigError: with one line per mistake, each with its dotted key.
    """
    values = read_values(path, overrides)
    named = "name" in values
    values.setdefault("experiment", path.stem)
    config = validated(SemiSupervisedConfig, values, path)
    name = config.name if named else f"{path.stem}-{config.filter.arm}-seed{config.seed}"
    return config.model_copy(update={"name": name})
