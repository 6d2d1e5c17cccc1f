"""Refuses settings that are out of range, with a sentence that names them."""

from cohort.errors import ConfigError


def check_range(name: str, value: float, lower: float, upper: float) -> None:
    """Refuse a setting outside of its range.

    Raises:
        ConfigError: naming the setting, what it is and what was expected.
    """
    if not lower <= value <= upper:
        raise ConfigError(f"{name} is {value}, expected a number from {lower} to {upper}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a setting that is none of the choices.

    Raises:
        ConfigError: listing them.
    """
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
