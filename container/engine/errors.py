# SPDX-License-Identifier: Apache-2.0
"""The one exception that becomes an HTTP answer."""


class EngineError(Exception):
    """A refusal: HTTP status, a code for programs and a sentence for a person."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
