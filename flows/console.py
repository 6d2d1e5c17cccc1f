"""Where commands print, and the option that silences their progress."""

from typing import Annotated

import typer
from rich.console import Console

out, err = Console(), Console(stderr=True)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
