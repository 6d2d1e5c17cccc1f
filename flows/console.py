"""Where commands print and look for campaigns, and the option that silences their progress."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out, err = Console(), Console(stderr=True)

DEFAULT_ROOT = Path("campaigns")
"""Folder of the campaigns where a command names none."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
