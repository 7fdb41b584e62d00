# SPDX-License-Identifier: Apache-2.0
"""A deployment whose Hermes runs in a container, and the provider that it speaks to."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contained import HOME, Contained, in_container, speaking_to
from plays import Deployment

from tests.docker.engine import Docker, build_sidecar, load_base, running_engine
from tests.standins.provider import Provider

__all__ = ["HOME", "Contained", "contained", "docker", "provider"]


@contextmanager
def docker() -> Iterator[Docker]:
    """The engine that HERMES_TEST_DOCKER_SOCKET names, else one of our own."""
    with (
        tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder,
        running_engine(Path(folder)) as engine,
    ):
        yield engine


@contextmanager
def contained(engine: Docker, provider: Provider) -> Iterator[Contained]:
    """A verified deployment in an engine; it is destroyed at the end."""
    with tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder:
        variables = {
            **in_container(engine, base := load_base(engine), build_sidecar(engine, base)),
            **speaking_to(provider),
        }
        deployment = Deployment("bench", Path(folder), variables=variables)
        made = Contained(deployment, engine)
        try:
            deployment.deploy()
            yield made
        finally:
            play = deployment.play(
                "destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true"
            )
            if play.code:
                raise RuntimeError(f"destroy failed:\n{play.output}")


@contextmanager
def provider(host: str = "127.0.0.1") -> Iterator[Provider]:
    """A provider that answers at once."""
    with Provider(key="sk-bench-" + secrets.token_hex(16), host=host) as running:
        yield running
