"""The one exception for input that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: a trace, a configuration, a name.

    The message is one line that names the file, row and field (whichever apply) and what was
    expected. Command lines print it without a traceback and exit with status 2.
    """


def missing_extra(what: str, library: str, extra: str) -> InputError:
    """The error for an optional library that is not installed: what needs it, and how it is installed."""
    return InputError(f"{what}: {library} is missing: pip install 'preserve-gym[{extra}]'")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`` (did you mean ...?)`` with the known name that is closest, or nothing if none is close."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
