// SPDX-License-Identifier: Apache-2.0
/** What Hermes asks in the middle of a turn: it is asked once, and a button answers it once. */
import { buttonData, type Press, SendRefused } from "./channel.ts";
import type { Handover } from "./handover.ts";
import { type Entry, isHook, laneIn } from "./inbox.ts";
import type { Shared } from "./parts.ts";
import { refuseStrangers } from "./recipients.ts";
import type { Asked } from "./relay.ts";
import type { Sender } from "./sender.ts";
import type { Turns } from "./turns.ts";

/** What is put below a question that nobody waits for any more. */
const TOO_LATE = "(I do not wait for this any more.)";

/** The questions of one Hermes. */
export class Questions {
  readonly #shared: Shared;
  readonly #turns: Turns;
  readonly #sender: Sender;

  constructor(shared: Shared, turns: Turns, sender: Sender) {
    this.#shared = shared;
    this.#turns = turns;
    this.#sender = sender;
  }

  /**
   * Hermes asks something, with buttons where the platform has them.
   * @returns what the platform calls it, and the number of the last message that came before it.
   */
  async ask(
    platform: string,
    { chat, thread, text, prompt, options, typed }: Asked,
  ): Promise<{ id: string; after: number }> {
    const { inbox, platforms, time } = this.#shared;
    const channel = platforms.get(platform);
    if (channel === undefined) throw new SendRefused("nobody is there to be asked", true);
    refuseStrangers(this.#shared, platform, chat);
    const what = `question ${prompt}`;
    const before = `before ${what}`;
    // Asked again by a Hermes that was not heard: what came in between may be the answer.
    if (inbox.sent(platform, before) === null)
      inbox.noteKept(platform, before, String(inbox.last()), time.now());
    const after = Number(inbox.sent(platform, before));
    const turn = this.#turns.in(laneIn(platform, chat));
    turn?.heard();
    const hasButtons = channel.settle !== undefined && options.length > 0;
    const buttons = options.map(({ id, label }) => ({ data: buttonData(prompt, id), label }));
    const said = {
      ...{ chat, thread, replyTo: null },
      text: hasButtons || typed === "" ? text : `${text}\n\n${typed}`,
      ...(hasButtons ? { buttons } : {}),
      ...(turn === undefined || isHook(turn.entry) ? {} : { during: turn.entry.event.message_id }),
    };
    const known = inbox.sent(platform, what);
    const ask = () => this.#sender.send(platform, what, said, () => undefined);
    return { id: known ?? (await this.#sender.once(`${platform} ${what}`, ask)), after };
  }

  /** Answers a question by a button; whoever pressed it sees what it was answered, or that nobody waits for it. */
  async press(entry: Entry, press: Press, handover: Handover): Promise<void> {
    const { inbox, platforms } = this.#shared;
    const { platform, chat_id: chat, thread_id: thread = null } = entry.event.source;
    const answer = await handover.press(entry, press);
    const words = answer === null ? TOO_LATE : `→ ${answer}`;
    try {
      await platforms.get(platform)?.settle?.(chat, press, words);
    } catch (error) {
      if (!(error instanceof SendRefused && error.isFinal)) throw error;
      // A message that cannot be changed stays as it is; that it was too late is said in another one.
      const said = { chat, thread, text: TOO_LATE, replyTo: null };
      if (answer === null) this.#sender.tell(platform, `press ${entry.n}`, said);
    }
    inbox.done(entry);
  }
}
