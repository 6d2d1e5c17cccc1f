"""Options of a strategy, as a configuration gives them: checked by what its builder takes."""

import inspect
from collections.abc import Callable, Mapping
from typing import get_type_hints

from cohort.errors import ConfigError
from cohort.selection.base import Strategy

Build = Callable[..., Strategy]
"""Makes a strategy from keywords that all have a default: these are its options."""


def build_strategy(name: str, build: Build, options: Mapping[str, object]) -> Strategy:
    """A strategy with the options of a configuration.

    Args:
        name: of the strategy, for messages.
        build: what makes it.
        options: keyword -> value: a number, true or false, or a word, as the builder's default is.

    Raises:
        ConfigError: for an option that the strategy does not have, or a value of another kind.
    """
    known = inspect.signature(build).parameters
    kinds = get_type_hints(build)
    for option, value in options.items():
        if option not in known:
            has = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"Strategy {name!r} has no option {option!r}; it has: {has}")
        if not _is(value, kinds[option]):
            raise ConfigError(
                f"Option {option!r} of the strategy {name!r} is {value!r}; expected {_SHOWN[kinds[option]]}"
            )
    return build(**options)


_SHOWN: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
}


def _is(value: object, kind: object) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, int if kind is int else str)
