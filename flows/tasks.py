"""One Prefect task per pure function. A task decides nothing; paths cross its boundary, arrays do not."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import filter_trial, rounds
from sentinel.fused_fitting import fit_fused as _fit_fused
from sentinel.grading import score_graded as _score_graded
from sentinel.training import train_sentinel as _train_sentinel

P = ParamSpec("P")
R = TypeVar("R")


def _task(name: str, function: Callable[P, R]) -> Callable[P, R]:
    return task(name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)(function)


def _fit(segmenter, *arguments, **options):  # type: ignore[no-untyped-def]
    return segmenter.fit(*arguments, **options)


def _predict(segmenter, *arguments, **options):  # type: ignore[no-untyped-def]
    return segmenter.predict(*arguments, **options)


def _estimate(estimator, *arguments, **options):  # type: ignore[no-untyped-def]
    return estimator.estimate(*arguments, **options)


train_segmenter = _task("train segmenter", _fit)
segment_chunk = _task("segment a chunk of cases", _predict)
evaluate = _task("evaluate", rounds.evaluate)
train_sentinel = _task("train sentinel", _train_sentinel)
score_graded = _task("score masks of known DSC", _score_graded)
fit_fused = _task("fit the fused estimator", _fit_fused)
measure_masks = _task("measure masks of the pool", filter_trial.measure_masks)
score = _task("score", _estimate)
