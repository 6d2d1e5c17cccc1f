"""What a ledger says of pseudo-labels, as metrics by name and as a note. MLflow and reports show it."""

from collections.abc import Iterator, Mapping
from typing import Any

from cohort.ledger import Entry
from flows.campaign import Campaign
from flows.filter_config import FilterModel

Values = Mapping[str, float | None]

FILTER = ("kept_fraction", "precision", "good", "recall", "dsc_kept", "dsc", "measured")


def is_training(values: Mapping[str, Any]) -> bool:
    """Whether a campaign's configuration is that of a semi-supervised training."""
    return "generations" in values


def arm(values: Mapping[str, Any]) -> str:
    """What a campaign is compared by: its strategy, or the filter of a semi-supervised training."""
    return (
        FilterModel.model_validate(values["filter"]).arm if is_training(values) else str(values["strategy"])
    )


def tags(values: Mapping[str, Any]) -> dict[str, str]:
    """MLflow's tag of a campaign that promotes pseudo-labels beside its annotations, none for any other."""
    found = _of_campaign(values)
    return {} if found is None else {"pseudo_labels": found.arm}


def beside(values: Mapping[str, Any]) -> str:
    """That in words, to go into a note; "" for any other campaign."""
    found = _of_campaign(values)
    if found is None:
        return ""
    read = ", **which reads references**" if found.reads_references else ""
    return f"The masks that the filter `{found.arm}`{read} keeps teach beside the annotations. "


def _of_campaign(values: Mapping[str, Any]) -> FilterModel | None:
    given = None if is_training(values) else values.get("pseudo_labels")
    return None if given is None else FilterModel.model_validate(given["filter"])


def metrics(campaign: Campaign) -> Iterator[tuple[Entry, Values]]:
    """Metrics of pseudo-labels, each with the entry of the round that they belong to."""
    for entry in campaign.events("promotion"):
        masks = entry.payload["masks"]
        yield (
            entry,
            {
                "pseudo_labels/masks": float(len(masks)),
                "pseudo_labels/cases": float(len({mask["case_id"] for mask in masks})),
                "pseudo_labels/weight": float(sum(mask["weight"] for mask in masks)),
            },
        )
    for entry in campaign.events("revocation"):
        yield entry, {"pseudo_labels/revoked": float(len(entry.payload["masks"]))}
    for entry in campaign.events("trial"):
        if "filter" in entry.payload:
            yield entry, _of_trial(entry.payload)
    for entry in campaign.events("cost"):
        yield entry, _of_cost(entry.payload)
    if is_training(campaign.values):
        for entry in campaign.events("result"):
            yield entry, {"new_annotations": 0.0}


def _of_trial(payload: Mapping[str, Any]) -> dict[str, float | None]:
    found = {f"filter/{name}": payload["filter"][name] for name in FILTER}
    for structure, own in payload["filter_per_structure"].items():
        found |= {
            f"filter_{name}/{structure}": own[name] for name in ("kept_fraction", "precision", "dsc_kept")
        }
    for rival, both in payload["rivals"].items():
        found |= {f"rival_{name}/{rival}": both["filter"][name] for name in ("precision", "dsc_kept")}
        found[f"rival_spearman/{rival}"] = both["estimator"].get("spearman")
    return found


def _of_cost(payload: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        f"cost_{name}/{estimator}": value
        for estimator, own in payload["estimators"].items()
        for name, value in own.items()
    }


def note(campaign: Campaign, start: Entry) -> str:
    """What a semi-supervised training is, in a few sentences of Markdown."""
    values = campaign.values
    settings = FilterModel.model_validate(values["filter"])
    judge = f"judged by {settings.estimator_name}" if settings.estimator_name else "judged by nobody"
    bound = " (**reads references**: an upper bound that nobody can use without them)"
    more = values["generations"] - 1
    again = f", whose masks teach the next one, {more} more in all" if more else ""
    labelled, pool, held_out = (len(start.payload[key]) for key in ("start", "pool", "held_out"))
    return (
        f"**{settings.arm}** on {start.payload['dataset']}, seed {values['seed']}: a teacher learns from "
        f"{labelled} labelled cases and segments {pool} unlabelled ones; the masks are {judge}"
        f"{bound if settings.reads_references else ''}, and {settings.rule.rule} teach a student{again}. "
        "No new annotation is bought: the budget is that of the start set throughout. Measured on "
        f"{held_out} held-out cases. `step` is the generation, 0 is the teacher. "
        "`filter/*` compares kept masks with references, which nothing learned "
        f"from.\n\nFolder: `{campaign.name}`, code {start.payload['code_version']}, data "
        f"`{start.payload['dataset_sha256'][:12]}`."
    )
