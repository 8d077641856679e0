"""The few kinds of error that a user can meet.

Every message is one readable sentence or two: what is wrong, where, what was found, what was
expected, what to do. The job boundary prints the message alone; anything that is not a `GemError`
is a defect of this program and is printed with its traceback.
"""


class GemError(Exception):
    """Base of every error with a message that is meant for the user."""


class OptionError(GemError):
    """A command-line option is unknown, ill-typed or out of bounds."""


class InputError(GemError):
    """A particle table, image stack, map or mask cannot be used as it is."""


class ResourceError(GemError):
    """Memory, disk or an engine that the run needs is not there."""


class GpuMemoryError(ResourceError):
    """A GPU has no room for what is asked of it; with less asked, the run can go on."""


class OutputError(GemError):
    """A result cannot be written."""


class JobAborted(GemError):
    """The user, RELION or the queueing system asked the run to end."""
