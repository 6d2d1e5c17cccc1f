"""Commands about masks and sentinels, without a campaign: score, audit, filter, train-sentinel."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows import console

Weights = Annotated[Path, typer.Option(help="A sentinel (.safetensors), or published weights (.pth).")]
Embeddings = Annotated[
    Path | None, typer.Option(help="Text embeddings (label_embedding.pkl) of published weights.")
]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of torch; 0 takes all cores.")]


def score(
    image: Annotated[Path, typer.Option(help="NIfTI image.")],
    mask: Annotated[list[Path], typer.Option(help="NIfTI mask or label map. Repeatable.")],
    structure: Annotated[list[str], typer.Option(help="What the mask is of. Repeatable.")],
    weights: Weights,
    embeddings: Embeddings = None,
    label: Annotated[
        list[int] | None, typer.Option(help="Label of the structure in a label map. Repeatable.")
    ] = None,
    precision: Precision = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every slice.")] = False,
) -> None:
    """Predict the DSC of masks of one image."""
    from flows import score as scoring
    from flows.stages import file_sha256
    from sentinel import Sentinel

    requests = scoring.mask_requests(mask, structure, label or ())
    sentinel = Sentinel.load(weights, embeddings, precision=precision)
    scores = scoring.score_files(image, requests, sentinel)
    if as_json:
        about = {"image": str(image), "weights_sha256": file_sha256(weights)}
        typer.echo(json.dumps(scoring.as_json(scores, about), indent=1, allow_nan=False))
    else:
        console.out.print(scoring.as_table(scores))


def audit(
    dataset: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    layout: Annotated[str, typer.Option(help="totalsegmentator, decathlon or nnunet.")],
    weights: Weights,
    embeddings: Embeddings = None,
    out: Annotated[Path, typer.Option(help="Table to write; a page and more are written beside it.")] = Path(
        "scores.csv"
    ),
    masks: Annotated[Path | None, typer.Option(help="Folder of other masks than the data set's own.")] = None,
    metadata: Annotated[
        Path | None, typer.Option(help="Table of the cases, .csv, with a column case_id.")
    ] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(help="Column of the metadata to compare. Repeatable.")
    ] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    threads: Threads = 0,
    worst: Annotated[int, typer.Option(min=0, help="Pictures of the worst masks on the page.")] = 24,
    quiet: console.Quiet = False,
) -> None:
    """Score every mask of a data set, worst first; started again, it goes on where it was."""
    from flows.audit_options import AuditOptions
    from flows.launch import launch_audit
    from flows.progress import Display

    options = AuditOptions(
        root=dataset,
        layout=layout,
        weights=weights,
        embeddings=embeddings,
        out=out,
        masks=masks,
        metadata=metadata,
        group_by=tuple(group_by or ()),
        precision=precision,
        device=device,
        threads=threads,
        worst=worst,
    )
    table = launch_audit(options, Display(console=console.err, quiet=quiet))
    scored = int(table["predicted_dsc"].notna().sum())
    console.out.print(
        f"{scored} of {len(table)} masks scored, worst first: {out}", highlight=False, soft_wrap=True
    )
    console.out.print(f"Look at the worst: {out.with_suffix('.html')}", highlight=False, soft_wrap=True)


def filter_(
    predictions: Annotated[Path, typer.Argument(help="A data set with masks, or a folder of masks alone.")],
    weights: Weights,
    embeddings: Embeddings = None,
    out: Annotated[Path, typer.Option(help="Folder that gets the kept masks and kept.csv.")] = Path("kept"),
    keep: Annotated[float, typer.Option(help="Fraction of the masks to keep, best first.")] = 0.5,
    per: Annotated[str, typer.Option(help="What the fraction is of: structure, case or all.")] = "structure",
    minimum: Annotated[
        float | None, typer.Option(help="Keep masks from this predicted DSC on, instead of a fraction.")
    ] = None,
    minimum_lower: Annotated[
        float | None, typer.Option(help="Keep masks whose lower bound of the DSC is this or more, instead.")
    ] = None,
    balance: Annotated[
        float | None, typer.Option(help="Most masks of a structure, relative to the rarest.")
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, totalsegmentator, decathlon or nnunet.")] = "auto",
    data: Annotated[Path | None, typer.Option(help="Data set of masks that lie elsewhere.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of images, where there is no data set.")] = None,
    structure: Annotated[
        list[str] | None, typer.Option(help="name=label, with --images. Repeatable.")
    ] = None,
    keep_absent: Annotated[bool, typer.Option(help="Keep empty masks as 'not there'.")] = False,
    ignore_label: Annotated[int, typer.Option(help="Label for structures not kept; 0: background.")] = 0,
    precision: Precision = "auto",
    device: Device = "auto",
    threads: Threads = 0,
    quiet: console.Quiet = False,
) -> None:
    """Keep the good masks of a data set or of any tool; started again, it goes on where it was."""
    from flows.launch import launch_filter
    from flows.mask_filter import beyond_calibration, not_scored
    from flows.mask_filter_options import FilterOptions, filter_settings, named_labels
    from flows.progress import Display
    from sentinel.calibration import BEYOND

    options = FilterOptions(
        predictions=predictions,
        weights=weights,
        out=out,
        settings=filter_settings(keep, per, minimum, minimum_lower, balance),
        embeddings=embeddings,
        layout=layout,
        data=data,
        images=images,
        structures=named_labels(structure or ()),
        keep_absent=keep_absent,
        ignore_label=ignore_label,
        precision=precision,
        device=device,
        threads=threads,
    )
    table = launch_filter(options, Display(console=console.err, quiet=quiet))
    kept = int(table["kept"].sum())
    console.out.print(
        f"{kept} of {len(table)} masks kept, in {options.masks}: scores and reasons are in {options.table}",
        highlight=False,
        soft_wrap=True,
    )
    beyond, unread = beyond_calibration(table), not_scored(table)
    if beyond:
        console.err.print(f"[yellow]{beyond} of the kept masks were {BEYOND}[/yellow] (column note)")
    if unread:
        console.err.print(f"[yellow]{escape(unread)}[/yellow]", highlight=False, soft_wrap=True)


def train_sentinel(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML of the training.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example data.root=scans. Repeatable.")
    ] = None,
    quiet: console.Quiet = False,
) -> None:
    """Train, calibrate and test a sentinel on labelled scans; started again, it goes on where it was."""
    from flows.launch import launch_sentinel_training
    from flows.progress import Display
    from flows.sentinel_config import load_sentinel_training

    loaded = load_sentinel_training(config, settings or ())
    sentinel = launch_sentinel_training(loaded, Display(console=console.err, quiet=quiet))
    from flows.sentinel_report import headline_table

    console.out.print(headline_table(sentinel.parent))
    console.out.print(f"The sentinel: {sentinel}", highlight=False, soft_wrap=True)
    console.out.print(
        f"Its model card: {sentinel.with_name('model_card.md')}", highlight=False, soft_wrap=True
    )
