"""From a configuration to a running flow: everything that can be refused is refused before any training.

Prefect and MLflow read their settings when they are imported, so they are imported last.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock
from pydantic import ValidationError

from cohort.errors import CampaignError, ConfigError
from cohort.validation import validate_cases
from flows import campaign as campaigns
from flows import data, environment
from flows.annotators.segmentations import require_slicerio
from flows.audit_options import AuditOptions
from flows.campaign import Campaign
from flows.comparison_config import Comparison, Unit
from flows.comparison_declaration import declare
from flows.config import ActiveLearningConfig
from flows.data_config import DataModel
from flows.mask_filter_options import FilterOptions
from flows.progress import Display
from flows.semi_supervised_config import SemiSupervisedConfig
from flows.sentinel_config import SentinelTrainingConfig
from flows.sentinel_split import split_cases
from segmenters.base import SegmenterSettings
from segmenters.registry import make_segmenter
from sentinel.planning import check_image
from sentinel.training import trainable_embeddings

if TYPE_CHECKING:
    import pandas as pd

    from flows.comparison_report import Reported
    from flows.ingest import Ingested
    from sentinel import Sentinel


def launch(config: ActiveLearningConfig, display: Display) -> Campaign:
    """Run a campaign to its end, or to where it waits for people.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before any training where possible.
    """
    with campaigns.locked(config.folder):
        return run_locked(config, display)


def run_locked(config: ActiveLearningConfig, display: Display) -> Campaign:
    """What `launch` does, for a caller that holds the campaign's lock.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before any training where possible.
    """
    begun = _begin(config, config, display)
    from flows.active_learning import Loop, active_learning
    from flows.tracking import Tracker

    loop = Loop(
        config=config,
        campaign=begun.campaign,
        cohort=begun.cohort,
        fingerprints=begun.fingerprints,
        display=display,
        tracker=Tracker(campaign=begun.campaign),
    )
    active_learning.with_options(flow_run_name=config.name)(loop, begun.killed_flow_run)
    return begun.campaign


def launch_comparison(comparison: Comparison, units: Sequence[Unit], display: Display) -> dict[str, str]:
    """Run units of a comparison; other processes may run units of it at the same time.

    Returns:
        Name of a unit -> why it failed; empty where all units are finished.

    Raises:
        SentinelLoopError: for what hinders every unit.
    """
    root = comparison.config.campaigns_root
    with environment.process_folder(comparison.config.folder / ".processes") as own:
        killed = campaigns.end_orphans(own)
        environment.prepare(own)
        with FileLock(comparison.config.folder / ".data.lock"):
            declare(comparison)
            _generate(units[0].config.data, root, display)
        from flows.comparison import Runner, comparison_flow
        from flows.tracking import open_store

        open_store(root, comparison.config.name)
        runner = Runner(comparison=comparison, units=tuple(units), display=display)
        failed: dict[str, str] = comparison_flow.with_options(flow_run_name=comparison.config.name)(
            runner, own, killed
        )
        return failed


def report_comparison(comparison: Comparison) -> "Reported":
    """Write the report of what is finished of a comparison.

    Returns:
        Its page, and how many campaigns are in it.

    Raises:
        SentinelLoopError: for campaigns that are not paired or were all made with other settings, or a table
            of groups that cannot be read.
    """
    root = comparison.config.campaigns_root
    root.mkdir(parents=True, exist_ok=True)  # Prefect makes its own folder in there, but none above it
    environment.prepare(root)
    from flows.comparison_report import report

    with FileLock(comparison.config.folder / ".report.lock"):
        return report(comparison)


def launch_semi_supervised(config: SemiSupervisedConfig, display: Display) -> Campaign:
    """Train a teacher and its students.

    Returns:
        The training's folder and ledger, which are read like a campaign's.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before any training where possible.
    """
    with campaigns.locked(config.folder):
        return train_locked(config, display)


def train_locked(config: SemiSupervisedConfig, display: Display) -> Campaign:
    """What `launch_semi_supervised` does, for a caller that holds the training's lock.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before any training where possible.
    """
    begun = _begin(config, config.campaign.model_copy(update={"rounds": 1}), display)  # nothing is selected
    from flows.semi_supervised import SelfTraining, semi_supervised
    from flows.tracking import Tracker

    loop = SelfTraining(
        config=config.campaign,
        campaign=begun.campaign,
        cohort=begun.cohort,
        fingerprints=begun.fingerprints,
        display=display,
        tracker=Tracker(campaign=begun.campaign),
        training=config,
    )
    semi_supervised.with_options(flow_run_name=config.name)(loop, begun.killed_flow_run)
    return begun.campaign


def campaign_config(campaign: Campaign) -> ActiveLearningConfig:
    """The config that a campaign's folder keeps, for the place where the folder lies now and its name there.

    Raises:
        CampaignError: for a folder that is no active-learning campaign.
    """
    try:
        kept = ActiveLearningConfig.model_validate(dict(campaign.values))
    except ValidationError as error:
        raise CampaignError(
            f"{campaign.folder} does not hold the config of an active-learning campaign that this version "
            "reads; start it with its own command and YAML"
        ) from error
    return kept.model_copy(update={"campaigns_root": campaign.folder.parent, "name": campaign.name})


def launch_ingest(campaign: Campaign) -> "Ingested | None":
    """Take in what people have put back of the round that waits.

    Returns:
        What became of it, None where no round waits.

    Raises:
        SentinelLoopError: for a campaign that another process runs, or remarks that cannot be read.
    """
    config = campaign_config(campaign)
    with campaigns.locked(campaign.folder):
        from flows.ingest import ingest

        return ingest(campaign, config)


def launch_audit(options: AuditOptions, display: Display) -> "pd.DataFrame":
    """Score every mask of a data set.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before the first score where possible.
    """
    if options.out.suffix != ".csv":
        raise ConfigError(f"--out is {options.out}, expected a name that ends in .csv")
    with campaigns.locked(options.work):
        environment.prepare(options.work)
        from flows.audit import run_audit

        environment.use_threads(options.threads)
        campaigns.end_orphans(options.work)
        return run_audit(options, display)


def launch_filter(options: FilterOptions, display: Display) -> "pd.DataFrame":
    """Keep the good masks of a data set or of a folder of predictions.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before the first score where possible.
    """
    options.check_out()
    with campaigns.locked(options.audit.work):
        environment.prepare(options.audit.work)
        from flows.mask_filter import run_filter

        environment.use_threads(options.threads)
        campaigns.end_orphans(options.audit.work)
        return run_filter(options, display)


def launch_sentinel_training(config: SentinelTrainingConfig, display: Display) -> Path:
    """Train, calibrate and test a sentinel.

    Returns:
        The sentinel's file; its report lies beside it.

    Raises:
        SentinelLoopError: for every mistake that a user can mend, before any training where possible.
    """
    for settings in (config.segmenter, *([config.unseen.segmenter] if config.unseen else [])):
        make_segmenter(
            settings, config.folder / campaigns.WORKSPACE
        )  # names what is missing, before any training
    with campaigns.locked(config.folder):
        campaigns.check_config(config)
        _generate(config.data, config.root, display)
        dataset, test = data.read_dataset(config.data, config.root)
        trainable_embeddings([structure.name for structure in dataset.structures], config.sentinel)
        with display.step("check every scan") as report:
            validate_cases(
                dataset.cases,
                dataset.structures,
                needs_reference=frozenset(test),
                usable=partial(check_image, intensity=config.sentinel.intensity),
                progress=lambda done, total: report(done, total, {}),
            )
        fingerprints = dict(data.fingerprints(dataset.cases))
        campaigns.end_orphans(config.folder)
        environment.prepare(config.root)
        from flows.sentinel_training import SentinelTraining, train_sentinel_flow

        split = split_cases(
            dataset,
            test,
            calibration=config.split.calibration_patients,
            training=config.split.training_patients,
            seed=config.seed,
        )
        campaigns.keep_config(config)
        environment.use_threads(config.threads)
        training = SentinelTraining(
            config=config, dataset=dataset, split=split, fingerprints=fingerprints, display=display
        )
        return train_sentinel_flow.with_options(flow_run_name=config.name)(training)


class _Begun(NamedTuple):
    """A folder with its config and its lock, and the data that it is about."""

    campaign: Campaign
    cohort: data.Cohort
    fingerprints: dict[str, str]
    killed_flow_run: str | None


def _begin(
    config: ActiveLearningConfig | SemiSupervisedConfig, checked: ActiveLearningConfig, display: Display
) -> _Begun:
    """Check everything that can be checked before any training, then create or open the folder.

    Args:
        config: kept in the folder.
        checked: the campaign whose scans must be sound.
        display: shows progress.
    """
    _check_segmenters(config.folder, config.segmenter)
    if checked.annotator.format == "seg.nrrd":
        require_slicerio()
    judge = _load_judge(checked)
    campaigns.check_config(config)
    cohort, fingerprints = _sound_cohort(checked, display, [judge.config.intensity] if judge else [])
    if judge is not None:
        judge.check_knows(structure.name for structure in cohort.dataset.structures)
    if isinstance(config, SemiSupervisedConfig):
        cohort = data.limit_pool(cohort, config.unlabelled, config.seed)
    campaign = campaigns.create_or_open(config)
    killed = campaigns.end_orphans(config.folder)
    environment.prepare(config.campaigns_root)
    return _Begun(campaign, cohort, fingerprints, killed)


def _check_segmenters(folder: Path, *settings: SegmenterSettings) -> None:
    """Refuse a family whose package is not installed, or a device that is not there, before any training."""
    for each in settings:
        make_segmenter(each, folder / campaigns.WORKSPACE)


def _load_judge(config: ActiveLearningConfig) -> "Sentinel | None":
    """The trained sentinel that a filter names; refuses a file that is none, before any training."""
    if config.pseudo_labels is None or config.pseudo_labels.filter.sentinel is None:
        return None
    from sentinel import Sentinel

    return Sentinel.load(config.pseudo_labels.filter.sentinel)


def _generate(settings: DataModel, beside: Path, display: Display) -> None:
    if settings.layout == "phantom":
        with display.step("generate scans") as report:
            data.generate_phantom(settings, beside, lambda done, total: report(done, total, {}))


def _sound_cohort(
    config: ActiveLearningConfig, display: Display, judges: Sequence[str]
) -> tuple[data.Cohort, dict[str, str]]:
    _generate(config.data, config.campaigns_root, display)
    cohort = data.load_cohort(config)
    with display.step("check every scan") as report:
        data.validate_cohort(config, cohort, lambda done, total: report(done, total, {}), judges=judges)
    if not cohort.dataset.patients_known:
        display.say(f"  {cohort.dataset.name} does not say which scans share a patient: splits go by case")
    return cohort, dict(data.fingerprints(cohort.dataset.cases))
