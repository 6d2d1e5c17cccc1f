"""YAML files of configurations: read, overridden, checked, compared and hashed; keys are dotted."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cohort.errors import ConfigError
from flows.network_config import FAMILY_TAGS

AnyModel = TypeVar("AnyModel", bound=BaseModel)

WHERE_AND_HOW = frozenset(
    {
        "campaigns_root",
        "root",
        "experiment",
        "data.root",
        "data.labelled",
        "data.unlabelled",
        "data.held_out",
        *(
            f"{place}segmenter.resources.{key}"
            for place in ("", "unseen.")
            for key in ("cache_gib", "loaders", "save_every")
        ),
    }
)
"""Keys that may change between two starts of one campaign: they do not say what is computed."""


def read_values(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What a YAML file holds, with `key=value` overrides applied.

    Raises:
        ConfigError: for a file that is missing or no YAML, or an override of another form.
    """
    values = _read_yaml(path)
    for override in overrides:
        _set(values, override)
    return values


def validated(model: type[AnyModel], values: Mapping[str, Any], path: Path) -> AnyModel:
    """The values as a model.

    Raises:
        ConfigError: with one line per mistake, each with its dotted key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_all_mistakes(path, error)) from error


def as_dict(config: BaseModel) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys.

    >>> flatten({"data": {"root": "x"}, "seed": 1})
    {'data.root': 'x', 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_sha256(values: Mapping[str, Any]) -> str:
    """Hash of what a configuration computes; where its data and its campaign lie does not count."""
    decisive = {key: value for key, value in flatten(values).items() if key not in WHERE_AND_HOW}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys, with both values, in which two configurations compute different things."""
    was, now = flatten(old), flatten(new)
    keys = sorted((was.keys() | now.keys()) - WHERE_AND_HOW)
    return [f"{key}: {was.get(key)} -> {now.get(key)}" for key in keys if was.get(key) != now.get(key)]


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"The config file {path} does not exist; see configs/ for examples")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The config file {path} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"The config file {path} holds {type(values).__name__}, expected keys and values")
    return values


def parse_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value of `key=value`.

    Raises:
        ConfigError: for text of another form, or a value that is no YAML.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"--set {override!r} is not of the form key=value, for example --set data.root=scans"
        )
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error


def _set(values: dict[str, Any], override: str) -> None:
    key, value = parse_override(override)
    try:
        set_value(values, key, value)
    except ConfigError as error:
        raise ConfigError(f"--set {override!r}: {error}") from error


def set_value(values: dict[str, Any], key: str, value: object) -> None:
    """Put a value under a dotted key.

    Raises:
        ConfigError: where a part of the key holds a value.
    """
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        if not isinstance(place.setdefault(parent, {}), dict):
            raise ConfigError(f"{parent!r} holds a value, so nothing can be set below it")
        place = place[parent]
    place[last] = value


def _place(location: tuple[str | int, ...]) -> list[str]:
    """Keys as the file has them, without the family that pydantic adds."""
    after = ("", *location)
    return [
        str(part)
        for before, part in zip(after, location, strict=False)
        if not (before == "segmenter" and part in FAMILY_TAGS)
    ]


def _all_mistakes(path: Path, error: ValidationError) -> str:
    lines = []
    for mistake in error.errors():
        key = ".".join(_place(mistake["loc"])) or "(whole file)"
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            message = "unknown key; remove it or correct its spelling"
        elif mistake["type"] == "union_tag_invalid":
            message = (
                f"unknown family {mistake['ctx']['tag']!r}; expected one of {', '.join(sorted(FAMILY_TAGS))}"
            )
        lines.append(f"  {key}: {message}")
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    return f"The config {path} has {count}:\n" + "\n".join(lines)
