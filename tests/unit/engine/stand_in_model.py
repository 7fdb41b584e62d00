# SPDX-License-Identifier: Apache-2.0
"""A model provider in OpenAI's shape that needs no key: it says what it was told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def model() -> AsyncIterator[str]:
    """Serve on a loopback port and yield the base URL."""
    application = web.Application(client_max_size=20_000_000)
    application.add_routes(
        [web.post("/v1/chat/completions", _complete), web.get("/v1/models", _models)]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})


async def _complete(request: web.Request) -> web.StreamResponse:
    messages = (await request.json())["messages"]
    said = [_text(item["content"]) for item in messages if item["role"] == "user"]
    text = f'Turn {len(said)}. You said: "{said[-1]}". You began with: "{said[0]}".'
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for word in text.split(" "):
        if "slowly" in said[-1]:
            await asyncio.sleep(0.2)
        await _send(answer, {"index": 0, "delta": {"content": word + " "}, "finish_reason": None})
    await _send(
        answer,
        {"index": 0, "delta": {}, "finish_reason": "stop"},
        {
            "prompt_tokens": 10,
            "completion_tokens": 10,
            "total_tokens": 20,
        },
    )
    await answer.write(b"data: [DONE]\n\n")
    return answer


async def _send(answer: web.StreamResponse, choice: dict, usage: "dict | None" = None) -> None:
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    if usage:
        chunk["usage"] = usage
    await answer.write(f"data: {json.dumps(chunk)}\n\n".encode())


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)
