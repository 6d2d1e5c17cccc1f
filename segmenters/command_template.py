"""A command line with placeholders: checked when configured, filled in when run, never given to a shell."""

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from cohort.errors import ConfigError

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A command line as the program and its arguments, placeholders not yet filled in.

    >>> template = Template.parse("predict", "echo --in={images} 'a b'")
    >>> template.filled({"images": "/scans"})
    ('echo', '--in=/scans', 'a b')
    """

    words: tuple[str, ...]

    @classmethod
    def parse(cls, key: str, text: str) -> "Template":
        """Split a command line as a POSIX shell would, without running one.

        Args:
            key: of the configuration, for messages.
            text: the command line.

        Raises:
            ConfigError: for an empty one, or a quotation that does not end.
        """
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise ConfigError(f"{key} is {text!r}, which cannot be split into words: {error}") from error
        if not words:
            raise ConfigError(
                f"{key} is empty, expected a command line such as 'program {{images}} {{output}}'"
            )
        return cls(words)

    @property
    def program(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def placeholders(self) -> frozenset[str]:
        """Names in braces."""
        return frozenset(name for word in self.words for name in _PLACEHOLDER.findall(word))

    def check(self, key: str, *, needed: frozenset[str], allowed: frozenset[str]) -> None:
        """Refuse placeholders that are missing or mean nothing, and a program that is not there.

        Raises:
            ConfigError: saying which.
        """
        missing, strange = sorted(needed - self.placeholders), sorted(self.placeholders - needed - allowed)
        if missing:
            raise ConfigError(f"{key} has no {_braced(missing)}; expected it among its arguments: {self}")
        if strange:
            raise ConfigError(
                f"{key} has {_braced(strange)}, which means nothing there; known: "
                f"{_braced(sorted(needed | allowed))}"
            )
        if shutil.which(self.program) is None:
            raise ConfigError(
                f"{key} starts the program {self.program!r}, which is not found on the PATH or may not be "
                "run; install it or give its full path"
            )

    def filled(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The program and its arguments with every placeholder replaced."""
        return tuple(_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in self.words)

    def __str__(self) -> str:
        return shlex.join(self.words)


def _braced(names: list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
