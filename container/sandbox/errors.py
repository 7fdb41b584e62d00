# SPDX-License-Identifier: Apache-2.0
"""Exit codes and the one exception that carries them."""

import errno

OK = 0
FAILED = 1
UNCHANGED = 3
USAGE = 64
OTHER_BOOT = 65
TOO_LATE = 66
NOT_RESTORED = 67
# The bytes of an archive, all of them received, prove that it must not be used.
DAMAGED_ARCHIVE = 70
DAMAGED_STATE = 71
TOO_LARGE = 72
DISK_FULL = 73
# It could not be done, which says nothing of the bytes: cut input, an I/O error, no memory.
UNFINISHED = 74
TEMPORARY = 75
REFUSED = 77

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SandboxError(Exception):
    """A failure with its exit code and one sentence for a person."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def disk_full(error: OSError) -> bool:
    """Tell whether the system refused a write for want of space or quota."""
    return error.errno in _FULL


def why(error: Exception) -> str:
    """Return the system's words for a failure of its own."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
