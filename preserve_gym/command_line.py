"""Commands: options from the command line, and complaints on one line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from preserve_gym.errors import InputError


def parse(options: Any, arguments: Sequence[str] | None, program: str) -> Any:
    """The options on a command line.

    Args:
        options: a dataclass, or a union of dataclasses that are subcommands.
        arguments: the words after the command; None: those of this process.
        program: the command, for its help.

    Raises:
        InputError: if they cannot be read.
        SystemExit: after ``--help``.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(options, args=arguments, prog=program)
    except SystemExit as end:
        if not end.code:
            raise
        raise InputError(_one_line(complaint.getvalue())) from None


def status_of(command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a command; its exit status, or 1 (the machine refused something), 2 (bad input) or 130 (Ctrl-C)."""
    try:
        return command()
    except InputError as error:
        complain(str(error))
        return 2
    except OSError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain(interrupted)
        return 130


def complain(message: str) -> None:
    """Print an error on one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def _one_line(box: str) -> str:
    """What a box drawn by tyro says, up to its first rule, and the first option that it suggests."""
    lines: list[str] = []
    for line in box.splitlines():
        text = line.strip()
        if text.startswith("│"):
            text = text.strip("│ ")
            if lines and set(text) <= {"─"}:
                break
            lines.append(text)
    rules = {"─", "-"}
    said = " ".join(lines or [word for word in box.split() if set(word) - rules]).strip()
    _, suggests, suggested = box.partition("Perhaps you meant:")
    names = [word for word in suggested.split() if word.startswith("--")]
    return f"{said} (did you mean {names[0]}?)" if suggests and names else said
