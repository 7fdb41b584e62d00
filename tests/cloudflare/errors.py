# SPDX-License-Identifier: Apache-2.0
"""Refusals, with Cloudflare's own codes and words as far as they are documented or were seen."""

from __future__ import annotations


class Refusal(Exception):
    """A call that Cloudflare refuses."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = 0.0


def no_route(path: str) -> Refusal:
    return Refusal(
        404, 7003, f"Could not route to {path}, perhaps your object identifier is invalid?"
    )


def authentication() -> Refusal:
    """What most of the API says to a token that lacks a permission or an account."""
    return Refusal(403, 10000, "Authentication error")


def unauthorized() -> Refusal:
    return Refusal(403, 9109, "Unauthorized to access requested resource")


def no_worker() -> Refusal:
    return Refusal(404, 10007, "This Worker does not exist on your account.")


def not_deployed(code: int) -> Refusal:
    """What is said to a change of secrets (10215) or settings (10214) while the newest version does not serve alone."""
    what = "Secret" if code == 10215 else "Settings"
    return Refusal(
        400,
        code,
        f"{what} edit failed. The latest version of your Worker isn't currently deployed.",
    )


def invalid_script(why: str) -> Refusal:
    return Refusal(400, 10021, why)
