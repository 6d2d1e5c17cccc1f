"""Pieces of an HTML page: tables of numbers, embedded pictures, and how numbers are written."""

import base64
import math
from collections.abc import Sequence
from html import escape


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table.

    Args:
        heads: text of the columns; one that begins with # is a column of numbers.
        rows: cells that are HTML already.
        kind: class of the table.
    """
    numeric = [head.startswith("#") for head in heads]
    head = _row([escape(name.removeprefix("#")) for name in heads], numeric, "th")
    body = "".join(_row(row, numeric, "td") for row in rows)
    return f'<div class=wide><table class="{kind}">{head}{body}</table></div>'


def image(png: bytes, alt: str) -> str:
    """A picture that is part of the page."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def signed(value: float) -> str:
    """A difference of DSC, a dash for NaN.

    >>> signed(0.01234)
    '+0.0123'
    """
    return "-" if math.isnan(value) else f"{value:+.4f}"


def share(value: float) -> str:
    """A share in per cent, a dash for NaN.

    >>> share(0.125)
    '12%'
    """
    return "-" if math.isnan(value) else f"{value:.0%}"


def number(value: float) -> str:
    """A number with three digits, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}"


def deviation(value: float) -> str:
    """A standard deviation behind a mean, nothing for NaN."""
    return "" if math.isnan(value) else f" ± {value:.4f}"


def p_value(value: float) -> str:
    """A p-value, a dash for NaN.

    >>> p_value(0.00001)
    '&lt; 0.001'
    """
    if math.isnan(value):
        return "-"
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def ends(lower: float, upper: float) -> str:
    """An interval of a difference, a dash for NaN."""
    return "-" if math.isnan(lower) else f"{signed(lower)} to {signed(upper)}"


def bracketed(lower: float, upper: float) -> str:
    """An interval behind a mean."""
    return f"<small>[{lower:.4f}, {upper:.4f}]</small>"


def _row(cells: Sequence[str], numeric: Sequence[bool], tag: str) -> str:
    return (
        "<tr>"
        + "".join(
            f"<{tag}{' class=n' if right else ''}>{cell}</{tag}>"
            for cell, right in zip(cells, numeric, strict=True)
        )
        + "</tr>"
    )
