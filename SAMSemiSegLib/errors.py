"""What can go wrong for a user, each with the exit code the command ends with.

The message of every error here is one sentence for the user: it names the file or setting and says
what to do next. A traceback is for the developers' mistakes only.
"""


class UserError(Exception):
    """Something the user can mend. The message is the whole of what they are shown."""

    exit_code = 2


class InputError(UserError):
    """A file, folder or setting that cannot be used."""


class RunBusyError(UserError):
    """Another process is working in this run folder."""


class OutOfMemoryError(UserError):
    """The device or the machine has too little memory for the settings."""

    exit_code = 3


class DiskFullError(UserError):
    """No space left to write on; what was written before is whole."""

    exit_code = 4


class TrainingDivergedError(UserError):
    """The loss is no longer a number, or grows without bound."""

    exit_code = 6


class Cancelled(Exception):
    """The user asked the run to stop; it can be resumed."""

    exit_code = 5
