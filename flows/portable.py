"""Sentences of the ledger that name files of the campaign, and stay true where its folder is moved."""

import re
from pathlib import Path

_FOLDER = "{campaign}/"


def portable(text: str, folder: Path) -> str:
    """A sentence for the ledger: a mark stands for the campaign's folder in every path that leads into it.

    >>> portable("label maps in runs/liver/done, not in /old/runs/liver/done", Path("runs/liver"))
    'label maps in {campaign}/done, not in /old/runs/liver/done'
    """
    for place in sorted({str(folder), str(folder.absolute()), str(folder.resolve())}, key=len, reverse=True):
        text = re.sub(rf"(?<![^\s'\"(]){re.escape(place)}/", _FOLDER, text)
    return text


def placed(text: str, folder: Path) -> str:
    """A sentence of the ledger for where the campaign lies now; one that was written without marks stays.

    >>> placed("label maps in {campaign}/done", Path("runs/copy"))
    'label maps in runs/copy/done'
    """
    return text.replace(_FOLDER, f"{folder}/")
