"""How well estimators rank the masks of ONE trained model, which is what a round of active learning asks.

    python benchmarks/within_one_model.py --config configs/active_learning/hippocampus.yaml \
        --set data.root=DATA --seeds 0 1 2 3 --out within/hippocampus

Per seed: a segmenter learns from 12 labelled cases and labels all others that are not held out; cross-fitted
segmenters (3 folds, twice) make graded masks of the 12, which is all that sentinels, fusion and calibration
learn from. Every stage is kept, so the command can be killed and started again. Rows of all masks go to
`masks.csv`, the table of docs/results.md to `table.md`.
"""

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cohort.case import Case, Dataset
from cohort.metrics import dsc_per_structure
from cohort.records import Checkpoint, GradedMask, Prediction, TrainingCase
from cohort.seeds import derive_seed, generator
from cohort.volume import read_label_map, write_bytes
from flows import environment
from flows.campaign import WORKSPACE
from flows.config import ActiveLearningConfig, load_config
from flows.data import fingerprints, read_dataset
from flows.progress import Display
from flows.stages import file_sha256, json_sha256, run_stage
from sentinel.calibration import Calibration, Observation, fit_calibration
from sentinel.estimators.fused import evidence
from sentinel.fused_fitting import (
    CrossFittedMask,
    PartialSentinel,
    fusion_rows,
    patients_left_out,
    usual_volumes,
)
from sentinel.fusion import Fusion, FusionRow, cross_validated, fit_fusion
from sentinel.scoring import Sentinel

FOLDS, REPEATS = 3, 2
KINDS = ("entropy", "inconsistency", "mc_dropout")
ESTIMATORS = ("sentinel", "fused", "entropy", "inconsistency", "mc_dropout", "committee")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A mask, what is known of it, and its case."""

    case_id: str
    row: FusionRow


@dataclasses.dataclass(kw_only=True)
class Measurement:
    """One seed of one data set."""

    config: ActiveLearningConfig
    dataset: Dataset
    hashes: Mapping[str, str]
    held_out: Sequence[str]
    seed: int
    folder: Path
    display: Display
    options: argparse.Namespace

    def __post_init__(self) -> None:
        from flows.segmenter_stages import SegmenterStages

        free = [c for c in self.dataset.cases if c.case_id not in self.held_out and c.reference is not None]
        order = generator(self.seed, "within", "labelled").permutation(len(free))
        chosen = {int(i) for i in order[: self.options.labelled]}
        self.labelled = [case for i, case in enumerate(free) if i in chosen]
        self.pool = [case for i, case in enumerate(free) if i not in chosen]
        self.learning = [training_case(case) for case in self.labelled]
        self.views = {case.case_id: case.view() for case in free}
        self.segmenter = dataclasses.replace(self.config.segmenter, dropout=0.1)
        self.stages = SegmenterStages(
            folder=self.folder,
            workspace=self.folder / WORKSPACE,
            config=self.segmenter,
            structures=self.dataset.structures,
            fingerprints=self.hashes,
            step=lambda shown: self.display.step(f"seed {self.seed}: {shown}"),
        )
        self.graded: list[GradedMask] = []
        self.members: dict[str, list[Prediction]] = {case.case_id: [] for case in self.pool}
        self.out_of_fold: list[dict[str, Prediction]] = [{} for _ in range(REPEATS)]

    def table(self) -> pd.DataFrame:
        """Every mask of the pool with its DSC and what each estimator says of it."""
        views = [self.views[case.case_id] for case in self.pool]
        main = self._fit("main", self.learning, self.segmenter.steps, ())[-1]
        own = self.stages.predict("pool", views, main, KINDS)
        for repeat in range(REPEATS):
            self._cross_fit(repeat)
        sentinels = self._sentinels()
        structures = self.dataset.structures
        rows = fusion_rows(self._cross_fitted(), structures, sentinels, self.learning)
        fusion = fit_fusion(rows)
        learned = pd.DataFrame([flat(Known(case_id=row.patient_id, row=row)) for row in rows])
        write_bytes(self.folder / "learned.csv", learned.to_csv(index=False).encode())
        calibrations = calibrate(rows, fusion)
        judged = self._judged(own, sentinels)
        weights = {n: round(w, 4) for n, w in zip(fusion.names, fusion.weights, strict=True)}
        self.display.say(f"  seed {self.seed}: fusion {weights}, alpha {fusion.alpha}")
        return pd.DataFrame([self._record(known, fusion, calibrations) for known in judged])

    def _fit(
        self, name: str, cases: Sequence[TrainingCase], steps: int, kept: Sequence[int]
    ) -> tuple[Checkpoint, ...]:
        version = json_sha256(sorted([c.case_id, self.hashes[c.case_id]] for c in cases))
        seed = derive_seed(self.seed, "within", name)
        return self.stages.fit(
            f"train-{name}", name, cases, version, steps=steps, checkpoint_steps=kept, seed=seed
        )

    def _cross_fit(self, repeat: int) -> None:
        from flows.rounds import folds

        steps = self.options.cross_steps
        for number, left in enumerate(folds(self.learning, FOLDS, derive_seed(self.seed, "folds", repeat))):
            name = f"repeat{repeat}fold{number}"
            seen = [case for case in self.learning if case.case_id not in left]
            checkpoints = self._fit(name, seen, steps, (steps // 4, steps // 2))
            for checkpoint in checkpoints:
                kinds = KINDS if checkpoint.step == steps else ()
                views = [self.views[case_id] for case_id in left]
                found = self.stages.predict(f"{name}-step{checkpoint.step}", views, checkpoint, kinds)
                self.graded.extend(grade(found, self.dataset, f"repeat{repeat}/step{checkpoint.step}"))
                if checkpoint.step == steps:
                    self.out_of_fold[repeat] |= {p.case_id: p for p in found}
            views = [self.views[case.case_id] for case in self.pool]
            for prediction in self.stages.predict(f"{name}-pool", views, checkpoints[-1]):
                self.members[prediction.case_id].append(prediction)

    def _sentinels(self) -> list[PartialSentinel]:
        """Sentinels that each leave some labelled patients out; together they judge the pool."""
        from sentinel.training import train_sentinel

        left_out = patients_left_out(
            [m.patient_id for m in self.graded], derive_seed(self.seed, "within fused")
        )
        found = []
        for number, left in enumerate(left_out):
            learned = [mask for mask in self.graded if mask.patient_id not in left]
            seed = derive_seed(self.seed, "within sentinel", number)
            inputs = {
                "graded": [[m.case_id, m.source, file_sha256(m.mask)] for m in learned],
                "config": dataclasses.asdict(self.config.sentinel),
                "seed": seed,
            }

            def make(folder: Path, learned=learned, seed=seed, number=number) -> None:  # type: ignore[no-untyped-def]
                with self.display.step(f"seed {self.seed}: sentinel {number}") as report:
                    train_sentinel(
                        learned, self.dataset.structures, self.config.sentinel, seed=seed, report=report
                    ).save(folder / "sentinel.safetensors")

            stage = run_stage(self.folder, f"sentinel{number}", inputs, make)
            found.append(
                PartialSentinel(left_out=left, sentinel=Sentinel.load(stage / "sentinel.safetensors"))
            )
        return found

    def _cross_fitted(self) -> list[CrossFittedMask]:
        """Label maps of labelled cases by segmenters that left them out, with the others' disagreement."""
        from segmenters.committee import with_committee

        graded = {mask.mask: mask for mask in self.graded}
        found = []
        for repeat, own in enumerate(self.out_of_fold):
            others = [maps for other, maps in enumerate(self.out_of_fold) if other != repeat]
            members = {case_id: [maps[case_id] for maps in others] for case_id in own}
            for judged in with_committee([own[i] for i in sorted(own)], members, self.dataset.structures):
                found.append(
                    CrossFittedMask(
                        graded=dataclasses.replace(graded[judged.mask], source=f"repeat{repeat}"),
                        view=self.views[judged.case_id],
                        prediction=judged,
                    )
                )
        return found

    def _judged(self, own: Sequence[Prediction], sentinels: Sequence[PartialSentinel]) -> list[Known]:
        """The masks of the pool with what is known of them, and their DSC."""
        from segmenters.committee import with_committee

        structures, volumes = self.dataset.structures, usual_volumes(self.learning, self.dataset.structures)
        judged = with_committee(own, self.members, structures)
        with self.display.step(f"seed {self.seed}: judge the pool") as report:
            known = evidence(
                [self.views[p.case_id] for p in judged],
                judged,
                structures,
                [part.sentinel for part in sentinels],
                volumes,
                report,
            )
        found = []
        for prediction in judged:
            case = self.dataset.by_id[prediction.case_id]
            for name, dsc in true_dsc(prediction, case, self.dataset).items():
                if (case.case_id, name) in known and not math.isnan(dsc):
                    features = known[case.case_id, name]
                    row = FusionRow(
                        patient_id=case.patient_id, structure=name, source="main", features=features, dsc=dsc
                    )
                    found.append(Known(case_id=case.case_id, row=row))
        return found

    def _record(
        self, known: Known, fusion: Fusion, calibrations: Mapping[str, Calibration]
    ) -> dict[str, object]:
        record: dict[str, object] = {"seed": self.seed, **flat(known)}
        for name in ESTIMATORS:
            raw = raw_value(name, known.row, fusion)
            found = calibrations[name].apply(known.row.structure, raw)
            record[f"{name}_raw"] = raw
            record[f"{name}_dsc"] = found.predicted_dsc
            record[f"{name}_covered"] = (
                math.nan if math.isnan(found.lower) else float(found.lower <= known.row.dsc <= found.upper)
            )
        return record


def flat(known: Known) -> dict[str, object]:
    """A mask as one row of a table."""
    row = known.row
    return {
        "case_id": known.case_id,
        "structure": row.structure,
        "source": row.source,
        "dsc": row.dsc,
        **row.features,
    }


def raw_value(name: str, row: FusionRow, fusion: Fusion) -> float:
    """An estimator's value of a mask, higher is better."""
    if name == "fused":
        return fusion.predict(row.structure, row.features)
    value = row.features.get(name, math.nan)
    return value if name == "sentinel" else -value


def calibrate(rows: Sequence[FusionRow], fusion: Fusion) -> dict[str, Calibration]:
    """Every estimator on the cross-fitted masks of the labelled cases."""
    values = {name: [raw_value(name, row, fusion) for row in rows] for name in ESTIMATORS}
    values["fused"] = cross_validated(rows)
    return {
        name: fit_calibration(
            [
                Observation(patient_id=row.patient_id, structure=row.structure, raw=value, dsc=row.dsc)
                for row, value in zip(rows, values[name], strict=True)
            ]
        )
        for name in ESTIMATORS
    }


def training_case(case: Case) -> TrainingCase:
    """A case as a segmenter takes it."""
    return TrainingCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image=case.image,
        label_map=Path(str(case.reference)),
        annotated=frozenset(case.annotated),
    )


def grade(predictions: Sequence[Prediction], dataset: Dataset, source: str) -> list[GradedMask]:
    """Predictions beside their references."""
    return [
        GradedMask(
            case_id=p.case_id,
            patient_id=dataset.by_id[p.case_id].patient_id,
            image=dataset.by_id[p.case_id].image,
            mask=p.mask,
            reference=Path(str(dataset.by_id[p.case_id].reference)),
            evaluated=frozenset(dataset.by_id[p.case_id].evaluated),
            source=source,
        )
        for p in predictions
    ]


def true_dsc(prediction: Prediction, case: Case, dataset: Dataset) -> dict[str, float]:
    """DSC of the structures that can be measured in a case."""
    asked = [s for s in dataset.structures if s.name in case.evaluated]
    reference = read_label_map(Path(str(case.reference))).array
    return dsc_per_structure(read_label_map(prediction.mask).array, reference, asked)


def per_case(table: pd.DataFrame, estimators: Sequence[str] = ESTIMATORS) -> pd.DataFrame:
    """Means over the structures of each case, relative to what is usual for the structure.

    Where not every case has every structure, a plain mean would say which structures a case has. So DSC and
    values are taken relative to the mean of their structure among all masks.
    """
    values = ["dsc", *(f"{name}_raw" for name in estimators)]
    centred = table[values] - table.groupby(["seed", "structure"])[values].transform("mean")
    return pd.concat([table[["seed", "case_id"]], centred], axis=1).groupby(["seed", "case_id"]).mean()


def summary(table: pd.DataFrame) -> str:
    """Markdown: mean over seeds, and the range of seeds."""
    lines = [
        "| estimator | Spearman per case | Spearman per mask of a structure | MAE | coverage at 90 % |",
        "|---|---|---|---|---|",
    ]
    cases = per_case(table)
    for name in ESTIMATORS:
        by_case, by_mask, mae, covered = [], [], [], []
        for seed, masks in table.groupby("seed"):
            own = cases.loc[seed]
            by_case.append(correlation(own[f"{name}_raw"], own["dsc"]))
            each = [correlation(m[f"{name}_raw"], m["dsc"]) for _, m in masks.groupby("structure")]
            by_mask.append(float(np.nanmean(each)))
            mae.append(float((masks[f"{name}_dsc"] - masks["dsc"]).abs().mean()))
            covered.append(float(masks[f"{name}_covered"].mean()))
        cells = [spread(values) for values in (by_case, by_mask, mae, covered)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def correlation(values: pd.Series, dsc: pd.Series) -> float:
    """Spearman, NaN where it is not defined."""
    known = values.notna() & dsc.notna()
    if known.sum() < 3 or values[known].nunique() < 2:
        return math.nan
    return float(stats.spearmanr(values[known], dsc[known]).statistic)


def spread(values: Sequence[float]) -> str:
    """Mean, and smallest to largest over seeds."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    return f"{np.mean(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def main() -> None:
    """Measure every seed that is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--labelled", type=int, default=12)
    parser.add_argument("--cross-steps", type=int, default=250)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    environment.prepare(options.out)
    from prefect import flow

    config = load_config(options.config, options.settings)
    environment.use_threads(config.threads)
    dataset, held_out = read_dataset(config.data, options.out)
    hashes = dict(fingerprints(dataset.cases))
    display = Display()

    @flow(name="within one model", validate_parameters=False)
    def measure() -> None:
        for seed in options.seeds:
            folder = options.out / f"seed{seed}"
            if not (folder / "masks.csv").is_file():
                measured = Measurement(
                    config=config,
                    dataset=dataset,
                    hashes=hashes,
                    held_out=held_out,
                    seed=seed,
                    folder=folder,
                    display=display,
                    options=options,
                )
                write_bytes(folder / "masks.csv", measured.table().to_csv(index=False).encode())
            found = [pd.read_csv(path) for path in sorted(options.out.glob("seed*/masks.csv"))]
            table = pd.concat(found, ignore_index=True)
            write_bytes(options.out / "table.md", summary(table).encode())
            display.say(summary(table))

    measure()


if __name__ == "__main__":
    main()
