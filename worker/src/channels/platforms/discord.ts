// SPDX-License-Identifier: Apache-2.0
/**
 * Discord's interactions: the command `/hermes` of an application, which needs no open socket. The answer to one may be
 * given for 15 minutes; what comes later is written into the channel by the bot. Facts: docs.discord.com.
 */
import * as z from "zod/mini";
import { type DiscordSettings, longest } from "../../config/channels.ts";
import {
  admitted,
  type Button,
  badSignature,
  badUpdate,
  type Call,
  messageIn,
  messageOf,
  type Outgoing,
  type OutgoingFile,
  type Platform,
  type Press,
  pressOf,
  type Received,
  type Registered,
  type Said,
  SendRefused,
  type Update,
} from "../channel.ts";
import { Messenger } from "../messenger.ts";
import { multipart } from "../multipart.ts";
import { joined, ofHex, timely } from "../signatures.ts";

const PATH = "/channels/discord";
/** So long an interaction takes answers; milliseconds. */
const LASTS = 14.5 * 60_000;
/** Kinds of interactions, and of what they are answered. */
const [PING, COMMAND, COMPONENT, AUTOCOMPLETE] = [1, 2, 3, 4] as const;
const [PONG, DEFERRED, DEFERRED_UPDATE, CHOICES] = [1, 5, 6, 8] as const;
/** Kinds of components, the style of a button, and how many of them stand in a row. */
const [ROW, BUTTON, SECONDARY, IN_A_ROW] = [1, 2, 2, 5] as const;
/** The command by which people speak to Hermes. */
const HERMES = {
  name: "hermes",
  type: 1,
  description: "Say something to Hermes",
  options: [{ type: 3, name: "text", description: "What to say", required: true }],
};

const userSchema = z.looseObject({ id: z.string(), username: z.optional(z.string()) });
const interactionSchema = z.looseObject({
  type: z.number(),
  id: z.string(),
  application_id: z.optional(z.string()),
  token: z.optional(z.string()),
  channel_id: z.optional(z.string()),
  guild_id: z.nullish(z.string()),
  member: z.nullish(z.looseObject({ user: z.optional(userSchema) })),
  user: z.nullish(userSchema),
  data: z.nullish(
    z.looseObject({
      name: z.optional(z.string()),
      options: z.optional(z.array(z.looseObject({ value: z.optional(z.unknown()) }))),
      custom_id: z.optional(z.string()),
    }),
  ),
  /** The one below which a button was pressed. */
  message: z.nullish(z.looseObject({ id: z.string(), content: z._default(z.string(), "") })),
});

type Interaction = z.infer<typeof interactionSchema>;

/** What the instance is told: a message, and by what it is answered. */
interface Told {
  update: Update;
  token: string;
}

/** Discord, for the table of the platforms. */
export const discord: Platform<DiscordSettings> = {
  methods: ["POST"],
  receive,
  open: (application, parts) => new Discord(application, parts),
};

async function receive(call: Call, application: DiscordSettings): Promise<Received> {
  const asked = await proven(call, application);
  const { type } = asked;
  if (type === PING) return told({ type: PONG });
  if (type === AUTOCOMPLETE) return told({ type: CHOICES, data: { choices: [] } });
  if (type === COMPONENT) return receivePress(asked, application);
  const update = type === COMMAND ? read(asked, application) : null;
  // To a stranger it looks as if nobody was there.
  if (update === null || update.kind === "nothing" || asked.token === undefined)
    return { answer: new Response(null), told: null };
  return told({ type: DEFERRED }, { update, token: asked.token });
}

/** The message stays as it is until it is known what the press answered. */
function receivePress(asked: Interaction, application: DiscordSettings): Received {
  const { id, token, data, message } = asked;
  const pressed = pressOf(data?.custom_id ?? "");
  const answer = { type: DEFERRED_UPDATE };
  if (pressed === null || message == null || token === undefined) return told(answer);
  const press = { id: `press ${id}`, ...pressed, message: message.id, text: message.content };
  const update = heardOf(asked, application, { message: press.id, text: "", press });
  return told(answer, update.kind === "nothing" ? null : { update, token });
}

function told(answer: object, of: Told | null = null): Received {
  return { answer: Response.json(answer), told: of };
}

/** An interaction that is signed, and of now. */
async function proven({ headers, body, now }: Call, { publicKey }: DiscordSettings): Promise<Interaction> {
  const signature = /^[0-9a-f]{128}$/.exec(headers.get("x-signature-ed25519") ?? "")?.[0];
  const at = headers.get("x-signature-timestamp") ?? "";
  if (signature === undefined || timely(at, now) === null) throw badSignature();
  const bytes = await body();
  const key = await crypto.subtle.importKey("raw", ofHex(publicKey), { name: "Ed25519" }, false, ["verify"]);
  if (!(await crypto.subtle.verify("Ed25519", key, ofHex(signature), joined(at, bytes))))
    throw badSignature();
  try {
    return interactionSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (error) {
    throw badUpdate(error);
  }
}

/** Reads a command. */
function read(asked: Interaction, application: DiscordSettings): Update {
  const { id, data } = asked;
  const said = (data?.options ?? []).map(({ value }) => String(value ?? "")).join(" ");
  const text = data?.name === HERMES.name ? said : `/${data?.name ?? ""} ${said}`;
  return heardOf(asked, application, { message: id, text: text.trim() || "/help" });
}

/** What somebody says by an interaction, by whether they may. */
function heardOf(
  asked: Interaction,
  { allow, pairing }: DiscordSettings,
  said: Pick<Said, "message" | "text" | "press">,
): Update {
  const { channel_id: channel, guild_id: guild } = asked;
  const user = asked.member?.user ?? asked.user;
  if (channel === undefined || user == null) throw badUpdate();
  const message = messageOf("discord", {
    ...said,
    chat: channel,
    isGroup: guild != null,
    user: user.id,
    userName: user.username,
    scope: guild,
  });
  const isAllowed = [user.id, channel, guild].some((one) => one != null && allow.includes(one));
  const who = { chat: channel, user: user.id, name: user.username ?? "" };
  return admitted(message, isAllowed, pairing && guild == null && who);
}

/** Buttons, in as many rows as they take. */
function rowsOf(buttons: readonly Button[]): object[] {
  const all = buttons.map(({ label, data }) => ({ type: BUTTON, style: SECONDARY, label, custom_id: data }));
  const rows = Math.ceil(all.length / IN_A_ROW);
  return Array.from({ length: rows }, (_, at) => ({
    type: ROW,
    components: all.slice(at * IN_A_ROW, (at + 1) * IN_A_ROW),
  }));
}

/** What Discord answers. */
interface Answer {
  id?: string;
  name?: string;
  verify_key?: string;
  interactions_endpoint_url?: string | null;
  message?: string;
  retry_after?: number;
}

/** One application's calls. */
class Discord extends Messenger<DiscordSettings> {
  protected readonly label = "Discord";

  override async read(given: object): Promise<Update[]> {
    const { update, token } = given as Told;
    const { ways, time } = this.parts;
    const event = messageIn(update);
    if (event !== null) ways.keep(event.message_id, token, time.now(), LASTS);
    return [update];
  }

  send(message: Outgoing): Promise<string> {
    return this.#send(message, (path, body) => this.#call(path, "POST", body));
  }

  /** The way of a press leads to the message with the buttons. */
  async settle(chat: string, { id, message, text }: Press, words: string): Promise<void> {
    const { ways, time } = this.parts;
    const below = `\n\n${words}`;
    const said = { content: `${text.slice(0, longest("discord") - below.length)}${below}`, components: [] };
    const token = ways.of(id, time.now());
    const own = `/webhooks/${this.settings.applicationId}/${token}/messages/@original`;
    await this.#call(token === null ? `/channels/${chat}/messages/${message}` : own, "PATCH", said);
  }

  caption(): number {
    return longest("discord");
  }

  sendFile(message: Outgoing, file: OutgoingFile): Promise<string> {
    const { apiUrl, token } = this.settings;
    return this.#send(message, async (path, body) => {
      const form = multipart({ payload_json: JSON.stringify(body) }, "files[0]", file);
      return this.#known(await this.upload<Answer>(`${apiUrl}${path}`, `Bot ${token}`, form));
    });
  }

  async #send(
    { chat, text, replyTo, during, buttons = [] }: Outgoing,
    post: (path: string, body: object) => Promise<Answer>,
  ): Promise<string> {
    const { ways, time } = this.parts;
    const below = buttons.length === 0 ? {} : { components: rowsOf(buttons) };
    const body = { content: text, allowed_mentions: { parse: [] }, ...below };
    const token = ways.of(replyTo ?? during ?? null, time.now());
    if (token !== null)
      try {
        // The first one takes the place of "is thinking".
        const path = `/webhooks/${this.settings.applicationId}/${token}?wait=true`;
        return (await post(path, body)).id ?? "";
      } catch (error) {
        if (!(error instanceof SendRefused && error.isFinal)) throw error;
      }
    return (await post(`/channels/${chat}/messages`, body)).id ?? "";
  }

  async register(address: string, look: boolean): Promise<Registered> {
    const wanted = `${address}${PATH}`;
    const found = await this.#call("/applications/@me", "GET");
    if (found.id !== this.settings.applicationId)
      throw new SendRefused("Discord: the token is of another application", true);
    if (found.verify_key !== this.settings.publicKey)
      throw new SendRefused("Discord: the public key is not the application's", true);
    const isThere = found.interactions_endpoint_url === wanted;
    const isKnown = (await this.#commands()).some(({ name }) => name === HERMES.name);
    if (!look && !isKnown) await this.#call(this.#ofCommands, "POST", HERMES);
    // Discord asks there at once whether it is answered.
    if (!look && !isThere)
      await this.#call("/applications/@me", "PATCH", { interactions_endpoint_url: wanted });
    const now = look ? (found.interactions_endpoint_url ?? "") : wanted;
    const changed = !isThere || !isKnown;
    return this.registered(found.name ?? "", now, changed);
  }

  get #ofCommands(): string {
    return `/applications/${this.settings.applicationId}/commands`;
  }

  async #commands(): Promise<{ id?: string; name?: string }[]> {
    return (await this.#call(this.#ofCommands, "GET")) as unknown as { id?: string; name?: string }[];
  }

  /** An address that is another's stays, and the command with it. */
  override async unregister(): Promise<void> {
    const found = await this.#call("/applications/@me", "GET");
    if (!found.interactions_endpoint_url?.endsWith(PATH)) return;
    const known = await this.#commands();
    for (const { id } of known.filter(({ name }) => name === HERMES.name))
      await this.#call(`${this.#ofCommands}/${id}`, "DELETE");
    await this.#call("/applications/@me", "PATCH", { interactions_endpoint_url: null });
  }

  /** @throws SendRefused: nothing of what it says holds a token. */
  async #call(path: string, method: string, body?: object): Promise<Answer> {
    const { apiUrl, token } = this.settings;
    return this.#known(await this.ask<Answer>(`${apiUrl}${path}`, `Bot ${token}`, method, body));
  }

  /** @throws SendRefused for what is no success. */
  #known({ response, answer }: { response: Response; answer: Answer }): Answer {
    if (response.ok) return answer;
    throw this.refusal(response, answer.message, answer.retry_after);
  }
}
