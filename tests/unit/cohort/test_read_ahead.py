import threading
from collections.abc import Iterator

import pytest

from cohort.errors import ConfigError
from cohort.read_ahead import read_ahead


def test_results_come_in_the_order_of_the_jobs() -> None:
    slow = threading.Event()

    def read(number: int) -> int:
        if number == 0:
            slow.wait(timeout=5)
        else:
            slow.set()
        return number * 10

    assert list(read_ahead(range(6), read, workers=2, depth=3)) == [(n, n * 10) for n in range(6)]


def test_no_more_than_depth_is_read_before_it_is_asked_for() -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    found = read_ahead(jobs(), lambda number: number, depth=4)
    assert taken == []
    next(found)
    assert len(taken) <= 4
    next(found)
    assert len(taken) <= 5
    found.close()


def test_an_error_is_raised_where_its_result_is_taken() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ValueError("broken")
        return number

    found = read_ahead(range(4), read, depth=2)
    assert [next(found), next(found)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_no_workers() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        next(read_ahead([1], str, workers=0))
