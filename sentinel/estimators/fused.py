"""The fused estimator: sentinels, the segmenter's uncertainty, a committee and the mask's shape."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from cohort.case import CaseView, Structure
from cohort.errors import ModelError
from cohort.records import EMPTY_MASK, Prediction, QualityScore
from cohort.volume import Array, Volume, check_same_grid, read_image, read_label_map
from sentinel.calibration import Calibration
from sentinel.config import Report
from sentinel.estimators.base import matched
from sentinel.fusion import Fusion
from sentinel.planning import CaseMasks
from sentinel.scoring import MaskScore, Sentinel

UNCERTAINTIES = ("entropy", "inconsistency", "mc_dropout", "committee")
NEEDS = frozenset({"entropy", "inconsistency"})
"""Of the segmenter's uncertainty; "committee" is used too where it is there."""

Evidence = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRange:
    """How large a structure usually is.

    Args:
        mean: of the logarithm of its volume in mm3.
        spread: standard deviation of that, above 0.
    """

    mean: float
    spread: float

    @classmethod
    def of(cls, volumes_mm3: Sequence[float]) -> "VolumeRange":
        """Of references; the spread of very few is taken as at least 10 %."""
        logs = np.log(np.asarray(volumes_mm3, dtype=float))
        return cls(mean=float(logs.mean()), spread=max(0.1, float(logs.std())))


def evidence(
    cases: Sequence[CaseView],
    predictions: Sequence[Prediction],
    structures: Sequence[Structure],
    sentinels: Sequence[Sentinel],
    volumes: Mapping[str, VolumeRange],
    report: Report | None = None,
) -> dict[tuple[str, str], Evidence]:
    """What is known of every mask that is not empty.

    Args:
        cases: in any order.
        predictions: one for each case.
        structures: to describe.
        sentinels: whose scores are averaged; none leaves them out.
        volumes: structure -> its usual volume.
        report: told of the cases done.

    Returns:
        (case id, structure) -> features by name, as `sentinel.fusion.SIGNS` lists them.

    Raises:
        DataError, GeometryError: for a prediction or file that is missing, broken or on another grid.
    """
    pairs = list(matched(cases, predictions))
    found: dict[tuple[str, str], dict[str, float]] = {}
    steps = len(pairs) * (1 + len(sentinels))
    for done, (case, prediction) in enumerate(pairs, start=1):
        labels = read_label_map(prediction.mask)
        found.update(_described(case, prediction, labels, structures, volumes))
        if report is not None:
            report(done, steps, {})
    for number, sentinel in enumerate(sentinels, start=1):
        stream = sentinel.score_stream(_scenes(pairs, structures))
        for done, ((case, _), scores) in enumerate(zip(pairs, stream, strict=True), start=1):
            _add_scores(found, case.case_id, scores, 1.0 / len(sentinels))
            if report is not None:
                report(number * len(pairs) + done, steps, {})
    return dict(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusedEstimator:
    """Scores masks by a fusion of evidence: raw is its value, predicted_dsc the value in [0, 1].

    Args:
        fusion: fitted on cross-fitted masks of labelled cases.
        sentinels: whose scores are averaged; trained for the structures.
        volumes: structure -> its usual volume.
        calibration: from raw to DSC with bounds, None for none.
        name: of the estimator.
        needs: kinds of the segmenter's uncertainty.
    """

    fusion: Fusion
    sentinels: tuple[Sentinel, ...]
    volumes: Mapping[str, VolumeRange]
    calibration: Calibration = field(default_factory=Calibration)
    name: str = "fused"
    needs: frozenset[str] = NEEDS

    def estimate(
        self,
        cases: Sequence[CaseView],
        predictions: Sequence[Prediction],
        structures: Sequence[Structure],
        report: Report | None = None,
    ) -> tuple[QualityScore, ...]:
        """Score every structure of every case; see `QualityEstimator.estimate`.

        Raises:
            DataError: for a case without a prediction, or with two, or a file that is missing or broken.
            GeometryError: for a mask that is not on its image's grid.
            ModelError: for a structure that its sentinels were not trained for.
        """
        known = evidence(cases, predictions, structures, self.sentinels, self.volumes, report)
        return tuple(
            self._quality(case, structure, known.get((case.case_id, structure.name)))
            for case in cases
            for structure in structures
        )

    def as_dict(self) -> dict[str, object]:
        """As JSON values, without the sentinels, which are files of their own."""
        return {
            "fusion": self.fusion.as_dict(),
            "volumes": {name: asdict(usual) for name, usual in self.volumes.items()},
            "calibration": self.calibration.as_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], sentinels: Sequence[Sentinel]) -> "FusedEstimator":
        """From what `as_dict` gave, and the sentinels.

        Raises:
            ModelError: for anything else.
        """
        try:
            return cls(
                fusion=Fusion.from_dict(values["fusion"]),
                sentinels=tuple(sentinels),
                volumes={name: VolumeRange(**usual) for name, usual in values["volumes"].items()},
                calibration=Calibration.from_dict(values["calibration"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"A fused estimator cannot be read ({error}); fit it again") from error

    def _quality(self, case: CaseView, structure: Structure, features: Evidence | None) -> QualityScore:
        if features is None:
            return QualityScore(
                case_id=case.case_id,
                structure=structure.name,
                raw=math.nan,
                estimator=self.name,
                reason=EMPTY_MASK,
            )
        raw = self.fusion.predict(structure.name, features)
        found = self.calibration.apply(structure.name, raw)
        value = raw if math.isnan(found.predicted_dsc) else found.predicted_dsc
        return QualityScore(
            case_id=case.case_id,
            structure=structure.name,
            raw=raw,
            predicted_dsc=min(1.0, max(0.0, value)),
            lower=found.lower,
            upper=found.upper,
            estimator=self.name,
        )


def _described(
    case: CaseView,
    prediction: Prediction,
    labels: Volume,
    structures: Sequence[Structure],
    volumes: Mapping[str, VolumeRange],
) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    voxel_mm3 = math.prod(labels.spacing_mm)
    for structure in structures:
        mask = labels.array == structure.label
        size = int(np.count_nonzero(mask))
        if size == 0:
            continue
        features = {
            kind: prediction.uncertainty[kind].get(structure.name, math.nan)
            for kind in UNCERTAINTIES
            if kind in prediction.uncertainty
        }
        usual = volumes.get(structure.name)
        if usual is not None:
            features["volume_deviation"] = abs(math.log(size * voxel_mm3) - usual.mean) / usual.spread
        features["stray_share"] = _stray_share(mask)
        yield (case.case_id, structure.name), features


def _stray_share(mask: Array) -> float:
    """Share of the voxels of a mask that is not empty outside of its largest connected piece."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    sizes = np.bincount(ndimage.label(mask[box])[0].ravel())[1:]
    return 1.0 - float(sizes.max()) / float(sizes.sum())


def _scenes(
    pairs: Sequence[tuple[CaseView, Prediction]], structures: Sequence[Structure]
) -> Iterator[CaseMasks]:
    for case, prediction in pairs:
        image, labels = read_image(case.image), read_label_map(prediction.mask)
        check_same_grid(image, labels, case.image, prediction.mask)
        yield image, {s.name: labels.array == s.label for s in structures}


def _add_scores(
    found: Mapping[tuple[str, str], dict[str, float]], case_id: str, scores: Sequence[MaskScore], share: float
) -> None:
    for score in scores:
        if score.slice_scores:
            features = found[case_id, score.structure]
            worst = min(score.slice_scores)
            for name, value in (("sentinel", score.raw), ("sentinel_worst", worst)):
                features[name] = features.get(name, 0.0) + share * value
