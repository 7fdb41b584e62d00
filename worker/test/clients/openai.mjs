// SPDX-License-Identifier: Apache-2.0
/**
 * OpenAI's own client speaks to a deployment: OPENAI_BASE_URL with OPENAI_API_KEY. Prints what came of it as JSON,
 * for tests/integration/test_openai_client.py to judge. `TOOL_MODEL` is a model that calls a tool when told to.
 */
import OpenAI, { APIError } from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = "hermes";
const user = (content) => ({ role: "user", content });
const CAT = user("The cat is called Ada.");
const CALL = user('call todo {"todos": [{"id": "1", "content": "feed Ada", "status": "pending"}]}');

/** The pieces of a streamed chat. */
async function streamed(order) {
  const pieces = [];
  let finish = null;
  let usage = null;
  const stream = await client.chat.completions.create({ model, stream: true, ...order });
  for await (const chunk of stream) {
    usage = chunk.usage ?? usage;
    for (const { delta, finish_reason } of chunk.choices ?? []) {
      if (delta?.content) pieces.push(delta.content);
      finish = finish_reason ?? finish;
    }
  }
  return { pieces: pieces.length, text: pieces.join(""), finish, usage };
}

async function whole(order, options) {
  const { data, response } = await client.chat.completions
    .create({ model, ...order }, options)
    .withResponse();
  const { message, finish_reason } = data.choices[0];
  const headers = Object.fromEntries(response.headers);
  return { text: message.content, finish: finish_reason, usage: data.usage, headers };
}

/** What the client makes of a refusal. */
async function refused(call) {
  try {
    await call();
    return null;
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, code, type, requestID, message } = error;
    return { kind: error.constructor.name, status, code, type, requestID, message };
  }
}

/** A stream that its reader leaves after the first piece. */
async function left() {
  const stream = await client.chat.completions.create({ model, stream: true, messages: [CAT] });
  for await (const chunk of stream) if (chunk.choices?.[0]?.delta?.content) break;
  return stream.controller.signal.aborted;
}

const session = { headers: { "X-Hermes-Session-Id": "openai-client-js", "Idempotency-Key": "js-1" } };
const tools = { model: process.env["TOOL_MODEL"], messages: [CALL] };
const stranger = new OpenAI({ apiKey: "hw_wrong", maxRetries: 0 });
const large = user("x".repeat(11 * 1024 * 1024));

const outcome = {
  chat: await whole({ messages: [CAT] }),
  stream: await streamed({ messages: [CAT], stream_options: { include_usage: true } }),
  first: await whole({ messages: [CAT] }, session),
  second: await whole(
    { messages: [user("What did I begin with?")] },
    { headers: { ...session.headers, "Idempotency-Key": "js-2" } },
  ),
  tools: await whole(tools),
  toolsStreamed: await streamed(tools),
  models: (await client.models.list()).data,
  wrongKey: await refused(() => stranger.models.list()),
  tooLarge: await refused(() => whole({ messages: [large] })),
  noMessages: await refused(() => whole({ messages: [] })),
  left: await left(),
};
console.log(JSON.stringify(outcome));
