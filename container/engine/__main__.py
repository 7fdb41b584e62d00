# SPDX-License-Identifier: Apache-2.0
"""Entry point of `python -m engine`."""

import sys

# A unix socket needs no TLS, and its library is a quarter of this process's memory. asyncio and
# aiohttp both support an interpreter without it.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

from engine.cli import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
