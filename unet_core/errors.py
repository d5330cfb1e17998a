"""The errors a user can meet. Each is one line: what is wrong, where, and what to do."""


class UNetError(Exception):
    """Bad input or usage; the command prints it on one line and exits with 2."""


class ConfigError(UNetError, ValueError):
    """A network that cannot exist, or a file's config that cannot be read."""


class CheckpointError(UNetError):
    """A checkpoint that cannot be read, written or trusted."""


class MissingFrameworkError(UNetError, ImportError):
    """The job needs a package that this installation lacks."""
