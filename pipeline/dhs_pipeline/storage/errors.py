"""What can go wrong with a store, each told in one line."""

from __future__ import annotations

import errno

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ANSWERING = frozenset(
    {
        errno.EAGAIN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Of network file systems and of this process's own limits: they say nothing about the file."""


class StorageError(OSError):
    """A path that cannot be read or written; the message is one line for the user."""


class StorageUnavailable(StorageError):  # noqa: N818 - a state of the store
    """The store did not answer properly, after all retries: nothing is known about the file.

    Never to be turned into the status of a row: the task fails and Spark tries it again.
    """


def local_error(error: OSError, path: str, doing: str) -> OSError:
    """A StorageError for what the user or the machine must mend; any other error as it is (no such file, say)."""
    if isinstance(error, StorageError):
        return error
    if error.errno in _FULL:
        return StorageError(f"{path}: no space left on this disk; free some, then run the same command again")
    if error.errno in _NOT_ANSWERING:
        return StorageUnavailable(f"{path}: cannot {doing} ({reason(error)})")
    return error


def reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split())
