"""Predicted masks that become pseudo-labels and stop being them: the ledger's promotions and revocations."""

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cohort.case import Case
from cohort.errors import CampaignError, SelectionError
from cohort.filtering import Verdict, filter_masks
from cohort.pool import Pool
from cohort.pseudo_labels import PseudoLabel, kept_structures, revocations
from cohort.records import EMPTY_MASK, UNTRAINED, Prediction, QualityScore, TrainingCase
from flows import rounds
from flows.campaign import Campaign
from flows.data import Cohort
from flows.filter_config import PseudoLabelsModel
from flows.stages import file_sha256, json_number, json_sha256

VERDICTS = "verdicts.csv"
TAKEN = "annotated by a human, or about to be"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoter:
    """Decides in each round which masks of the pool the next round learns from.

    Pseudo-labels are made anew in every round, from the masks of that round's model; nothing is carried over.

    Args:
        campaign: whose ledger remembers it.
        cohort: of the campaign.
        settings: which masks are kept.
        seed: of the campaign.
        images_too: whether a training uses the images of the other cases of the pool, without their masks.
    """

    campaign: Campaign
    cohort: Cohort
    settings: PseudoLabelsModel
    seed: int
    images_too: bool = False

    def in_force(self, number: int) -> tuple[PseudoLabel, ...]:
        """The pseudo-labels that a round learns from: those that the round before promoted.

        Their files are not looked at: a finished campaign may have lost them.
        """
        made = self.campaign.event("promotion", number - 1)
        return () if made is None else tuple(self._read(made.payload))

    def promote(
        self,
        number: int,
        cases: Sequence[Case],
        predictions: Sequence[Prediction],
        scores: Sequence[QualityScore],
        *,
        taken: frozenset[str] = frozenset(),
        untrained: Collection[str] = (),
        allow_nothing: bool = False,
    ) -> tuple[Verdict, ...]:
        """Judge the masks of a round and write into the ledger what is promoted and what is revoked.

        Args:
            number: of the round.
            cases: of the pool.
            predictions: their masks.
            scores: of the filter's estimator; none for a filter that needs none.
            taken: ids of cases that people annotate in this round.
            untrained: structures that the masks' network never learned, so that an empty mask says nothing.
            allow_nothing: whether a round may go without pseudo-labels.

        Returns:
            The verdict on every mask that could become a pseudo-label.

        Raises:
            SelectionError: if nothing is kept and that is not allowed, or a case may not have pseudo-labels.
        """
        open_ids = {case.case_id for case in cases} - taken - self._annotated(number)
        judged = [
            replace(score, reason=UNTRAINED) if score.structure in untrained else score
            for score in scores or unscored(predictions)
            if score.case_id in open_ids
        ]
        filter_ = self.settings.filter
        verdicts = filter_masks(
            filter_.rule,
            judged,
            round=number,
            seed=self.seed,
            keep_absent=filter_.keep_absent,
            strata=filter_.size_strata,
            sizes={
                (p.case_id, name): float(voxels) for p in predictions for name, voxels in p.voxels.items()
            },
        )
        kept = kept_structures(verdicts)
        self._pool(number).pseudo_label(kept)
        table = self.campaign.round_folder(number) / VERDICTS
        rounds.write_table(table, verdicts)
        if not kept:
            self._say_nothing_kept(number, verdicts, table, allow_nothing)
        if self.campaign.event("promotion", number) is None:
            self._write(number, verdicts, predictions, file_sha256(table))
        return verdicts

    def _write(
        self, number: int, verdicts: Sequence[Verdict], predictions: Sequence[Prediction], table_sha256: str
    ) -> None:
        """Revocations first: the promotion says that the round's changes are complete."""
        before = self.campaign.event("promotion", number - 1)
        if before is not None and self.campaign.event("revocation", number) is None:
            masks = [(mask["case_id"], mask["structure"]) for mask in before.payload["masks"]]
            revoked = revocations(masks, verdicts, {case_id: TAKEN for case_id, _ in masks})
            rows = [
                {
                    "case_id": each.case_id,
                    "structure": each.structure,
                    "score": json_number(each.score),
                    "reason": each.reason,
                }
                for each in revoked
            ]
            if rows:
                self.campaign.append("revocation", round=number, promoted_in=number - 1, masks=rows)
        used = {verdict.case_id for verdict in verdicts if verdict.kept or self.images_too}
        files = {p.case_id: p.mask for p in predictions if p.case_id in used}
        self.campaign.append(
            "promotion",
            round=number,
            estimator=self.settings.filter.estimator_name,
            reads_references=self.settings.filter.reads_references,
            sentinel_sha256=self._sentinel_sha256(),
            rule=self.settings.filter.rule.rule,
            masks=[
                {
                    "case_id": verdict.case_id,
                    "structure": verdict.structure,
                    "weight": verdict.weight,
                    "score": json_number(verdict.score),
                    "reason": verdict.reason,
                }
                for verdict in verdicts
                if verdict.kept
            ],
            files={
                case_id: {
                    "path": str(path.relative_to(self.campaign.folder)),
                    "sha256": file_sha256(path),
                }
                for case_id, path in sorted(files.items())
            },
            judged=len(verdicts),
            verdicts_sha256=table_sha256,
        )

    def _sentinel_sha256(self) -> str:
        """Of the trained sentinel that judged, "" where none was named."""
        named = self.settings.filter.sentinel
        return file_sha256(named) if named is not None else ""

    def _read(self, payload: Mapping[str, Any]) -> list[PseudoLabel]:
        structures: dict[str, dict[str, float]] = {}
        for mask in payload["masks"]:
            structures.setdefault(mask["case_id"], {})[mask["structure"]] = float(mask["weight"])
        found = []
        for case_id, about in sorted(payload["files"].items()):
            own = structures.get(case_id, {})
            path = self.campaign.folder / about["path"]
            found.append(PseudoLabel(case_id=case_id, path=path, sha256=about["sha256"], structures=own))
        return found

    def _pool(self, number: int) -> Pool:
        """Who is who in a round; refuses pseudo-labels of held-out and of annotated cases."""
        start = Pool.start(
            self.cohort.dataset,
            labelled=self.cohort.start,
            held_out=self.cohort.held_out,
            unlabelled=self.cohort.pool,
        )
        return start.annotate(self._annotated(number) - set(self.cohort.start))

    def _annotated(self, number: int) -> frozenset[str]:
        """Cases in which people annotated anything up to a round: their word is not mixed with a model's."""
        return frozenset(
            entry.payload["case_id"]
            for entry in self.campaign.events("annotation")
            if entry.payload["round"] is None or entry.payload["round"] <= number
        )

    def _say_nothing_kept(self, number: int, verdicts: Sequence[Verdict], table: Path, allowed: bool) -> None:
        reasons = Counter(verdict.reason for verdict in verdicts).most_common(3)
        why = "; ".join(f"{count} {reason}" for reason, count in reasons) or "there was no mask"
        message = f"the filter keeps none of {len(verdicts)} masks ({why})"
        if not allowed:
            raise SelectionError(
                f"Generation {number}: {message}; lower filter.minimum, or take filter.kind top_fraction, "
                f"and give the training another name with --set name=... The verdicts are in {table}"
            )
        _log.warning("Round %d: %s: the next round learns from annotations alone", number, message)


def pseudo_cases(labels: Sequence[PseudoLabel], by_id: Mapping[str, Case]) -> tuple[TrainingCase, ...]:
    """Pseudo-labels as a segmenter takes them, in the order of their cases' ids.

    Raises:
        CampaignError: if a file is no longer what was promoted.
    """
    for label in labels:
        _check_unaltered(label.path, label.sha256)
    return tuple(
        TrainingCase(
            case_id=label.case_id,
            patient_id=by_id[label.case_id].patient_id,
            image=by_id[label.case_id].image,
            label_map=label.path,
            annotated=frozenset(label.structures),
            pseudo=True,
            weights={name: weight for name, weight in label.structures.items() if weight != 1.0},
        )
        for label in sorted(labels, key=lambda label: label.case_id)
    )


def pseudo_labels_version(labels: Sequence[PseudoLabel]) -> str:
    """Hash of what pseudo-labels teach: cases, bytes of their masks, structures and weights."""
    return json_sha256(
        sorted([each.case_id, each.sha256, sorted(each.structures.items())] for each in labels)
    )


def counted(labels: Sequence[PseudoLabel]) -> dict[str, object]:
    """Pseudo-labels that a round learned from, for its result in the ledger."""
    weights = [weight for label in labels for weight in label.structures.values()]
    return {
        "cases": sum(bool(label.structures) for label in labels),
        "masks": len(weights),
        "weight": math.fsum(weights),
        "version": pseudo_labels_version(labels),
    }


def shown(labels: Sequence[PseudoLabel]) -> str:
    """Them in words, to go before the DSC; "" where there are none."""
    masks = sum(len(label.structures) for label in labels)
    cases = sum(bool(label.structures) for label in labels)
    return f"{masks} pseudo-labels of {cases} cases, " if masks else ""


def unscored(predictions: Sequence[Prediction]) -> tuple[QualityScore, ...]:
    """What a filter without an estimator is shown: every mask, and which are empty."""
    return tuple(
        QualityScore(
            case_id=prediction.case_id,
            structure=structure,
            raw=math.nan,
            estimator="none",
            reason="" if voxels else EMPTY_MASK,
        )
        for prediction in predictions
        for structure, voxels in prediction.voxels.items()
    )


def _check_unaltered(path: Path, sha256: str) -> None:
    if not path.is_file() or file_sha256(path) != sha256:
        raise CampaignError(
            f"The pseudo-label {path} is not the file that was promoted; restore it from a copy, or start "
            "a new campaign"
        )
