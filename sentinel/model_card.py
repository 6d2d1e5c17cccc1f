"""The model card of a sentinel: its purpose, what it learned from, how it was tested, where it ends."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sentinel.calibration import min_patients
from sentinel.evaluation import Evaluation, Figures
from sentinel.scoring import Sentinel


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTest:
    """One test on a card.

    Args:
        heading: which masks.
        evaluations: estimator -> its evaluation of the same masks, the sentinel's first.
    """

    heading: str
    evaluations: Mapping[str, Evaluation]


def model_card(
    sentinel: Sentinel,
    *,
    name: str,
    file: str,
    about: Mapping[str, str],
    tests: Sequence[CardTest],
    licence: str,
    bad_below: float,
) -> str:
    """Write a model card.

    Args:
        sentinel: trained.
        name: of it.
        file: its file's name.
        about: what made it, for the table of provenance.
        tests: what was measured on patients that taught it nothing.
        licence: of the data, "" where it was not said.
        bad_below: DSC below which the tests call a mask bad.

    Returns:
        Markdown.
    """
    parts = [
        f"# {name}",
        _purpose(sentinel, about),
        f"```python\nfrom sentinel import Sentinel\n\nsentinel = Sentinel.load({file!r})\n"
        "scores = sentinel.score(volume, masks, spacing_mm)   # masks: structure name -> (D, H, W)\n```",
        "## What it can score",
        _structures(sentinel),
        "## How well it was tested",
        "Patients of these tests taught neither the segmenters, nor the sentinel, nor its calibration. "
        "Intervals are 95 % percentile bootstraps over patients. *Within one model* is the mean rank "
        "correlation among the masks of one trained model and structure; AUC is that of finding masks "
        f"below DSC {bad_below:g}.",
        *(_test(test) for test in tests),
        "## Where it ends",
        _limits(sentinel),
        "## How it was made",
        _table(
            ("", ""), [*about.items(), *_settings(sentinel), ("licence of the data", licence or "not said")]
        ),
        "The method is Quality Sentinel (Chen, Zhou, Yuille, arXiv 2406.00327). This is research software "
        "and no medical device.",
    ]
    return "\n\n".join(parts) + "\n"


def _purpose(sentinel: Sentinel, about: Mapping[str, str]) -> str:
    kinds = {"ct_hu": "CT in Hounsfield units", "per_volume_percentile": "any modality, scan by scan"}
    return (
        "Predicts the Dice similarity coefficient (DSC) that a segmentation mask would get against a careful "
        f"annotation, from image, mask and the name of the structure. Learned from {about['data set']} "
        f"({about.get('modality') or 'modality not said'}, {about['training patients']} patients); "
        f"intensities: {kinds[sentinel.config.intensity]}. It ranks masks for review and "
        "filters pseudo-labels; it does not replace looking at a mask."
    )


def _structures(sentinel: Sentinel) -> str:
    rows = []
    for name in sentinel.structures:
        found = sentinel.calibration.structures.get(name)
        bounds = "none: not calibrated for this structure"
        if found is not None and found.quantile is not None:
            bounds = f"{sentinel.calibration.level:.0%}, from {found.patients} patients, {found.masks} masks"
        elif found is not None:
            needed = min_patients(sentinel.calibration.level)
            bounds = f"none: {found.patients} patients calibrate it, bounds take {needed}"
        rows.append((name, bounds))
    return _table(("structure", "bounds of the DSC"), rows)


def _test(test: CardTest) -> str:
    overall = [(name, *_cells(found.per_mask["all"])) for name, found in test.evaluations.items()]
    own = next(iter(test.evaluations.values()))
    each = [(name, *_cells(found)) for name, found in own.per_mask.items() if name != "all"]
    parts = [
        f"### {test.heading}",
        _table(("estimator, all structures", *_HEADINGS), overall),
        _table(("the sentinel, by structure", *_HEADINGS), each),
    ]
    slices = own.per_slice.get("all")
    if slices is not None:
        parts.append(
            f"Single slices ({slices.slices}), before calibration: Pearson {slices.pearson:.3f}, Spearman "
            f"{slices.spearman:.3f}, MAE {slices.mae:.3f}."
        )
    return "\n\n".join(parts)


_HEADINGS = (
    "masks",
    "Pearson [95 %]",
    "Spearman",
    "within one model",
    "MAE [95 %]",
    "coverage [95 %]",
    "AUC",
)


def _cells(found: Figures) -> tuple[str, ...]:
    return (
        str(found.masks) if found.masks else f"none of {found.without_value} has a calibrated value",
        f"{_shown(found.pearson)} [{_shown(found.pearson_low)}, {_shown(found.pearson_high)}]",
        _shown(found.spearman),
        _shown(found.spearman_within),
        f"{_shown(found.mae)} [{_shown(found.mae_low)}, {_shown(found.mae_high)}]",
        f"{_shown(found.coverage)} [{_shown(found.coverage_low)}, {_shown(found.coverage_high)}]",
        _shown(found.auc),
    )


def _limits(sentinel: Sentinel) -> str:
    lines = [
        "Scores of scans unlike those it learned from (another modality, protocol, age group or disease) are "
        "guesses; the bounds promise nothing there.",
        "Bounds hold on average over masks like those that calibrated it, not for each kind of mask: the "
        "table of an architecture that it never saw says how far that carries.",
        "It judges what a mask covers, slice by slice. A structure that was missed altogether has no mask, "
        "and so no score.",
        "Structures outside of its table are refused.",
    ]
    if sentinel.config.orientation == "canonical":
        lines.append("Volumes are turned to RAS+ first, so their affine has to be right.")
    return "\n".join(f"- {line}" for line in lines)


def _settings(sentinel: Sentinel) -> list[tuple[str, str]]:
    shown = (
        "backbone",
        "image_size",
        "intensity",
        "margin",
        "margin_unit",
        "orientation",
        "max_slices",
        "aggregation",
        "dense_weight",
        "mask_dropout",
        "steps",
    )
    settings = asdict(sentinel.config)
    return [
        *((f"sentinel: {name}", str(settings[name])) for name in shown),
        ("training set sha256", sentinel.training_sha256),
        *((f"sentinel: {name}", f"{value:.3f}") for name, value in sorted(sentinel.metrics.items())),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _shown(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"
