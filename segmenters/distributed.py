"""Several processes that train one network: this process is the first of them, and starts the others.

Where a launcher such as torchrun started the processes already, or the caller made a process group, the
training joins them instead.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException, start_processes
from torch.nn.parallel import DistributedDataParallel

from cohort.errors import ConfigError, ModelError

_HOST = "127.0.0.1"
_ANY_FREE_PORT = 0
_PATIENCE = timedelta(minutes=30)
_PATIENCE_WHILE_PREPARING = timedelta(hours=12)
"""A launcher's processes wait while the first prepares the cases; if that one fails, it ends them all."""

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_FAIL = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The processes that train together.

    Args:
        rank: of this process; 0 writes and reports.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same in each; without gradient."""
        summed = values.detach().clone()
        if self.size > 1:
            dist.all_reduce(summed)
        return summed

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            dist.barrier()

    def shared(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients that are the mean over all processes."""
        if self.size == 1:
            return network
        devices = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices)


ALONE = Group()


def own_rank(processes: int) -> int:
    """The rank of this process before the group is made: 0 unless a launcher started it.

    Raises:
        ConfigError: if the launcher started another number of processes.
    """
    if processes == 1 and not (dist.is_available() and _launched()):
        return 0
    if not dist.is_available():
        raise ConfigError(
            f"processes is {processes}, but this build of torch has no torch.distributed: set 1"
        )
    if not _launched():
        return 0
    rank, size = _launched_rank()
    if size != processes:
        raise ConfigError(
            f"processes is {processes}, but the launcher started {size}; expected the same number: change "
            "processes or the launcher's options"
        )
    return rank


def own_device(device: torch.device, rank: int, processes: int) -> torch.device:
    """The device of a process: the CPU, or a GPU of its own.

    Raises:
        ConfigError: if there are fewer GPUs than processes.
    """
    if device.type != "cuda" or processes == 1:
        return device
    local = int(os.environ.get("LOCAL_RANK", rank))
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"processes is {processes}, but there are {torch.cuda.device_count()} GPUs; expected one for "
            "each process: lower processes"
        )
    return torch.device("cuda", local)


@contextmanager
def process_group(
    processes: int, device: torch.device, work: Callable[..., object], arguments: tuple[Any, ...]
) -> Iterator[Group]:
    """Make the group for the length of a block.

    Args:
        processes: that train together, this one included.
        device: "cpu" or "cuda".
        work: what the others do, a function of a module that is given its group and `arguments`.
        arguments: to be pickled.

    Raises:
        ModelError: if another process fails.
    """
    if processes == 1:
        yield ALONE
        return
    made = _joined(device) if _launched() else _started(processes, device, work, arguments)
    with _quiet(), made as group:
        yield group


def _launched() -> bool:
    return dist.is_initialized() or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def _launched_rank() -> tuple[int, int]:
    if dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


@contextmanager
def _joined(device: torch.device) -> Iterator[Group]:
    rank, size = _launched_rank()
    _use(own_device(device, rank, size))
    made_here = not dist.is_initialized()
    if made_here:
        dist.init_process_group(_backend(device), timeout=_PATIENCE_WHILE_PREPARING)
    try:
        yield Group(rank=rank, size=size)
    finally:
        if made_here:
            dist.destroy_process_group()


@contextmanager
def _started(
    processes: int, device: torch.device, work: Callable[..., object], arguments: tuple[Any, ...]
) -> Iterator[Group]:
    own_device(device, processes - 1, processes)  # refuse too many before any is started
    before = torch.get_num_threads()
    threads = max(1, before // processes)
    store = _store(_ANY_FREE_PORT, processes, leads=True)
    others = cast(Callable[..., Any], start_processes)(
        _other,
        (processes, store.port, device.type, threads, work, arguments),
        nprocs=processes - 1,
        join=False,
        daemon=True,
        start_method="spawn",
    )
    try:
        torch.set_num_threads(threads)
        while not store.check([_here(rank) for rank in range(1, processes)]):
            others.join(timeout=_SECONDS_BETWEEN_LOOKS)
        _enter(store, 0, processes, device.type)
        yield Group(rank=0, size=processes)
        while not others.join():
            pass
    except (RuntimeError, ProcessException) as error:
        _raise_failure_of_others(others, error)
        raise
    finally:
        torch.set_num_threads(before)
        for process in others.processes:
            process.terminate()
            process.join()
        if dist.is_initialized():
            dist.destroy_process_group()


def _other(
    index: int,
    processes: int,
    port: int,
    device: str,
    threads: int,
    work: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_flush_denormal(True)  # before the first computation, whose threads inherit it
    torch.set_num_threads(threads)
    rank = index + 1
    _use(own_device(torch.device(device), rank, processes))
    store = _store(port, processes, leads=False)
    store.set(_here(rank), "")
    _enter(store, rank, processes, device)
    try:
        with _quiet():
            work(Group(rank=rank, size=processes), *arguments)
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning about gradients of layers with one channel, whose two memory layouts are the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield


def _here(rank: int) -> str:
    return f"started/{rank}"


def _use(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _store(port: int, processes: int, *, leads: bool) -> Any:
    """Where the processes find each other; the leading one does not wait for the others here."""
    make = cast(Any, dist).TCPStore
    return make(_HOST, port, processes, is_master=leads, timeout=_PATIENCE, wait_for_workers=False)


def _enter(store: Any, rank: int, processes: int, device: str) -> None:
    backend = _backend(torch.device(device))
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=_PATIENCE)


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _raise_failure_of_others(others: Any, error: Exception) -> None:
    """Name the process that failed first: what this one sees of it is a lost connection."""
    try:
        if not isinstance(error, ProcessException):
            others.join(timeout=_SECONDS_TO_FAIL)
            return
        failure = error
    except ProcessException as found:
        failure = found
    last = str(failure).strip().splitlines()[-1]
    raise ModelError(
        f"Training process {failure.error_index + 1} failed: {last}; the whole message is above this one"
    ) from failure
