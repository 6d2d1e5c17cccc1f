"""What a comparison declared, written down before its first run, so that a later change is told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.volume import write_bytes
from flows import campaign as campaigns
from flows.comparison_config import Comparison, ComparisonConfig
from flows.stages import read_json

DECLARATION = "declared.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What was declared, and when.

    Args:
        at: time, ISO 8601.
        begun: campaigns of the comparison that had begun by then; 0: it was declared before any run.
        changed: what the configuration says differently now, key -> (then, now).
    """

    at: str
    begun: int
    changed: Mapping[str, tuple[str, str]]


def declare(comparison: Comparison) -> Declaration:
    """Write down what a comparison declares, unless that was done before; atomic."""
    path, declared = comparison.config.folder / DECLARATION, _declared(comparison.config)
    if not path.is_file():
        begun = sum((unit.folder / campaigns.CONFIG).is_file() for unit in comparison.units)
        content = {"at": campaigns.now(), "campaigns_begun": begun, "declared": declared}
        write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    return _read(path, declared)


def _declared(config: ComparisonConfig) -> dict[str, Any]:
    primary = config.primary
    return {
        "arm": primary.arm if primary else None,
        "against": primary.against if primary else None,
        "seeds": list(config.primary_seeds),
        "currency": config.currency,
    }


def _read(path: Path, declared: Mapping[str, Any]) -> Declaration:
    content = read_json(path)
    was = content["declared"]
    return Declaration(
        at=str(content["at"]),
        begun=int(content["campaigns_begun"]),
        changed={
            key: (str(was.get(key)), str(value)) for key, value in declared.items() if was.get(key) != value
        },
    )
