"""What longer trainings make of the cases that campaigns had labelled in their last round.

    python benchmarks/training_length.py cmp-openkbp/campaigns/random*-seed0 --data OpenKBP_HeadNeck \
        --steps 800 3200 --out lengths

Arms of a comparison train for the same number of steps, whatever they have annotated. Where an arm has many
cases of which little is annotated, a step sees less of it; so each labelled set is trained on again, from
scratch, with the seed of the campaign's last round, for every number of steps. Learning rates follow their
schedule over the steps asked for. For simulated annotators only: annotations are read from the data set's
references. The line of a training is written when it is measured, and what is there is not run again.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import pandas as pd

from cohort.seeds import derive_seed
from cohort.volume import write_bytes
from flows import rounds
from flows.campaign import Campaign, open_campaign
from flows.config import ActiveLearningConfig
from flows.data import read_cohort
from flows.environment import code_version, use_threads
from segmenters.evaluation import summarise
from segmenters.registry import make_segmenter


def measured(campaign: Campaign, data: Path, steps: int) -> dict[str, object]:
    """Train on what a campaign had labelled in the end, and measure on its held-out cases.

    Args:
        campaign: finished, of a simulated annotator.
        data: folder of its data set on this machine.
        steps: of the training.

    Returns:
        The row of the table.
    """
    values = {**campaign.values, "data": {**campaign.values["data"], "root": str(data)}}
    config = ActiveLearningConfig.model_validate(values)
    use_threads(config.threads)
    cohort = read_cohort(config)
    by_id, structures = cohort.dataset.by_id, cohort.dataset.structures
    cases = [
        dataclasses.replace(case, label_map=reference)
        for case in rounds.training_cases(campaign.annotations(), by_id)
        if (reference := by_id[case.case_id].reference)
    ]
    number = campaign.events("result")[-1].payload["round"]
    seed = derive_seed(config.seed, "segmenter", "train", number)
    held_out = [by_id[case_id] for case_id in cohort.held_out]
    with tempfile.TemporaryDirectory() as folder:
        segmenter = make_segmenter(config.segmenter, Path(folder) / "workspace")
        trained = segmenter.fit(cases, structures, Path(folder), seed=seed, steps=steps)[-1]
        masks = Path(folder) / "masks"
        masks.mkdir()
        views = [case.view() for case in held_out]
        predictions = segmenter.predict(views, trained, structures, masks)
        found = rounds.evaluate(
            held_out,
            {prediction.case_id: prediction.mask for prediction in predictions},
            structures,
            config.evaluation.tolerance_mm,
            lambda *_: None,
        )
    summary = summarise(found, [structure.name for structure in structures])
    return {
        "campaign": campaign.name,
        "steps": steps,
        "cases": len(cases),
        "structures": sum(len(case.annotated) for case in cases),
        "dsc": round(summary.dsc, 5),
        "nsd": round(summary.nsd, 5),
        **{f"dsc {name}": round(value, 5) for name, value in summary.per_structure_dsc.items()},
        "of_the_campaign": round(campaign.events("result")[-1].payload["dsc"], 5),
        "config_sha256": campaign.events("start")[0].payload["config_sha256"][:12],
        "code_version": code_version(),
    }


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("campaigns", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", nargs="+", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.campaigns:
        for steps in options.steps:
            row = options.out / f"{path.name}-{steps}.json"
            if not row.is_file():
                text = json.dumps(measured(open_campaign(path), options.data.resolve(), steps))
                write_bytes(row, text.encode())
            print(row.read_text(encoding="utf-8"), flush=True)
    table = pd.DataFrame([json.loads(row.read_text(encoding="utf-8")) for row in options.out.glob("*.json")])
    table = table.sort_values(["campaign", "steps"])
    table.to_csv(options.out / "lengths.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
