// SPDX-License-Identifier: Apache-2.0
import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it, vi } from "vitest";
import { hex } from "../src/base/digests.ts";
import { Log, Redactor } from "../src/base/log.ts";
import { type Incoming, type OwnMessage, messageOf as said } from "../src/channels/channel.ts";
import { Channels } from "../src/channels/channels.ts";
import { OWN_FILE, ownFileOf, ownMessageOf } from "../src/channels/gate.ts";
import { isGenuine, isSigned, messageOf } from "../src/channels/hooks.ts";
import { MOST, MOST_OF_ONE, MOST_OWN, MOST_OWN_FILES } from "../src/channels/inbox.ts";
import type { Mail } from "../src/channels/mail/mail.ts";
import { opened } from "../src/channels/platforms/platforms.ts";
import { proofOf, TELEGRAM_PROOF, type TelegramUpdate } from "../src/channels/platforms/telegram.ts";
import { hmacKey } from "../src/channels/signatures.ts";
import { type HookSettings, type PlatformName, relayed } from "../src/config/channels.ts";
import { type Env, settingsOf } from "../src/config/settings.ts";
import { anew, ask, askWith, env, instance, refusal, woken } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const TOKEN = "4242:AAstand-in_token_0123456789abcdefghij";
const WRONG_PROOFS = ["", "x", "0".repeat(64)];
const DECLARED = {
  HERMES_CHANNELS: JSON.stringify({
    telegram: { token: TOKEN, allow: ["77", "-500"] },
    hooks: { ci: { kind: "github", secrets: ["It's a Secret to Everybody"] } },
  }),
  HERMES_BOTS: '{"telegram":"4242","webhook":"worker"}',
  HERMES_PUBLIC_URL: "https://hermes.example.com",
};

interface Frame {
  type: string;
  bufferId?: string;
  requestId?: string;
  event?: {
    text: string;
    message_id: string;
    message_type?: string;
    media_urls?: string[];
    files?: unknown;
    source: { platform: string; chat_id: string };
  };
  name?: string;
  at?: number;
  result?: { success: boolean; message_id?: string; error?: string; after?: number };
  prompt?: string;
  option?: string;
}

/** What Hermes sends on its own account. */
const own = (text: string, more: object = {}): OwnMessage => ({
  name: `name of ${text}`,
  platform: "telegram",
  chat: "77",
  thread: null,
  text,
  ...more,
});

/** Hermes and the bridge beside it; each is as good as it is told to be. */
class StandInHermes {
  readonly given: Frame[] = [];
  readonly results: Frame[] = [];
  /** What it answers by itself; `null` leaves the answer to the test. */
  answers: ((text: string) => string) | null = (text) => `heard ${text}`;
  /** With which key each line to it was asked for, and which of them are closed. */
  readonly keys: string[] = [];
  readonly closed: string[] = [];
  /** What it was brought, by its name: what was told of it, and its bytes. */
  readonly files = new Map<string, { told: object; bytes: string }>();
  /** Why it takes no file; `undefined` = it does not say. */
  refusesFiles: string | null | undefined = null;
  #pieces: { told: object; bytes: string } = { told: {}, bytes: "" };
  /** What it sends of files, by their names at the bridge; and how long the pieces are. */
  readonly offered = new Map<string, string>();
  piece = 5;
  /** Whether it gives the Worker no more of them. */
  keepsFiles = false;
  /** What may be the answer to a question of its, and what was pressed below one. */
  readonly answered: Frame[] = [];
  readonly pressed: Frame[] = [];
  /** What a press answers, by its question; of others nobody waits for an answer. */
  readonly waitsFor = new Map<string, string>();
  /** Whether the next line to it has ended when something is said by it, and nobody tells. */
  isDeaf = false;
  #socket: WebSocket | null = null;
  #held = new Map<string, Frame>();
  #requests = 0;

  port = () => ({
    fetch: async (_url: string, init?: RequestInit): Promise<Response> => {
      if (this.isDeaf) {
        this.isDeaf = false;
        return { webSocket: deaf() } as unknown as Response;
      }
      const { 0: outside, 1: inside } = new WebSocketPair();
      this.#socket = inside;
      const key = new Headers(init?.headers).get("authorization") ?? "";
      this.keys.push(key);
      inside.binaryType = "arraybuffer";
      inside.addEventListener("close", () => this.closed.push(key));
      inside.addEventListener("message", ({ data }) => {
        if (typeof data === "string") return this.#take(JSON.parse(data) as Frame);
        expect((data as ArrayBuffer).byteLength).toBeLessThanOrEqual(512 * 1024);
        this.#pieces.bytes += new TextDecoder().decode(data as ArrayBuffer);
      });
      inside.accept();
      inside.send(JSON.stringify({ type: "hello", held: [...this.#held.keys()] }));
      for (const frame of this.#unanswered.values()) inside.send(JSON.stringify(frame));
      return new Response(null, { status: 101, webSocket: outside });
    },
  });

  /** It is done with what it was given, and has nothing to say to it. */
  fallSilent({ bufferId }: Frame): void {
    this.#socket?.send(JSON.stringify({ type: "processed", bufferId }));
  }

  /** The process dies: all that it was given is forgotten. */
  die(): void {
    this.#held.clear();
    this.waitsFor.clear();
    this.#socket?.close(1011, "");
  }

  /** The line to it ends; it lives on. */
  hangUp(): void {
    this.#socket?.close(1011, "");
  }

  /** Says something in a message's chat; `answers` whether as its answer. */
  say(frame: Frame, text: string, notify = true, answers = true, filesFollow = false): void {
    const { event } = frame;
    this.#socket?.send(
      JSON.stringify({
        type: "outbound",
        requestId: `r${this.#requests++}`,
        platform: event?.source.platform,
        action: {
          op: "send",
          chat_id: event?.source.chat_id,
          content: text,
          ...(answers ? { reply_to: event?.message_id } : {}),
          metadata: { notify, ...(filesFollow ? { files_follow: true } : {}) },
        },
      }),
    );
  }

  /** Has the connector do something. */
  act(action: object): void {
    const requestId = `r${this.#requests++}`;
    this.babble(JSON.stringify({ type: "outbound", requestId, platform: "telegram", action }));
  }

  /** Says anything at all. */
  babble(text: string): void {
    this.#socket?.send(text);
  }

  /** Sends a file with the answer to a message; `more` replaces what is told of it. */
  sendFile(frame: Frame | null, content: string, more: object = {}): void {
    const { event } = frame ?? {};
    const name = `f${this.#requests++}`;
    this.offered.set(name, content);
    this.#offer({
      type: "outbound",
      requestId: name,
      platform: event?.source.platform ?? "telegram",
      action: {
        op: "send_media",
        chat_id: event?.source.chat_id ?? "77",
        ...{ media_kind: "document", filename: "a.pdf", mime: "application/pdf", size: content.length },
        ...{ content: "", source_url: name, answers: event?.message_id ?? null, part: 0 },
        metadata: { notify: true },
        ...more,
      },
    } as Frame & { requestId: string });
  }

  /** Asks something in a message's chat. */
  ask({ event }: Frame, prompt: string, options: string[]): void {
    this.waitsFor.set(prompt, "");
    this.#offer({
      type: "outbound",
      requestId: `r${this.#requests++}`,
      platform: event?.source.platform,
      action: {
        ...{ op: "prompt", chat_id: event?.source.chat_id, prompt_id: prompt, prompt_kind: "clarify" },
        ...{ content: `Which ${prompt}?`, typed: "Write one.", metadata: {} },
        options: options.map((id) => ({ id, label: `the ${id}` })),
      },
    } as unknown as Frame & { requestId: string });
  }

  /** What was offered, and nobody answered. */
  readonly #unanswered = new Map<string, Frame>();

  #offer(frame: Frame & { requestId: string }): void {
    this.#unanswered.set(frame.requestId, frame);
    this.#socket?.send(JSON.stringify(frame));
  }

  #take(frame: Frame): void {
    if (frame.type === "read") {
      if (this.keepsFiles) return;
      const { name = "", at = 0 } = frame;
      return void this.#socket?.send(bytes(this.offered.get(name)?.slice(at, at + this.piece) ?? ""));
    }
    this.#unanswered.delete(frame.requestId ?? "");
    if (frame.type === "outbound_result") return void this.results.push(frame);
    if (frame.type === "answer") return void this.answered.push(frame);
    if (frame.type === "press") {
      const { bufferId, prompt = "", option = "" } = frame;
      this.pressed.push(frame);
      const answer = this.waitsFor.has(prompt) ? this.waitsFor.get(prompt) || `the ${option}` : null;
      if (answer !== null) this.waitsFor.set(prompt, answer);
      return void this.#socket?.send(JSON.stringify({ type: "pressed", bufferId, answer }));
    }
    const { type, name = "", ...told } = frame;
    if (type === "file") {
      this.#pieces = { told, bytes: "" };
      return;
    }
    if (type === "file_end") {
      this.files.set(name, this.#pieces);
      const error = this.refusesFiles;
      if (error === undefined) return;
      return void this.#socket?.send(JSON.stringify({ type: "file_taken", bufferId: name, error }));
    }
    this.given.push(frame);
    this.#held.set(frame.bufferId ?? "", frame);
    if (this.answers !== null) this.say(frame, this.answers(frame.event?.text ?? ""));
  }
}

/** A line that greets, and is closed. */
function deaf(): object {
  let hears: (event: object) => void = () => undefined;
  return {
    addEventListener: (kind: string, listener: (event: object) => void) => {
      if (kind === "message") hears = listener;
    },
    accept: () => queueMicrotask(() => hears({ data: '{"type":"hello","held":[]}' })),
    send: () => {
      throw new TypeError("Can't call WebSocket send() after close().");
    },
    close: () => undefined,
  };
}

/** Everything around the channels of one object, over several of its lives. */
class World {
  readonly hermes = new StandInHermes();
  readonly sent: {
    chat_id: string;
    text: string;
    reply_parameters?: { message_id: number };
    reply_markup?: { inline_keyboard: { text: string; callback_data: string }[][] };
  }[] = [];
  /** What messages of ours say since they were changed, by their numbers; and the presses that Telegram was told of. */
  readonly changed: Record<string, string> = {};
  readonly heard: string[] = [];
  /** The bot's reactions, by messages. */
  readonly reactions: Record<string, string[]> = {};
  /** Why Telegram changes no message. */
  unchangeable: object | null = null;
  /** The files that Telegram was sent: by which method, where, what was said to it, its name, its type, its bytes. */
  readonly sentFiles: string[][] = [];
  readonly time = new ManualTime();
  /** What Telegram answers to the next calls of a message. */
  readonly refusals: object[] = [];
  /** The methods of Telegram's that were called, in their order. */
  readonly called: string[] = [];
  /** What Telegram has for who asks for messages; none is handed out before that offset. */
  readonly updates: TelegramUpdate[] = [];
  /** What Telegram gives a bot of files, by their names; of others it has none. */
  readonly files: Record<string, string> = {};
  /** Where Telegram sends messages. */
  webhook = "";
  /** Whether a turn would have to wake Hermes. */
  isAsleep = false;
  /** Why Hermes does not start. */
  broken: Error | null = null;
  /** Why Telegram cannot be reached; it is told the address, as a runtime's error may name it. */
  unreachable: ((url: string) => Error) | null = null;
  /** What other platforms answer. */
  elsewhere: ((url: string, init: RequestInit) => Response) | null = null;
  /** The mails that were sent. */
  readonly mails: { text: string; attachments?: { filename: string }[] }[] = [];
  /** Whether the life that sends next does not hear what Telegram says. */
  dies = false;
  /** How many of those that come first wait for a Hermes that is slow to start. */
  late = 0;
  /** The key of the boot of Hermes that runs. */
  key = "k";
  /** Takes all tables away for a while, so that nothing can be stored. */
  readonly tables = {
    hide: () => this.#rename((name) => [name, `away_${name}`]),
    show: () => this.#rename((name) => [`away_${name}`, name]),
  };
  #updates = 0;
  #names: string[] = [];

  constructor(readonly storage: DurableObjectStorage) {}

  life(change: Record<string, string> = {}): Channels {
    return new Channels({
      settings: settingsOf({ ...env, ...DECLARED, ...change } as Env),
      storage: this.storage,
      life: {
        withSeat: async (_why, _writes, turn) => {
          if (this.broken !== null) throw this.broken;
          if (this.late-- > 0) await this.time.sleep(1000);
          return turn({ keys: { gatewayKey: this.key, capability: "", dashboardToken: "" } });
        },
        arrive: (_isActivity, answer) => answer(),
        isAsleep: this.isAsleep,
        stay: (work) => void work.catch(() => undefined),
      },
      time: this.time,
      log: new Log(new Redactor([TOKEN])),
      port: this.hermes.port,
      mail: {
        send: async (mail: World["mails"][number]) => {
          const refused = this.refusals.shift();
          if (refused !== undefined) throw Object.assign(new Error("refused"), refused);
          return { messageId: `<${this.mails.push(mail)}@x>` };
        },
      } as never,
      fetch: async (url, init) => {
        this.called.push(url.slice(url.lastIndexOf("/") + 1));
        if (this.unreachable !== null) throw this.unreachable(url);
        if (this.elsewhere !== null && !url.startsWith("https://api.telegram.org/"))
          return this.elsewhere(url, init);
        const file = /^https:\/\/api\.telegram\.org\/file\/bot([^/]+)\/files\/(.+)$/.exec(url);
        if (file !== null) {
          const found = file[1] === TOKEN ? this.files[file[2] ?? ""] : undefined;
          return new Response(found ?? null, { status: found === undefined ? 404 : 200 });
        }
        if (init.body instanceof ReadableStream) return this.#file(url, new Response(init.body, init));
        return this.#telegram(url, JSON.parse(String(init.body)));
      },
    });
  }

  #rename(names: (name: string) => [string, string]): void {
    const { sql } = this.storage;
    if (this.#names.length === 0) {
      const rows = sql.exec("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'inbox%'");
      this.#names = [...rows].map((row) => String(row["name"]));
    }
    for (const [from, to] of this.#names.map(names)) sql.exec(`ALTER TABLE ${from} RENAME TO ${to}`);
  }

  update(text: string, more: object = {}, id = ++this.#updates): TelegramUpdate {
    return {
      update_id: id,
      message: {
        message_id: id + 100,
        from: { id: 77, first_name: "Ann" },
        chat: { id: 77, type: "private" },
        text,
        ...more,
      },
    };
  }

  /** A button below a message of ours that is pressed. */
  press(message: number, data: string, more: object = {}): TelegramUpdate {
    const id = ++this.#updates;
    return {
      update_id: id,
      callback_query: {
        ...{ id: `q${id}`, from: { id: 77, first_name: "Ann" }, data },
        message: {
          ...{ message_id: message, date: 1, chat: { id: 77, type: "private" } },
          text: this.sent[message - 1]?.text,
        },
        ...more,
      },
    } as TelegramUpdate;
  }

  async #file(url: string, call: Response): Promise<Response> {
    const form = await call.formData();
    const refused = this.refusals.shift();
    if (refused !== undefined) return Response.json({ ok: false, ...refused });
    const method = url.slice(url.lastIndexOf("/") + 1);
    const file = form.get(method.slice("send".length).toLowerCase()) as File;
    const [chat, caption] = [form.get("chat_id"), form.get("caption")].map((one) => String(one ?? ""));
    this.sentFiles.push([method, chat ?? "", caption ?? "", file.name, file.type, await file.text()]);
    if (this.dies) {
      this.dies = false;
      return new Promise(() => undefined);
    }
    return Response.json({ ok: true, result: { message_id: 1000 + this.sentFiles.length } });
  }

  #telegram(
    url: string,
    body: {
      chat_id: string;
      text: string;
      offset: number;
      file_id?: string;
      message_id?: number;
      callback_query_id?: string;
      reaction?: { type: string; emoji: string }[];
    },
  ): Response | Promise<Response> {
    if (url.endsWith("/getFile"))
      return this.files[body.file_id ?? ""] === undefined
        ? Response.json({ ok: false, error_code: 400, description: "Bad Request: wrong file_id" })
        : Response.json({ ok: true, result: { file_path: `files/${body.file_id}` } });
    if (url.endsWith("/getUpdates"))
      return Response.json({ ok: true, result: this.updates.filter((one) => one.update_id >= body.offset) });
    if (url.endsWith("/getWebhookInfo")) return Response.json({ ok: true, result: { url: this.webhook } });
    if (url.endsWith("/setMessageReaction")) return this.#react(String(body.message_id), body.reaction ?? []);
    if (url.endsWith("/answerCallbackQuery")) this.heard.push(body.callback_query_id ?? "");
    if (url.endsWith("/editMessageText")) {
      if (this.unchangeable !== null) return Response.json({ ok: false, ...this.unchangeable });
      this.changed[String(body.message_id)] = body.text;
    }
    if (!url.endsWith("/sendMessage")) return Response.json({ ok: true, result: { username: "the_bot" } });
    const refused = this.refusals.shift();
    if (refused !== undefined) return Response.json({ ok: false, ...refused });
    this.sent.push(body);
    if (this.dies) {
      this.dies = false;
      return new Promise(() => undefined);
    }
    return Response.json({ ok: true, result: { message_id: this.sent.length } });
  }

  /** Telegram knows the messages that people wrote, and few emojis; a reaction that is there already it takes. */
  #react(message: string, reaction: { type: string; emoji: string }[]): Response {
    const refuse = (why: string) =>
      Response.json({ ok: false, error_code: 400, description: `Bad Request: ${why}` });
    if (!(Number(message) > 100)) return refuse("message to react not found");
    if (reaction.some(({ type, emoji }) => type !== "emoji" || !["👀", "👍"].includes(emoji)))
      return refuse("REACTION_INVALID");
    this.reactions[message] = reaction.map(({ emoji }) => emoji);
    return Response.json({ ok: true, result: true });
  }
}

let rooms = 0;
const inWorld = (test: (world: World) => Promise<void>) => async () => {
  const stub = env.PLAIN.getByName(`channels ${rooms++}`);
  await runInDurableObject(stub, (_, { storage }) => test(new World(storage)));
};

const bytes = (text: string) => new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>;

/** Lets everything go on that waits for no time. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await scheduler.wait(0);
}

/** Of each platform: its declaration, a chat, where files go first, and the largest one in megabytes. */
const EACH = {
  telegram: [{ token: TOKEN }, "77", "sendDocument", 25],
  slack: [
    { token: `xoxb-${"1".repeat(20)}`, signingSecrets: [] },
    "C0OPEN0",
    "https://files.slack.com/x a file",
    25,
  ],
  whatsapp_cloud: [
    {
      ...{ token: "E".repeat(30), appSecret: "5".repeat(32), verifyToken: "a made-up word" },
      phoneNumberId: "106540352242922",
    },
    ...(["491701234567", "/media a file", 25] as const),
  ],
  sms: [
    { accountSid: `AC${"7".repeat(32)}`, authTokens: ["e".repeat(32)], number: "+15005550006" },
    ...(["+491701234567", "MediaUrl", 5] as const),
  ],
  discord: [
    { token: "d".repeat(60), applicationId: "1".repeat(18), publicKey: "a".repeat(64) },
    ...(["333333333333333333", "/messages a file", 10] as const),
  ],
  email: [{ address: "hermes@example.com" }, "ann@gmail.test", "a mail", 17],
} as const satisfies Record<PlatformName, readonly [object, string, string, number]>;

describe("what is told of a channel", () => {
  it.each(Object.entries(EACH))(
    "is what came by %s, went, waits, was dropped and was refused",
    async (platform, [declared, chat]) => {
      await inWorld(async (world) => {
        world.hermes.answers = null;
        world.elsewhere = () => Response.json({ ok: true, ts: "1", id: "M1", sid: "SM1" });
        const channels = world.life({
          HERMES_CHANNELS: JSON.stringify({ [platform]: { allow: [chat], ...declared } }),
          HERMES_BOTS: JSON.stringify({ [platform]: "4242" }),
        });
        const toldOf = (n: number): object => {
          if (platform === "telegram") return world.update(`message ${n}`);
          const text = `message ${n}`;
          if (platform === "email")
            return { ...{ id: text, from: chat, name: "Ann", subject: "", references: [] }, text, files: [] };
          const update = said(platform, { message: text, text, chat, isGroup: false, user: chat });
          return { updates: [update], update, way: null, token: "t" };
        };
        const view = () => channels.views()[platform];
        const answer = async (n: number) => {
          await channels.receive(platform, toldOf(n));
          await settle();
          expect(view()).toMatchObject({ lastIn: world.time.now(), waiting: 1 });
          await world.time.pass(1000);
          world.hermes.say(world.hermes.given[n] as Frame, `answer ${n}`);
          await settle();
        };
        const none = { waiting: 0, dropped: 0, refused: 0, trouble: null };
        expect(view()).toMatchObject({ ...none, lastIn: 0, lastOut: 0 });
        await answer(0);
        const went = world.time.now();
        expect(view()).toMatchObject({ ...none, lastIn: went - 1000, lastOut: went });
        world.refusals.push({ error_code: 403, description: "Forbidden", code: "E_RECIPIENT_SUPPRESSED" });
        const error = platform === "slack" ? "is_archived" : { code: 100, message: "no" };
        world.elsewhere = () =>
          Response.json({ ok: false, error }, { status: error === "is_archived" ? 200 : 403 });
        await answer(1);
        expect(view()).toMatchObject({ waiting: 0, dropped: 0, refused: 1, lastOut: went });
        for (let n = 2; n <= MOST_OF_ONE + 2; n++) await channels.receive(platform, toldOf(n));
        expect(view()).toMatchObject({ waiting: MOST_OF_ONE, dropped: 1, refused: 1 });
      })();
    },
  );
});

describe("an answer that its platform does not take for the moment", () => {
  it.each([
    ["is on its way", 1, 1000],
    ["is kept", 10, 60_000],
  ])("and %s is sent, whatever Hermes says of its end meanwhile", async (_, refusals, ms) => {
    await inWorld(async (world) => {
      world.hermes.answers = null;
      for (let time = 0; time < refusals; time++)
        world.refusals.push({ error_code: 500, description: "Internal Server Error" });
      const channels = world.life();
      await channels.receive("telegram", world.update("hello"));
      await settle();
      world.hermes.say(world.hermes.given[0] as Frame, "here");
      await settle();
      if (refusals > 1) await world.time.pass(30_000);
      // A Hermes that is stopped has not heard what became of it.
      world.hermes.fallSilent(world.hermes.given[0] as Frame);
      await settle();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 1 });
      world.refusals.length = 0;
      await world.time.pass(ms);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["here"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, twice: 0 });
    })();
  });
});

describe("an answer that WhatsApp took and does not deliver", () => {
  it(
    "is told like one that it refused, once, whatever comes of others then",
    inWorld(async (world) => {
      const [declared, chat] = EACH.whatsapp_cloud;
      const channels = world.life({
        HERMES_CHANNELS: JSON.stringify({ whatsapp_cloud: { allow: [chat], ...declared } }),
        HERMES_BOTS: '{"whatsapp_cloud":"4242"}',
      });
      const told = { updates: [{ kind: "undelivered", message: "wamid.1", why: "WhatsApp: too late" }] };
      for (let time = 0; time < 2; time++)
        expect(await channels.receive("whatsapp_cloud", told)).toEqual(["undelivered"]);
      const view = { refused: 1, trouble: "WhatsApp: too late", waiting: 0, lastIn: 0 };
      expect(channels.views()["whatsapp_cloud"]).toMatchObject(view);
    }),
  );
});

describe("a message", () => {
  it(
    "is answered, and nothing of it is kept",
    inWorld(async (world) => {
      const channels = world.life();
      expect(await channels.receive("telegram", world.update("hello"))).toEqual(["new"]);
      await settle();
      expect(world.sent).toEqual([
        expect.objectContaining({
          chat_id: "77",
          text: "heard hello",
          reply_parameters: { message_id: 101, allow_sending_without_reply: true },
        }),
      ]);
      expect([...world.storage.sql.exec("SELECT * FROM inbox_messages")]).toEqual([]);
      const now = world.time.now();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, again: 0, trouble: null });
      expect(channels.views()["telegram"]).toMatchObject({ lastIn: now, lastOut: now, dropped: 0 });
    }),
  );

  it(
    "that is delivered again is taken once",
    inWorld(async (world) => {
      const channels = world.life();
      const update = world.update("hello");
      expect(await channels.receive("telegram", update)).toEqual(["new"]);
      expect(await channels.receive("telegram", update)).toEqual(["known"]);
      await settle();
      expect(await world.life().receive("telegram", update)).toEqual(["known"]);
      // Platforms try again for a day.
      await world.time.pass(24 * 3600_000);
      expect(await world.life().receive("telegram", update)).toEqual(["known"]);
      await settle();
      expect(world.sent).toHaveLength(1);
    }),
  );

  it(
    "waits for the one before it in its chat, and for none in another",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("one"));
      await channels.receive("telegram", world.update("two"));
      await channels.receive(
        "telegram",
        world.update("other", { chat: { id: -500, type: "group" }, text: "/other" }),
      );
      await settle();
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["one", "/other"]);
      world.hermes.say(world.hermes.given[0] as Frame, "done");
      await settle();
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["one", "/other", "two"]);
    }),
  );

  it(
    "is handed over again when Hermes dies of it, four times; then the person is told, and the owner may try again",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("poison"));
      for (let death = 0; death < 4; death++) {
        await settle();
        world.hermes.die();
        await settle();
        await world.time.pass(120_000);
      }
      await settle();
      expect(world.hermes.given).toHaveLength(4);
      expect(channels.views()["telegram"]).toMatchObject({ again: 3 });
      expect(world.sent.map(({ text }) => text)).toEqual([expect.stringContaining("could not answer")]);
      expect(channels.failed()).toEqual([
        expect.objectContaining({ channel: "telegram", why: expect.stringContaining("hung up") }),
      ]);
      world.hermes.answers = (text) => `heard ${text}`;
      expect(channels.retry()).toBe(1);
      await settle();
      expect(world.sent.at(-1)?.text).toBe("heard poison");
      expect(channels.failed()).toEqual([]);
    }),
  );

  it(
    "is given up when Hermes does not start for a quarter of an hour, and told where it was written",
    inWorld(async (world) => {
      world.broken = new Error(`no image for ${TOKEN}`);
      const channels = world.life();
      await channels.receive("telegram", world.update("hello", { message_thread_id: 5 }));
      for (let minute = 0; minute < 18; minute++) {
        await settle();
        expect(world.sent).toHaveLength(minute < 14 ? 0 : world.sent.length);
        await world.time.pass(60_000);
      }
      await settle();
      expect(world.sent).toEqual([expect.objectContaining({ chat_id: "77", message_thread_id: 5 })]);
      expect(channels.failed()).toEqual([expect.objectContaining({ why: "no image for [redacted]" })]);
    }),
  );

  it(
    "is taken up by the object's next life; of what Hermes is at, it is not given a second one",
    inWorld(async (world) => {
      world.hermes.answers = null;
      await world.life().receive("telegram", world.update("hello"));
      await settle();
      world.life().resume();
      await settle();
      expect(world.hermes.given).toHaveLength(1);
      world.hermes.say(world.hermes.given[0] as Frame, "at last");
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["at last"]);
      expect([...world.storage.sql.exec("SELECT * FROM inbox_messages")]).toEqual([]);
    }),
  );

  it(
    "whose answer Hermes says twice is answered once",
    inWorld(async (world) => {
      world.hermes.answers = null;
      await world.life().receive("telegram", world.update("hello"));
      await settle();
      const [frame] = world.hermes.given as [Frame];
      world.hermes.say(frame, "one answer");
      world.hermes.say(frame, "one answer");
      await settle();
      world.hermes.say(frame, "one answer");
      await settle();
      expect(world.sent).toHaveLength(1);
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        { success: true, message_id: "1" },
        { success: true, message_id: "1" },
        { success: true, message_id: "1" },
      ]);
    }),
  );

  it(
    "that the platform refuses for now is sent again; for good, it is done",
    inWorld(async (world) => {
      const channels = world.life();
      world.refusals.push({ error_code: 429, parameters: { retry_after: 3 } }, { error_code: 401 });
      await channels.receive("telegram", world.update("hello"));
      await settle();
      await world.time.pass(3000);
      await settle();
      await world.time.pass(2000);
      await settle();
      expect(world.sent).toHaveLength(1);
      world.refusals.push({ error_code: 403, description: "Forbidden: bot was blocked by the user" });
      await channels.receive("telegram", world.update("blocked"));
      await settle();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0 });
      expect(channels.views()["telegram"]?.trouble).toContain("blocked by the user");
    }),
  );

  it(
    "/stop is given to Hermes while it is at another one of that chat, and ends nobody else's",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("a long one"));
      const elsewhere = { chat: { id: -500, type: "group" } };
      await channels.receive("telegram", world.update("/other", elsewhere));
      await settle();
      await channels.receive("telegram", world.update("/later", elsewhere));
      await channels.receive("telegram", world.update("/stop"));
      await settle();
      const given = world.hermes.given.map(({ event }) => event?.text);
      expect(given).toEqual(["a long one", "/other", "/stop"]);
    }),
  );

  it(
    "beyond those that may wait is dropped, and counted",
    inWorld(async (world) => {
      world.broken = new Error("not yet");
      const channels = world.life();
      const by = (id: number) =>
        channels.receive(
          "telegram",
          world.update("/more", { from: { id }, chat: { id: -500, type: "supergroup" } }),
        );
      for (let number = 0; number < MOST_OF_ONE + 2; number++) await by(1);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: MOST_OF_ONE, dropped: 2 });
      for (let number = MOST_OF_ONE; number < MOST; number++)
        expect(await by(2 + (number % 100))).toEqual(["new"]);
      expect(await by(1000)).toEqual(["full"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: MOST, dropped: 3 });
    }),
  );
});

describe("a message that its author changes", () => {
  const edited = (world: World, update: TelegramUpdate, text: string, more: object = {}): TelegramUpdate => ({
    update_id: update.update_id + 1000,
    edited_message: { ...world.update("", more).message, ...update.message, text, ...more } as never,
  });

  it(
    "is what Hermes is given, where it waits; later it changes nothing",
    inWorld(async (world) => {
      world.late = 1;
      world.hermes.answers = null;
      const channels = world.life();
      const [one, two] = [world.update("helo"), world.update("and tihs")];
      for (const update of [one, two]) await channels.receive("telegram", update);
      await settle();
      // Hermes is being woken for the first, and the second waits for it.
      for (const [update, text] of [
        [one, "hello"],
        [two, "and this"],
      ] as const)
        expect(await channels.receive("telegram", edited(world, update, text))).toEqual(["edit"]);
      await world.time.pass(1000);
      await settle();
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["hello"]);
      await channels.receive("telegram", edited(world, one, "hello there"));
      world.hermes.say(world.hermes.given[0] as Frame, "hi");
      await settle();
      world.hermes.say(world.hermes.given[1] as Frame, "yes");
      await settle();
      await channels.receive("telegram", edited(world, one, "bye"));
      await settle();
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["hello", "and this"]);
      expect(world.sent.map(({ text }) => text)).toEqual(["hi", "yes"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, again: 0 });
    }),
  );

  it(
    "is given once more as it was given, when its Hermes died",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      const update = world.update("hello");
      await channels.receive("telegram", update);
      await settle();
      await channels.receive("telegram", edited(world, update, "good bye"));
      world.hermes.die();
      await settle();
      await world.time.pass(2000);
      await settle();
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["hello", "hello"]);
    }),
  );

  it(
    "is not another's, and no place that moves is answered",
    inWorld(async (world) => {
      world.late = 1;
      const channels = world.life();
      const mine = world.update("mine");
      await channels.receive("telegram", mine);
      const stranger = { from: { id: 666, first_name: "Eve" } };
      await channels.receive(
        "telegram",
        edited(world, mine, "hers", { ...stranger, chat: { id: 666, type: "private" } }),
      );
      const moves = edited(world, mine, "", { text: undefined, location: { latitude: 1, longitude: 2 } });
      await channels.receive("telegram", moves);
      await world.time.pass(1000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["heard mine"]);
    }),
  );
});

describe("a question of Hermes'", () => {
  /** A life of the channels, in which Hermes asks something in the middle of a turn. */
  async function asked(world: World, change: Record<string, string> = {}): Promise<Channels> {
    world.hermes.answers = null;
    const channels = world.life(change);
    await channels.receive("telegram", world.update("paint it"));
    await settle();
    world.hermes.ask(world.hermes.given[0] as Frame, "c1", ["red", "blue"]);
    await settle();
    return channels;
  }

  it(
    "has its options below it, and what is written afterwards may answer it; what a program says does not",
    inWorld(async (world) => {
      const hook = { kind: "github", secrets: ["It's a Secret to Everybody"] };
      const channels = await asked(world, {
        HERMES_CHANNELS: JSON.stringify({
          telegram: { token: TOKEN, allow: ["77"] },
          hooks: { ci: { ...hook, chat: { platform: "telegram", id: "77" } } },
        }),
      });
      expect(world.sent).toEqual([
        {
          chat_id: "77",
          text: "Which c1?",
          reply_markup: {
            inline_keyboard: [
              [{ text: "the red", callback_data: "hp1:c1:red" }],
              [{ text: "the blue", callback_data: "hp1:c1:blue" }],
            ],
          },
        },
      ]);
      const [{ result } = {} as Frame] = world.hermes.results;
      expect(result).toEqual({ success: true, message_id: "1", after: 1 });
      const photo = { photo: [{ file_id: "p" }], text: undefined };
      await channels.receive("telegram", world.update("green"));
      await channels.receive("telegram", world.update("", photo));
      const source = { platform: "telegram", chat_id: "77", chat_type: "dm", user_id: "ci", message_id: "h" };
      channels.hook("ci", {
        id: "h",
        event: { text: "red", message_type: "text", message_id: "h", source: source as never },
      });
      await settle();
      const answers = new Set(world.hermes.answered.map(({ event }) => event?.text));
      expect([...answers]).toEqual(["green"]);
      expect(world.hermes.given).toHaveLength(1);
      world.hermes.fallSilent(world.hermes.answered[0] as Frame);
      world.hermes.say(world.hermes.given[0] as Frame, "painted");
      await settle();
      // The answer is no message of its own any more; what was none, is.
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["paint it", "red"]);
    }),
  );

  it(
    "is asked once by however many lives, and may be answered by what came in between",
    inWorld(async (world) => {
      const channels = await asked(world);
      world.hermes.hangUp();
      await channels.receive("telegram", world.update("green"));
      world.life().resume();
      await settle();
      // The bridge was not heard to have asked.
      world.hermes.ask(world.hermes.given[0] as Frame, "c1", ["red"]);
      await settle();
      expect(world.sent.filter(({ text }) => text === "Which c1?")).toHaveLength(1);
      const after = world.hermes.results.map(({ result }) => result?.after);
      expect(new Set(after)).toEqual(new Set([1]));
      expect(world.hermes.answered.at(-1)?.event?.text).toBe("green");
    }),
  );

  it(
    "is answered by a press once, whatever dies; whoever pressed sees it",
    inWorld(async (world) => {
      await asked(world);
      const [red, blue] = [world.press(1, "hp1:c1:red"), world.press(1, "hp1:c1:blue")];
      // A life that ends as soon as it has stored the press.
      world.hermes.isDeaf = true;
      world.hermes.hangUp();
      const life = world.life();
      await life.receive("telegram", red);
      await life.receive("telegram", red);
      await settle();
      const next = world.life();
      next.resume();
      await settle();
      await next.receive("telegram", blue);
      await settle();
      expect(world.changed).toEqual({ "1": "Which c1?\n\n→ the red" });
      expect(world.hermes.pressed.map(({ prompt }) => prompt)).toContain("c1");
      expect(new Set(world.heard)).toEqual(new Set(["q2", "q3"]));
      world.hermes.say(world.hermes.given[0] as Frame, "painted");
      await settle();
      expect([...world.storage.sql.exec("SELECT * FROM inbox_messages")]).toEqual([]);
      expect(world.hermes.given).toHaveLength(1);
    }),
  );

  it(
    "that nobody waits for any more is told to be, and wakes nobody; a stranger's press does nothing",
    inWorld(async (world) => {
      const channels = await asked(world);
      const elsewhere = { message_id: 1, date: 1, chat: { id: -900, type: "supergroup" }, text: "Which c1?" };
      const eve = { from: { id: 666, first_name: "Eve" }, message: elsewhere };
      expect(await channels.receive("telegram", world.press(1, "hp1:c1:red", eve))).toEqual(["nothing"]);
      expect(await channels.receive("telegram", world.press(1, "another's"))).toEqual(["nothing"]);
      world.hermes.waitsFor.clear();
      await channels.receive("telegram", world.press(1, "hp1:c1:red"));
      await settle();
      expect(world.changed).toEqual({ "1": "Which c1?\n\n(I do not wait for this any more.)" });
      world.hermes.say(world.hermes.given[0] as Frame, "unpainted");
      await settle();
      const pressed = world.hermes.pressed.length;
      world.isAsleep = true;
      world.broken = new Error("nobody is to be woken");
      world.unchangeable = { error_code: 400, description: "Bad Request: message can't be edited" };
      const again = world.life();
      await again.receive("telegram", world.press(1, "hp1:c1:red"));
      await settle();
      expect(world.hermes.pressed).toHaveLength(pressed);
      expect(world.sent.at(-1)?.text).toBe("(I do not wait for this any more.)");
      expect([...world.storage.sql.exec("SELECT * FROM inbox_messages")]).toEqual([]);
    }),
  );

  it(
    "that was answered, and whose message Telegram does not change, is told by nothing else",
    inWorld(async (world) => {
      const channels = await asked(world);
      world.unchangeable = { error_code: 502, description: "Bad Gateway" };
      await channels.receive("telegram", world.press(1, "hp1:c1:red"));
      await settle();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 2 });
      world.unchangeable = { error_code: 400, description: "Bad Request: message can't be edited" };
      await world.time.pass(2000);
      await settle();
      expect([channels.views()["telegram"]?.waiting, world.changed]).toEqual([1, {}]);
      expect(world.sent.map(({ text }) => text)).toEqual(["Which c1?"]);
    }),
  );

  it(
    "is asked where somebody may be asked, with or without a turn, and with words where nothing is to be chosen",
    inWorld(async (world) => {
      const channels = await asked(world);
      const ask = (more: object, platform = "telegram") =>
        world.hermes.babble(
          JSON.stringify({
            ...{ type: "outbound", requestId: crypto.randomUUID(), platform },
            action: { op: "prompt", chat_id: "77", content: "Well?", prompt_id: "p", ...more },
          }),
        );
      ask({ prompt_id: "p1", typed: "Write it." });
      await settle();
      ask({ prompt_id: "p2", options: [] });
      await settle();
      ask({ prompt_id: "p3", chat_id: "78" });
      await settle();
      ask({ prompt_id: "p4" }, "slack");
      await settle();
      world.hermes.say(world.hermes.given[0] as Frame, "done");
      await settle();
      ask({ prompt_id: "p5", options: [{ id: "a", label: "A" }] });
      await settle();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0 });
      expect(world.sent.slice(1).map(({ text, reply_markup }) => [text, reply_markup !== undefined])).toEqual(
        [
          ...[
            ["Well?\n\nWrite it.", false],
            ["Well?", false],
            ["done", false],
            ["Well?", true],
          ],
        ],
      );
      const errors = world.hermes.results.flatMap(({ result }) => result?.error ?? []);
      expect(errors).toEqual([
        expect.stringContaining("is no chat to write to"),
        "nobody is there to be asked",
      ]);
    }),
  );
});

describe("a turn", () => {
  it(
    "begins by another line where that to Hermes has ended and nobody told",
    inWorld(async (world) => {
      world.hermes.isDeaf = true;
      await world.life().receive("telegram", world.update("hello"));
      await settle();
      await world.time.pass(2000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["heard hello"]);
    }),
  );

  const HALF_AN_HOUR = 1800_000;

  it(
    "that says nothing for half an hour is over, and the person is told; the next message is not kept by it",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hang"));
      await channels.receive("telegram", world.update("next"));
      for (let time = 0; time < 4; time++) {
        await settle();
        expect(world.sent).toEqual([]);
        await world.time.pass(HALF_AN_HOUR + 60_000);
      }
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual([expect.stringContaining("could not answer")]);
      expect(channels.failed()).toEqual([
        expect.objectContaining({ why: "Hermes said nothing for half an hour" }),
      ]);
      expect(world.hermes.given.at(-1)?.event?.text).toBe("next");
    }),
  );

  it(
    "goes on whatever Hermes says before its answer, and for how long it works then; soon after that one it is over",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("one"));
      await channels.receive("telegram", world.update("two"));
      await settle();
      const [frame] = world.hermes.given as [Frame];
      for (const text of ["I look", "I look on"]) {
        world.hermes.say(frame, text, false);
        await settle();
        await world.time.pass(HALF_AN_HOUR - 10_000);
        expect([world.hermes.given.length, channels.views()["telegram"]?.waiting]).toEqual([1, 2]);
      }
      // Its files never come.
      world.hermes.say(frame, "here they are", true, true, true);
      await settle();
      await world.time.pass(100_000);
      expect(world.hermes.given).toHaveLength(1);
      await world.time.pass(30_000);
      await settle();
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["one", "two"]);
    }),
  );

  it(
    "is not over by what answers another message, or none; that may be said twice",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("one"));
      await channels.receive("telegram", world.update("two"));
      await settle();
      const [one] = world.hermes.given as [Frame];
      world.hermes.say(one, "done");
      await settle();
      world.hermes.say(one, "by the way");
      for (let time = 0; time < 2; time++) {
        world.hermes.say(one, "a reminder", true, false);
        await settle();
      }
      expect(world.sent.map(({ text }) => text)).toEqual(["done", "by the way", "a reminder", "a reminder"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 1 });
    }),
  );

  it(
    "is of the boot that runs: the line to the one before is closed",
    inWorld(async (world) => {
      const channels = world.life();
      await channels.receive("telegram", world.update("one"));
      await settle();
      await channels.receive("telegram", world.update("two"));
      await settle();
      world.key = "of the next boot";
      await channels.receive("telegram", world.update("three"));
      await settle();
      expect(world.hermes.keys).toEqual(["Bearer k", "Bearer of the next boot"]);
      expect(world.hermes.closed).toEqual(["Bearer k"]);
      expect(world.sent).toHaveLength(3);
    }),
  );

  it(
    "whose answer a platform refuses for long is over; the answer is sent without Hermes, once, and in its place",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hello", { message_thread_id: 5 }));
      await channels.receive("telegram", world.update("and then"));
      await settle();
      world.refusals.push(...Array<object>(60).fill({ error_code: 502, description: "Bad Gateway" }));
      world.hermes.say(world.hermes.given[0] as Frame, "an answer");
      await settle();
      await world.time.pass(30_000);
      await settle();
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        { success: true, message_id: "kept" },
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 2 });
      // Hermes does not have to live until the platform takes it.
      world.broken = new Error("asleep");
      world.refusals.length = 0;
      await world.time.pass(120_000);
      await settle();
      expect(world.sent).toEqual([
        expect.objectContaining({
          chat_id: "77",
          text: "an answer",
          reply_parameters: { message_id: 101, allow_sending_without_reply: true },
        }),
      ]);
      expect(world.hermes.given).toHaveLength(1);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 1, twice: 0 });
    }),
  );

  it(
    "whose answer is kept is sent it once, though Hermes did not hear that and says it again, before and after",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hello"));
      await settle();
      world.refusals.push(...Array<object>(60).fill({ error_code: 502, description: "Bad Gateway" }));
      const [hello] = world.hermes.given as [Frame];
      for (const passes of [30_000, 0, 120_000]) {
        world.hermes.say(hello, "an answer");
        await settle();
        await world.time.pass(passes);
        await settle();
        world.refusals.length = passes === 0 ? 0 : world.refusals.length;
      }
      world.hermes.say(hello, "an answer");
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["an answer"]);
      expect(world.hermes.results.map(({ result }) => result)).toEqual(
        Array(4).fill({ success: true, message_id: "kept" }),
      );
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, twice: 0 });
    }),
  );

  it.each([
    ["refuses it", null, "by the way"],
    ["is not heard", "connection reset", "(I do not know whether this reached you before.)\nby the way"],
  ])("says once what answers nothing, though Hermes says it again while its platform %s", (_, broken, read) =>
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hello"));
      await settle();
      if (broken !== null) world.unreachable = () => new Error(broken);
      world.refusals.push(...Array<object>(60).fill({ error_code: 429, description: "Too Many Requests" }));
      const action = { op: "send", chat_id: "77", content: "by the way", metadata: {} };
      const said = JSON.stringify({ type: "outbound", requestId: "again", platform: "telegram", action });
      world.hermes.babble(said);
      world.hermes.babble(said);
      await settle();
      await world.time.pass(30_000);
      await settle();
      expect(world.hermes.results.map(({ result }) => result?.message_id)).toEqual(["kept", "kept"]);
      world.unreachable = null;
      world.refusals.length = 0;
      world.hermes.say(world.hermes.given[0] as Frame, "an answer");
      await settle();
      await world.time.pass(120_000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["an answer", read]);
      expect(channels.views()["telegram"]).toMatchObject({
        waiting: 0,
        twice: read === "by the way" ? 0 : 1,
      });
    })(),
  );

  it(
    "is not given up by a clock that is set on, or a machine that slept: not by Hermes' start, nor by its platform",
    inWorld(async (world) => {
      const channels = world.life();
      world.broken = new Error("the network is not up yet");
      await channels.receive("telegram", world.update("hello"));
      await settle();
      world.time.jump(11 * 3600_000);
      await world.time.pass(10_000);
      world.broken = null;
      world.refusals.push(...Array<object>(60).fill({ error_code: 502, description: "Bad Gateway" }));
      await world.time.pass(120_000);
      await settle();
      expect(world.hermes.results).toHaveLength(1);
      world.time.jump(25 * 3600_000);
      await world.time.pass(60_000);
      expect([world.sent, channels.failed()]).toEqual([[], []]);
      world.refusals.length = 0;
      await world.time.pass(120_000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["heard hello"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, twice: 0 });
    }),
  );

  it(
    "whose object dies between the platform's taking the answer and our note of it is answered twice, and marked",
    inWorld(async (world) => {
      world.hermes.answers = null;
      await world.life().receive("telegram", world.update("hello"));
      await settle();
      world.dies = true;
      world.hermes.say(world.hermes.given[0] as Frame, "an answer");
      await settle();
      world.hermes.die();
      const channels = world.life();
      channels.resume();
      await settle();
      world.hermes.say(world.hermes.given[1] as Frame, "another wording");
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual([
        "an answer",
        "(I do not know whether this reached you before.)\nanother wording",
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, twice: 1 });
    }),
  );

  it(
    "is over when its answer comes before anybody waits for it",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const before = world.life();
      await before.receive("telegram", world.update("hello"));
      await before.receive("telegram", world.update("/other", { chat: { id: -500, type: "group" } }));
      await settle();
      const channels = world.life();
      // Only the other chat's message is waited for by the next life so far.
      world.late = 1;
      channels.resume();
      await settle();
      world.hermes.say(world.hermes.given[0] as Frame, "an answer");
      await settle();
      await world.time.pass(2000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["an answer"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 1 });
      expect(world.hermes.given).toHaveLength(2);
    }),
  );

  it(
    "that waits for its next attempt is over with its answer, and keeps the one behind it from Hermes no longer",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hello"));
      await channels.receive("telegram", world.update("and you"));
      await settle();
      world.refusals.push({ error_code: 429, description: "later", parameters: { retry_after: 5 } });
      world.hermes.say(world.hermes.given[0] as Frame, "an answer");
      await settle();
      // Its last word is on the way, and whoever would start another Hermes fails after 1, 3 and 7 s.
      world.broken = new Error("it does not start");
      world.hermes.die();
      for (const pass of [1000, 2000, 1000]) {
        await settle();
        await world.time.pass(pass);
      }
      await settle();
      world.broken = null;
      await world.time.pass(1000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["an answer"]);
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["hello", "and you"]);
    }),
  );

  it(
    "is in no log with any word of it or of its answer, whatever becomes of it",
    inWorld(async (world) => {
      const lines: string[] = [];
      const spies = (["log", "info", "warn", "error", "debug"] as const).map((kind) =>
        vi.spyOn(console, kind).mockImplementation((...said) => void lines.push(said.join(" "))),
      );
      world.hermes.answers = (text) => `an-answer to ${text}`;
      const channels = world.life();
      world.refusals.push({ error_code: 429 }, { error_code: 400, description: "Bad Request: no" });
      for (const text of ["a-word", "a-word again", "/stop a-word"])
        await channels.receive("telegram", world.update(text));
      const photo = { text: undefined, caption: "a-word", photo: [{ file_id: "gone" }] };
      await channels.receive("telegram", world.update("", photo));
      await settle();
      world.broken = new Error("not yet");
      for (let number = 0; number <= MOST_OF_ONE; number++)
        await channels.receive("telegram", world.update(`a-word ${number}`));
      for (let minute = 0; minute < 20; minute++) {
        await world.time.pass(60_000);
        await settle();
      }
      for (const spy of spies) spy.mockRestore();
      const events = lines.map((line) => (JSON.parse(line) as { event: string }).event);
      expect(new Set(events)).toEqual(
        new Set(["message_not_sent", "message_not_answered", "message_dropped"]),
      );
      expect(lines.filter((line) => /a-word|an-answer/.test(line))).toEqual([]);
    }),
  );

  it(
    "tells Hermes from where it is",
    inWorld(async (world) => {
      const group = { chat: { id: -500, type: "supergroup", title: "Us" }, message_thread_id: 9 };
      await world.life().receive("telegram", world.update("/hello", group));
      await settle();
      expect(world.hermes.given[0]?.event?.source).toEqual({
        platform: "telegram",
        chat_id: "-500",
        chat_type: "group",
        chat_name: "Us",
        user_id: "77",
        user_name: "Ann",
        thread_id: "9",
        message_id: "101",
      });
    }),
  );
});

describe("an operation of Hermes' relay", () => {
  it.each([
    ["edit", { message_id: "1", content: "other words" }],
    ["thread_create", { thread_name: "a plan" }],
    ["thread_rename", { message_id: "5", thread_name: "a plan" }],
    ["follow_up", { session_key: "x", kind: "discord.interaction_token", content: "hello" }],
    ["send", {}],
  ])(
    "that is not announced, or not whole, is refused in words, and no platform asked: %s",
    async (op, more) => {
      await inWorld(async (world) => {
        world.hermes.answers = null;
        const channels = world.life();
        await channels.receive("telegram", world.update("hello"));
        await settle();
        const called = world.called.filter((method) => method !== "sendChatAction").length;
        world.hermes.act({ op, chat_id: "77", ...more });
        await settle();
        expect(world.hermes.results.map(({ result }) => result)).toEqual([
          { success: false, error: `this connector has no ${op} operation` },
        ]);
        expect(world.called.filter((method) => method !== "sendChatAction")).toHaveLength(called);
        expect(channels.views()["telegram"]).toMatchObject({ waiting: 1, refused: 0 });
      })();
    },
  );

  it(
    "has Hermes react to a message, and take that away again; what Telegram refuses breaks no turn",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hello"));
      await settle();
      const react = async (emoji: string, more: object = {}) => {
        world.hermes.act({ op: "react", chat_id: "77", message_id: "101", emoji, remove: false, ...more });
        await settle();
      };
      await react("👀");
      await react("👀");
      expect(world.reactions).toEqual({ "101": ["👀"] });
      await react("👀", { remove: true });
      await react("👀", { remove: true });
      await react("✅");
      await react("👀", { message_id: "press q1" });
      await react("👀", { chat_id: "78" });
      world.hermes.act({ op: "react" });
      world.hermes.say(world.hermes.given[0] as Frame, "done");
      await settle();
      expect(world.reactions).toEqual({ "101": [] });
      const taken = { success: true };
      const refused = (error: string) => ({ success: false, error });
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        ...[taken, taken, taken, taken, refused("Telegram: Bad Request: REACTION_INVALID")],
        refused("Telegram: Bad Request: message to react not found"),
        refused(expect.stringContaining("telegram:78 is no chat to write to") as never),
        refused("this connector has no react operation"),
        { success: true, message_id: "1" },
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, refused: 0, trouble: null });
      expect(world.storage.sql.exec("SELECT * FROM inbox_sent").toArray()).toHaveLength(2);
    }),
  );

  it.each([
    ["webhook", "hook/ci", "webhook:hook/ci is no chat to write to"],
    ["email", "ann@example.net", "email has no reactions"],
  ])("reacts to nothing by %s", (platform, chat, why) =>
    inWorld(async (world) => {
      world.hermes.answers = null;
      const email = { address: "hermes@example.com", allow: ["ann@example.net"] };
      const declared = { telegram: { token: TOKEN, allow: ["77"] }, email };
      const channels = world.life({ HERMES_CHANNELS: JSON.stringify(declared) });
      await channels.receive("telegram", world.update("hello"));
      await settle();
      const action = { op: "react", chat_id: chat, message_id: "1", emoji: "👀" };
      world.hermes.babble(JSON.stringify({ type: "outbound", requestId: "r", platform, action }));
      await settle();
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        { success: false, error: expect.stringContaining(why) },
      ]);
    })(),
  );

  it("is announced where the platform has it", () => {
    const declared = Object.entries(EACH).map(([name, [more]]) => [name, { ...more, allow: [] }]);
    const HERMES_CHANNELS = JSON.stringify(Object.fromEntries(declared));
    const channels = opened(settingsOf({ ...env, HERMES_CHANNELS } as Env), () => ({}) as never);
    expect(channels.size).toBe(6);
    const bots = Object.fromEntries([...channels.keys()].map((name) => [name, "1"]));
    for (const { descriptor } of relayed(bots)) {
      const has = channels.get(descriptor.platform)?.react !== undefined;
      const ops = ["send", "typing", "get_chat_info", ...(has ? ["react"] : [])];
      expect([descriptor.platform, descriptor.supported_ops]).toEqual([descriptor.platform, ops]);
    }
  });

  it(
    "takes that Hermes writes for heard: Telegram is shown so as long as the turn goes on",
    inWorld(async (world) => {
      world.hermes.answers = null;
      await world.life().receive("telegram", world.update("hello"));
      await settle();
      const called = [...world.called];
      world.hermes.act({ op: "typing", chat_id: "77" });
      await settle();
      expect(world.hermes.results.map(({ result }) => result)).toEqual([{ success: true }]);
      expect(world.called).toEqual(called);
    }),
  );

  it(
    "tells a chat's name and kind, and breaks nothing where it is none at all",
    inWorld(async (world) => {
      world.hermes.answers = null;
      await world.life().receive("telegram", world.update("hello"));
      await settle();
      world.hermes.act({ op: "get_chat_info", chat_id: "77" });
      world.hermes.act({});
      for (const frame of ["no JSON", "null", '{"type":"going_idle"}', '{"type":"outbound"}'])
        world.hermes.babble(frame);
      world.hermes.say(world.hermes.given[0] as Frame, "done");
      await settle();
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        { success: true, chat_info: { name: "77", type: "dm" } },
        { success: false, error: "this connector has no such operation" },
        { success: false, error: "this connector has no such operation" },
        { success: true, message_id: "1" },
      ]);
      expect(world.sent.map(({ text }) => text)).toEqual(["done"]);
    }),
  );
});

describe("what Hermes sends on its own account", () => {
  it(
    "is stored before it is told that it was sent, and sent by another life, marked where it may be twice",
    inWorld(async (world) => {
      world.dies = true;
      expect(world.life().sendOwn(own("rain"))).toBe("new");
      await settle();
      const channels = world.life();
      expect(channels.sendOwn(own("rain"))).toBe("known");
      channels.resume();
      await settle();
      const [first, second, ...more] = world.sent.map(({ chat_id, text }) => `${chat_id} ${text}`);
      expect([first, more]).toEqual(["77 rain", []]);
      expect(second).toMatch(/^77 \(I do not know whether this reached you before\.\)\nrain$/);
      expect(channels.sendOwn(own("rain"))).toBe("known");
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, twice: 1 });
    }),
  );

  it(
    "may be a file, which comes after its text, and is kept once",
    inWorld(async (world) => {
      const channels = world.life();
      const file = {
        ...{ name: "name of it", platform: "telegram", chat: "77", thread: null },
        ...{ kind: "photo" as const, called: "a.png", mime: "image/png", size: 1_500_000 },
      };
      const content = "x".repeat(file.size);
      const body = () => new Response(content).body as ReadableStream<Uint8Array>;
      world.refusals.push({ error_code: 500, description: "Internal Server Error" });
      channels.sendOwn(own("rain"));
      expect(await channels.sendOwnFile(file, body())).toBe("new");
      expect(await channels.sendOwnFile(file, body())).toBe("known");
      await expect(
        channels.sendOwnFile({ ...file, name: "cut off", size: 2_000_000 }, body()),
      ).rejects.toThrow("not as long");
      await expect(channels.sendOwnFile({ ...file, chat: "666" }, body())).rejects.toThrow(
        "no chat to write to",
      );
      await settle();
      expect([world.sent, world.sentFiles]).toEqual([[], []]);
      await world.time.pass(2000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["rain"]);
      expect(world.sentFiles).toEqual([["sendPhoto", "77", "", "a.png", "image/png", content]]);
      expect([...world.storage.sql.exec("SELECT * FROM inbox_pieces")]).toEqual([]);
    }),
  );

  it(
    "waits as long as the platform wants, and for no turn of that chat",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("a long errand"));
      await settle();
      world.refusals.push({ error_code: 429, description: "later", parameters: { retry_after: 40 } });
      channels.sendOwn(own("rain"));
      await settle();
      await world.time.pass(39_000);
      await settle();
      expect(world.sent).toEqual([]);
      await world.time.pass(30_000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["rain"]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 1, twice: 0 });
    }),
  );

  it(
    "waits for the owner when the platform never takes it",
    inWorld(async (world) => {
      const channels = world.life();
      world.refusals.push({ error_code: 403, description: "bot was blocked by the user" });
      channels.sendOwn(own("rain"));
      await settle();
      expect(channels.failed()).toMatchObject([{ why: "Telegram: bot was blocked by the user" }]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, refused: 1 });
    }),
  );

  it(
    "goes to a home, and to chats of those who may write, and to no others",
    inWorld(async (world) => {
      const telegram = { token: TOKEN, allow: ["77", "-500"], home: "4000" };
      const channels = world.life({ HERMES_CHANNELS: JSON.stringify({ telegram }) });
      const refused = (chat: string) =>
        expect(() => channels.sendOwn(own("rain", { chat }))).toThrow("no chat to write to");
      for (const chat of ["4000", "77", "-500"])
        expect(channels.sendOwn(own(`to ${chat}`, { chat }))).toBe("new");
      refused("-600");
      await channels.receive("telegram", world.update("/new", { chat: { id: -600, type: "group" } }));
      expect(channels.sendOwn(own("rain", { chat: "-600" }))).toBe("new");
      refused("666");
      expect(() => channels.sendOwn(own("rain", { platform: "sms" }))).toThrow("no such channel");
      // Whoever may write no more has nothing written to.
      const without = world.life({
        HERMES_CHANNELS: JSON.stringify({ telegram: { ...telegram, allow: ["88"] } }),
      });
      expect(() => without.sendOwn(own("rain", { chat: "-600" }))).toThrow("no chat to write to");
    }),
  );

  it(
    "goes to no stranger by an answer either",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("hello"));
      await settle();
      const [given] = world.hermes.given as [Frame];
      const source = { platform: "telegram", chat_id: "666" };
      const event = { text: "", message_id: given.event?.message_id ?? "", source };
      world.hermes.say({ ...given, event }, "psst");
      await settle();
      expect(world.sent).toEqual([]);
      expect(world.hermes.results.at(-1)?.result).toMatchObject({ success: false });
    }),
  );

  it(
    "is bounded",
    inWorld(async (world) => {
      world.unreachable = () => new Error("no network");
      const channels = world.life();
      for (let n = 0; n < MOST_OWN; n++) channels.sendOwn(own(`rain ${n}`));
      expect(() => channels.sendOwn(own("more rain"))).toThrow("too much waits");
      expect(channels.views()["telegram"]).toMatchObject({ waiting: MOST_OWN, dropped: 1 });
    }),
  );
});

describe("what Hermes tells of what it sends", () => {
  const told = { name: "name-of-it", platform: "telegram", chat: "77", thread: null };
  const read = (work: () => unknown) => {
    try {
      return work();
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it("is a message with all that it needs", () => {
    const own = (body: unknown) => read(() => ownMessageOf(bytes(JSON.stringify(body)).buffer));
    expect(own({ ...told, text: "hello" })).toEqual({ ...told, text: "hello" });
    for (const wrong of [{}, { text: "" }, { text: "x", name: "short" }, { text: "x", chat: "" }])
      expect(own({ ...told, ...wrong })).toBe("bad_message");
    expect(read(() => ownMessageOf(null))).toBe("bad_message");
  });

  it("is a file with a length, which may be too long", () => {
    const file = { ...told, kind: "image", called: "a.png", mime: "image/png" };
    const own = (size: number | null, body: string) =>
      read(() =>
        ownFileOf(
          new Headers({ ...(size === null ? {} : { "content-length": `${size}` }), [OWN_FILE]: body }),
        ),
      );
    const sent = encodeURIComponent(JSON.stringify(file));
    expect(own(3, sent)).toEqual({ ...file, kind: "photo", size: 3 });
    expect(own(3, encodeURIComponent(JSON.stringify({ ...file, kind: "page" })))).toMatchObject({
      kind: "document",
    });
    expect(own(25 * 1024 * 1024, sent)).toMatchObject({ size: 25 * 1024 * 1024 });
    expect(own(25 * 1024 * 1024 + 1, sent)).toBe("body_too_large");
    for (const [size, body] of [
      [0, sent],
      [null, sent],
      [3, ""],
      [3, "%"],
      [3, "{}"],
    ] as const)
      expect(own(size, body)).toBe("bad_message");
    expect(read(() => ownFileOf(new Headers({ "content-length": "3" })))).toBe("bad_message");
  });
});

describe("what waits for a channel", () => {
  const elsewhere = { HERMES_CHANNELS: "{}", HERMES_BOTS: "{}" };

  it(
    "that was taken away is given up, and told to nobody; it is answered where the channel comes again",
    inWorld(async (world) => {
      world.broken = new Error("not yet");
      const file = { text: undefined, photo: [{ file_id: "f1", file_size: 9 }] };
      await world.life().receive("telegram", world.update("", file));
      await world
        .life()
        .receive(
          "telegram",
          world.update("from a Hermes", { chat: { id: -500, type: "group" }, text: "/x" }),
        );
      await settle();
      world.broken = null;
      const called = world.called.length;
      const without = world.life(elsewhere);
      without.resume();
      await settle();
      await world.time.pass(60_000);
      await settle();
      expect(without.failed().map(({ why }) => why)).toContain("files are not taken here");
      expect([world.sent, world.called.length]).toEqual([[], called]);
      world.hermes.die();
      const again = world.life();
      world.files["f1"] = "a picture";
      expect(again.retry()).toBeGreaterThan(0);
      await settle();
      await world.time.pass(120_000);
      await settle();
      expect(again.failed()).toEqual([]);
      expect(world.sent.map(({ text }) => text).sort()).toEqual(["heard ", "heard /x"]);
    }),
  );

  it(
    "holds an answer with files before its files, where Telegram takes neither for a while",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("draw"));
      await settle();
      const [frame] = world.hermes.given as [Frame];
      world.refusals.push(...Array<object>(60).fill({ error_code: 429, description: "Too Many Requests" }));
      world.hermes.say(frame, "here it is", true, true, true);
      await settle();
      await world.time.pass(30_000);
      await settle();
      expect(world.hermes.results.map(({ result }) => result?.message_id)).toEqual(["kept"]);
      world.hermes.sendFile(frame, "%PDF");
      await settle();
      world.hermes.fallSilent(frame);
      await settle();
      expect([world.sent, world.sentFiles]).toEqual([[], []]);
      world.refusals.length = 0;
      await world.time.pass(120_000);
      await settle();
      expect([world.sent.map(({ text }) => text), world.sentFiles.length]).toEqual([["here it is"], 1]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, twice: 0 });
    }),
  );

  it(
    "is asked for again after a trouble, which is told once, and after as long as Telegram wants",
    inWorld(async (world) => {
      const receive = { telegram: { token: TOKEN, allow: ["77"], receive: "poll" } };
      const lines: string[] = [];
      const note = (line: string) => void lines.push(line);
      const spies = (["log", "warn", "error"] as const).map((name) =>
        vi.spyOn(console, name).mockImplementation(note),
      );
      const channels = world.life({ HERMES_CHANNELS: JSON.stringify(receive) });
      world.unreachable = () => new Error("connection reset");
      channels.resume();
      for (let n = 0; n < 4; n++) {
        await settle();
        await world.time.pass(8000);
      }
      await settle();
      const troubles = lines.filter((line) => line.includes("channel_trouble"));
      for (const spy of spies) spy.mockRestore();
      expect(channels.views()["telegram"]).toMatchObject({ trouble: "Telegram could not be reached" });
      const asked = world.called.length;
      expect(asked).toBeGreaterThan(2);
      expect(troubles).toHaveLength(1);
      world.unreachable = null;
      world.updates.push(world.update("hello"));
      await world.time.pass(60_000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["heard hello"]);
      expect(channels.views()["telegram"]).toMatchObject({ trouble: null, receives: "poll" });
    }),
  );

  it(
    "that has no thread, or one of Hermes' own, goes where Hermes says; a file without a name is told of as one",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("draw"));
      await settle();
      const [frame] = world.hermes.given as [Frame];
      world.hermes.sendFile(frame, "%PDF", { content: "x".repeat(1025), metadata: { thread_id: 9 } });
      await settle();
      world.hermes.sendFile(null, "%PDF", { filename: "", size: 26 * 1024 * 1024, content: "look" });
      await settle();
      world.hermes.sendFile(null, "%PDF", { chat_id: "78" });
      await settle();
      world.hermes.babble(
        JSON.stringify({
          ...{ type: "outbound", requestId: "w", platform: "webhook" },
          action: { op: "send_media", chat_id: "hook/ci/x", content: "", size: 3, answers: "hook-x" },
        }),
      );
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual([
        "x".repeat(1025),
        expect.stringMatching(/^look\n\(I could not send you a file: it is larger than 25 MB\.\)$/),
      ]);
      expect(world.sent[0]).toMatchObject({ message_thread_id: 9 });
      expect(world.sentFiles.map(([method, chat, caption]) => [method, chat, caption])).toEqual([
        ["sendDocument", "77", ""],
      ]);
      expect(world.hermes.results.map(({ result }) => result?.success)).toEqual([true, true, false, true]);
    }),
  );

  it(
    "is no more than there may be: an answer with files beyond that is refused, and Hermes told so",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("draw"));
      await settle();
      world.refusals.push(...Array<object>(999).fill({ error_code: 429, description: "Too Many Requests" }));
      for (let n = 0; n < MOST_OWN; n++) channels.sendOwn(own(`n${n}`));
      world.hermes.say(world.hermes.given[0] as Frame, "here it is", true, true, true);
      await settle();
      await world.time.pass(30_000);
      await settle();
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        { success: false, error: "Telegram: Too Many Requests" },
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: MOST_OWN + 1, dropped: 1 });
    }),
  );
});

describe("what a channel keeps", () => {
  it(
    "of what could not be answered are the newest hundred, for a week",
    inWorld(async (world) => {
      world.broken = new Error("no image");
      const ids = Array.from({ length: 103 }, (_, at) => at + 1);
      const telegram = { token: TOKEN, allow: [...ids.map(String), "77"] };
      const channels = world.life({ HERMES_CHANNELS: JSON.stringify({ telegram }) });
      for (const id of ids)
        await channels.receive(
          "telegram",
          world.update("hello", { from: { id }, chat: { id, type: "private" } }),
        );
      await settle();
      await world.time.pass(16 * 60_000);
      await settle();
      const kept = channels.failed();
      expect(kept).toHaveLength(100);
      expect(Math.max(...kept.map(({ n }) => n))).toBe(103);
      expect(channels.views()["telegram"]).toMatchObject({ dropped: 3 });
      world.time.jump(8 * 24 * 3600_000);
      expect(channels.failed()).toEqual([]);
      expect([...world.storage.sql.exec("SELECT * FROM inbox_messages")]).toEqual([]);
      expect(channels.views()["telegram"]).toMatchObject({ dropped: 103 });
    }),
  );

  it(
    "holds no token, not even when the platform cannot be reached at an address that has it",
    inWorld(async (world) => {
      const channels = world.life();
      world.unreachable = (url) => new Error(`connection to ${url} refused`);
      await channels.receive("telegram", world.update("hello"));
      await settle();
      await world.time.pass(60_000);
      await settle();
      expect(await channels.register("https://hermes.example.com", true)).toMatchObject({
        refused: { telegram: "Telegram could not be reached" },
      });
      expect(channels.views()["telegram"]?.trouble).toBe("Telegram could not be reached");
      expect(JSON.stringify([world.hermes.results, channels.views()])).not.toContain("AAstand-in");
    }),
  );

  it(
    "is asked for again when it was not stored",
    inWorld(async (world) => {
      const channels = world.life({ HERMES_PUBLIC_URL: "" });
      world.updates.push(world.update("one"));
      channels.resume();
      // The object's storage takes nothing in for the moment.
      world.tables.hide();
      await settle();
      world.tables.show();
      await world.time.pass(5000);
      await settle();
      expect(world.sent.map(({ text }) => text)).toEqual(["heard one"]);
    }),
  );

  it(
    "is not changed at a platform by a look",
    inWorld(async (world) => {
      const { registered } = await world.life().register("https://hermes.example.com", true);
      expect(registered["telegram"]).toMatchObject({ changed: true });
      expect(world.called).not.toContain("setWebhook");
      await world.life().register("https://hermes.example.com", false);
      expect(world.called).toContain("setWebhook");
      // Whoever has what it proves itself with could write as anybody.
      expect(JSON.stringify([...world.storage.kv.list()])).not.toContain(await proofOf(TOKEN));
    }),
  );

  it(
    "is given to a platform anew with a new token, which is not what it proves itself with",
    inWorld(async (world) => {
      world.webhook = "https://hermes.example.com/channels/telegram";
      const of = (token: string) =>
        world.life({ HERMES_CHANNELS: JSON.stringify({ telegram: { token, allow: ["77"] } }) });
      const at = "https://hermes.example.com";
      const isChanged = async (channels: Channels, look: boolean) =>
        (await channels.register(at, look)).registered["telegram"]?.changed;
      expect(await isChanged(of(TOKEN), false)).toBe(true);
      expect(await isChanged(of(TOKEN), false)).toBe(false);
      const rotated = of(TOKEN.replace("stand-in", "the-next"));
      expect(await isChanged(rotated, true)).toBe(true);
      expect(await isChanged(rotated, false)).toBe(true);
      expect(await isChanged(rotated, false)).toBe(false);
    }),
  );

  it(
    "comes by the platforms that are well, and all that are not are named at once",
    inWorld(async (world) => {
      const sms = { accountSid: `AC${"7".repeat(32)}`, authTokens: ["e".repeat(32)], number: "+15005550006" };
      const slack = { token: "xoxb-1-2-abcdefghijkl", signingSecrets: ["b".repeat(32)] };
      const channels = world.life({
        HERMES_CHANNELS: JSON.stringify({
          telegram: { token: TOKEN, allow: ["77"] },
          sms: { ...sms, allow: [] },
          slack: { ...slack, allow: [] },
        }),
      });
      world.elsewhere = (url) =>
        url.startsWith("https://slack.com/")
          ? Response.json({ ok: false, error: "invalid_auth" })
          : Response.json({ code: 20003, message: "Authenticate" }, { status: 401 });
      const told = await channels.register("https://hermes.example.com", false);
      expect(told.refused).toEqual({ slack: "Slack: invalid_auth", sms: "Twilio: Authenticate" });
      expect(Object.keys(told.registered)).toEqual(["telegram"]);
      expect(world.called).toContain("setWebhook");
      world.elsewhere = () => Response.json({}, { status: 500 });
      const { refused } = { refused: await channels.unregister(["sms", "telegram", "nobody"]) };
      expect(refused).toEqual({ sms: "Twilio: refused with 500" });
      expect(world.called).toContain("deleteWebhook");
    }),
  );
});

describe("a webhook", () => {
  const hook = (more: Partial<HookSettings> = {}): HookSettings => ({
    kind: "github",
    secrets: ["It's a Secret to Everybody"],
    prompt: "",
    events: [],
    session: "",
    chat: null,
    deliverOnly: false,
    ...more,
  });
  const delivery = (body: string, headers: Record<string, string> = {}) => ({
    headers: new Headers(headers),
    body: bytes(body),
  });
  const made = (body: unknown, more: Partial<HookSettings> = {}, headers = {}) =>
    messageOf("ci", hook(more), delivery(JSON.stringify(body), headers));

  // What GitHub's and Svix' own documentations show.
  const OF_GITHUB = {
    headers: {
      "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    },
    body: "Hello, World!",
  };
  const OF_SVIX = {
    secrets: ["whsec_plJ3nmyCDGBKInavdOK15jsl"],
    headers: {
      "webhook-id": "msg_loFOjxBNrRLzqYUf",
      "webhook-timestamp": "1731705121",
      "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    },
    body: '{"event_type":"ping","data":{"success":true}}',
    at: 1731705121_000,
  };

  it("is genuine with the signature that its sender's documentation shows, and with no other", async () => {
    const { headers, body } = OF_GITHUB;
    expect(await isGenuine(hook(), delivery(body, headers), 0)).toBe(true);
    expect(
      await isGenuine(hook({ secrets: ["new one", ...hook().secrets] }), delivery(body, headers), 0),
    ).toBe(true);
    expect(await isGenuine(hook(), delivery(`${body} `, headers), 0)).toBe(false);
    expect(await isGenuine(hook({ secrets: ["another"] }), delivery(body, headers), 0)).toBe(false);
    const { secrets, at } = OF_SVIX;
    const svix = hook({ kind: "svix", secrets });
    const sent = delivery(OF_SVIX.body, OF_SVIX.headers);
    expect(await isGenuine(svix, sent, at)).toBe(true);
    for (const late of [at + 301_000, at - 301_000]) expect(await isGenuine(svix, sent, late)).toBe(false);
    expect(await isGenuine(hook({ kind: "hmac", secrets }), sent, at)).toBe(false);
    // One that was cut refuses, as any wrong one does.
    for (const cut of ["whsec_plJ3n", "whsec_plJ3nmyC=="])
      expect(await isGenuine(hook({ kind: "svix", secrets: [cut, ...secrets] }), sent, at)).toBe(true);
  });

  const SECRET = "a secret of theirs";
  const AT = 1_700_000_000;
  const BODY = '{"id":"evt_1","type":"paid"}';
  const macOf = async (text: string, secret = SECRET) =>
    crypto.subtle.sign("HMAC", await hmacKey(bytes(secret)), bytes(text));
  /** How each kind of sender signs a body, and the name by which it knows a delivery; empty = by none. */
  const SIGNED: [HookSettings["kind"], (body: string, secret?: string) => Promise<object>, string][] = [
    [
      "github",
      async (body, secret) => ({ "x-hub-signature-256": `sha256=${hex(await macOf(body, secret))}` }),
      "",
    ],
    ["gitlab", async (_, secret = SECRET) => ({ "x-gitlab-token": secret, "idempotency-key": "k1" }), "k1"],
    [
      "stripe",
      async (body, secret) => {
        const mac = hex(await macOf(`${AT}.${body}`, secret));
        return { "stripe-signature": `t=${AT}, v1=${"0".repeat(64)},v1=${mac},v0=x` };
      },
      "evt_1",
    ],
    [
      "svix",
      async (body, secret) => {
        const mac = btoa(String.fromCharCode(...new Uint8Array(await macOf(`msg_1.${AT}.${body}`, secret))));
        return { "svix-id": "msg_1", "svix-timestamp": `${AT}`, "svix-signature": `v2,x v1,${mac}` };
      },
      "msg_1",
    ],
    [
      "hmac",
      async (body, secret) => ({
        "x-webhook-signature-v2": hex(await macOf(`${AT}.${body}`, secret)),
        "x-webhook-timestamp": `${AT}`,
      }),
      "",
    ],
  ];

  it.each(SIGNED)(
    "of %s is genuine with its secret, of now, and to the last byte",
    async (kind, sign, id) => {
      const settings = hook({ kind, secrets: [SECRET] });
      const sent = async (signed: string, body: string, secret?: string) =>
        delivery(body, (await sign(signed, secret)) as Record<string, string>);
      const genuine = await sent(BODY, BODY);
      expect(isSigned(settings, genuine.headers)).toBe(true);
      expect(await isGenuine(settings, genuine, AT * 1000)).toBe(true);
      expect(await isGenuine(settings, await sent(BODY, BODY, "another"), AT * 1000)).toBe(false);
      const isOfItsBytes = kind !== "gitlab";
      expect(await isGenuine(settings, await sent(BODY, `${BODY} `), AT * 1000)).toBe(!isOfItsBytes);
      const isOfItsTime = isOfItsBytes && kind !== "github";
      expect(await isGenuine(settings, genuine, AT * 1000 + 301_000)).toBe(!isOfItsTime);
      const [[name, signature]] = Object.entries(await sign(BODY)) as [[string, string]];
      expect(isSigned(settings, new Headers())).toBe(false);
      for (const wrong of ["", "nonsense", signature.slice(0, -6)])
        expect(await isGenuine(settings, delivery(BODY, { [name]: wrong }), AT * 1000)).toBe(false);
      const message = await messageOf("ci", settings, genuine);
      if (id === "") expect(message?.id).toMatch(/^[0-9a-f]{64}$/);
      else expect(message?.id).toBe(id);
    },
  );

  it("has the event that its sender names", async () => {
    const said = async (kind: HookSettings["kind"], body: object, headers = {}) =>
      (await made(body, { kind, prompt: "{event_type}" }, headers))?.event.text.replace("[webhook ci]\n", "");
    expect(await said("gitlab", {}, { "x-gitlab-event": "Push Hook" })).toBe("Push Hook");
    expect(await said("gitlab", {})).toBe("");
    expect(await said("stripe", { type: "paid" })).toBe("paid");
    expect(await said("svix", { event_type: "user.created", type: "x" })).toBe("user.created");
    expect(await said("hmac", {})).toBe("");
  });

  it("tells all of it where nothing was said of what is to be told", async () => {
    expect((await made({ n: 1 }, {}, { "x-github-event": "push" }))?.event.text).toBe(
      '[webhook ci]\nThe webhook ci tells of "push":\n\n{\n  "n": 1\n}',
    );
    expect((await made("a text", { prompt: "{__raw__} {a}" }))?.event.text).toBe("[webhook ci]\na text {a}");
  });

  it("says what its template takes from it, and nothing that is no part of it", async () => {
    const said = async (prompt: string, body: unknown) =>
      (await made(body, { prompt }))?.event.text.replace("[webhook ci]\n", "");
    expect(await said("{a.b.1} {n}", { a: { b: ["x", "y"] }, n: 7 })).toBe("y 7");
    expect(await said("{a} {b}", { a: "{b}", b: "c" })).toBe("{b} c");
    expect(await said("{a.constructor} {__proto__.x} {none}", { a: {} })).toBe(
      "{a.constructor} {__proto__.x} {none}",
    );
    expect(await said("{a}", { a: "/stop" })).toBe("/stop");
    expect((await made({ a: "/stop" }, { prompt: "{a}" }))?.event.text).toMatch(/^\[webhook ci\]/);
    const long = { a: "x".repeat(50_000) };
    expect((await said("{a}", long))?.length).toBe(4000);
    expect((await said("{a}{a}{a}{a}{a}", long))?.length).toBe(16_000);
  });

  it("is for the events that it wants", async () => {
    const of = (event: string) => ({ "x-github-event": event });
    expect(await made({}, {}, of("ping"))).toBeNull();
    expect(await made({}, { events: ["push"] }, of("issues"))).toBeNull();
    expect(await made({}, { events: ["push"] }, of("push"))).not.toBeNull();
    await expect(messageOf("ci", hook(), delivery("payload=%7B%7D"))).rejects.toThrow();
  });

  it("has a session of its own, or that of its name, or of a chat", async () => {
    const one = await made({ n: 1 });
    const other = await made({ n: 2 });
    expect(one?.event.source.chat_id).not.toBe(other?.event.source.chat_id);
    const shared = await made({ n: 1 }, { session: "reviews" });
    expect(shared?.event.source).toMatchObject({ platform: "webhook", chat_id: "session/reviews" });
    const there = await made({ n: 1 }, { chat: { platform: "telegram", id: "77" } });
    expect(there?.event.source).toMatchObject({ platform: "telegram", chat_id: "77", chat_type: "dm" });
    for (const [platform, id] of [
      ["telegram", "-500"],
      ["slack", "C0OPEN0"],
    ] as const)
      expect((await made({ n: 1 }, { chat: { platform, id } }))?.event.source).toMatchObject({
        ...{ platform, chat_id: id, chat_type: "group", user_id: "webhook" },
      });
  });

  it(
    "is done when Hermes is, with an answer or in silence; nobody is told of it",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      const message = (await made({ n: 1 })) as Incoming;
      expect([channels.hook("ci", message), channels.hook("ci", message)]).toEqual(["new", "known"]);
      await settle();
      expect(channels.views()["hooks/ci"]).toMatchObject({ waiting: 1 });
      world.hermes.fallSilent(world.hermes.given[0] as Frame);
      await settle();
      channels.hook("ci", (await made({ n: 2 })) as Incoming);
      await settle();
      world.hermes.say(world.hermes.given[1] as Frame, "done");
      await settle();
      expect(channels.views()["hooks/ci"]).toMatchObject({ waiting: 0 });
      expect(world.hermes.given).toHaveLength(2);
      expect(world.sent).toEqual([]);
    }),
  );

  it(
    "is one of four that Hermes is at; a person waits for none of them",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      for (let n = 0; n < 6; n++) channels.hook("ci", (await made({ n })) as Incoming);
      await channels.receive("telegram", world.update("hello"));
      await settle();
      expect(world.hermes.given).toHaveLength(5);
      world.hermes.fallSilent(world.hermes.given[0] as Frame);
      await settle();
      expect(world.hermes.given).toHaveLength(6);
    }),
  );

  it(
    "of a chat is answered there, after what came before it; a notice is sent as it is",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      const chat = { platform: "telegram", id: "77" };
      await channels.receive("telegram", world.update("hello"));
      channels.hook("ci", (await made({ n: 1 }, { chat })) as Incoming);
      channels.hook("ci", (await made({ n: 2 }, { chat, deliverOnly: true, prompt: "n {n}" })) as Incoming);
      await settle();
      expect(world.hermes.given).toHaveLength(1);
      world.hermes.say(world.hermes.given[0] as Frame, "one");
      await settle();
      world.hermes.say(world.hermes.given[1] as Frame, "two");
      await settle();
      expect(world.hermes.given).toHaveLength(2);
      expect(world.sent.map(({ text, reply_parameters: to }) => [text, to === undefined])).toEqual([
        ["one", false],
        ["two", true],
        ["n 2", true],
      ]);
    }),
  );
});

describe("what is for nobody", () => {
  it.each([
    ["a stranger's", { from: { id: 666, first_name: "Eve" }, chat: { id: 666, type: "private" } }, "nothing"],
    ["a bot's", { from: { id: 77, is_bot: true } }, "nothing"],
    ["a group's talk", { chat: { id: -500, type: "group" } }, "nothing"],
    ["another group's", { from: { id: 666 }, chat: { id: -501, type: "group" }, text: "/x" }, "nothing"],
    ["a group's word to the bot", { chat: { id: -500, type: "group" }, text: "so, @the_bot?" }, "new"],
    [
      "a group's answer to the bot",
      { chat: { id: -500, type: "group" }, reply_to_message: { message_id: 1, from: { id: 4242 } } },
      "new",
    ],
    ["a sticker", { text: undefined, sticker: { file_id: "s" } }, "answer"],
  ])("%s message", async (_name, more, taken) => {
    await inWorld(async (world) => {
      expect(await world.life().receive("telegram", world.update("hello", more))).toEqual([taken]);
      await settle();
      expect(world.sent).toHaveLength(taken === "nothing" ? 0 : 1);
      expect(world.hermes.given).toHaveLength(taken === "new" ? 1 : 0);
    })();
  });
});

describe("a file", () => {
  const photo = {
    photo: [
      { file_id: "small", file_size: 3 },
      { file_id: "large", file_size: 9 },
    ],
  };

  it.each([
    ["a picture", { ...photo, caption: "what is this" }, "photo", "image/jpeg", ""],
    ["what was spoken", { voice: { file_id: "large", mime_type: "audio/ogg" } }, "voice", "audio/ogg", ""],
    ["a song", { audio: { file_id: "large", mime_type: "audio/mpeg" } }, "audio", "audio/mpeg", ""],
    ["a film", { video: { file_id: "large" } }, "video", "video/mp4", ""],
    [
      "a document",
      { document: { file_id: "large", file_name: "a.pdf", mime_type: "application/pdf" } },
      "document",
      "application/pdf",
      "a.pdf",
    ],
    [
      "a film without sound, which Telegram tells of twice",
      { animation: { file_id: "large" }, document: { file_id: "other" } },
      "video",
      "video/mp4",
      "",
    ],
  ])(
    "that is %s is with Hermes before its message, and no word of it stays",
    async (_, more, kind, mime, called) => {
      await inWorld(async (world) => {
        world.files["large"] = "the bytes".repeat(100_000);
        const channels = world.life();
        expect(await channels.receive("telegram", world.update("", { text: undefined, ...more }))).toEqual([
          "new",
        ]);
        const [row] = world.storage.sql.exec("SELECT event FROM inbox_messages");
        expect(String(row?.["event"])).not.toContain("the bytes");
        await settle();
        expect([...world.hermes.files]).toEqual([
          ["1.0", { told: { kind, mime, called }, bytes: world.files["large"] }],
        ]);
        expect(world.hermes.given).toEqual([
          expect.objectContaining({
            event: expect.objectContaining({ message_type: kind, media_urls: ["1.0"] }),
          }),
        ]);
        expect(JSON.stringify(world.hermes.given)).not.toContain("large");
        expect(world.sent.map(({ text }) => text)).toEqual([
          `heard ${"caption" in more ? more.caption : ""}`,
        ]);
        expect([...world.storage.sql.exec("SELECT * FROM inbox_messages")]).toEqual([]);
      })();
    },
  );

  it(
    "that is larger than Telegram gives is refused at once, in a sentence, and Hermes not woken",
    inWorld(async (world) => {
      const of = (file_size: number) => world.update("", { document: { file_id: "large", file_size } });
      expect(await world.life().receive("telegram", of(20 * 1024 * 1024 + 1))).toEqual(["answer"]);
      await settle();
      expect(world.sent[0]?.text).toContain("too large");
      expect(world.sent[0]?.text).toContain("20 MB");
      expect(world.hermes.keys).toEqual([]);
      expect(await world.life().receive("telegram", of(20 * 1024 * 1024))).toEqual(["new"]);
    }),
  );

  it(
    "of 25 MB is the largest that Hermes is given, whoever gives it",
    inWorld(async (world) => {
      world.files["large"] = "x".repeat(25 * 1024 * 1024);
      const channels = world.life();
      await channels.receive("telegram", world.update("", { document: { file_id: "large" } }));
      for (let turn = 0; turn < 20; turn++) await settle();
      expect(world.hermes.files.get("1.0")?.bytes.length).toBe(25 * 1024 * 1024);
      expect(channels.failed()).toEqual([]);
    }),
  );

  it(
    "that turns out to be too large, or that nobody has, leaves its message to the owner, and its sender is told",
    inWorld(async (world) => {
      world.files["large"] = "x".repeat(25 * 1024 * 1024 + 1);
      const channels = world.life();
      await channels.receive("telegram", world.update("", { document: { file_id: "large" } }));
      await channels.receive("telegram", world.update("", { document: { file_id: "gone" } }));
      await channels.receive("telegram", world.update("and this"));
      for (let turn = 0; turn < 20; turn++) await settle();
      const [one, other] = channels.failed();
      expect(one?.why).toBe("a file is too large");
      expect(other?.why).toBe("Telegram: Bad Request: wrong file_id");
      expect(world.hermes.given.map(({ event }) => event?.text)).toEqual(["and this"]);
      expect(world.sent.map(({ text }) => text)).toEqual([
        expect.stringContaining("could not answer"),
        expect.stringContaining("could not answer"),
        "heard and this",
      ]);
    }),
  );

  it(
    "that Hermes cannot take is told like that",
    inWorld(async (world) => {
      world.files["large"] = "no picture";
      world.hermes.refusesFiles = "a picture cannot be read";
      const channels = world.life();
      await channels.receive("telegram", world.update("", photo));
      await settle();
      expect(channels.failed()).toMatchObject([{ why: "a picture cannot be read" }]);
      expect(world.hermes.given).toEqual([]);
    }),
  );

  it(
    "that is lost with the Hermes that had it is brought to the next one, before its message",
    inWorld(async (world) => {
      world.files["large"] = "the bytes";
      world.hermes.refusesFiles = undefined;
      await world.life().receive("telegram", world.update("", photo));
      await settle();
      expect(world.hermes.given).toEqual([]);
      world.hermes.files.clear();
      world.hermes.refusesFiles = null;
      world.hermes.die();
      await settle();
      await world.time.pass(2000);
      await settle();
      expect([...world.hermes.files.keys()]).toEqual(["1.0"]);
      expect(world.hermes.given).toHaveLength(1);
      expect(world.sent).toHaveLength(1);
    }),
  );

  it(
    "that does not come in time is fetched again, and what was left of it is taken for no other",
    inWorld(async (world) => {
      world.files["large"] = "the bytes";
      world.hermes.refusesFiles = undefined;
      await world.life().receive("telegram", world.update("", photo));
      await settle();
      await world.time.pass(120_000);
      await settle();
      expect(world.hermes.closed).toHaveLength(1);
      world.hermes.refusesFiles = null;
      await world.time.pass(2000);
      await settle();
      expect(world.sent).toHaveLength(1);
    }),
  );
});

describe("a file that came with a mail", () => {
  const EMAIL = { address: "hermes@example.com", allow: ["ann@gmail.test"] };
  const change = { HERMES_CHANNELS: JSON.stringify({ email: EMAIL }), HERMES_BOTS: '{"email":"worker"}' };
  const told = (id: string, content: string): Mail => ({
    ...{ id, from: "ann@gmail.test", name: "Ann", subject: "A plan", references: [], text: "Look" },
    files: [{ name: "a.pdf", mime: "application/pdf", bytes: bytes(content).buffer }],
  });
  const kept = ({ storage }: World) =>
    [...storage.sql.exec("SELECT file, LENGTH(bytes) FROM inbox_pieces")].length;

  it(
    "is kept with its message, given to each Hermes that is given that, and goes with it",
    inWorld(async (world) => {
      world.hermes.answers = null;
      const content = "x".repeat(1_200_000);
      await world.life(change).receive("email", told("m1", content));
      await settle();
      world.hermes.die();
      await settle();
      await world.time.pass(1000);
      const channels = world.life(change);
      channels.resume();
      await settle();
      const given = { told: { kind: "document", mime: "application/pdf", called: "a.pdf" }, bytes: content };
      expect([...world.hermes.files]).toEqual([["1.0", given]]);
      expect(world.hermes.given).toHaveLength(2);
      expect(kept(world)).toBe(3);
      world.hermes.say(world.hermes.given[1] as Frame, "I see");
      await settle();
      expect(world.mails.map(({ text }) => text)).toEqual(["I see"]);
      expect(kept(world)).toBe(0);
    }),
  );

  it(
    "goes when there is an answer, be that taken yet or not",
    inWorld(async (world) => {
      world.refusals.push({ code: "E_RATE_LIMIT_EXCEEDED" }, { code: "E_RATE_LIMIT_EXCEEDED" });
      const channels = world.life(change);
      await channels.receive("email", told("m1", "one"));
      await settle();
      expect(channels.views()["email"]).toMatchObject({ waiting: 1 });
      expect([world.mails, kept(world)]).toEqual([[], 0]);
      await world.time.pass(60_000);
      await settle();
      expect(world.mails.map(({ text }) => text)).toEqual(["heard Look"]);
    }),
  );

  it(
    "is kept once, and goes with a message that is dropped",
    inWorld(async (world) => {
      const channels = world.life(change);
      world.broken = new Error("not yet");
      await channels.receive("email", told("m1", "one"));
      await channels.receive("email", told("m1", "the same mail"));
      await settle();
      expect(kept(world)).toBe(1);
      world.storage.sql.exec("UPDATE inbox_messages SET why = 'x', handed = 4");
      await world.time.pass(8 * 24 * 3600_000);
      expect(channels.failed()).toEqual([]);
      expect(kept(world)).toBe(0);
    }),
  );

  it(
    "is dropped with its message, and counted, where a hundred megabytes wait",
    inWorld(async (world) => {
      const channels = world.life(change);
      world.broken = new Error("not yet");
      const most = 100 * 1024 * 1024;
      const rows = 100;
      for (let row = 0; row < rows; row++)
        world.storage.sql.exec(
          "INSERT INTO inbox_pieces VALUES ('of others', ?, zeroblob(?))",
          row,
          most / rows,
        );
      expect(await channels.receive("email", told("m1", "x"))).toEqual(["full"]);
      expect(channels.views()["email"]).toMatchObject({ waiting: 0, dropped: 1 });
      world.storage.sql.exec("UPDATE inbox_pieces SET bytes = zeroblob(?) WHERE piece = 0", most / rows - 1);
      expect(await channels.receive("email", told("m2", "x"))).toEqual(["new"]);
    }),
  );
});

describe("a file that Hermes sends", () => {
  /** A message that Hermes is at, in a world of its own. */
  const asked = (test: (world: World, channels: Channels, frame: Frame) => Promise<void>) =>
    inWorld(async (world) => {
      world.hermes.answers = null;
      const channels = world.life();
      await channels.receive("telegram", world.update("draw"));
      await settle();
      await test(world, channels, world.hermes.given[0] as Frame);
      expect([...world.storage.sql.exec("SELECT * FROM inbox_pieces")]).toEqual([]);
    });

  it.each(Object.entries(EACH))(
    "is as large as %s takes, and one byte more is told in a sentence, without a byte of it",
    async (platform, [declared, chat, asks, most]) => {
      await inWorld(async (world) => {
        const asked: string[] = [];
        world.elsewhere = (url, { body }) => {
          asked.push(
            `${url} ${body instanceof ReadableStream ? "a file" : decodeURIComponent(String(body))}`,
          );
          const number = { sid: "PN1", sms_url: "https://hermes.example.com/channels/sms" };
          return Response.json({
            ...{ ok: true, ts: "1", id: "M1", upload_url: "https://files.slack.com/x" },
            ...{ sid: "SM1", status: "sent", incoming_phone_numbers: [number] },
          });
        };

        const channels = world.life({
          HERMES_CHANNELS: JSON.stringify({ [platform]: { allow: [chat], ...declared } }),
          HERMES_BOTS: JSON.stringify({ [platform]: "4242" }),
        });
        const send = (name: string, size: number) => {
          const body =
            size > 25 * 1024 * 1024 ? new Response("x").body : new Blob([new Uint8Array(size)]).stream();
          // A picture is the largest that goes by every platform.
          const what = { kind: "document", called: "a.png", mime: "image/png", size } as const;
          return channels.sendOwnFile(
            { name, platform, chat, thread: null, ...what },
            body as ReadableStream,
          );
        };
        const said = () =>
          [...world.sent, ...world.mails]
            .map(({ text }) => text)
            .concat(asked)
            .join("\n")
            .replaceAll("+", " ");
        const bytes = most * 1024 * 1024;
        expect(await send("one too large", bytes + 1)).toBe("new");
        await settle();
        expect(said()).toContain(`I could not send you the file a.png: it is larger than ${most} MB.`);
        expect(world.mails.flatMap(({ attachments = [] }) => attachments)).toEqual([]);
        expect(said()).not.toContain(asks);
        expect(await send("one that is not", bytes)).toBe("new");
        for (let turn = 0; turn < 20; turn++) await settle();
        await world.time.pass(1000);
        const mails = world.mails.flatMap(({ attachments = [] }) => attachments.map(() => "a mail"));
        expect([...world.called, ...mails, ...asked].some((one) => one.includes(asks))).toBe(true);
        expect(channels.views()[platform]).toMatchObject({ waiting: 0, refused: 0 });
      })();
    },
  );
  const text = "the bytes of it";
  const pdf = ["sendDocument", "77", "", "a.pdf", "application/pdf", text];

  it(
    "comes after the words, and the message is over with both",
    asked(async (world, channels, frame) => {
      world.hermes.say(frame, "here", true, true, true);
      await settle();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 1 });
      world.hermes.sendFile(frame, text);
      await settle();
      expect(world.sent.map((one) => one.text)).toEqual(["here"]);
      expect(world.sentFiles).toEqual([pdf]);
      world.hermes.fallSilent(frame);
      await settle();
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, again: 0, twice: 0, refused: 0 });
      expect(world.hermes.results.map(({ result }) => result?.success)).toEqual([true, true]);
    }),
  );

  it.each([
    ["a picture", "image", "image/png", "sendPhoto"],
    ["a picture that moves", "image", "image/gif", "sendAnimation"],
    ["a picture that Telegram does not show", "image", "image/svg+xml", "sendDocument"],
    ["what is spoken", "voice", "audio/ogg", "sendVoice"],
    ["music", "audio", "audio/mpeg", "sendAudio"],
    ["music that Telegram does not play", "audio", "audio/ogg", "sendDocument"],
    ["a film", "video", "video/mp4", "sendVideo"],
    ["a picture that is meant to be kept as it is", "document", "image/png", "sendDocument"],
  ])("is %s where it is one", async (_, kind, mime, method) => {
    await asked(async (world, _channels, frame) => {
      world.hermes.sendFile(frame, text, { media_kind: kind, mime, content: "look" });
      await settle();
      expect(world.sentFiles).toEqual([[method, "77", "look", "a.pdf", mime, text]]);
    })();
  });

  it(
    "is a picture up to 10 MB, and a document beyond",
    asked(async (world, _channels, frame) => {
      world.hermes.piece = 512 * 1024;
      for (const beyond of [0, 1]) {
        const content = "x".repeat(10 * 1024 * 1024 + beyond);
        world.hermes.sendFile(frame, content, { media_kind: "image", mime: "image/png", part: beyond });
        for (let turn = 0; turn < 5; turn++) await settle();
      }
      expect(world.sentFiles.map(([method]) => method)).toEqual(["sendPhoto", "sendDocument"]);
    }),
  );

  it(
    "that Telegram does not show as a picture is sent as a document",
    asked(async (world, channels, frame) => {
      world.refusals.push({ error_code: 400, description: "Bad Request: PHOTO_INVALID_DIMENSIONS" });
      world.hermes.sendFile(frame, text, { media_kind: "image", mime: "image/png" });
      await settle();
      expect(world.sentFiles.map(([method]) => method)).toEqual(["sendDocument"]);
      expect(channels.views()["telegram"]).toMatchObject({ refused: 0, twice: 0 });
    }),
  );

  it(
    "is sent once, whatever Hermes says again to the same message",
    asked(async (world, channels, frame) => {
      world.hermes.say(frame, "here", true, true, true);
      await settle();
      world.hermes.sendFile(frame, text);
      await settle();
      world.hermes.die();
      await settle();
      await world.time.pass(2000);
      await settle();
      const again = world.hermes.given[1] as Frame;
      world.hermes.say(again, "here it is", true, true, true);
      world.hermes.sendFile(again, "drawn anew");
      world.hermes.sendFile(again, "another", { part: 1 });
      await settle();
      world.hermes.fallSilent(again);
      await settle();
      expect(world.sent.map((one) => one.text)).toEqual(["here"]);
      expect(world.sentFiles).toEqual([
        pdf,
        ["sendDocument", "77", "", "a.pdf", "application/pdf", "another"],
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ waiting: 0, again: 1, twice: 0 });
    }),
  );

  it(
    "that Telegram does not take now is sent later, without Hermes, be that gone by then",
    asked(async (world, _channels, frame) => {
      for (let times = 0; times < 100; times++)
        world.refusals.push({ error_code: 500, description: "Internal Server Error" });
      world.hermes.sendFile(frame, text);
      await settle();
      world.hermes.fallSilent(frame);
      await settle();
      world.hermes.die();
      await world.time.pass(30_000);
      await settle();
      expect(world.sentFiles).toEqual([]);
      world.refusals.length = 0;
      await world.time.pass(60_000);
      await settle();
      expect(world.sentFiles).toEqual([pdf]);
      expect(world.hermes.given).toHaveLength(1);
    }),
  );

  it(
    "of which nobody knows whether it was taken is marked when it is sent again",
    asked(async (world, channels, frame) => {
      world.dies = true;
      world.hermes.sendFile(frame, text);
      await settle();
      world.life().resume();
      await settle();
      expect(world.sentFiles.map(([, , caption]) => caption)).toEqual([
        "",
        expect.stringContaining("whether this reached you"),
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ twice: 1 });
    }),
  );

  it(
    "that Telegram refuses for good is told in a sentence, and counted",
    asked(async (world, channels, frame) => {
      world.refusals.push({ error_code: 413, description: "Request Entity Too Large" });
      world.hermes.sendFile(frame, text);
      await settle();
      expect(world.sentFiles).toEqual([]);
      expect(world.sent.map((one) => one.text)).toEqual([
        "(I could not send you the file a.pdf: Telegram: Request Entity Too Large.)",
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ refused: 1 });
      expect(channels.failed()).toEqual([]);
    }),
  );

  it(
    "is fetched anew by the next line when one ends in the middle of it",
    asked(async (world, _channels, frame) => {
      world.hermes.keepsFiles = true;
      world.hermes.sendFile(frame, text);
      await settle();
      world.hermes.keepsFiles = false;
      world.hermes.hangUp();
      await settle();
      await world.time.pass(2000);
      await settle();
      expect(world.sentFiles).toEqual([pdf]);
    }),
  );

  it(
    "that ends before its end is not sent",
    asked(async (world, _channels, frame) => {
      world.hermes.sendFile(frame, text, { size: text.length + 1 });
      await settle();
      expect(world.sentFiles).toEqual([]);
      expect(world.hermes.results.map(({ result }) => result)).toEqual([
        { success: false, error: "a file cannot be read" },
      ]);
    }),
  );

  it(
    "to a chat in which nobody wrote who may is refused",
    asked(async (world, _channels, frame) => {
      world.hermes.sendFile(frame, text, { chat_id: "666", answers: null });
      await settle();
      expect(world.sentFiles).toEqual([]);
      expect(world.hermes.results[0]?.result?.error).toContain("telegram:666 is no chat to write to");
    }),
  );

  it(
    "is one of so many that may wait, and its reader is told of those beyond",
    asked(async (world, channels, frame) => {
      world.unreachable = () => new Error("no network");
      for (let part = 0; part <= MOST_OWN_FILES; part++) world.hermes.sendFile(frame, text, { part });
      await settle();
      world.unreachable = null;
      for (let turn = 0; turn < 20; turn++) {
        await world.time.pass(60_000);
        await settle();
      }
      expect(world.sentFiles).toHaveLength(MOST_OWN_FILES);
      expect(world.sent.map((one) => one.text)).toEqual([
        "(I could not send you the file a.pdf: too many wait already.)",
      ]);
      expect(channels.views()["telegram"]).toMatchObject({ refused: 0 });
    }),
  );

  it(
    "is no longer kept when its object died before all of it was there",
    asked(async (world, _channels, frame) => {
      world.hermes.sendFile(frame, text);
      world.storage.sql.exec("INSERT INTO inbox_pieces VALUES ('left', 0, x'00')");
      world.life();
      expect([...world.storage.sql.exec("SELECT file FROM inbox_pieces WHERE file = 'left'")]).toEqual([]);
      await settle();
    }),
  );
});

describe("a stranger", () => {
  const open = {
    HERMES_CHANNELS: JSON.stringify({ telegram: { token: TOKEN, allow: ["77"], pairing: true } }),
  };
  const eve = (id = 666, name = "Eve") => ({
    from: { id, first_name: name },
    chat: { id, type: "private" },
  });
  const codeIn = (text = "") => /[A-HJ-NP-Z2-9]{8}/.exec(text)?.[0] ?? "";

  it(
    "is given a code where the owner wants it, wakes nobody, and may write once the owner has said it",
    inWorld(async (world) => {
      const channels = world.life(open);
      expect(await channels.receive("telegram", world.update("let me in", eve()))).toEqual(["stranger"]);
      await settle();
      expect(world.hermes.given).toEqual([]);
      expect(world.sent).toEqual([expect.objectContaining({ chat_id: "666" })]);
      expect(() => channels.sendOwn(own("rain", { chat: "666" }))).toThrow("no chat to write to");
      const code = codeIn(world.sent[0]?.text);
      const stored = JSON.stringify([...world.storage.sql.exec("SELECT * FROM pairing_codes")]);
      expect(stored).not.toContain(code);
      const until = world.time.now() + 3600_000;
      expect(channels.views()["telegram"]).toMatchObject({
        asking: [{ user: "666", name: "Eve", at: until }],
        paired: [],
      });

      // Any life of the object knows it.
      const next = world.life(open);
      expect(await next.pair(` ${code.toLowerCase()} `)).toMatchObject({ channel: "telegram", user: "666" });
      await settle();
      expect(world.sent[1]).toMatchObject({ chat_id: "666", text: expect.stringContaining("may write") });
      expect(next.views()["telegram"]).toMatchObject({ asking: [], paired: [{ user: "666", name: "Eve" }] });
      expect(await world.life(open).receive("telegram", world.update("hello", eve()))).toEqual(["new"]);
      await settle();
      expect(world.sent.at(-1)?.text).toBe("heard hello");
      await expect(next.pair(code)).rejects.toMatchObject({ code: "no_such_code" });
      expect(next.sendOwn(own("rain", { chat: "666" }))).toBe("new");

      expect([next.unpair("telegram", "666"), next.unpair("telegram", "666")]).toEqual([true, false]);
      expect(await world.life(open).receive("telegram", world.update("hello", eve()))).toEqual(["stranger"]);
      expect(() => next.sendOwn(own("snow", { chat: "666" }))).toThrow("no chat to write to");
    }),
  );

  it(
    "is let in no longer where the owner wants none",
    inWorld(async (world) => {
      const channels = world.life(open);
      await channels.receive("telegram", world.update("let me in", eve()));
      await settle();
      await channels.pair(codeIn(world.sent[0]?.text));
      await settle();
      const { sent } = world;
      expect(() => world.life().sendOwn(own("rain", { chat: "666" }))).toThrow("no chat to write to");
      expect(await world.life().receive("telegram", world.update("hello", eve()))).toEqual(["nothing"]);
      await settle();
      expect(sent).toHaveLength(2);
      expect(world.hermes.given).toEqual([]);
    }),
  );

  it(
    "is given one code in ten minutes, good for an hour, and only three of them are",
    inWorld(async (world) => {
      const channels = world.life(open);
      const ask = async (id: number) => {
        const before = world.sent.length;
        await channels.receive("telegram", world.update("let me in", eve(id, `${"x".repeat(100)}\n*`)));
        await settle();
        return world.sent.length - before;
      };
      expect([await ask(1), await ask(1), await ask(2), await ask(3), await ask(4)]).toEqual([1, 0, 1, 1, 0]);
      expect(channels.views()["telegram"]?.asking.map(({ name }) => name)).toEqual(
        Array(3).fill("x".repeat(40)),
      );
      const first = codeIn(world.sent[0]?.text);
      await world.time.pass(601_000);
      expect(await ask(1)).toBe(1);
      await expect(channels.pair(first)).rejects.toMatchObject({ code: "no_such_code" });
      const second = codeIn(world.sent.at(-1)?.text);
      await world.time.pass(3600_000);
      await expect(channels.pair(second)).rejects.toMatchObject({ code: "no_such_code" });
      expect(channels.views()["telegram"]).toMatchObject({ asking: [], paired: [] });
      for (let id = 1000; id < 2000; id++) await channels.receive("telegram", world.update("x", eve(id)));
      await settle();
      expect([...world.storage.sql.exec("SELECT * FROM pairing_codes")]).toHaveLength(3);
      expect(world.hermes.given).toEqual([]);
    }),
  );

  it(
    "is not let in by a code that was guessed: after five wrong ones none is taken for an hour",
    inWorld(async (world) => {
      const channels = world.life(open);
      await channels.receive("telegram", world.update("let me in", eve()));
      await settle();
      const code = codeIn(world.sent[0]?.text);
      for (let guess = 0; guess < 5; guess++)
        await expect(channels.pair("AAAAAAA2")).rejects.toMatchObject({ status: 404, code: "no_such_code" });
      await expect(world.life(open).pair(code)).rejects.toMatchObject({
        status: 429,
        code: "too_many_codes",
      });
      expect(channels.views()["telegram"]?.paired).toEqual([]);
    }),
  );

  it(
    "of a group learns nothing",
    inWorld(async (world) => {
      const group = { from: { id: 666 }, chat: { id: -9, type: "group" } };
      expect(await world.life(open).receive("telegram", world.update("/hello", group))).toEqual(["nothing"]);
      await settle();
      expect(world.sent).toEqual([]);
    }),
  );
});

describe("the Worker", () => {
  const post = async (body: string, proof?: string, change: Record<string, string> = DECLARED) =>
    askWith(
      change,
      "/channels/telegram",
      { "content-type": "application/json", [TELEGRAM_PROOF]: proof ?? (await proofOf(TOKEN)) },
      { method: "POST", body },
    );

  it("knows no channel that is not declared", async () => {
    expect(await refusal(await post("{}", "", { HERMES_CHANNELS: "" }))).toMatchObject({
      code: "no_channel",
    });
  });

  it.each(WRONG_PROOFS)("takes nothing with the proof %s", async (proof) => {
    expect(await refusal(await post("{}", proof))).toMatchObject({ status: 401, code: "bad_signature" });
  });

  it("takes nothing by a webhook where it asks for messages itself", async () => {
    const polled = { ...DECLARED, HERMES_PUBLIC_URL: "" };
    expect(await refusal(await post("{}", undefined, polled))).toMatchObject({ code: "no_channel" });
  });

  it("takes no update that is larger than a platform sends", async () => {
    const large = JSON.stringify({ update_id: 1, x: "x".repeat(256 * 1024) });
    expect(await refusal(await post(large))).toMatchObject({ status: 413, code: "body_too_large" });
  });

  it.each(["", "{}", "[]", "nonsense", '{"update_id": "x"}'])("takes no update that is %j", async (body) => {
    expect(await refusal(await post(body))).toMatchObject({ status: 400, code: "bad_update" });
  });

  it("takes a thousand messages of strangers and forgers, and keeps nothing of them", async () => {
    await anew();
    const stored = () => runInDurableObject(instance(), (_, { storage }) => storage.sql.databaseSize);
    const before = await stored();
    const by = (id: number) => ({
      update_id: id,
      message: { message_id: id, from: { id }, chat: { id, type: "private" }, text: "x" },
    });
    for (let n = 0; n < 500; n += 50) {
      const ids = Array.from({ length: 50 }, (_, at) => 700_000 + n + at);
      const strangers = await Promise.all(ids.map((id) => post(JSON.stringify(by(id)))));
      expect(await Promise.all(strangers.map((answer) => answer.text()))).toEqual(Array(50).fill(""));
      expect(strangers.map(({ status }) => status)).toEqual(Array(50).fill(200));
      const forgers = await Promise.all(ids.map((id) => post(JSON.stringify(by(id)), "0".repeat(64))));
      expect(forgers.map(({ status }) => status)).toEqual(Array(50).fill(401));
    }
    expect(await stored()).toBe(before);
    expect(await woken()).toBe(false);
  });

  it("takes nothing for a webhook that is not signed, too long, no JSON, or for no webhook", async () => {
    const hook = async (
      name: string,
      body: string,
      signature: string | null,
      secret = "It's a Secret to Everybody",
    ) => {
      const key = await hmacKey(bytes(secret));
      const made = hex(await crypto.subtle.sign("HMAC", key, bytes(body)));
      const headers = signature === null ? {} : { "x-hub-signature-256": signature || `sha256=${made}` };
      const { status, code } = await refusal(
        await askWith(DECLARED, `/hooks/${name}`, headers as Record<string, string>, {
          method: "POST",
          body,
        }),
      );
      return `${status} ${code}`;
    };
    expect(await hook("ci", "{}", null)).toBe("401 bad_signature");
    expect(await hook("ci", "{}", `sha256=${"0".repeat(64)}`)).toBe("401 bad_signature");
    expect(await hook("ci", "{}", "", "another secret")).toBe("401 bad_signature");
    expect(await hook("ci", "payload=x", "")).toBe("400 bad_update");
    expect(await hook("ci", " ".repeat(1024 * 1024 + 1), "")).toBe("413 body_too_large");
    expect(await hook("constructor", "{}", "")).toBe("404 no_channel");
    expect(await hook("nobody", "{}", "")).toBe("404 no_channel");
  });

  it.each(["{", '{"address":"http://x"}', '{"address":7}', "{}"])(
    "refuses a registration %j",
    async (body) => {
      const answer = await ask("/api/instance/channels/register", { method: "POST", body });
      expect(await refusal(answer)).toMatchObject({ status: 400, code: "bad_registration" });
    },
  );
});
