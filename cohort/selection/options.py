"""Options of a strategy, as a configuration gives them: checked by what its builder takes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from cohort.errors import ConfigError

Build = Callable[..., object]
"""Makes a strategy or a part of one; its keywords with a default are options of the strategy."""


def checked(name: str, options: Mapping[str, object], *builders: Build) -> list[dict[str, Any]]:
    """The options of a configuration, for each of the builders that make a strategy.

    Args:
        name: of the strategy, for messages.
        options: keyword -> value: a number, true or false, or a word, as the builder's default is.
        builders: each takes those that are its own; no two have one in common.

    Raises:
        ConfigError: for an option that the strategy does not have, or a value of another kind.
    """
    kinds = [get_type_hints(build) for build in builders]
    known = [set(inspect.signature(build).parameters) for build in builders]
    for option, value in options.items():
        owner = next((number for number, names in enumerate(known) if option in names), None)
        if owner is None:
            has = ", ".join(sorted(set[str]().union(*known))) or "none"
            raise ConfigError(f"Strategy {name!r} has no option {option!r}; it has: {has}")
        kind = kinds[owner][option]
        if not _is(value, kind):
            raise ConfigError(
                f"Option {option!r} of the strategy {name!r} is {value!r}; expected {_SHOWN[kind]}"
            )
    return [{option: options[option] for option in options if option in names} for names in known]


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
