# SPDX-License-Identifier: Apache-2.0
"""The one exception that becomes an HTTP answer."""

import errno


class EngineError(Exception):
    """A refusal: HTTP status, a code for programs and a sentence for a person."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def disk_full(error: BaseException) -> EngineError | None:
    """Return what to answer when an error says that a disk is full; None for any other error."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return EngineError(507, "disk_full", "The disk of this machine is full.")
    return None
