"""The one kind of error that a user sees."""


class UserError(Exception):
    """An error that the user can fix. Its text is all that they see of it."""
