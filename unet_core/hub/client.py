"""huggingface_hub, imported when an address needs it, and what it refuses, as one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unet_core.errors import MissingFrameworkError, StorageError, first_line
from unet_core.installation import installing
from unet_core.version import VERSION

LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"


def client(url: str) -> Any:
    """The package.

    Raises:
        MissingFrameworkError: it is not installed.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise MissingFrameworkError(
            f"{url}: this needs huggingface_hub, which is not installed: {installing('hub')}",
            name="huggingface_hub",
        ) from error
    return huggingface_hub


def api(url: str) -> Any:
    """What asks the Hub; with the token that huggingface_hub finds."""
    return client(url).HfApi(library_name="unet-twins", library_version=VERSION)


def is_offline(url: str) -> bool:
    """Whether only its cache may be read (HF_HUB_OFFLINE)."""
    return bool(client(url).constants.HF_HUB_OFFLINE)


@contextmanager
def refusals(url: str, revision: str | None = None) -> Iterator[None]:
    """Around a request: what the Hub refuses for good becomes one line; what may pass stays as it is.

    Raises:
        StorageError: no such repository or revision, no access, or a name that is none.
        FileNotFoundError: no such file in the repository.
        ConnectionError: nobody answers, and the cache lacks the file.
    """
    errors = client(url).errors
    try:
        yield
    except errors.GatedRepoError as error:
        raise StorageError(errno.EACCES, f"is gated: accept its terms on its page, and {LOG_IN}", url) from error
    except errors.RevisionNotFoundError as error:
        raise StorageError(errno.ENOENT, f"the repository has no revision {revision or 'main'}", url) from error
    except errors.RepositoryNotFoundError as error:
        raise StorageError(errno.ENOENT, f"no such repository, or none that you may see: {LOG_IN}", url) from error
    except errors.LocalEntryNotFoundError as error:
        raise ConnectionError(first_line(error.__cause__ or error)) from error.__cause__
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file in the repository", url) from error
    except errors.HFValidationError as error:
        raise StorageError(errno.EINVAL, first_line(error), url) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise StorageError(errno.EACCES, f"access denied ({first_line(error)}): {LOG_IN}", url) from error
