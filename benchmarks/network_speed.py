"""A training step and a forward pass of every network: precision and memory layout side by side, in one run.

    python benchmarks/network_speed.py --threads 2 --networks unet dynunet swinunetr

Patches are of the size of a hippocampus scan unless --patch says otherwise, each side rounded up to what the
network divides. Repeats go round the variants, so that a neighbour who slows the machine down slows all of
them down; the smallest time of each counts. A training step is forward, loss, backward and AdamW; a forward
pass is one window without gradients. Prints a Markdown table; times are milliseconds. The last column names
the fastest variant of a training step, and how much faster it is than what a training takes by default
("auto" precision, channels-last memory).
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import nn

from segmenters.config import NETWORK_NAMES, Precision, SegmenterConfig
from segmenters.denormals import denormals
from segmenters.losses import loss_of
from segmenters.networks import build_network
from segmenters.precision import autocast, uses_bfloat16

PATCH = (40, 56, 40)
CLASSES = 3
NETWORKS = ("unet", "segresnet", "dynunet", "swinunetr", "stunet_small", "stunet_base")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a network, and the times it took."""

    precision: Precision
    layout: str
    training: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.precision}, {self.layout}"


class Runner:
    """A network and a batch that can be run in every variant."""

    def __init__(self, config: SegmenterConfig, device: torch.device) -> None:
        self.network = build_network(config, CLASSES).to(device)
        self._config, self._device = config, device
        self._optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-5)
        random = torch.Generator().manual_seed(0)
        shape = (config.batch_size, *config.patch)
        self._images = torch.randn((config.batch_size, 1, *config.patch), generator=random).to(device)
        self._channels = torch.randint(0, CLASSES, shape, generator=random).to(device)
        self._known = torch.ones(config.batch_size, CLASSES, dtype=torch.bool, device=device)

    def run(self, variant: Variant) -> None:
        """Time one step and one pass; what was changed for the variant stays changed."""
        layout = LAYOUTS[variant.layout]
        self.network.to(memory_format=layout)
        images = self._images.contiguous(memory_format=layout)
        self._train(images, variant.precision)  # weights were just moved
        with timed(variant.training, self._device):
            self._train(images, variant.precision)
        with torch.inference_mode(), autocast(variant.precision, self._device):
            self.network.eval()(images[:1])
            with timed(variant.forward, self._device):
                self.network(images[:1])

    def _train(self, images: torch.Tensor, precision: Precision) -> None:
        self.network.train()
        with autocast(precision, self._device):
            logits = self.network(images)
        terms = loss_of(logits, self._channels, self._known)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(terms.dice + terms.cross_entropy)
        self._optimiser.step()


class timed:  # noqa: N801
    """Appends the milliseconds of a block to a list."""

    def __init__(self, into: list[float], device: torch.device) -> None:
        self._into, self._device = into, device

    def __enter__(self) -> None:
        self._wait()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._wait()
        self._into.append(1000.0 * (time.perf_counter() - self._start))

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def settings(name: str, batch_size: int, patch: Sequence[int]) -> SegmenterConfig:
    """A network with its usual channels, and a patch rounded up to what it divides."""
    factors = SegmenterConfig(network=name, patch=(64, 64, 64)).factors
    depth, height, width = (-(-side // factor) * factor for side, factor in zip(patch, factors, strict=True))
    return SegmenterConfig(network=name, patch=(depth, height, width), batch_size=batch_size)


def measure(config: SegmenterConfig, repeats: int, device: torch.device) -> tuple[list[Variant], int]:
    """Times of every variant of a network, and its parameters."""
    runner = Runner(config, device)
    variants = [Variant(precision=p, layout=layout) for p, layout in product(PRECISIONS, LAYOUTS)]
    for _ in range(repeats):
        for variant in variants:
            runner.run(variant)
    return variants, parameters(runner.network)


def parameters(network: nn.Module) -> int:
    """Numbers that a network learns."""
    return sum(value.numel() for value in network.parameters())


def rows(arguments: argparse.Namespace, device: torch.device) -> Iterator[str]:
    """Lines of the table, each when it is known."""
    columns = [f"{precision}, {layout}" for precision, layout in product(PRECISIONS, LAYOUTS)]
    head = ["network", "parameters", "patch", *columns, "fastest step"]
    yield table_row(head)
    yield table_row(["---"] * len(head))
    default = PRECISIONS[int(uses_bfloat16("auto", device))]
    for name in arguments.networks:
        config = settings(name, arguments.batch, arguments.patch)
        variants, count = measure(config, arguments.repeats, device)
        times = [f"{min(v.training):.0f} / {min(v.forward):.0f}" for v in variants]
        fastest = min(variants, key=lambda v: min(v.training))
        taken = next(v for v in variants if (v.precision, v.layout) == (default, "channels_last"))
        gain = min(taken.training) / min(fastest.training)
        patch = " x ".join(map(str, config.patch))
        yield table_row([name, f"{count / 1e6:.1f} M", patch, *times, f"{fastest.name} ({gain:.2f}x)"])


def table_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORK_NAMES, default=NETWORKS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, nargs=3, default=PATCH, metavar=("D", "H", "W"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(
        f"Training step of a batch of {arguments.batch} / forward pass of one window, in ms, on "
        f"{device.type} with {arguments.threads} threads, smallest of {arguments.repeats}\n"
    )
    with denormals(flush=True):
        for row in rows(arguments, device):
            print(row, flush=True)


if __name__ == "__main__":
    main()
