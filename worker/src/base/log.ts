// SPDX-License-Identifier: Apache-2.0
/** JSON log lines and the one redactor. */

/** Fields of a log line. Values are redacted before they are printed. */
export type Fields = Record<string, unknown>;

const SHAPES: readonly RegExp[] = [
  /\b(?:sk|pk|rk|xoxb|xoxp|ghp|gho)[-_][A-Za-z0-9_-]{12,}/g,
  /\b[Bb]earer\s+[A-Za-z0-9._~+/=-]{8,}/g,
];

/** Replaces secrets in text: the values it was told, however they are written, and whatever looks like a key. */
export class Redactor {
  /** The longest first: one may be the beginning of another. */
  #values: readonly string[] = [];

  /** @param secrets values never to be shown; those under 6 characters are ignored, they would eat words. */
  constructor(secrets: Iterable<string> = []) {
    this.add(secrets);
  }

  /** Adds values, for example the keys of a new boot. */
  add(secrets: Iterable<string>): void {
    const forms = [...secrets].flatMap(formsOf).filter((form) => form.length >= 6);
    this.#values = [...new Set([...this.#values, ...forms])].sort((a, b) => b.length - a.length);
  }

  /** The text with every secret replaced by `[redacted]`. */
  clean(text: string): string {
    let out = text;
    for (const secret of this.#values) out = out.replaceAll(secret, "[redacted]");
    for (const shape of SHAPES) out = out.replace(shape, "[redacted]");
    return out;
  }

  /** Redacts a stream of text line by line; of a secret of several lines each is one. */
  stream(): TransformStream<Uint8Array, Uint8Array> {
    const decoder = new TextDecoder();
    const encoder = new TextEncoder();
    let rest = "";
    return new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        rest += decoder.decode(chunk, { stream: true });
        const end = rest.lastIndexOf("\n") + 1;
        if (end === 0) return;
        controller.enqueue(encoder.encode(this.clean(rest.slice(0, end))));
        rest = rest.slice(end);
      },
      flush: (controller) => {
        rest += decoder.decode();
        if (rest !== "") controller.enqueue(encoder.encode(this.clean(rest)));
      },
    });
  }
}

/** How a value may stand in a log: as it is, line by line, inside of JSON, in a URL. */
function formsOf(secret: string): string[] {
  const lines = [secret, ...secret.split(/\r?\n/)];
  const written = lines.flatMap((line) => [line, JSON.stringify(line).slice(1, -1)]);
  return secret.isWellFormed() ? [...written, encodeURIComponent(secret)] : written;
}

/** Writes one JSON line per event to the Worker's log. */
export class Log {
  constructor(readonly redactor: Redactor) {}

  info(event: string, fields: Fields): void {
    this.#write("info", event, fields);
  }

  warn(event: string, fields: Fields): void {
    this.#write("warn", event, fields);
  }

  error(event: string, fields: Fields): void {
    this.#write("error", event, fields);
  }

  #write(level: "info" | "warn" | "error", event: string, fields: Fields): void {
    const line = JSON.stringify({ time: new Date().toISOString(), level, event, ...fields });
    const text = this.redactor.clean(line);
    if (level === "error") console.error(text);
    else if (level === "warn") console.warn(text);
    else console.log(text);
  }
}
