"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """Input that cannot be used: a trace, a configuration, a name.

    The message is one line that names the file, row and field (whichever apply) and what was
    expected. Command lines print it without a traceback and exit with status 2.
    """
