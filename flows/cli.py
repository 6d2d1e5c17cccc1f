"""The command line. Parses, calls, prints; every error that a user can act on becomes one clear message."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.markup import escape

from cohort.errors import AnnotationError, BusyError, CampaignError, SentinelLoopError
from flows import cli_masks
from flows.console import DEFAULT_ROOT, Quiet, err, out

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segments a pool, scores every mask, sends the worst to a human within a budget, and retrains.",
)

Root = Annotated[Path, typer.Option("--campaigns-root", help="Folder that holds the campaigns.")]
CampaignName = Annotated[str, typer.Argument(help="Name of a campaign, or path of its folder.")]
_INTERRUPTED = 130


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the libraries say.")] = False,
) -> None:
    handler = RichHandler(console=err, show_path=False, show_time=False, markup=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, handlers=[handler], format="%(message)s"
    )
    for room in ("cohort", "sentinel", "segmenters", "flows"):
        logging.getLogger(room).setLevel(logging.INFO if verbose else logging.WARNING)


@app.command("active-learning")
def active_learning(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML of the campaign.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example data.root=scans. Repeatable.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run an active-learning campaign; started again, it goes on where it was."""
    from flows.config import load_config
    from flows.launch import launch
    from flows.progress import Display

    _show_status(launch(load_config(config, settings or ()), Display(console=err, quiet=quiet)))


@app.command("semi-supervised")
def semi_supervised(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML of the training.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example filter.keep=0.3. Repeatable.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a student on a teacher's masks, filtered by quality; started again, it goes on where it was."""
    from flows.launch import launch_semi_supervised
    from flows.progress import Display
    from flows.semi_supervised_config import load_semi_supervised

    loaded = load_semi_supervised(config, settings or ())
    _show_status(launch_semi_supervised(loaded, Display(console=err, quiet=quiet)))


@app.command("resume")
def resume(
    campaign: CampaignName,
    campaigns_root: Root = DEFAULT_ROOT,
    quiet: Quiet = False,
) -> None:
    """Go on with an active-learning campaign from its own config."""
    from flows.launch import campaign_config, launch
    from flows.progress import Display

    config = campaign_config(_open(campaign, campaigns_root))
    _show_status(launch(config, Display(console=err, quiet=quiet)))


@app.command("ingest")
def ingest(
    campaign: CampaignName,
    campaigns_root: Root = DEFAULT_ROOT,
    watch: Annotated[
        float, typer.Option(min=0.0, help="Look again every so many seconds until all is back; 0 looks once.")
    ] = 0.0,
    then_resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the campaign when all is back.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Take in the annotations that people have put back, all or a part of them."""
    from flows.launch import campaign_config, launch
    from flows.progress import Display
    from flows.status import named

    opened = _open(campaign, campaigns_root)
    found = _look(opened, watch)
    while watch and found is not None and found.waits_for:
        time.sleep(watch)
        found = _look(opened, watch)
    if found is None:
        out.print(f"{opened.name} does not wait for annotation", highlight=False)
    elif found.waits_for:
        out.print(f"Waits for {escape(found.waits_for)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1 if found.taken.refused else 0)
    elif then_resume:
        _show_status(launch(campaign_config(opened), Display(console=err, quiet=quiet)))
    else:
        told = f"All is back: sentinel-loop resume {escape(named(opened))}"
        out.print(told, highlight=False, soft_wrap=True)


def _look(campaign, watch: float):  # type: ignore[no-untyped-def]
    """One look at what is back; a watch does not end because a table is half typed or a campaign is busy."""
    from flows.launch import launch_ingest

    while True:
        try:
            found = launch_ingest(campaign)
        except (AnnotationError, BusyError) as error:
            if not watch:
                raise
            out.print(f"[red]not yet[/red]  {escape(str(error))}", highlight=False, soft_wrap=True)
            time.sleep(watch)
            continue
        _show_taken(found)
        return found


def _show_taken(found) -> None:  # type: ignore[no-untyped-def]
    """What was let in, skipped and refused in one look."""
    if found is None:
        return
    lines = [
        *(f"[green]let in[/green]   {case_id}" for case_id in found.taken.let_in),
        *(f"[yellow]skipped[/yellow]  {name}: {escape(why)}" for name, why in found.taken.skipped.items()),
        *(f"[red]refused[/red]  {escape(why)}" for why in found.taken.refused.values()),
        *(f"[yellow]left[/yellow]     {escape(why)}" for why in found.taken.unsettled.values()),
    ]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


@app.command("status")
def show_status(
    campaign: CampaignName,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    campaigns_root: Root = DEFAULT_ROOT,
) -> None:
    """Show the rounds of a campaign: budget, DSC, selections, and what it waits for."""
    from flows.status import status

    found = status(_open(campaign, campaigns_root))
    if as_json:
        typer.echo(json.dumps(found, indent=1, allow_nan=False))
    else:
        _print_rounds(found)


@app.command("track")
def track(campaign: CampaignName, campaigns_root: Root = DEFAULT_ROOT) -> None:
    """Write a campaign's ledger into MLflow again, for example after the store was lost or out of reach."""
    from flows.tracking import Tracker

    opened = _open(campaign, campaigns_root)
    if not Tracker(campaign=opened).sync():
        raise CampaignError(
            f"MLflow could not be written; the ledger of {opened.folder} still holds everything"
        )
    out.print(f"{opened.name} is in MLflow", highlight=False)


app.command("score")(cli_masks.score)
app.command("audit")(cli_masks.audit)
app.command("filter")(cli_masks.filter_)
app.command("train-sentinel")(cli_masks.train_sentinel)


@app.command("compare")
def compare(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML of the comparison.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override for all campaigns, for example data.root=scans. Repeatable."),
    ] = None,
    arms: Annotated[str, typer.Option(help="Run these arms alone, for example random,quality.")] = "",
    seeds: Annotated[str, typer.Option(help="Run these seeds alone, for example 0,1.")] = "",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report what is finished.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run the arms of a comparison and report them; start it several times to share the work."""
    from flows.comparison_config import listed, load_comparison, numbers
    from flows.launch import launch_comparison, report_comparison
    from flows.progress import Display

    comparison = load_comparison(config, settings or ())
    units = comparison.only(listed(arms), numbers(seeds))
    display = Display(console=err, quiet=quiet)
    failed = {} if report_only else launch_comparison(comparison, units, display)
    for name, reason in failed.items():
        err.print(f"[red]{name} failed:[/red] {escape(reason)}", highlight=False, soft_wrap=True)
    found = report_comparison(comparison)
    counts = f"{found.finished} of {found.planned} campaigns"
    out.print(f"The report, of {counts}: {found.page}", highlight=False, soft_wrap=True)
    if failed:
        err.print(f"{len(failed)} of {len(units)} campaigns failed; the same command tries them again.")
        raise typer.Exit(1)


@app.command("serve")
def serve(
    limit: Annotated[int, typer.Option(min=1, help="How many campaigns may run at once.")] = 1,
) -> None:
    """Offer campaigns to a Prefect server, which starts them, and suspends them while people annotate."""
    from flows import environment

    environment.prepare(Path.home())  # the server is the user's, and so is its client's folder
    from flows.deployed import serve as serve_campaigns
    from flows.progress import Display

    serve_campaigns(Display(console=err), limit)


@app.command("ui")
def ui(
    campaign: CampaignName,
    campaigns_root: Root = DEFAULT_ROOT,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.")] = 5000,
) -> None:
    """Serve MLflow's UI on the store of the campaigns, and print the link to the charts over rounds."""
    from flows import mlflow_ui
    from flows.tracking import Tracker, charts_link, tracking_uri

    opened = _open(campaign, campaigns_root)
    tracker = Tracker(campaign=opened)
    if not tracker.sync():
        raise CampaignError("MLflow's store cannot be written, so there is nothing to show; see above")
    experiment, store = tracker.experiment_id(), tracking_uri(opened.folder.parent)
    if store.startswith(("http://", "https://")):
        typer.echo(charts_link(store.rstrip("/"), experiment))
        return

    def served(address: str) -> None:
        typer.echo(charts_link(address, experiment))
        err.print("Open the link above to see the rounds; Ctrl-C ends the server.", highlight=False)

    try:
        mlflow_ui.serve(opened.folder.parent, host, port, served)
    except KeyboardInterrupt:
        err.print("Stopped.")


def main() -> None:
    """Entry point: errors that a user can act on end in one message and exit code 2."""
    try:
        app()
    except SentinelLoopError as error:
        err.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        err.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # what typer makes of Ctrl-C
            err.print("Stopped; the same command goes on from here.")
        raise


def _show_status(campaign) -> None:  # type: ignore[no-untyped-def]
    """Where a campaign stands, and how to look at it."""
    from flows.status import named, status

    _print_rounds(status(campaign))
    out.print(f"Look at it: sentinel-loop ui {escape(named(campaign))}", highlight=False, soft_wrap=True)


def _print_rounds(found: dict[str, Any]) -> None:
    from flows.status import table

    out.print(table(found))
    if found["failure"]:
        out.print(f"[red]Its last run ended with[/red] {escape(found['failure'])}", soft_wrap=True)
    if found["waits_for"]:
        out.print(f"Waits for {escape(found['waits_for'])}", highlight=False, soft_wrap=True)


def _open(campaign: str, campaigns_root: Path):  # type: ignore[no-untyped-def]
    from flows import environment

    path = campaigns_root / campaign
    if not (path / "ledger.jsonl").is_file() and (Path(campaign) / "ledger.jsonl").is_file():
        path = Path(campaign)
    folder = path.resolve() if path.name in {"", "..", "."} else path
    from flows.campaign import open_campaign

    opened = open_campaign(folder)
    environment.prepare(folder.parent)
    return opened
