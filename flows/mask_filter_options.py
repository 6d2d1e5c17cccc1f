"""What the filter of masks is asked to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cohort.errors import ConfigError
from cohort.filtering import make_filter
from cohort.filtering.fraction import UNITS, Unit
from cohort.filtering.registry import FilterSettings
from flows.audit_options import AuditOptions

KEPT, MASKS, MANIFEST, SETTINGS = "kept.csv", "masks", "manifest.json", "settings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """What to filter, by what, and where to.

    Args:
        predictions: a data set with images and masks; or a folder of masks alone, see `data` and `images`.
        weights: of the sentinel.
        out: folder that gets the kept masks and tables.
        settings: of the filter.
        embeddings: text embeddings, for published weights.
        layout: "auto", "decathlon", "nnunet" or "totalsegmentator".
        data: data set that has the images and names the structures of masks that lie elsewhere.
        images: folder of images, with `structures`, where there is no data set.
        structures: name -> label, with `images`.
        keep_absent: keep empty masks as "looked for and not there".
        ignore_label: what the voxels of structures that are not kept become in a label map that holds kept
            ones too; 0 makes them background, which a training must not take for "not there".
        precision: auto, float32 or bfloat16.
        device: auto, cpu or cuda.
        threads: of torch, 0 for all cores.
        seed: breaks ties, and draws the kind "random".
    """

    predictions: Path
    weights: Path
    out: Path
    settings: FilterSettings
    embeddings: Path | None = None
    layout: str = "auto"
    data: Path | None = None
    images: Path | None = None
    structures: Mapping[str, int] | None = None
    keep_absent: bool = False
    ignore_label: int = 0
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        make_filter(self.settings)  # refuses settings that make no sense
        if not 0 <= self.ignore_label <= 255:
            raise ConfigError(f"--ignore-label is {self.ignore_label}; expected 0 to 255")
        if (self.images is None) != (not self.structures):
            raise ConfigError("--images and --structure name=label belong together; give both or neither")
        if self.images is not None and self.data is not None:
            raise ConfigError("--data names the images already; leave --images and --structure out")

    @property
    def masks(self) -> Path:
        """Folder of the kept masks."""
        return self.out / MASKS

    @property
    def table(self) -> Path:
        """Of all masks."""
        return self.out / KEPT

    def check_out(self) -> None:
        """Refuse a folder that holds anything before this command wrote there for the first time.

        Raises:
            ConfigError: naming what it holds.
        """
        if (self.out / SETTINGS).is_file() or not self.out.is_dir():
            return
        names = {path.name for path in self.out.iterdir() if path.name[0] != "."} - {self.audit.work.name}
        if names:
            listed = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
            raise ConfigError(
                f"{self.out} holds {listed} and is not a folder of this command; name another with --out, "
                "one that is empty or not there yet"
            )

    @property
    def audit(self) -> AuditOptions:
        """The same as an audit, whose parts lie in the folder too."""
        root = self.images or self.data or self.predictions
        return AuditOptions(
            root=root,
            layout=self.layout,
            weights=self.weights,
            embeddings=self.embeddings,
            out=self.table,
            precision=self.precision,
            device=self.device,
            threads=self.threads,
            worst=0,
        )


def filter_settings(
    keep: float, per: str, minimum: float | None, minimum_lower: float | None, balance: float | None
) -> FilterSettings:
    """The filter that a command line means: a fraction, or a minimum in its place.

    Raises:
        ConfigError: for both minimums at once, or an unknown unit.
    """
    if minimum is not None and minimum_lower is not None:
        raise ConfigError("--minimum and --minimum-lower are both set; give one of them")
    if per not in UNITS:
        raise ConfigError(f"--per is {per!r}; expected one of {', '.join(UNITS)}")
    unit = cast("Unit", per)
    if minimum is not None:
        return FilterSettings(kind="threshold", minimum=minimum, balance=balance)
    if minimum_lower is not None:
        return FilterSettings(kind="lower_bound", minimum=minimum_lower, balance=balance)
    return FilterSettings(kind="top_fraction", keep=keep, per=unit, balance=balance)


def named_labels(texts: Sequence[str]) -> dict[str, int]:
    """Structure -> label, from texts such as "liver=1".

    Raises:
        ConfigError: for a text of another form, or a name or label that comes twice.

    >>> named_labels(["liver=1", "left kidney=2"])
    {'liver': 1, 'left kidney': 2}
    """
    found: dict[str, int] = {}
    for text in texts:
        name, separator, label = text.rpartition("=")
        if not separator or not name.strip() or not label.strip().isdigit():
            raise ConfigError(f"--structure {text!r} is not of the form name=label, for example liver=1")
        if name.strip() in found or int(label) in found.values():
            raise ConfigError(f"--structure {text!r} names a structure or a label a second time")
        found[name.strip()] = int(label)
    return found
