// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { ApiError } from "../src/base/errors.ts";
import { WAKING } from "../src/base/streams.ts";
import { goingOn } from "../src/gate/waiting-stream.ts";

const ANSWER = "data: hello\n\ndata: [DONE]\n\n";
const staying = new AbortController().signal;
const torn = new Error("The object was torn down.");

/** A stream that says this, in chunks, and then ends well or breaks off. */
function saying(chunks: string[], why?: Error, left?: (why: unknown) => void): Response {
  const rest = chunks.map((chunk) => new TextEncoder().encode(chunk));
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const next = rest.shift();
      if (next !== undefined) controller.enqueue(next);
      else if (why !== undefined) controller.error(why);
      else if (left === undefined) controller.close();
      else return new Promise(() => undefined);
      return undefined;
    },
    cancel: (reason: unknown) => left?.(reason),
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

/** What it answers when it is asked for again, one after the other; and how often it was. */
function answering(...answers: (() => Response)[]) {
  let asked = 0;
  const again = async () => {
    const next = answers[asked++];
    if (next === undefined)
      throw new ApiError({ status: 503, code: "instance_unavailable", message: "Gone." });
    return next();
  };
  return { again, asked: () => asked };
}

describe("a stream that waited for Hermes", () => {
  it.each([
    ["between two comments", [WAKING, WAKING]],
    ["within one", [WAKING, WAKING.slice(0, 9), WAKING.slice(9, 14)]],
    ["before the first", []],
  ])("is one stream though the instance is started over %s", async (_, chunks) => {
    const { again, asked } = answering(
      () => saying([WAKING], torn),
      () => saying([WAKING, ANSWER]),
    );
    const text = await goingOn(saying(chunks, torn), again, "id", staying).text();
    expect(asked()).toBe(2);
    const said = text.split("\n").filter((line) => line !== "" && !line.startsWith(":"));
    expect(said).toEqual(["data: hello", "data: [DONE]"]);
    expect(text.endsWith(`\n\n${WAKING}${ANSWER}`)).toBe(true);
  });

  it.each([
    ["of Hermes' answer", [WAKING, "data: hel"]],
    ["of its headers: the turn has begun", [WAKING, ": x-hermes-session-id: s\n\n"]],
  ])("is broken off and not asked for again after a word %s", async (_, chunks) => {
    const { again, asked } = answering(() => saying([ANSWER]));
    await expect(goingOn(saying(chunks, torn), again, "id", staying).text()).rejects.toThrow();
    expect(asked()).toBe(0);
  });

  it("is asked for five times more at most", async () => {
    const { again, asked } = answering(...Array.from({ length: 9 }, () => () => saying([WAKING], torn)));
    await expect(goingOn(saying([WAKING], torn), again, "id", staying).text()).rejects.toThrow();
    expect(asked()).toBe(5);
  });

  it("ends with the refusal where it is refused then", async () => {
    const { again } = answering();
    const text = await goingOn(saying([WAKING], torn), again, "the-id", staying).text();
    const [, event] = text.split("data: ");
    expect(JSON.parse(event ?? "")).toMatchObject({
      error: { code: "instance_unavailable", request_id: "the-id" },
    });
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  });

  it("is not asked for again when its client left", async () => {
    const { again, asked } = answering(() => saying([ANSWER]));
    const gone = AbortSignal.abort();
    await expect(goingOn(saying([WAKING], torn), again, "id", gone).text()).rejects.toThrow();
    expect(asked()).toBe(0);
  });

  it("is read no further when its client takes nothing any more", async () => {
    const { again } = answering();
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const endless = saying(
      Array.from({ length: 99 }, () => WAKING),
      undefined,
      resolve,
    );
    const reader = goingOn(endless, again, "id", staying).body?.getReader();
    await reader?.read();
    await reader?.cancel("the client left");
    await promise;
  });
});
