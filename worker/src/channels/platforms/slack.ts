// SPDX-License-Identifier: Apache-2.0
/**
 * Slack: events and slash commands of an app, and its Web API. In a channel Hermes answers in the thread of the message
 * that named it. Facts: docs.slack.dev.
 */
import * as z from "zod/mini";
import { longest, type SlackSettings } from "../../config/channels.ts";
import {
  type Attachment,
  admitted,
  type Button,
  badSignature,
  badUpdate,
  type Call,
  messageIn,
  messageOf,
  type Outgoing,
  type OutgoingFile,
  onlyText,
  type Platform,
  type Press,
  pressOf,
  type Reaction,
  type Read,
  type Received,
  type Registered,
  SendRefused,
  type Stranger,
  type Update,
} from "../channel.ts";
import { kindOf, tooLarge } from "../files.ts";
import { partsOf } from "../in-parts.ts";
import { starred } from "../marks.ts";
import { Messenger } from "../messenger.ts";
import { raw } from "../multipart.ts";
import { isSignedWith, joined, ofHex, timely } from "../signatures.ts";
import { largestGiven } from "../sizes.ts";

/** So long Slack takes answers to a slash command where the app is no member; milliseconds. */
const COMMAND_LASTS = 29 * 60_000;
/** Where these answers go. */
const HOOKS = "https://hooks.slack.com/";
/** What the app has to be allowed. */
const SCOPES = ["chat:write", "app_mentions:read", "im:history"];
/** Refusals after which another attempt may end otherwise: a token that is just being replaced among them. */
const FOR_NOW = new Set([
  "ratelimited",
  "rate_limited",
  "internal_error",
  "fatal_error",
  "service_unavailable",
  "request_timeout",
  "team_added_to_org",
  "invalid_auth",
  "not_authed",
  "token_revoked",
  "token_expired",
  "account_inactive",
]);

/** What Slack calls the emojis with which Hermes reacts. */
const EMOJIS: Readonly<Record<string, string>> = {
  "👀": "eyes",
  "✅": "white_check_mark",
  "❌": "x",
  "👍": "thumbsup",
  "👎": "thumbsdown",
};
/** What it says of a reaction that is there already, or is not there any more. */
const REACTED = /: (?:already_reacted|no_reaction)$/;

/** Where Slack keeps files. */
const FILES = "https://files.slack.com";
/** The longest text of a block; what it becomes in Slack's own marks may be longer than what it was. In UTF-16 units. */
const LONGEST_SECTION = 3000;
const LONGEST_ABOVE = 2000;
/** How many files of one message are taken. */
const MOST_FILES = 10;

const fileSchema = z.looseObject({
  name: z.nullish(z.string()),
  mimetype: z.optional(z.string()),
  size: z.optional(z.number()),
  url_private_download: z.optional(z.string()),
});

const eventSchema = z.object({
  type: z.literal("event_callback"),
  team_id: z.optional(z.string()),
  authorizations: z.nullish(z.array(z.looseObject({ user_id: z.optional(z.string()) }))),
  event: z.looseObject({
    type: z.string(),
    subtype: z.optional(z.string()),
    channel: z.optional(z.string()),
    channel_type: z.optional(z.string()),
    user: z.optional(z.string()),
    bot_id: z.optional(z.string()),
    text: z.optional(z.string()),
    ts: z.optional(z.string()),
    thread_ts: z.optional(z.string()),
    files: z.optional(z.array(fileSchema)),
    /** What a message says by now. */
    message: z.optional(z.looseObject({ edited: z.optional(z.looseObject({})) })),
  }),
});

/** A button that was pressed. */
const pressSchema = z.looseObject({
  type: z.literal("block_actions"),
  user: z.looseObject({ id: z.string() }),
  team: z.nullish(z.looseObject({ id: z.optional(z.string()) })),
  channel: z.looseObject({ id: z.string() }),
  message: z.looseObject({
    ts: z.string(),
    text: z._default(z.string(), ""),
    thread_ts: z.optional(z.string()),
  }),
  actions: z.array(
    z.looseObject({ value: z._default(z.string(), ""), action_ts: z._default(z.string(), "") }),
  ),
  response_url: z._default(z.nullable(z.string()), null),
});

type SlackEvent = z.infer<typeof eventSchema>;

/** What the instance is told: an update, and the way that Slack gives for its answer. */
interface Told {
  update: Update;
  way: string | null;
}

/** Slack, for the table of the platforms. */
export const slack: Platform<SlackSettings> = {
  methods: ["POST"],
  receive,
  open: (app, parts) => new Slack(app, parts),
};

const taken = (update: Update, way: string | null = null): Received => ({
  answer: new Response(null, { status: 200 }),
  told: update.kind === "nothing" ? null : ({ update, way } satisfies Told),
});

async function receive(call: Call, app: SlackSettings): Promise<Received> {
  const text = await provenText(call, app);
  if (call.headers.get("content-type")?.startsWith("application/x-www-form-urlencoded")) {
    const form = new URLSearchParams(text);
    if (!form.has("command")) return receivePress(form.get("payload") ?? "", app);
    return taken(readCommand(form, app), form.get("response_url"));
  }
  const body = jsonOf(text);
  if (body["type"] === "url_verification")
    return { answer: new Response(String(body["challenge"]), { status: 200 }), told: null };
  return taken(body["type"] === "event_callback" ? readEvent(eventOf(body), app) : nothing("no message"));
}

/** Of all that people do with an app besides writing, buttons of ours are read. */
function receivePress(payload: string, app: SlackSettings): Received {
  const { success, data } = pressSchema.safeParse(jsonOf(payload));
  const [action] = data?.actions ?? [];
  const pressed = pressOf(action?.value ?? "");
  if (!success || action === undefined || pressed === null) return taken(nothing("no message"));
  const { user, channel, team, message: below } = data;
  const id = `press ${channel.id} ${below.ts} ${user.id} ${action.action_ts}`;
  const isDirect = channel.id.startsWith("D");
  const read = messageOf("slack", {
    ...{ id, message: id, text: "", chat: channel.id, isGroup: !isDirect, user: user.id },
    thread: below.thread_ts ?? null,
    scope: team?.id,
    press: { id, ...pressed, message: below.ts, text: below.text },
  });
  const who = { chat: channel.id, user: user.id, name: "" };
  const isHeard = isAllowed(app, user.id, channel.id);
  return taken(admitted(read, isHeard, app.pairing && isDirect && who), data.response_url);
}

/** The body of a call that is signed, and of now. */
async function provenText({ headers, body, now }: Call, { signingSecrets }: SlackSettings): Promise<string> {
  const signature = /^v0=([0-9a-f]{64})$/.exec(headers.get("x-slack-signature") ?? "")?.[1];
  const at = headers.get("x-slack-request-timestamp") ?? "";
  if (signature === undefined || timely(at, now) === null) throw badSignature();
  const bytes = await body();
  for (const secret of signingSecrets)
    if (await isSignedWith(secret, ofHex(signature), joined(`v0:${at}:`, bytes)))
      return new TextDecoder().decode(bytes);
  throw badSignature();
}

function jsonOf(text: string): Record<string, unknown> {
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text));
  } catch (error) {
    throw badUpdate(error);
  }
}

function eventOf(body: object): SlackEvent {
  const read = eventSchema.safeParse(body);
  if (!read.success) throw badUpdate(read.error);
  return read.data;
}

function nothing(why: "not for the bot" | "no message"): Read {
  return { kind: "nothing", why };
}

/** Reads an event. Who is not allowed learns nothing, not even that. */
function readEvent(of: SlackEvent, app: SlackSettings): Update {
  const { event, authorizations } = of;
  if (event.subtype !== "message_changed") return readMessage(of, app);
  const { message, channel, channel_type } = event;
  // Links that are shown below a message change it too; and what is said there Slack tells once, as changed.
  if (message?.edited === undefined) return nothing("no message");
  const me = authorizations?.[0]?.user_id;
  const text = String(message["text"] ?? "");
  const isDirect = channel_type === "im";
  if (!isDirect && (me === undefined || !text.includes(`<@${me}>`))) return nothing("not for the bot");
  const now = { ...message, type: isDirect ? "message" : "app_mention", channel, channel_type };
  const changed = eventSchema.safeParse({ ...of, event: now });
  if (!changed.success) throw badUpdate(changed.error);
  const said = readMessage(changed.data, app);
  return said.kind === "nothing" ? said : { kind: "edit", of: said };
}

function readMessage(
  { event, team_id: team, authorizations }: SlackEvent,
  app: SlackSettings,
): Read | Stranger {
  const { channel, user, ts, bot_id: bot, files = [], text = "", thread_ts: thread } = event;
  const isMessage = event.subtype === undefined || event.subtype === "file_share";
  if (channel === undefined || user === undefined || ts === undefined || bot !== undefined || !isMessage)
    return nothing("no message");
  const isDirect = event.type === "message" && event.channel_type === "im";
  // Of what else is said in a channel the app may be told as well.
  if (!isDirect && event.type !== "app_mention") return nothing("not for the bot");
  const me = authorizations?.[0]?.user_id;
  const said = plainOf(me === undefined ? text : text.replaceAll(`<@${me}>`, "")).trim();
  const at = { chat: channel, thread: thread ?? (isDirect ? null : ts), message: ts };
  const came = filesOf(files);
  // A message that names the bot comes as two events where the app is told of all: one message, one name.
  const name = `${channel} ${ts}`;
  const read =
    said === "" && came.length === 0
      ? onlyText(at)
      : files.some(({ size = 0 }) => size > largestGiven("slack"))
        ? ({ kind: "answer", ...at, text: tooLarge("slack") } as const)
        : message(name, said, at, isDirect, user, team, "", came);
  const who = { chat: channel, user, name: "" };
  return admitted(read, isAllowed(app, user, channel), app.pairing && isDirect && who);
}

/** What came with a message and is at Slack: of what is elsewhere only a link is there. */
function filesOf(files: z.infer<typeof fileSchema>[]): Attachment[] {
  return files
    .slice(0, MOST_FILES)
    .flatMap(({ name, mimetype: mime = "", url_private_download: ref }) =>
      ref === undefined ? [] : [{ ref, kind: kindOf(mime), name: name ?? "", mime }],
    );
}

/** Reads `/hermes TEXT`; of any other command, its name is part of the text. */
function readCommand(form: URLSearchParams, app: SlackSettings): Update {
  const of = (name: string) => form.get(name) ?? "";
  const [channel, user, id] = [of("channel_id"), of("user_id"), of("trigger_id")];
  if (channel === "" || user === "" || id === "") throw badUpdate();
  const command = of("command") === "/hermes" ? "" : of("command");
  const said = `${command} ${plainOf(of("text"))}`.trim() || "/help";
  const at = { chat: channel, thread: null, message: `command-${id}` };
  const isDirect = channel.startsWith("D");
  const read = message(id, said, at, isDirect, user, of("team_id") || undefined, of("user_name"));
  const who = { chat: channel, user, name: of("user_name") };
  return admitted(read, isAllowed(app, user, channel), app.pairing && isDirect && who);
}

function message(
  id: string,
  text: string,
  at: { chat: string; thread: string | null; message: string },
  isDirect: boolean,
  user: string,
  scope?: string,
  name = "",
  files: Attachment[] = [],
): Read {
  return messageOf("slack", {
    id,
    text,
    ...at,
    isGroup: !isDirect,
    user,
    userName: name || undefined,
    scope,
    files,
  });
}

function isAllowed({ allow }: SlackSettings, user: string, channel: string): boolean {
  return allow.includes(user) || allow.includes(channel);
}

/** What a person wrote, of what Slack makes of it. */
function plainOf(text: string): string {
  return text
    .replace(/<([@#!])([^>|]*)(?:\|([^>]*))?>/g, (_, sign: string, name: string, label?: string) =>
      sign === "!" ? `@${label || name}` : `${sign}${label || name}`,
    )
    .replace(/<([^>|]+)\|([^>]+)>/g, (_, url: string, label: string) =>
      url.replace(/^mailto:/, "") === label || url.endsWith(`//${label}`) ? label : `${label} (${url})`,
    )
    .replace(/<([^>]+)>/g, "$1")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}

/** What Slack shows as Hermes meant it: Markdown becomes Slack's own marks, but for what is code. */
export function mrkdwnOf(text: string): string {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const linked = escaped.replace(/!?\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g, "<$2|$1>");
  return starred(linked.replace(/^&gt; ?/gm, "> "));
}

/** A question with its buttons; a text that stands above such has its own limit. */
function blocksOf(text: string, buttons: readonly Button[]): object[] {
  const above = partsOf(text, LONGEST_ABOVE).map((part) => ({
    type: "section",
    text: { type: "mrkdwn", text: mrkdwnOf(part).slice(0, LONGEST_SECTION) },
  }));
  const elements = buttons.map(({ label, data }) => ({
    type: "button",
    text: { type: "plain_text", text: label },
    value: data,
    action_id: data,
  }));
  return [...above, { type: "actions", elements }];
}

/** What Slack answers to every call. */
interface Answer {
  ok: boolean;
  error?: string;
  user?: string;
  ts?: string;
  upload_url?: string;
  file_id?: string;
}

/** One app's calls. */
class Slack extends Messenger<SlackSettings> {
  protected readonly label = "Slack";

  override async read(told: object): Promise<Update[]> {
    const { update, way } = told as Told;
    const { ways, time } = this.parts;
    const event = messageIn(update);
    if (event !== null && way !== null && this.#isOfSlack(way))
      ways.keep(event.message_id, way, time.now(), COMMAND_LASTS);
    return [update];
  }

  #isOfSlack(url: string): boolean {
    return url.startsWith(HOOKS) || url.startsWith(`${new URL(this.settings.apiUrl).origin}/`);
  }

  async send({ chat, thread, text, replyTo, during, buttons = [] }: Outgoing): Promise<string> {
    const said = {
      text: mrkdwnOf(text),
      ...(buttons.length === 0 ? {} : { blocks: blocksOf(text, buttons) }),
    };
    const answered = replyTo ?? during ?? null;
    const way = this.parts.ways.of(answered, this.parts.time.now());
    if (way !== null && (await this.#sendBy(way, { response_type: "in_channel", ...said })))
      return answered ?? "";
    const { ts } = await this.#call("chat.postMessage", {
      channel: chat,
      ...said,
      unfurl_links: false,
      unfurl_media: false,
      ...(thread === null ? {} : { thread_ts: thread }),
    });
    return ts ?? "";
  }

  async react({ chat, message, emoji, isOver }: Reaction): Promise<void> {
    const name = EMOJIS[emoji];
    if (name === undefined) throw new SendRefused("Slack: a reaction is not known", true);
    const it = { channel: chat, timestamp: message, name };
    try {
      await this.#call(isOver ? "reactions.remove" : "reactions.add", it);
    } catch (error) {
      if (!(error instanceof SendRefused && REACTED.test(error.message))) throw error;
    }
  }

  caption(): number {
    return longest("slack");
  }

  /** Slack gives an address for the file, and shows it when it is told that it is there. */
  async sendFile({ chat, thread, text }: Outgoing, file: OutgoingFile): Promise<string> {
    const told = new URLSearchParams({ filename: file.name || "file", length: String(file.size) });
    const { upload_url: url = "", file_id: id = "" } = await this.#call("files.getUploadURLExternal", told);
    this.refuseUnless(url, this.#homes);
    const { response } = await this.upload(url, "", raw(file));
    if (!response.ok) throw this.refusal(response, `a file was refused with ${response.status}`);
    await this.#call("files.completeUploadExternal", {
      files: [{ id, title: file.name }],
      channel_id: chat,
      ...(text === "" ? {} : { initial_comment: mrkdwnOf(text) }),
      ...(thread === null ? {} : { thread_ts: thread }),
    });
    return id;
  }

  /** Where Slack keeps files. */
  get #homes(): string[] {
    return [FILES, new URL(this.settings.apiUrl).origin];
  }

  /** What the question says comes back as Slack has it. */
  async settle(chat: string, { id, message, text }: Press, words: string): Promise<void> {
    const below = `\n\n${mrkdwnOf(words)}`;
    const said = { text: `${text.slice(0, longest("slack") - below.length)}${below}`, blocks: [] };
    const way = this.parts.ways.of(id, this.parts.time.now());
    if (way !== null && (await this.#sendBy(way, { replace_original: true, ...said }))) return;
    await this.#call("chat.update", { channel: chat, ts: message, ...said });
  }

  /** Answers a command where it was given, or a press. @returns whether Slack took it. */
  async #sendBy(way: string, said: object): Promise<boolean> {
    return (await this.ask(way, "", "POST", said)).response.ok;
  }

  /** Whoever may not read a file is shown a page to sign in. */
  async file({ ref, mime }: Attachment): Promise<ReadableStream<Uint8Array>> {
    const { token } = this.settings;
    const isIt = ({ headers }: Response) =>
      mime === "text/html" || headers.get("content-type")?.startsWith("text/html") !== true;
    return this.bytesAt(ref, this.#homes, `Bearer ${token}`, isIt);
  }

  /** Slack is told by a person where to send; that its token is good it tells itself. */
  async register(address: string): Promise<Registered> {
    const { response, answer } = await this.#ask("auth.test", {});
    const scopes = response.headers.get("x-oauth-scopes")?.split(/\s*,\s*/);
    const lacks = SCOPES.filter((scope) => scopes !== undefined && !scopes.includes(scope));
    if (lacks.length > 0)
      throw new SendRefused(`Slack: the token lacks the scopes ${lacks.join(", ")}`, true);
    return this.registered(answer.user ?? "", `${address}/channels/slack`);
  }

  async #call(method: string, body: object): Promise<Partial<Answer>> {
    return (await this.#ask(method, body)).answer;
  }

  /** @throws SendRefused. */
  async #ask(method: string, body: object): Promise<{ response: Response; answer: Partial<Answer> }> {
    const { apiUrl, token } = this.settings;
    const { response, answer } = await this.ask<Answer>(
      `${apiUrl}/${method}`,
      `Bearer ${token}`,
      "POST",
      body,
    );
    if (answer.ok) return { response, answer };
    const error = answer.error ?? `${method} failed`;
    if (error === "missing_scope" && method.startsWith("files."))
      throw new SendRefused("Slack: the token lacks the scope files:write", true);
    const wait = Number(response.headers.get("retry-after") ?? 0) * 1000 || 0;
    const isFinal = response.status < 500 && response.status !== 429 && answer.error !== undefined;
    throw new SendRefused(`Slack: ${error}`, isFinal && !FOR_NOW.has(error), wait);
  }
}
