"""How well a much better segmenter would rank the masks of one model: what any estimator could hope for.

    python benchmarks/second_opinion.py --config configs/sentinel/hippocampus.yaml --set data.root=DATA \
        --within within/hippocampus

After `train-sentinel` with that config and `within_one_model.py`. The segmenter that `train-sentinel` trained
on all its training patients labels those cases of the pool that it did not learn from. The DSC between its
masks and those of the model in question is a second opinion that knows far more than any estimator may; its
rank correlation with the true DSC is printed beside those of the estimators on the same cases.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from within_one_model import ESTIMATORS, correlation, per_case

from cohort.case import Dataset
from cohort.metrics import dsc_per_structure
from cohort.volume import read_label_map
from flows.data import read_dataset
from flows.environment import use_threads
from flows.sentinel_config import SentinelTrainingConfig, load_sentinel_training
from flows.sentinel_split import split_cases
from segmenters.base import load_checkpoint
from segmenters.torch_segmenter import TorchSegmenter


def opinions(
    config: SentinelTrainingConfig, dataset: Dataset, case_ids: list[str], out: Path
) -> dict[str, Path]:
    """Label maps of cases by the segmenter of a sentinel's training."""
    (stage,) = (config.folder / "stages").glob("train-seen-*")
    found = [load_checkpoint(path) for path in stage.glob("step_*.safetensors")]
    checkpoint = max(found, key=lambda each: each.step)
    out.mkdir(parents=True, exist_ok=True)
    views = [dataset.by_id[case_id].view() for case_id in case_ids]
    predictions = TorchSegmenter(config.segmenter).predict(views, checkpoint, dataset.structures, out)
    return {prediction.case_id: prediction.mask for prediction in predictions}


def agreement(dataset: Dataset, masks: Mapping[str, Path], others: Mapping[str, Path]) -> pd.DataFrame:
    """DSC between two label maps of each case, as a row per structure."""
    rows = []
    for case_id, path in masks.items():
        own, other = read_label_map(others[case_id]).array, read_label_map(path).array
        found = dsc_per_structure(own, other, dataset.structures)
        rows += [{"case_id": case_id, "structure": name, "second_raw": dsc} for name, dsc in found.items()]
    return pd.DataFrame(rows)


def main() -> None:
    """Measure every seed that `within_one_model.py` finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--within", type=Path, required=True)
    options = parser.parse_args()
    config = load_sentinel_training(options.config, options.settings)
    use_threads(config.threads)
    dataset, held_out = read_dataset(config.data, config.root)
    split = split_cases(
        dataset,
        held_out,
        calibration=config.split.calibration_patients,
        training=config.split.training_patients,
        seed=config.seed,
    )
    for path in sorted(options.within.glob("seed*/masks.csv")):
        table = pd.read_csv(path)
        table = table[~table["case_id"].isin(split.train)]
        case_ids = sorted(table["case_id"].unique())
        (pool,) = path.parent.glob("pool-*")
        second = opinions(config, dataset, case_ids, path.parent / "second")
        own = {case_id: pool / f"{case_id}.nii.gz" for case_id in case_ids}
        table = table.merge(agreement(dataset, second, own), on=["case_id", "structure"])
        cases = per_case(table, (*ESTIMATORS, "second"))
        found = {
            name: round(correlation(cases[f"{name}_raw"], cases["dsc"]), 3)
            for name in (*ESTIMATORS, "second")
        }
        print(path.parent.name, len(case_ids), "cases", found, flush=True)


if __name__ == "__main__":
    main()
