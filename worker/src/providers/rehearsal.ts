// SPDX-License-Identifier: Apache-2.0
/**
 * The rehearsal model: OpenAI-compatible, no provider, no key, no cost. It says what it was told, so that a
 * deployment, its memory and its streaming can be proved before anyone pays. Same input, same text.
 *
 * A message `call TOOL {"argument": "value"}` has it call that tool of those that it was offered, and say what came back.
 */
import * as z from "zod/mini";
import { ApiError } from "../base/errors.ts";

const part = z.looseObject({ type: z.string(), text: z.optional(z.string()) });
const message = z.looseObject({
  role: z.string(),
  content: z.nullish(z.union([z.string(), z.array(part)])),
});
const request = z.looseObject({
  model: z.optional(z.string()),
  messages: z.array(message).check(z.minLength(1)),
  tools: z.nullish(z.array(z.looseObject({ function: z.optional(z.looseObject({ name: z.string() })) }))),
  stream: z.nullish(z.boolean()),
  stream_options: z.nullish(z.looseObject({ include_usage: z.nullish(z.boolean()) })),
});

type Message = z.infer<typeof message>;

/** A call of a tool, as a message asks for it. */
const CALL = /^call ([A-Za-z0-9_.:-]+) (\{.*\})\s*$/s;

/** What it answers: words, or the call of a tool. */
interface Answer {
  text: string;
  call: { id: string; name: string; arguments: string } | null;
}

/** `/v1/models` of the rehearsal provider. */
export function rehearsalModels(): Response {
  const model = {
    id: "rehearsal",
    object: "model",
    created: 0,
    owned_by: "rehearsal",
    context_length: 200_000,
  };
  return Response.json({ object: "list", data: [model] });
}

/**
 * `/v1/chat/completions` of the rehearsal provider.
 * @throws ApiError 400 when the body is no chat request.
 */
export async function rehearsalChat(incoming: Request): Promise<Response> {
  const parsed = request.safeParse(await incoming.json().catch(() => null));
  if (!parsed.success)
    throw new ApiError({
      status: 400,
      code: "bad_request",
      message: "The rehearsal model needs a chat request.",
    });
  const { model = "rehearsal", messages, tools, stream, stream_options } = parsed.data;
  const offered = (tools ?? []).map((tool) => tool.function?.name ?? "");
  const answer = answerTo(messages, offered);
  const { text } = answer;
  const usage = usageOf(messages, text);
  const head = { id: "chatcmpl-rehearsal", created: Math.floor(Date.now() / 1000), model };
  if (stream !== true) {
    const said = { role: "assistant", content: text, ...calls(answer) };
    const choice = { index: 0, message: said, finish_reason: ending(answer) };
    return Response.json({ ...head, object: "chat.completion", choices: [choice], usage });
  }
  const events = chunks(head, answer, stream_options?.include_usage === true ? usage : null);
  return new Response(streamOf(events), {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache" },
  });
}

/** What the rehearsal model answers, or the tool that it was asked to call. */
function answerTo(messages: readonly Message[], offered: readonly string[]): Answer {
  const last = messages.at(-1);
  if (last?.role === "tool") return { text: `The tool answered: ${quote(textOf(last))}`, call: null };
  const [, name, given] = (last?.role === "user" && CALL.exec(textOf(last))) || [];
  if (name === undefined || given === undefined) return { text: rehearse(messages), call: null };
  // No two calls of a conversation share their id: Hermes keeps one result of each.
  const id = `call-rehearsal-${messages.length}`;
  if (offered.includes(name)) return { text: "", call: { id, name, arguments: given } };
  return { text: `No tool ${name} is offered, but: ${offered.join(", ")}.`, call: null };
}

/** The call as the message or its first chunk carries it. */
function calls({ call }: Answer): object {
  if (call === null) return {};
  const { id, ...called } = call;
  return { tool_calls: [{ index: 0, id, type: "function", function: called }] };
}

function ending({ call }: Answer): string {
  return call === null ? "stop" : "tool_calls";
}

/** What the rehearsal model says. */
export function rehearse(messages: readonly Message[]): string {
  const said = messages.filter((one) => one.role === "user").map(textOf);
  const first = quote(said[0] ?? "");
  const last = quote(said.at(-1) ?? "");
  return (
    `Rehearsal model here; no provider was called. Turn ${said.length}. ` +
    `You said: "${last}". You began with: "${first}".`
  );
}

function textOf(one: Message): string {
  if (typeof one.content === "string") return one.content;
  return (one.content ?? []).map((piece) => piece.text ?? "").join("");
}

/** Long messages are shown by their beginning. */
function quote(text: string): string {
  return text.length > 500 ? `${text.slice(0, 500)}...` : text;
}

/** About four characters to a token, as everyone guesses. */
function tokens(text: string): number {
  return Math.ceil(text.length / 4);
}

function usageOf(messages: readonly Message[], text: string) {
  const prompt_tokens = messages.reduce((sum, one) => sum + tokens(textOf(one)) + 4, 0);
  const completion_tokens = tokens(text);
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}

function* chunks(head: object, answer: Answer, usage: object | null): Generator<string, undefined> {
  const event = (delta: object, finish_reason: string | null) =>
    `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
  yield event({ role: "assistant", content: "" }, null);
  for (const word of answer.text.match(/\s*\S+/g) ?? []) yield event({ content: word }, null);
  if (answer.call !== null) yield event(calls(answer), null);
  yield event({}, ending(answer));
  if (usage !== null)
    yield `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", choices: [], usage })}\n\n`;
  yield "data: [DONE]\n\n";
  return undefined;
}

function streamOf(events: Generator<string, undefined>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const { done, value } = events.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
  });
}
