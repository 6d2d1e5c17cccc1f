"""What an audit is asked to do."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What to audit, with what, and where to.

    Args:
        root: of the data set.
        layout: totalsegmentator, decathlon or nnunet.
        weights: of the sentinel.
        embeddings: text embeddings, for published weights.
        out: the table, a .csv; .parquet, .html and .json are written beside it.
        masks: another folder of masks than the data set's own, or None.
        metadata: a table of the cases, or None for the data set's own.
        group_by: columns of the metadata to compare; none takes those of the usual names.
        precision: auto, float32 or bfloat16.
        device: auto, cpu or cuda.
        threads: of torch, 0 for all cores.
        worst: overlays on the page.
    """

    root: Path
    layout: str
    weights: Path
    embeddings: Path | None = None
    out: Path = Path("scores.csv")
    masks: Path | None = None
    metadata: Path | None = None
    group_by: tuple[str, ...] = ()
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    worst: int = 24

    @property
    def work(self) -> Path:
        """Folder of the finished parts, from which a killed audit goes on."""
        return self.out.with_name(f"{self.out.stem}.audit")
