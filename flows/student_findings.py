"""What a comparison of semi-supervised trainings says, computed from its tables: what students learned.

Nobody annotates in a generation, so there is no axis of cost: the last generation's DSC and NSD are compared,
with the control, and with the teacher, which learned from the labelled cases alone for as many steps.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from cohort.comparison.contrasts import Contrast, Measure, contrast, corrected
from cohort.comparison.runs import ArmRuns
from cohort.comparison.summaries import band
from flows.comparison_config import ComparisonConfig
from flows.comparison_findings import contrast_row
from flows.comparison_tables import Metric, Tables, arm_runs

LABELLED_ONLY = "labelled only"
_METRICS: Mapping[Measure, Metric] = {"final": "dsc", "final_nsd": "nsd"}
"""What is compared of a training, which spends nothing -> what was measured."""
_AXIS = "cases"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSummary:
    """What an arm's last generation measured.

    Args:
        arm: name.
        n: seeds.
        dsc: mean over seeds.
        dsc_sd: between seeds, NaN for one.
        dsc_lower: of the bootstrap over seeds and held-out cases, 95 %.
        dsc_upper: likewise.
        nsd: mean over seeds.
        nsd_sd: between seeds, NaN for one.
    """

    arm: str
    n: int
    dsc: float
    dsc_sd: float
    dsc_lower: float
    dsc_upper: float
    nsd: float
    nsd_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFindings:
    """What a comparison of semi-supervised trainings found.

    Args:
        runs: arm -> DSC of its last generations; first "labelled only", the teachers of the control's seeds.
        primary: the declared contrast, DSC and NSD; empty where none was declared or no pair is there.
        secondary: every other arm with the control, corrected after Holm.
        family: how many of these were planned.
        gains: every arm with the teacher, DSC and NSD; not corrected.
        summaries: of each arm.
        shares_of_gain: arm -> its mean gain in DSC over the control's on the same seeds; empty where the
            control's own gain is not above 0 with 95 % confidence over seeds.
    """

    runs: Mapping[str, ArmRuns]
    primary: tuple[Contrast, ...]
    secondary: tuple[Contrast, ...]
    family: int
    gains: tuple[Contrast, ...]
    summaries: tuple[StudentSummary, ...]
    shares_of_gain: Mapping[str, float]


def find_students(config: ComparisonConfig, tables: Tables) -> StudentFindings:
    """Compute everything that the finished trainings can say."""
    runs = {measure: _last(config, tables, metric) for measure, metric in _METRICS.items()}
    dsc = runs["final"]
    secondary = [arm for arm in config.secondary_arms() if arm in dsc]
    family = len(config.secondary_arms()) * len(_METRICS)
    gains = tuple(_contrasts(runs, (arm for arm in dsc if arm != LABELLED_ONLY), LABELLED_ONLY))
    return StudentFindings(
        runs=dsc,
        primary=corrected(_primary(config, runs), len(_METRICS)),
        secondary=corrected(tuple(_contrasts(runs, secondary, config.control)), family),
        family=family,
        gains=gains,
        summaries=tuple(_summary(each, runs["final_nsd"][arm]) for arm, each in dsc.items()),
        shares_of_gain=_shares(config, dsc),
    )


def student_tables(findings: StudentFindings) -> dict[str, pd.DataFrame]:
    """Contrasts and arms, a row each."""
    rows = [
        {"declared": declared, **contrast_row(each)}
        for declared, found in (
            ("primary", findings.primary),
            ("secondary", findings.secondary),
            ("gain", findings.gains),
        )
        for each in found
    ]
    arms = [
        {**asdict(each), "share_of_gain": findings.shares_of_gain.get(each.arm, math.nan)}
        for each in findings.summaries
    ]
    return {"contrasts": pd.DataFrame(rows), "arms": pd.DataFrame(arms)}


def student_metrics(findings: StudentFindings) -> dict[str, float]:
    """What MLflow shows of the arms."""
    found: dict[str, float] = {}
    for each in findings.summaries:
        found |= {f"{each.arm}/dsc": each.dsc, f"{each.arm}/nsd": each.nsd, f"{each.arm}/seeds": each.n}
    return found


def _last(config: ComparisonConfig, tables: Tables, metric: Metric) -> dict[str, ArmRuns]:
    runs = arm_runs(tables, config.arms, metric)
    last = {arm: each.of_round(-1) for arm, each in runs.items()}
    if config.control not in runs:
        return last
    return {LABELLED_ONLY: runs[config.control].of_round(0).named(LABELLED_ONLY), **last}


def _contrasts(
    runs: Mapping[Measure, Mapping[str, ArmRuns]], arms: Iterable[str], against: str
) -> Iterable[Contrast]:
    for arm in arms:
        for measure, measured in runs.items():
            if against in measured:
                found = contrast(measured[arm], measured[against], measure=measure, currency=_AXIS)
                if found is not None:
                    yield found


def _primary(config: ComparisonConfig, runs: Mapping[Measure, Mapping[str, ArmRuns]]) -> tuple[Contrast, ...]:
    declared = config.primary
    if declared is None:
        return ()
    found = (
        contrast(
            measured[declared.arm],
            measured[declared.against],
            measure=measure,
            currency=_AXIS,
            among=config.primary_seeds,
        )
        for measure, measured in runs.items()
        if {declared.arm, declared.against} <= measured.keys()
    )
    return tuple(each for each in found if each is not None)


def _summary(dsc: ArmRuns, nsd: ArmRuns) -> StudentSummary:
    found = band(dsc, _AXIS)
    (mean,), (lower,), (upper,) = found.dsc, found.lower, found.upper
    return StudentSummary(
        arm=dsc.arm,
        n=len(dsc.seeds),
        dsc=mean,
        dsc_sd=_sd(dsc),
        dsc_lower=lower,
        dsc_upper=upper,
        nsd=float(nsd.curves().mean()),
        nsd_sd=_sd(nsd),
    )


def _sd(runs: ArmRuns) -> float:
    values = runs.curves()[:, 0]
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _shares(config: ComparisonConfig, runs: Mapping[str, ArmRuns]) -> dict[str, float]:
    if config.control not in runs:
        return {}
    teacher, control = runs[LABELLED_ONLY], runs[config.control]
    found = {}
    for arm, each in runs.items():
        if arm == LABELLED_ONLY:
            continue
        own = contrast(each, teacher, measure="final", currency=_AXIS)
        of_control = contrast(control, teacher, measure="final", currency=_AXIS, among=each.seeds)
        if own is not None and of_control is not None and of_control.t_lower > 0.0:
            found[arm] = own.difference / of_control.difference
    return found
