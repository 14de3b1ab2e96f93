"""What a user can put right: each error is one line that says what is wrong, where, and what to do.

Commands print the line and end with exit code 2, see exits.py.
"""


class UserError(ValueError):
    """Something the user gave is wrong."""


class ConfigError(UserError):
    """A key of the config, or an option of a command."""


class DataError(UserError):
    """Images or videos, or the lists of them."""


class WeightsError(UserError):
    """A file of weights, or what it holds."""


class RunError(UserError):
    """The workdir of a run: its config, its checkpoints."""
