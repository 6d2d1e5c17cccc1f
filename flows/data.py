"""From the configuration to a cohort whose files are known to be sound, and to its split."""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cohort.case import Case, Dataset
from cohort.cold_start import choose_diverse_start
from cohort.errors import ConfigError, DataError
from cohort.features import LENGTH, embed
from cohort.layouts import decathlon, folders
from cohort.phantom import write_phantom
from cohort.pool import Pool, choose_held_out, choose_start, eligible_for_start
from cohort.seeds import derive_seed
from cohort.validation import validate_cases
from cohort.volume import Volume
from flows.config import ActiveLearningConfig
from flows.data_config import DataModel
from flows.features import CACHE, image_features
from flows.stages import file_sha256, json_sha256
from sentinel.planning import check_image
from sentinel.training import trainable_embeddings

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)
_ORACLE_ANNOTATES = (
    "The simulated annotator (annotator.kind: oracle, the default) reads the label maps of the unlabelled "
    "cases, and {bare} of {pool} have none; set annotator.kind: folder where people annotate"
)
_ORACLE_SCORES = (
    "An estimator or filter that is an oracle reads the label maps of the unlabelled cases, and {bare} of "
    "{pool} have none; take another one"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A data set and who is who in it when the campaign starts.

    Args:
        dataset: all cases.
        held_out: ids that only ever measure.
        start: ids that are annotated before round 0.
        pool: ids that may be selected.
    """

    dataset: Dataset
    held_out: tuple[str, ...]
    start: tuple[str, ...]
    pool: tuple[str, ...]


def phantom_root(data: DataModel, beside: Path) -> Path:
    """Where the generated cohort lies: data.root, or a folder below `beside`."""
    if data.root is not None:
        return data.root
    digest = json_sha256(data.phantom.model_dump(mode="json"))[:8]
    held_out = _held_out_count(data, data.phantom.cases)
    return beside / ".phantom" / f"{digest}-{held_out}"


def generate_phantom(data: DataModel, beside: Path, progress: Progress | None = None) -> None:
    """Write the generated cohort unless it is there."""
    phantom = data.phantom
    held_out = _held_out_count(data, phantom.cases)
    write_phantom(
        phantom_root(data, beside),
        cases=phantom.cases,
        held_out=held_out,
        seed=phantom.seed,
        shape=phantom.shape,
        spacing_mm=phantom.spacing_mm,
        progress=progress,
    )


def load_cohort(config: ActiveLearningConfig) -> Cohort:
    """Read the data set's headers, split it, and check that a campaign can be made of it.

    Raises:
        DataError: for what is wrong with the data set's files.
        ConfigError: for a split or a budget that the data set cannot give.
    """
    return _check(config, read_cohort(config))


def read_cohort(config: ActiveLearningConfig) -> Cohort:
    """What `load_cohort` gives, of a campaign that has begun: nothing more is checked.

    Raises:
        DataError: for what is wrong with the data set's files.
        ConfigError: for a split that the data set cannot give.
    """
    if config.data.layout == "folders":
        return _from_folders(config)
    dataset, held_out = read_dataset(config.data, config.campaigns_root)
    start = _start(config, dataset, held_out)
    taken = {*held_out, *start}
    pool = tuple(case.case_id for case in dataset.cases if case.case_id not in taken)
    return Cohort(dataset=dataset, held_out=held_out, start=start, pool=pool)


def read_dataset(data: DataModel, beside: Path) -> tuple[Dataset, tuple[str, ...]]:
    """Read a data set's headers, and which of its cases are held out.

    Args:
        data: where it lies; not the layout "folders".
        beside: folder below which the generated cohort lies.

    Raises:
        DataError: for what is wrong with the data set's files.
        ConfigError: for a split that the data set cannot give.
    """
    root = phantom_root(data, beside) if data.layout == "phantom" else data.root
    if root is None:
        raise ConfigError("data.root is missing: give the folder that holds dataset.json")
    dataset = decathlon.read(root)
    return dataset, _held_out(data, dataset)


def limit_pool(cohort: Cohort, count: int | None, seed: int) -> Cohort:
    """A cohort with so many unlabelled cases, drawn by a seeded hash of their ids; None keeps all.

    A larger number holds the cases of a smaller one.

    Raises:
        ConfigError: if there is no unlabelled case, or fewer than that.
    """
    if not cohort.pool:
        raise ConfigError(
            f"There is no unlabelled case in {cohort.dataset.name!r}: all {len(cohort.dataset.cases)} are "
            "labelled or held out; add some, start with fewer or hold out fewer"
        )
    if count is not None and count > len(cohort.pool):
        raise ConfigError(
            f"unlabelled is {count}, but only {len(cohort.pool)} cases of {cohort.dataset.name!r} are "
            "neither labelled nor held out; lower it, or leave it out to take all"
        )
    drawn = sorted(cohort.pool, key=lambda case_id: derive_seed(seed, "unlabelled", case_id))[:count]
    return replace(cohort, pool=tuple(sorted(drawn)))


def validate_cohort(
    config: ActiveLearningConfig,
    cohort: Cohort,
    progress: Progress | None = None,
    *,
    judges: Collection[str] = (),
) -> None:
    """Read every voxel once, before any training.

    Args:
        config: of the campaign.
        cohort: of the campaign.
        progress: told how many cases are read, and of how many.
        judges: intensities that sentinels from elsewhere expect, see `sentinel.planning.check_image`.

    Raises:
        DataError: with all problems of all cases.
    """
    needed = set(cohort.held_out) | set(cohort.start)
    simulated = config.annotator.kind == "oracle" or config.reads_references
    if simulated:
        needed |= set(cohort.pool)
    dataset = cohort.dataset
    expected = sorted({*judges, *([config.sentinel.intensity] if config.cross_fits else [])})
    try:
        there = validate_cases(
            dataset.cases,
            dataset.structures,
            needs_reference=frozenset(needed),
            usable=partial(_check_images, intensities=expected) if expected else None,
            progress=progress,
        )
    except DataError as error:
        bare = sum(dataset.by_id[case_id].reference is None for case_id in cohort.pool)
        if not simulated or not bare:
            raise
        wanted = _ORACLE_SCORES if config.reads_references else _ORACLE_ANNOTATES
        raise DataError(f"{error}\n{wanted.format(bare=bare, pool=len(cohort.pool))}") from error
    _warn_of_empty(cohort, there)


def _check_images(volume: Volume, intensities: Sequence[str]) -> None:
    for intensity in intensities:
        check_image(volume, intensity)


def _warn_of_empty(cohort: Cohort, there: Mapping[str, frozenset[str]]) -> None:
    """Say which structures were looked for and have no voxel in any label map of a part of the cases."""
    by_id = cohort.dataset.by_id
    for part, ids, follows in (
        ("held-out case", cohort.held_out, "the mean DSC leaves them out"),
        ("labelled case", cohort.start, "the first round learns that they are nowhere"),
    ):
        looked_for = {name for case_id in ids for name in by_id[case_id].annotated}
        seen = {name for case_id in ids for name in there[case_id]}
        empty = [s.name for s in cohort.dataset.structures if s.name in looked_for - seen]
        if empty:
            _log.warning(
                "No %s has a voxel of %s: %s. Are the labels right?", part, ", ".join(empty), follows
            )


def fingerprints(cases: tuple[Case, ...]) -> Mapping[str, str]:
    """Case id -> hash of the bytes of its image and reference."""
    with ThreadPoolExecutor(max_workers=4) as threads:
        return dict(zip((case.case_id for case in cases), threads.map(_fingerprint, cases), strict=True))


def _fingerprint(case: Case) -> str:
    hashes = [file_sha256(path) for path in (case.image, case.reference) if path is not None]
    described = [case.case_id, case.patient_id, *hashes, json_sha256(dict(case.annotated))]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _held_out_count(data: DataModel, cases: int) -> int:
    return data.held_out_cases or max(1, round(data.held_out_fraction * cases))


def _held_out(data: DataModel, dataset: Dataset) -> tuple[str, ...]:
    """Held-out ids: the same for every seed of a comparison."""
    if data.held_out_cases is not None:
        return choose_held_out(dataset, count=data.held_out_cases, seed=0)
    fraction = None if dataset.held_out else data.held_out_fraction
    return choose_held_out(dataset, fraction=fraction, seed=0)


def _start(config: ActiveLearningConfig, dataset: Dataset, held_out: tuple[str, ...]) -> tuple[str, ...]:
    """Ids of the labelled cases of round 0."""
    if config.start.method == "random":
        return choose_start(dataset, held_out=held_out, count=config.start.cases, seed=config.seed)
    names = eligible_for_start(dataset, held_out=held_out)
    images = [dataset.by_id[name].image for name in names]
    found = image_features(images, config.campaigns_root / CACHE)
    sound = [place for place, each in enumerate(found) if not each.broken]
    coordinates = embed(np.array([found[place].values for place in sound]).reshape(len(sound), LENGTH))
    chosen = [names[place] for place in sound]
    return choose_diverse_start(chosen, coordinates, count=config.start.cases, seed=config.seed)


def _from_folders(config: ActiveLearningConfig) -> Cohort:
    data = config.data
    if data.labelled is None:
        raise ConfigError("data.labelled is missing")
    split = folders.read(data.labelled, data.unlabelled, data.held_out, data.structures)
    return Cohort(dataset=split.dataset, held_out=split.held_out, start=split.labelled, pool=split.unlabelled)


def _check(config: ActiveLearningConfig, cohort: Cohort) -> Cohort:
    Pool.start(
        cohort.dataset, labelled=cohort.start, held_out=cohort.held_out, unlabelled=cohort.pool
    )  # refuses a patient on both sides
    patients = {cohort.dataset.by_id[case_id].patient_id for case_id in cohort.start}
    if len(patients) < config.patients_needed:
        raise ConfigError(
            f"The estimator {', '.join(config.estimator_names)} learns from cross-fitted masks, which take "
            f"at least {config.patients_needed} labelled patients, but the campaign starts with "
            f"{len(patients)}; start with more or take the strategy random or entropy"
        )
    _check_names(config, cohort.dataset)
    _check_measurable(cohort)
    _check_budget(config, cohort)
    return cohort


def _check_names(config: ActiveLearningConfig, dataset: Dataset) -> None:
    names = [structure.name for structure in dataset.structures]
    tolerance_mm = config.evaluation.tolerance_mm
    missing = [] if isinstance(tolerance_mm, float) else [n for n in names if n not in tolerance_mm]
    if missing:
        raise ConfigError(f"evaluation.tolerance_mm names no tolerance for {', '.join(missing)}")
    strange = [] if isinstance(tolerance_mm, float) else [n for n in tolerance_mm if n not in names]
    if strange:
        raise ConfigError(
            f"evaluation.tolerance_mm names {', '.join(strange)}, and the structures are {', '.join(names)}; "
            "correct the name or leave it out"
        )
    if config.cross_fits:
        trainable_embeddings(names, config.sentinel)


def _check_measurable(cohort: Cohort) -> None:
    by_id = cohort.dataset.by_id
    measured = {name for case_id in cohort.held_out for name in by_id[case_id].evaluated}
    blind = [s.name for s in cohort.dataset.structures if s.name not in measured]
    if len(blind) == len(cohort.dataset.structures):
        raise ConfigError("No held-out case has a structure that could be measured; hold out other cases")
    if blind:
        _log.warning("No held-out case can measure %s; the mean DSC leaves them out", ", ".join(blind))


def _check_budget(config: ActiveLearningConfig, cohort: Cohort) -> None:
    structures = 1 if config.unit == "structure" else len(cohort.dataset.structures)
    model = config.budget.cost_model
    budget = config.budget.limit
    least = model.cost(structures=structures, slices=1, foreground_voxels=1)
    if not budget.affords(least):
        what = "a structure" if structures == 1 else f"the {structures} structures"
        what += " in one slab" if config.unit == "slices" else ""
        raise ConfigError(
            f"budget.per_round is {budget.per_round:g} {budget.currency}, but annotating {what} of one case "
            f"takes at least {budget.amount(least):g}; raise it"
        )
    selections = config.rounds - 1
    if selections and not cohort.pool:
        raise ConfigError("The pool is empty: every case is held out or labelled already")
    available = {"cases": len(cohort.pool), "structures": len(cohort.pool) * len(cohort.dataset.structures)}
    wanted, currency = config.budget.per_round * selections, config.budget.currency
    once = config.unit != "slices"  # a case may be opened in several rounds, for other slabs
    if once and currency in available and wanted > available[currency]:
        raise ConfigError(
            f"The budget is larger than the pool: budget.per_round {config.budget.per_round:g} x "
            f"{selections} selecting rounds = {wanted:g} {currency}, but the pool holds "
            f"{available[currency]}; lower budget.per_round or rounds"
        )
