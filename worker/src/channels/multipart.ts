// SPDX-License-Identifier: Apache-2.0
/** Files in the bodies of calls: in pieces as they are read, and with their length told before. */
import type { OutgoingFile } from "./channel.ts";

/** A body, and what is to be told of it. */
export interface Body {
  headers: Record<string, string>;
  body: ReadableStream<Uint8Array>;
}

/** A form (RFC 7578) of some fields and a file. @param field what the form calls the file. */
export function multipart(fields: Readonly<Record<string, string>>, field: string, file: OutgoingFile): Body {
  const boundary = `hermes-${crypto.randomUUID()}`;
  const said = Object.entries(fields).map(([name, value]) => part(boundary, `name="${name}"`) + value);
  const type = `\r\ncontent-type: ${file.mime || "application/octet-stream"}`;
  const of = part(boundary, `name="${field}"; filename="${quoted(file.name)}"${type}`);
  const head = encoded([...said, of].join("\r\n"));
  return {
    headers: { "content-type": `multipart/form-data; boundary=${boundary}` },
    body: lengthy(head, file, encoded(`\r\n--${boundary}--\r\n`)),
  };
}

/** A file alone. */
export function raw(file: OutgoingFile): Body {
  return {
    headers: { "content-type": file.mime || "application/octet-stream" },
    body: lengthy(new Uint8Array(), file, new Uint8Array()),
  };
}

function part(boundary: string, disposition: string): string {
  return `--${boundary}\r\ncontent-disposition: form-data; ${disposition}\r\n\r\n`;
}

/** A name of a file, as browsers write it. */
function quoted(name: string): string {
  return name.replaceAll("\r", "%0D").replaceAll("\n", "%0A").replaceAll('"', "%22");
}

function encoded(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Platforms want to know the length of what comes: it would else go in chunks. */
function lengthy(
  head: Uint8Array,
  { size, bytes }: OutgoingFile,
  tail: Uint8Array,
): ReadableStream<Uint8Array> {
  const { readable, writable } = new FixedLengthStream(head.byteLength + size + tail.byteLength);
  const write = async () => {
    const writer = writable.getWriter();
    try {
      if (head.byteLength > 0) await writer.write(head);
      for await (const piece of bytes()) await writer.write(piece);
      if (tail.byteLength > 0) await writer.write(tail);
      await writer.close();
    } catch (error) {
      await writer.abort(error);
    }
  };
  // Whoever reads it learns that it broke off; whoever left wants to know no more.
  write().catch(() => undefined);
  return readable;
}
