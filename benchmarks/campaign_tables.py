"""Tables of docs/results.md from the ledgers of campaigns, as Markdown.

    python benchmarks/campaign_tables.py campaigns/hippocampus-*

DSC comes with a 95 % percentile bootstrap over the held-out cases (2,000 draws, seed 0), which says how well
the held-out cases pin the number down; it says nothing of the spread between seeds. Minutes are those of the
stages that made the round (training, segmentation, cross-fitting, sentinel, scoring, measuring).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from flows.campaign import Campaign, open_campaign
from flows.stages import read_json

DRAWS = 2000


def interval(results: pd.DataFrame, structures: list[str]) -> tuple[float, float]:
    """Bootstrap over cases of the mean over structures of the mean over cases."""
    table = results.pivot(index="case_id", columns="structure", values="dsc").reindex(columns=structures)
    values = table.to_numpy()
    rng = np.random.default_rng(0)
    means = []
    for _ in range(DRAWS):
        drawn = values[rng.integers(len(values), size=len(values))]
        counted = ~np.isnan(drawn)
        per_structure = np.where(counted, drawn, 0.0).sum(0) / np.maximum(counted.sum(0), 1)
        means.append(per_structure[counted.any(0)].mean())
    lower, upper = np.percentile(means, (2.5, 97.5))
    return float(lower), float(upper)


def minutes(campaign: Campaign, number: int) -> float:
    """Of all finished stages of a round."""
    stages = campaign.round_folder(number).glob("[!.]*/stage.json")
    return sum(read_json(stage)["seconds"] for stage in stages) / 60.0


def rows(campaign: Campaign) -> list[str]:
    """One line of the table a round."""
    lines = []
    for entry in campaign.events("result"):
        found, number = entry.payload, entry.payload["round"]
        table = next(campaign.round_folder(number).glob("evaluate-*/results.csv"))
        results = pd.read_csv(table, dtype={"case_id": str})
        lower, upper = interval(results, list(found["dsc_per_structure"]))
        trial = campaign.event("trial", number)
        estimator = trial.payload["estimator"] if trial else {}
        cells = [
            campaign.name,
            str(number),
            str(found["labelled_cases"]),
            f"{found['budget']['minutes']:.0f}",
            f"{found['dsc']:.4f} [{lower:.3f}, {upper:.3f}]",
            f"{found['nsd']:.4f}",
            *(_shown(estimator, key) for key in ("spearman", "pearson", "mae")),
            f"{minutes(campaign, number):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(estimator: dict[str, float | None], key: str) -> str:
    value = estimator.get(key)
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaigns", nargs="+", type=Path)
    print(
        "| campaign | round | labelled | annotator's minutes | DSC [95 %] | NSD | Spearman | Pearson | MAE "
        "| minutes |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for folder in parser.parse_args().campaigns:
        print("\n".join(rows(open_campaign(folder))))


if __name__ == "__main__":
    main()
