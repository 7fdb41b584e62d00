// SPDX-License-Identifier: Apache-2.0
/** Takes in what platforms and webhooks send: of those who may write it is stored, a stranger may be given a code. */
import type { Incoming, Read, Stranger, Undelivered, Update } from "./channel.ts";
import type { Handover } from "./handover.ts";
import { laneOf, type Taken } from "./inbox.ts";
import type { Paired } from "./pairing.ts";
import type { Shared } from "./parts.ts";
import type { Sender } from "./sender.ts";
import type { Turns } from "./turns.ts";

/** What does not wait for the turn that is under way: it ends that. */
const STOP = /^\/stop\b/i;

const PAIRED = "You may write to me from now on.";

/** What a stranger is told. */
function codeWords(code: string): string {
  return `I do not know you. If you know whose assistant I am, tell them this code: ${code}. It is good for an hour.`;
}

/** The door of one instance. */
export class Intake {
  readonly #shared: Shared;
  readonly #turns: Turns;
  readonly #sender: Sender;
  readonly #handover: Handover;

  constructor(shared: Shared, turns: Turns, sender: Sender, handover: Handover) {
    this.#shared = shared;
    this.#turns = turns;
    this.#sender = sender;
    this.#handover = handover;
  }

  /** Takes in what a platform sent; it is stored when this returns. */
  async receive(name: string, told: object): Promise<(Taken | Update["kind"])[]> {
    const updates = (await this.#shared.platforms.get(name)?.read(told)) ?? [];
    const taken: (Taken | Update["kind"])[] = [];
    for (const read of updates) taken.push(await this.#admit(name, read));
    return taken;
  }

  /** Hears who may write, and whom a code let in; another may be given one. */
  async #admit(name: string, update: Update): Promise<Taken | Update["kind"]> {
    const { inbox } = this.#shared;
    if (update.kind === "edit") {
      const said = this.#saidBy(name, update.of);
      if (said?.kind === "message") inbox.amend(name, said.message.event);
      return update.kind;
    }
    if (update.kind === "undelivered") return this.#noteUndelivered(name, update);
    const said = this.#saidBy(name, update);
    if (said !== null) return this.#hear(name, said);
    if (update.kind === "stranger") await this.#offer(name, update);
    return update.kind;
  }

  /** What was taken and not delivered is told like what was refused; it was answered, and cannot be sent again. */
  #noteUndelivered(channel: string, { kind, message, why }: Undelivered): Undelivered["kind"] {
    const { inbox, time, log, troubles } = this.#shared;
    const what = `${kind} ${message}`;
    if (inbox.sent(channel, what) === null) inbox.note(channel, "refused");
    inbox.noteKept(channel, what, kind, time.now());
    log.warn("message_not_sent", { channel, why });
    troubles.set(channel, why);
    return kind;
  }

  /** What somebody sent; `null` of one who may not write. */
  #saidBy(name: string, from: Read | Stranger): Read | null {
    if (from.kind !== "stranger") return from;
    return this.#shared.pairing.has(name, from.user) ? from.said : null;
  }

  #hear(name: string, read: Read): Taken | Update["kind"] {
    const { life, platforms } = this.#shared;
    if (read.kind === "message") {
      const taken = this.take(name, read.message);
      const { press } = read.message.event;
      const heard = press && platforms.get(name)?.heard?.(press);
      if (heard !== undefined) life.stay(heard.catch(() => undefined));
      return taken;
    }
    if (read.kind === "answer") {
      const { chat, thread, message, text } = read;
      this.#sender.tell(name, `told ${chat} ${message}`, { chat, thread, text, replyTo: message });
    }
    return read.kind;
  }

  /** Takes in a message, by whatever it came; it is stored when this returns. */
  take(channel: string, message: Incoming): Taken {
    const { inbox, files, time, log } = this.#shared;
    const bytes = [...(message.bytes ?? [])];
    const hasRoom = files.hasRoom(bytes.reduce((sum, [, { byteLength }]) => sum + byteLength, 0));
    const taken = inbox.take(channel, message, time.now(), hasRoom);
    if (taken === "full") log.warn("message_dropped", { channel, why: "too many wait" });
    if (taken !== "new") return taken;
    for (const [ref, one] of bytes) files.put(ref, one);
    const lane = laneOf(message.event);
    // The turn that its chat waits for is ended, so that its next message is the one that says so.
    if (!STOP.test(message.event.text)) this.#handover.offerAnswers(lane);
    else this.#turns.interrupt(lane);
    this.#shared.answer(lane);
    return taken;
  }

  /** Gives a stranger a code; one who has it, or comes when there are enough, hears nothing. */
  async #offer(channel: string, { chat, user, name, said }: Stranger): Promise<void> {
    const { pairing, time } = this.#shared;
    const code = await pairing.offer({ channel, user, name, chat }, time.now());
    if (code === null) return;
    const replyTo = said.kind === "message" ? said.message.event.message_id : null;
    this.#sender.tell(channel, `code ${chat} ${replyTo}`, {
      chat,
      thread: null,
      text: codeWords(code),
      replyTo,
    });
  }

  /**
   * Lets in whoever was given a code, and tells them.
   * @throws ApiError 404 `no_such_code`; 429 `too_many_codes`.
   */
  async pair(code: string): Promise<Paired> {
    const now = this.#shared.time.now();
    const paired = await this.#shared.pairing.approve(code, now);
    const { channel, user, chat } = paired;
    this.#sender.tell(channel, `paired ${user} ${now}`, { chat, thread: null, text: PAIRED, replyTo: null });
    return paired;
  }
}
