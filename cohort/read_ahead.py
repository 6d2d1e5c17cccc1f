"""Reading ahead of whoever works on what was read, in threads, a bounded number of items at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cohort.errors import ConfigError

Job = TypeVar("Job")
Found = TypeVar("Found")


def read_ahead(
    jobs: Iterable[Job], read: Callable[[Job], Found], *, workers: int = 2, depth: int = 4
) -> Iterator[tuple[Job, Found]]:
    """Call a function on jobs in threads, at most `depth` ahead of the consumer.

    Args:
        jobs: taken one at a time, when there is room.
        read: called in a thread; what it raises is raised where its result is taken.
        workers: threads.
        depth: results that wait, or are being made, at most.

    Yields:
        Each job with its result, in the order of the jobs.

    Raises:
        ConfigError: for less than one worker or less depth than 1.

    >>> list(read_ahead([1, 2, 3], lambda number: number * 10, depth=2))
    [(1, 10), (2, 20), (3, 30)]
    """
    if workers < 1 or depth < 1:
        raise ConfigError(f"workers is {workers} and depth is {depth}; both must be at least 1")
    waiting: deque[tuple[Job, Future[Found]]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read-ahead") as pool:
        try:
            for job in jobs:
                waiting.append((job, pool.submit(read, job)))
                if len(waiting) >= depth:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
