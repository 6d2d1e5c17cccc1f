"""What a bundle's configuration says, and what it builds. Reading it runs the code that it names."""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, LoadImaged
from torch import Tensor, nn

from cohort.case import Shape
from cohort.errors import ModelError
from cohort.volume import Affine, Volume
from segmenters.bundle_files import BundleFiles

OUTPUT_KEYS: tuple[str, ...] = ("out_channels", "out_chns", "num_classes", "n_classes")
"""What MONAI's networks call their number of output channels."""

_CANNOT_BUILD = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedImage:
    """An image as the bundle's network sees it.

    Args:
        array: (X, Y, Z) float32.
        affine: of its voxels.
    """

    array: Tensor
    affine: Affine


class BundleDefinition:
    """A bundle's metadata and configuration of inference.

    Args:
        files: of the bundle.
        device: that its network runs on.

    Raises:
        ModelError: if they cannot be read, or are of a bundle that cannot be used here.
    """

    def __init__(self, files: BundleFiles, device: torch.device) -> None:
        self.files = files
        self._device = device
        with self._named("configuration"):
            self._values: dict[str, Any] = dict(ConfigParser.load_config_file(files.inference))
            data_format = json.loads(files.metadata.read_bytes())["network_data_format"]
            self.image_key, self._input = _only(data_format["inputs"])
            _, self._output = _only(data_format["outputs"])
        if int(self._input.get("num_channels", 1)) != 1:
            raise ModelError(
                f"The bundle {files.root} takes {self._input['num_channels']} image channels; the cohort has "
                "one image per case"
            )

    @property
    def channel_names(self) -> Mapping[int, str]:
        """Output channel -> what it means, as far as the metadata say."""
        return {int(channel): str(name) for channel, name in self._output.get("channel_def", {}).items()}

    @property
    def output_channels(self) -> int:
        """Output channels of the network."""
        return int(self._output["num_channels"])

    @property
    def sigmoid(self) -> bool:
        """Whether its postprocessing lets each output channel stand alone."""
        return _has_sigmoid(self._values.get("postprocessing"))

    @property
    def window(self) -> Shape | None:
        """The window of its inferer, or else its patch, (X, Y, Z); None where it does not say."""
        for sizes in (getattr(self.inferer, "roi_size", None), self._input.get("spatial_shape")):
            listed = list(sizes) if isinstance(sizes, Sequence) and not isinstance(sizes, str) else []
            if len(listed) == 3 and all(isinstance(size, int) and size > 0 for size in listed):
                return cast(Shape, tuple(listed))
        return None

    def network(self, output_channels: int | None = None, seed: int = 0) -> nn.Module:
        """Its network, with weights drawn from a seed.

        Args:
            output_channels: instead of its own, None for its own.
            seed: of the weights; torch's global random state is left as it was.

        Raises:
            ModelError: if it cannot be built, is no network, or its output channels cannot be changed.
        """
        changes: dict[str, Any] = {}
        if output_channels is not None:
            own = self._values.get("network_def")
            keys = [key for key in OUTPUT_KEYS if isinstance(own, Mapping) and key in own]
            if not keys:
                raise ModelError(
                    f"network_def of the bundle {self.files.root} has none of {', '.join(OUTPUT_KEYS)}, so "
                    f"its output cannot be changed to {output_channels} channels for the structures of the "
                    "cohort; use it with steps 0, or name the number of channels there"
                )
            changes = {"network_def": {**cast(dict[str, Any], own), keys[0]: output_channels}}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._built("network_def", changes)
        if not isinstance(network, nn.Module):
            raise ModelError(f"network_def of the bundle {self.files.root} is no network, but {network!r}")
        return network

    @cached_property
    def inferer(self) -> Any:
        """What runs the network over a volume, MONAI's `Inferer`."""
        return self._built("inferer", {})

    def prepare(self, image: Volume) -> PreparedImage:
        """Run the bundle's preparation of an image, all but reading the file.

        Raises:
            ModelError: if it fails, or gives anything but one volume whose place in the world is known.
        """
        loaders, transforms = self._preprocessing
        array = torch.from_numpy(image.array.T.copy())
        channel_first = any(getattr(loader, "ensure_channel_first", False) for loader in loaders)
        meta = {"original_channel_dim": 0 if channel_first else "no_channel", "filename_or_obj": ""}
        array = array[None] if channel_first else array
        given = MetaTensor(array, affine=torch.as_tensor(image.affine, dtype=torch.float64), meta=meta)
        with self._named("preprocessing"):
            found = transforms({self.image_key: given})[self.image_key]
        if not isinstance(found, MetaTensor) or found.ndim != 4 or len(found) != 1:
            raise ModelError(
                f"preprocessing of the bundle {self.files.root} gives {type(found).__name__} of shape "
                f"{tuple(found.shape)}; expected one three-dimensional channel that knows its affine"
            )
        affine = found.affine.double().cpu().numpy()
        return PreparedImage(array=found.as_tensor()[0].float().cpu().contiguous(), affine=affine)

    @cached_property
    def _preprocessing(self) -> tuple[list[Any], Compose]:
        """What loads files, and the other transforms."""
        found = self._built("preprocessing", {})
        flat = list(found.flatten().transforms) if isinstance(found, Compose) else [found]
        loaders = [transform for transform in flat if isinstance(transform, LoadImage | LoadImaged)]
        rest = Compose([transform for transform in flat if transform not in loaders])
        return [getattr(loader, "_loader", loader) for loader in loaders], rest

    def _built(self, key: str, changes: Mapping[str, Any]) -> Any:
        if key not in self._values:
            raise ModelError(f"{self.files.inference} has no {key}; expected it in a bundle's configuration")
        values = _without_readers({**deepcopy(self._values), **changes})
        values |= {"bundle_root": str(self.files.root), "device": f"$torch.device('{self._device}')"}
        with self._named(key), _own_scripts(self.files.root), warnings.catch_warnings():
            # a bundle of last year is no less sound because MONAI has changed a default since
            warnings.simplefilter("ignore", FutureWarning)
            parser = ConfigParser(values)
            if "imports" in values:
                parser.get_parsed_content("imports")
            return parser.get_parsed_content(key)

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except (*_CANNOT_BUILD, ValueError) as error:
            reason = " ".join(f"{error.__cause__ or ''} {error}".split())
            raise ModelError(
                f"{what} of the bundle {self.files.root} fails ({type(error).__name__}: {reason}); correct "
                "the bundle, or install what it needs"
            ) from error


@contextmanager
def _own_scripts(root: Path) -> Iterator[None]:
    """A bundle may bring Python modules; those of another bundle with the same names must not be taken."""
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(root):
                del sys.modules[name]


def _without_readers(config: Any) -> Any:
    """The configuration without what reads files: images come read, and a reader may not be installed."""
    if isinstance(config, Mapping):
        loads = str(config.get("_target_", "")).rsplit(".", 1)[-1].startswith("LoadImage")
        kept = {key: value for key, value in config.items() if not (loads and key == "reader")}
        return {key: _without_readers(value) for key, value in kept.items()}
    return [_without_readers(value) for value in config] if isinstance(config, list) else config


def _only(entries: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if len(entries) != 1:
        raise ValueError(f"expected one input and one output, found {sorted(entries)}")
    ((key, entry),) = entries.items()
    return key, entry


def _has_sigmoid(config: Any) -> bool:
    if isinstance(config, Mapping):
        named = str(config.get("_target_", "")).rsplit(".", 1)[-1].startswith("Activations")
        return (named and config.get("sigmoid") is True) or any(map(_has_sigmoid, config.values()))
    return isinstance(config, list) and any(map(_has_sigmoid, config))
