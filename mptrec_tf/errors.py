"""Errors that a user can act on; the command line prints them without a traceback."""


class MPTRecError(ValueError):
    """Base of every error that tells the user what to change."""


class SpecError(MPTRecError):
    """A spec or configuration is wrong; the message names the key and what is allowed."""


class DataError(MPTRecError):
    """Data do not fit the spec; the message names the file, the column and the value."""


class ModelError(MPTRecError):
    """A model cannot do what was asked in the state it is in, or a model file is unusable."""


class ServingError(MPTRecError):
    """An exported model, its version, or a server's configuration cannot be served as it is."""


class PipelineError(MPTRecError):
    """A pipeline cannot run, or must not go on; the message says what stopped it."""
