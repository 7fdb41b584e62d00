// SPDX-License-Identifier: Apache-2.0
/**
 * STAND-INS for what messages go through: the platform by which people write, and Hermes' gateway with the bridge beside
 * its relay. Each is as slow, and forgets as much, as it is told to.
 */
import type { Dice, SimulatedTime } from "./platform.ts";

/** How the text begins that stands for Hermes' own answer to a message. */
export const HEARD = "heard ";

interface Frame {
  type: string;
  bufferId?: string;
  requestId?: string;
  event?: {
    text: string;
    message_id: string;
    media_urls?: string[];
    source: { platform: string; chat_id: string; thread_id?: string };
  };
  result?: { success: boolean };
  action?: { chat_id: string; reply_to?: string; metadata: { notify?: boolean } };
  held?: string[];
  /** Of a file, and of a press. */
  name?: string;
  error?: null;
  prompt?: string;
  answer?: string | null;
}

/** What is on the one button below a question. */
const CHOICE = "the choice";

/** The object's end of a line to the bridge; nothing is heard by it any more once its object was torn down. */
class Line {
  /** What was said before somebody listens waits for him. */
  readonly #accepted = Promise.withResolvers<void>();
  #heard = this.#accepted.promise;
  #isOpen = true;
  readonly #listeners = new Map<string, (event: { data?: string }) => void>();

  constructor(
    readonly parts: { time: SimulatedTime; dice: Dice; isHeard: () => boolean },
    readonly take: (frame: Frame) => void,
  ) {}

  addEventListener(kind: string, listener: (event: { data?: string }) => void): void {
    this.#listeners.set(kind, listener);
  }

  accept(): void {
    this.#accepted.resolve();
  }

  send(text: string | Uint8Array): void {
    if (!this.#isOpen) throw new Error("it is closed");
    // A piece of a file.
    if (typeof text !== "string") return;
    void this.#later(() => this.take(JSON.parse(text) as Frame));
  }

  close(): void {
    this.#isOpen = false;
  }

  tell(frame: Frame): void {
    void this.#later(() => this.#listeners.get("message")?.({ data: JSON.stringify(frame) }));
  }

  /** The bridge is gone. */
  hangUp(): void {
    void this.#later(() => {
      this.#isOpen = false;
      this.#listeners.get("close")?.({});
    });
  }

  #later(work: () => void): Promise<void> {
    const { time, dice, isHeard } = this.parts;
    this.#heard = this.#heard.then(async () => {
      if (dice.chance(0.2)) await time.sleep(dice.between(1, 3000));
      if (this.#isOpen && isHeard()) work();
    });
    return this.#heard;
  }
}

/** One process of Hermes' gateway. */
export class SimulatedGateway {
  #isAlive = true;
  #worker: Line | null = null;
  /** What it was given and has not answered, by its name; what it was done with; what it said and was not answered. */
  readonly #held = new Map<string, Frame>();
  readonly #done = new Set<string>();
  readonly #unanswered = new Map<string, Frame>();
  readonly #results = new Map<string, (isTaken: boolean) => void>();
  /** Chats in which it thinks. */
  readonly #thinking = new Set<string>();
  /** Which files it has. */
  readonly #files = new Set<string>();
  /** What it waits for an answer to, and what was answered, by the questions' names. */
  readonly #asked = new Map<string, PromiseWithResolvers<void>>();
  readonly #chosen = new Set<string>();

  constructor(
    readonly time: SimulatedTime,
    readonly dice: Dice,
    readonly wrong: (what: string) => void,
    readonly names: () => number,
    /** Whether it asks in the middle of turns. */
    readonly asks: boolean,
  ) {}

  /** Somebody comes to its bridge. */
  connect(isHeard: () => boolean): Line {
    const line = new Line({ time: this.time, dice: this.dice, isHeard }, (frame) => this.#take(frame));
    this.#worker?.hangUp();
    this.#worker = line;
    line.tell({ type: "hello", held: [...this.#held.keys()] });
    for (const frame of this.#unanswered.values()) line.tell(frame);
    for (const bufferId of this.#done) line.tell({ type: "processed", bufferId });
    return line;
  }

  /** All that it was given is forgotten. */
  die(): void {
    this.#isAlive = false;
    this.#worker?.hangUp();
  }

  #take(frame: Frame): void {
    if (!this.#isAlive) return;
    const name = frame.bufferId ?? "";
    if (frame.type === "outbound_result") this.#settle(frame);
    else if (frame.type === "answer" || frame.type === "file")
      return; // Its questions have buttons.
    else if (frame.type === "file_end") {
      this.#files.add(frame.name ?? "");
      this.#worker?.tell({ type: "file_taken", bufferId: frame.name ?? "", error: null });
    } else if (frame.type === "press") this.#press(name, frame.prompt ?? "");
    else if (this.#done.has(name)) this.#worker?.tell({ type: "processed", bufferId: name });
    else if (!this.#held.has(name)) {
      const lacks = (frame.event?.media_urls ?? []).filter((one) => !this.#files.has(one));
      if (lacks.length > 0) this.wrong(`${frame.event?.text} was given to Hermes without its file`);
      this.#held.set(name, frame);
      void this.#turn(name, frame);
    }
  }

  #press(name: string, prompt: string): void {
    const waits = this.#asked.get(prompt);
    if (waits !== undefined) this.#chosen.add(prompt);
    waits?.resolve();
    this.#worker?.tell({ type: "pressed", bufferId: name, answer: this.#chosen.has(prompt) ? CHOICE : null });
  }

  /** Asks something, and waits for a press below it, but not for ever. */
  async #ask(event: Frame["event"], text: string): Promise<void> {
    const prompt = `p${this.names()}`;
    const pressed = Promise.withResolvers<void>();
    this.#asked.set(prompt, pressed);
    const options = [{ id: "a", label: CHOICE }];
    const asked = {
      prompt_id: prompt,
      prompt_kind: "clarify",
      content: `what of ${text}`,
      typed: "",
      options,
    };
    if (!(await this.#say(event, { op: "prompt", ...asked, metadata: {} }))) return;
    const left = new AbortController();
    const late = this.time.sleep(1200_000, left.signal).catch(() => undefined);
    await Promise.race([pressed.promise, late]);
    left.abort();
  }

  #settle({ requestId = "", result }: Frame): void {
    const said = this.#unanswered.get(requestId);
    this.#unanswered.delete(requestId);
    if (said?.action?.metadata.notify === true)
      for (const [name, { event }] of this.#held)
        if (event?.message_id === said.action.reply_to) this.#held.delete(name);
    this.#results.get(requestId)?.(result?.success === true);
  }

  async #turn(name: string, { event }: Frame): Promise<void> {
    const { time, dice } = this;
    const { text = "", source } = event ?? {};
    const chat = source?.chat_id ?? "";
    if (this.#thinking.has(chat)) this.wrong(`${text} was given to Hermes in the middle of another turn`);
    this.#thinking.add(chat);
    await time.sleep(dice.between(0, 20_000));
    if (dice.chance(0.2)) await this.#tell(event, `thinking of ${text}`, false);
    if (this.asks && source?.platform === "telegram" && dice.chance(0.5)) await this.#ask(event, text);
    if (dice.chance(0.2)) await time.sleep(dice.between(0, 20_000));
    this.#thinking.delete(chat);
    // Of an answer that nobody took in time it is not done.
    const isTaken = await this.#tell(event, `${HEARD}${text}`, true);
    if (!isTaken || !this.#isAlive || !this.#held.delete(name)) return;
    this.#done.add(name);
    this.#worker?.tell({ type: "processed", bufferId: name });
  }

  #tell(event: Frame["event"], content: string, notify: boolean): Promise<boolean> {
    const metadata = { notify, thread_id: event?.source.thread_id ?? null };
    return this.#say(event, { op: "send", content, reply_to: event?.message_id ?? "", metadata });
  }

  /** @returns whether it was told that this was taken. */
  async #say(
    event: Frame["event"],
    said: Omit<NonNullable<Frame["action"]>, "chat_id"> & Record<string, unknown>,
  ): Promise<boolean> {
    if (!this.#isAlive) return false;
    const requestId = `r${this.names()}`;
    const action = { chat_id: event?.source.chat_id ?? "", ...said };
    const frame = { type: "outbound", requestId, platform: event?.source.platform, action };
    this.#unanswered.set(requestId, frame);
    this.#worker?.tell(frame);
    const answered = new Promise<boolean>((resolve) => this.#results.set(requestId, resolve));
    const left = new AbortController();
    // It waits for half a minute.
    const late = this.time.sleep(30_000, left.signal).then(
      () => false,
      () => false,
    );
    const isTaken = await Promise.race([answered, late]);
    left.abort();
    return isTaken;
  }
}

/** A message that the platform took. */
export interface Accepted {
  chat: string;
  text: string;
  /** The message that it answers. */
  message: string;
  /** Whether whoever sent it never learned that it was taken. */
  isLost: boolean;
}

/** The platform by which people write. */
export class SimulatedPlatform {
  /** How likely it refuses a message for the moment, or its word that it took one is lost. */
  failing = 0;
  isDown = false;
  readonly accepted: Accepted[] = [];
  /** The messages that say by now what became of them. */
  readonly changed = new Set<number>();
  /** Is told that somebody waits for a file. */
  onSlowFile: () => void = () => undefined;
  /** Is told of a message with a button. */
  onButton: (chat: string, message: number, data: string) => void = () => undefined;

  constructor(
    readonly time: SimulatedTime,
    readonly dice: Dice,
    readonly tell: (what: string) => void,
  ) {}

  /** Its API as one life of the object sees it. */
  apiFor(alive: () => boolean): (url: string, init: RequestInit) => Promise<Response> {
    const answer = async (url: string, init: RequestInit): Promise<Response> => {
      const { time, dice } = this;
      if (url.includes("/file/")) {
        if (dice.chance(0.5)) {
          this.onSlowFile();
          await time.sleep(dice.between(1, 20_000));
        }
        return new Response("a picture");
      }
      if (url.endsWith("/editMessageText")) {
        if (this.isDown) throw new Error("connection refused");
        this.changed.add((JSON.parse(String(init.body)) as { message_id: number }).message_id);
      }
      if (!/\/(sendMessage|chat\.postMessage)$/.test(url))
        return Response.json({ ok: true, result: { file_path: "f" } });
      if (dice.chance(0.2)) await time.sleep(dice.between(1, 5000));
      if (this.isDown) throw new Error("connection refused");
      if (!alive()) return new Promise(() => undefined);
      if (dice.chance(this.failing))
        return Response.json({
          ...{ ok: false, error: "ratelimited", error_code: 429 },
          parameters: { retry_after: dice.between(1, 20) },
        });
      const said = JSON.parse(String(init.body));
      const { chat_id: chat = said.channel, text, reply_parameters: to, reply_markup } = said;
      const taken = { chat, text, message: String(to?.message_id ?? said.thread_ts ?? ""), isLost: true };
      this.accepted.push(taken);
      this.tell(`      ${chat} is sent, to m${taken.message}: ${text}`);
      const data = reply_markup?.inline_keyboard[0]?.[0]?.callback_data;
      if (data !== undefined) this.onButton(chat, this.accepted.length, data);
      if (dice.chance(0.2)) await time.sleep(dice.between(1, 5000));
      if (dice.chance(this.failing / 4)) throw new Error("connection reset");
      taken.isLost = !alive();
      return Response.json({
        ...{ ok: true, ts: String(this.accepted.length) },
        result: { message_id: this.accepted.length },
      });
    };
    return (url, init) =>
      answer(url, init).finally(() => (alive() ? undefined : new Promise<never>(() => undefined)));
  }
}
