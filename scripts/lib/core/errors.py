"""The errors that a user sees."""

import os


class UserError(Exception):
    """An error that the user can fix. Its text is all that they see of it."""

    status = 1  # of a command that ends with it


class TemporaryError(UserError):
    """An error that the same command may not meet when it is run again."""

    status = os.EX_TEMPFAIL


class NodeError(UserError):
    """An error of the machine that runs the command: the same command may succeed on another."""

    status = os.EX_UNAVAILABLE
