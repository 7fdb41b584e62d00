# SPDX-License-Identifier: Apache-2.0
"""Somebody's MCP server over HTTP, made with the official SDK: `tool_server.py PORT`, run by a Python that has that.

Only who brings the token of the environment's TOOLS_TOKEN gets in.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import uvicorn
from mcp.server.fastmcp import FastMCP

server = FastMCP("stock")


@server.tool()
def in_stock(item: str) -> str:
    """Tell how many of an item there are."""
    return f"There are {len(item) * 7} of {item}."


def main() -> None:
    """Serve on a port of this machine until the process is ended."""
    app = server.streamable_http_app()
    wanted = f"Bearer {os.environ['TOOLS_TOKEN']}".encode()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != wanted:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await app(scope, receive, send)

    uvicorn.run(guarded, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
