// SPDX-License-Identifier: Apache-2.0
/** The log of a sandbox as it grows; of one that is being started, what that waits for until there is a log. */
import { ApiError, reason } from "../base/errors.ts";
import type { SharedParts } from "./parts.ts";

/** Whose log it is. */
export type Followed = Pick<SharedParts, "record" | "sandbox" | "time">;

/** A start is looked at so often, and told of so often; in milliseconds. */
const LOOK = 1000;
const TELL = 10_000;

/**
 * Follows the log of what runs, or is being started: a start may take minutes, and who follows hears of it meanwhile.
 * @param lines how many lines of before it begins with.
 * @throws ApiError 409 `asleep`.
 */
export async function followedLog(parts: Followed, lines: number): Promise<ReadableStream<Uint8Array>> {
  if (parts.record.starting === null) return running(parts, lines);
  const encoder = new TextEncoder();
  const left = new AbortController();
  const starting = linesOfStart(parts, left.signal);
  let log: ReadableStreamDefaultReader<Uint8Array> | null = null;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { value: line } = await starting.next();
        if (line !== undefined) return controller.enqueue(encoder.encode(`${line}\n`));
        try {
          log ??= (await running(parts, lines)).getReader();
        } catch (error) {
          const why = parts.record.lastError?.message ?? reason(error);
          controller.enqueue(encoder.encode(`${why}\n`));
          return controller.close();
        }
        const { done, value } = await log.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel(why) {
        left.abort();
        return log?.cancel(why);
      },
    },
    { highWaterMark: 0 },
  );
}

/** What a start waits for, at once and again and again, until a command works in its sandbox or it has failed. */
async function* linesOfStart(
  { record, time }: Followed,
  left: AbortSignal,
): AsyncGenerator<string, undefined> {
  let told = "";
  let next = 0;
  for (; record.starting !== null; await time.sleep(LOOK, left)) {
    const { since, why } = record.starting;
    if (why === told && time.now() < next) continue;
    told = why;
    next = time.now() + TELL;
    yield `${why}, ${Math.round((time.now() - since) / 1000)} s`;
  }
}

async function running({ record, sandbox }: Followed, lines: number): Promise<ReadableStream<Uint8Array>> {
  const { bootId } = record;
  if (bootId === null)
    throw new ApiError({
      status: 409,
      code: "asleep",
      message: "Hermes is asleep; there is no log to follow.",
    });
  const cmd = ["sandbox", "logs", "--boot", bootId, "--lines", String(lines), "--follow"];
  return (await sandbox.exec(cmd, { limit: null })).stdout;
}
