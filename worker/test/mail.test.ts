// SPDX-License-Identifier: Apache-2.0
import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import { messageIn, type Outgoing, type PlatformParts, SendRefused } from "../src/channels/channel.ts";
import { type Mail, mailOf } from "../src/channels/mail/mail.ts";
import { wordsOf } from "../src/channels/mail/words.ts";
import { email } from "../src/channels/platforms/email.ts";
import { Ways } from "../src/channels/ways.ts";
import type { Env } from "../src/config/settings.ts";
import entry from "../src/index.ts";
import { env } from "./helpers.ts";
import { ManualTime } from "./stand-ins/sandbox.ts";

const ACCOUNT = {
  address: "hermes@example.com",
  allow: ["ann@gmail.test", "bob@work.test"],
  pairing: false as const,
};

/** What Cloudflare's server writes above a mail, as it was seen to. */
const stamp = (dmarc = "dmarc=pass header.from=gmail.test policy.dmarc=none") => [
  "Received: from mail.gmail.test (2001:db8::1)",
  "        by cloudflare-email.net (cloudflare) id GY1KdjWjOU9O",
  "        for <hermes@example.com>; Sun, 14 Jun 2026 21:02:54 +0000",
  "ARC-Seal: i=2; a=rsa-sha256; s=cf2024-1; d=cloudflare-email.net; cv=pass; b=x;",
  `ARC-Authentication-Results: i=2; mx.cloudflare.net; ${dmarc}`,
  "Received-SPF: pass (mx.cloudflare.net: domain of ann@gmail.test designates 2001:db8::1 as permitted sender)",
  "Authentication-Results: mx.cloudflare.net;",
  "\tdkim=pass header.d=gmail.test header.s=20251104 header.b=L6CZ3OJ0;",
  `\t${dmarc};`,
  "\tspf=none (mx.cloudflare.net: no SPF records found for postmaster@mail.gmail.test) smtp.helo=mail.gmail.test;",
  "\tspf=pass (mx.cloudflare.net: domain of ann@gmail.test designates 2001:db8::1) smtp.mailfrom=ann@gmail.test;",
  '\tarc=pass smtp.remote-ip="2001:db8::1"',
];

interface Sent {
  stamped?: string[];
  from?: string;
  head?: string[];
  body?: string;
  envelope?: string;
  to?: string;
}

/** A mail as Email Routing hands it on; `reads` counts the times that it is read. */
function mail(sent: Sent = {}, reads: string[] = []): ForwardableEmailMessage {
  const {
    stamped = stamp(),
    from = "Ann <ann@gmail.test>",
    head = ["Subject: Dinner", "Message-ID: <one@gmail.test>"],
    body = "Where shall we eat?",
    envelope = "ann@gmail.test",
    to = "hermes@example.com",
  } = sent;
  const own = [`From: ${from}`, `To: ${to}`, ...head];
  const headers = new Headers();
  for (const line of own) {
    const [, name = "", value = ""] = /^([^:]+):([\s\S]*)$/.exec(line.replaceAll("\r\n", "")) ?? [];
    headers.append(name, value);
  }
  const raw = new TextEncoder().encode([...stamped, ...own, "", body].join("\r\n"));
  return {
    from: envelope,
    to,
    headers,
    rawSize: raw.byteLength,
    get raw() {
      reads.push("read");
      return new Blob([raw]).stream();
    },
  } as unknown as ForwardableEmailMessage;
}

/** What a mail with a file says, up to the file's first byte. */
const LETTER = [
  "--b",
  "Content-Type: text/plain; charset=utf-8",
  "",
  "Look at this.",
  "--b",
  'Content-Type: application/pdf; name="plan.pdf"',
  'Content-Disposition: attachment; filename="plan.pdf"',
  "Content-Transfer-Encoding: base64",
  "",
  "",
].join("\r\n");

const read = (sent?: Sent) => mailOf(mail(sent), ACCOUNT);

describe("a mail of somebody who may write", () => {
  it("is read: who wrote it, what, and in which thread", async () => {
    const head = [
      "Subject: =?utf-8?Q?Caf=C3=A9?=",
      "Message-ID: <two@gmail.test>",
      "In-Reply-To: <one@example.com>",
      "References: <zero@gmail.test>\r\n <one@example.com>",
    ];
    expect(await read({ from: '"Ann, of work" <Ann@Gmail.Test>', head })).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{32}$/),
      from: "ann@gmail.test",
      name: "Ann, of work",
      subject: "Café",
      references: ["<zero@gmail.test>", "<one@example.com>", "<two@gmail.test>"],
      text: "Subject: Café\n\nWhere shall we eat?",
      files: [],
    });
  });

  it("is the same when it comes again, and another is not", async () => {
    const [one, again, other, nameless, namelessAgain] = await Promise.all([
      read(),
      read({ stamped: [...stamp().slice(0, 3), ...stamp().slice(5)] }),
      read({ head: ["Message-ID: <two@gmail.test>"] }),
      read({ head: ["Subject: a"] }),
      read({ head: ["Subject: b"] }),
    ]);
    expect(again?.id).toBe(one?.id);
    expect(new Set([one, other, nameless, namelessAgain].map((it) => it?.id)).size).toBe(4);
  });

  it("says a command as it is, and the subject only where it is news", async () => {
    const textOf = async (subject: string, body: string) =>
      (await read({ head: [`Subject: ${subject}`], body }))?.text;
    expect(await textOf("Dinner", "/new")).toBe("/new");
    expect(await textOf("Re: Dinner", "At home")).toBe("At home");
    expect(await textOf("Call me", "")).toBe("Subject: Call me");
    expect(await textOf("", "")).toBe("");
  });

  const MIXED = ["Message-ID: <f@gmail.test>", "Content-Type: multipart/mixed; boundary=b"];
  const filesOf = (found: Mail | null) =>
    found?.files.map(({ name, mime, bytes }) => [name, mime, new TextDecoder().decode(bytes)]);

  it("brings its files, an empty one too", async () => {
    const empty = "--b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment\r\n\r\n";
    const found = await read({ head: MIXED, body: `${LETTER}QUJD\r\n${empty}--b--\r\n` });
    expect(found?.text).toBe("Look at this.");
    expect(filesOf(found)).toEqual([
      ["plan.pdf", "application/pdf", "ABC"],
      ["", "text/csv", ""],
    ]);
  });

  it("brings ten files, and names those beyond", async () => {
    const part = LETTER.slice(LETTER.lastIndexOf("--b"));
    const more = Array.from({ length: 11 }, (_, n) => `${part.replaceAll("plan", `plan-${n}`)}QUJD\r\n`);
    const found = await read({ head: MIXED, body: `${more.join("")}--b--\r\n` });
    expect(found?.files.map(({ name }) => name)).toEqual(
      Array.from({ length: 10 }, (_, n) => `plan-${n}.pdf`),
    );
    expect(found?.text).toBe(
      "(Files came with this mail that are not taken: plan-10.pdf. Of a mail of up to 10 MB the first 10 are. " +
        "Tell its sender.)",
    );
  });

  it.each([
    [0, 1],
    [1, 0],
  ])("of 10 MB and %i bytes brings %i files", async (beyond, count) => {
    const end = "\r\n--b--\r\n";
    const { rawSize } = mail({ head: MIXED, body: `${LETTER}${end}` });
    const size = 10 * 1024 * 1024 + beyond - rawSize;
    const found = await read({
      head: MIXED,
      body: `${LETTER}${"QUJD".repeat(size / 4 + 1).slice(0, size)}${end}`,
    });
    expect(found?.files).toHaveLength(count);
    expect(found?.text).toContain("Look at this.");
    expect(found?.text.includes("not taken: plan.pdf")).toBe(count === 0);
  });

  it("that is too large is read to its first two megabytes, however long its files are", async () => {
    const message = mail({ head: MIXED, body: LETTER });
    const piece = new TextEncoder().encode("QUJD\r\n".repeat(10_000));
    let given = 0;
    let isLeft = false;
    const begun = message.raw.getReader();
    const endless = new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const { value = piece } = await begun.read();
        given += value.byteLength;
        controller.enqueue(value);
      },
      cancel: () => {
        isLeft = true;
      },
    });
    const large = { ...message, headers: message.headers, rawSize: 25 * 1024 * 1024, raw: endless };
    const found = await mailOf(large, ACCOUNT);
    expect(found?.text).toContain("Look at this.");
    expect(found?.text).toContain("plan.pdf");
    expect([isLeft, given < 3_000_000]).toEqual([true, true]);
  });

  it("is taken at our address with a detail, too", async () => {
    expect(await read({ to: "Hermes+lists@example.com" })).not.toBeNull();
    expect(await read({ to: "info@example.com" })).toBeNull();
  });
});

describe("a mail that is not for us", () => {
  it("of a stranger is not even read", async () => {
    const reads: string[] = [];
    for (const from of [
      "eve@gmail.test",
      "ann@gmail.test <eve@gmail.test>",
      '"ann@gmail.test" <eve@gmail.test>',
      "",
      "Ann <ann@gmail.test>, Eve <eve@gmail.test>",
      "Eve <eve@gmail.test>, Ann <ann@gmail.test>",
      "eve@gmail.test, <ann@gmail.test>",
      "Team: ann@gmail.test;",
      "(a comment) ann@gmail.test",
    ])
      expect([from, await mailOf(mail({ from }, reads), ACCOUNT)]).toEqual([from, null]);
    expect(reads).toEqual([]);
  });

  it.each([
    ["of another domain's proof", stamp("dmarc=pass header.from=evil.test")],
    ["of a longer name", stamp("dmarc=pass header.from=gmail.test.evil.test")],
    ["that failed", stamp("dmarc=fail header.from=gmail.test policy.dmarc=none")],
    ["without a policy", stamp("dmarc=none header.from=gmail.test")],
    ["of which nothing is said", stamp("dkim=pass header.d=gmail.test")],
    ["in a comment", stamp("dmarc=fail (dmarc=pass header.from=gmail.test) header.from=x")],
    [
      "within what its sender is quoted with",
      stamp(
        'dmarc=fail header.from=gmail.test;\r\n\tspf=pass smtp.mailfrom="a; dmarc=pass header.from=gmail.test"@x',
      ),
    ],
    [
      "behind another",
      stamp(
        "dmarc=fail header.from=gmail.test;\r\n\tspf=pass smtp.helo=a; dmarc=pass header.from=gmail.test",
      ),
    ],
    ["with two of them", stamp("dmarc=pass header.from=gmail.test; dmarc=pass header.from=gmail.test")],
    ["nobody looked at", []],
    [
      "proved by another server",
      ["Authentication-Results: mx.evil.test; dmarc=pass header.from=gmail.test", ...stamp("dmarc=none")],
    ],
    [
      "that proves itself",
      [
        ...stamp("dmarc=fail header.from=gmail.test"),
        "Authentication-Results: mx.cloudflare.net; dmarc=pass header.from=gmail.test",
      ],
    ],
  ])("%s is nobody's", async (_, stamped) => {
    expect(await read({ stamped })).toBeNull();
  });

  it("has one sender: a second one above is no other", async () => {
    expect(await read({ stamped: [...stamp(), "From: Eve <eve@gmail.test>"] })).toBeNull();
  });

  it.each([
    ["Auto-Submitted: auto-replied"],
    ["Auto-Submitted: auto-generated; x=y"],
    ["Precedence: bulk"],
    ["Precedence: List"],
    ["List-Id: <all.gmail.test>"],
    ["Content-Type: multipart/report; report-type=delivery-status; boundary=b"],
  ])("is a program's: %s", async (line) => {
    expect(await read({ head: [line] })).toBeNull();
  });

  it("is a program's without an envelope's sender, and a person's that says so", async () => {
    for (const envelope of ["", "<>", " "]) expect(await read({ envelope })).toBeNull();
    expect(await read({ head: ["Auto-Submitted: no", "Message-ID: <x@gmail.test>"] })).not.toBeNull();
  });
});

describe("the words of a mail", () => {
  const own = "Yes, at eight.";
  it.each([
    [
      "English",
      `${own}\n\nOn Mon, Jun 15, 2026 at 9:01 AM Hermes <hermes@example.com> wrote:\n\n> At eight?\n> H`,
    ],
    [
      "wrapped",
      `${own}\n\nOn Mon, Jun 15, 2026 at 9:01 AM Hermes\n<hermes@example.com> wrote:\n> At eight?\n>\n> H\n`,
    ],
    ["German", `${own}\r\n\r\nAm 15.06.26 um 09:01 schrieb Hermes:\r\n> Um acht?\r\n`],
    ["Outlook", `${own}\n\n-----Original Message-----\nFrom: Hermes\nSent: Monday\n\nAt eight?`],
    [
      "a newer Outlook",
      `${own}\n\n________________________________\nFrom: Hermes <h@x>\nSent: Monday, June 15\nTo: Ann\n\nAt eight?`,
    ],
  ])("are without the mail that it answers: %s", (_, text) => {
    expect(wordsOf("Re: Dinner", text, undefined)).toBe(own);
  });

  it("keep what is answered in between, and what is handed on", () => {
    const between = "On Monday Hermes wrote:\n> At eight?\nYes.\n> And who?\nBob.";
    expect(wordsOf("Re: x", between, undefined)).toBe(between);
    const handedOn = "Look:\n\n-----Original Message-----\nFrom: Bob\nSent: Monday\n\nHello";
    expect(wordsOf("Fwd: x", handedOn, undefined)).toBe(handedOn);
    const quoteAlone = "On Monday Hermes wrote:\n> At eight?";
    expect(wordsOf("Re: x", quoteAlone, undefined)).toBe(quoteAlone);
    expect(wordsOf("x", "Buy:\n- milk\n- bread", undefined)).toBe("Buy:\n- milk\n- bread");
  });

  it("are those of the page where there is no text", () => {
    const page =
      "<html><head><title>t</title><style>p{}</style></head><body><!-- no --><p>Dear&nbsp;<b>Hermes</b>,</p>\n" +
      "<div>1 &lt; 2 &amp;&#233;&#x263a;<br>done</div><ul><li>milk</li><li>bread</li></ul><script>x()</script></body>";
    expect(wordsOf("x", undefined, page)).toBe("Dear Hermes,\n1 < 2 &é☺\ndone\n\n- milk\n- bread");
    expect(wordsOf("x", "text", "<p>page</p>")).toBe("text");
  });
});

/** What the binding was given. */
type Given = Parameters<SendEmail["send"]>[0] & { subject: string; headers: Record<string, string> };

function channel(
  test: (
    its: ReturnType<typeof email.open>,
    given: Given[],
    time: ManualTime,
    fails: (error: unknown) => void,
  ) => Promise<void>,
  bound = true,
): Promise<void> {
  const stub = env.PLAIN.getByName(`mail ${crypto.randomUUID()}`);
  return runInDurableObject(stub, async (_, { storage }) => {
    const given: Given[] = [];
    let failure: unknown = null;
    const time = new ManualTime();
    const send = async (it: Given) => {
      if (failure !== null) throw failure;
      given.push(it);
      return { messageId: `<${given.length}@cloudflare-email.test>` };
    };
    const parts: PlatformParts = {
      time,
      fetch: () => Promise.reject(new Error("nobody is called")),
      mail: bound ? ({ send } as unknown as SendEmail) : undefined,
      ways: new Ways(storage.kv, "email"),
      given: { get: () => undefined, put: () => undefined },
    };
    await test(email.open(ACCOUNT, parts), given, time, (error) => {
      failure = error;
    });
  });
}

const told = (more: Partial<Mail> = {}): Mail => ({
  id: "m1",
  from: "ann@gmail.test",
  name: "Ann",
  subject: "Dinner",
  references: ["<zero@gmail.test>", "<one@gmail.test>"],
  text: "Where?",
  files: [],
  ...more,
});

const answer = (more: Partial<Outgoing> = {}): Outgoing => ({
  chat: "ann@gmail.test",
  thread: null,
  text: "At home.",
  replyTo: "m1",
  ...more,
});

describe("an answer", () => {
  it("goes into the thread of its mail, from our address, and says that a program wrote it", () =>
    channel(async (its, given) => {
      const [update] = await its.read(told());
      expect(messageIn(update as never)).toMatchObject({
        text: "Where?",
        message_id: "m1",
        source: { platform: "email", chat_id: "ann@gmail.test", chat_type: "dm", user_name: "Ann" },
      });
      expect(await its.send(answer())).toBe("<1@cloudflare-email.test>");
      expect(given).toEqual([
        {
          to: "ann@gmail.test",
          from: { name: "Hermes", email: "hermes@example.com" },
          subject: "Re: Dinner",
          text: "At home.",
          headers: {
            "Auto-Submitted": "auto-replied",
            "In-Reply-To": "<one@gmail.test>",
            References: "<zero@gmail.test> <one@gmail.test>",
          },
        },
      ]);
    }));

  it("keeps to what Cloudflare takes, however long its thread and its subject are", () =>
    channel(async (its, given) => {
      const references = Array.from({ length: 99 }, (_, n) => `<${n}-${"x".repeat(60)}@gmail.test>`);
      await its.read(told({ subject: `RE: a\r\n\0Bcc: eve@x ${"y".repeat(2000)}`, references }));
      await its.send(answer());
      const { subject, headers } = given[0] as Given;
      expect(subject).toMatch(/^RE: a Bcc: eve@x y+$/);
      expect(subject.length).toBeLessThan(998);
      expect(headers["References"]?.length).toBeLessThanOrEqual(2048);
      expect(headers["References"]?.split(" ")[0]).toBe(references[0]);
      expect(headers["References"]?.endsWith(` ${references[98]}`)).toBe(true);
    }));

  it("to a mail without a name goes into no thread, and a word of one's own is a mail of its own", () =>
    channel(async (its, given) => {
      await its.read(told({ references: [] }));
      await its.send(answer());
      await its.send(answer({ replyTo: null, text: "The report\n\nAll is well." }));
      expect(given.map(({ subject, headers }) => [subject, headers])).toEqual([
        ["Re: Dinner", { "Auto-Submitted": "auto-replied" }],
        ["The report", { "Auto-Submitted": "auto-generated" }],
      ]);
    }));

  it("may be a file, in the thread too", () =>
    channel(async (its, given) => {
      await its.read(told());
      const file = (name: string, mime: string) => ({
        ...{ kind: "document" as const, name, mime, size: 9 },
        bytes: () => new Response("the bytes").body as ReadableStream<Uint8Array>,
      });
      await its.sendFile?.(answer({ text: "" }), file("a.pdf", "application/pdf"));
      await its.sendFile?.(answer({ text: "look" }), file("", ""));
      const [pdf, nameless] = given as (Given & { attachments: Record<string, unknown>[] })[];
      expect(pdf).toMatchObject({ to: "ann@gmail.test", subject: "Re: Dinner", text: "a.pdf" });
      expect(pdf?.headers["In-Reply-To"]).toBe("<one@gmail.test>");
      const [attached, ...others] = pdf?.attachments ?? [];
      expect(others).toEqual([]);
      expect(attached).toMatchObject({
        ...{ disposition: "attachment", filename: "a.pdf", type: "application/pdf" },
      });
      expect(new TextDecoder().decode(attached?.["content"] as ArrayBuffer)).toBe("the bytes");
      expect(nameless?.text).toBe("look");
      expect(nameless?.attachments[0]).toMatchObject({ filename: "file", type: "application/octet-stream" });
    }));

  it("is a sentence for a mail that says nothing", () =>
    channel(async (its) => {
      expect(await its.read(told({ text: "" }))).toEqual([
        expect.objectContaining({ kind: "answer", chat: "ann@gmail.test", message: "m1" }),
      ]);
    }));

  it.each([
    ["E_RECIPIENT_NOT_ALLOWED", true, false, 0],
    ["E_HEADER_NOT_ALLOWED", true, false, 0],
    ["E_DELIVERY_FAILED", true, false, 0],
    ["E_RATE_LIMIT_EXCEEDED", false, false, 60_000],
    ["E_INTERNAL_SERVER_ERROR", false, true, 0],
  ])("that is refused: %s", (code, isFinal, isUnsure, retryAfter) =>
    channel(async (its, _given, _time, fails) => {
      fails(Object.assign(new Error("ann@gmail.test is a canary"), { code }));
      const refused = await its.send(answer()).catch((error: SendRefused) => error);
      expect(refused).toBeInstanceOf(SendRefused);
      expect(refused).toMatchObject({ isFinal, isUnsure, retryAfter, message: `Email Routing: ${code}` });
    }),
  );

  it("waits for a person who has yet to verify their address", () =>
    channel(async (its, _given, _time, fails) => {
      fails(new Error("destination address is not a verified address"));
      await expect(its.send(answer())).rejects.toMatchObject({ isFinal: false, isUnsure: false });
    }));

  it("needs the binding, and says so", () =>
    channel(async (its) => {
      await expect(its.register("", true)).rejects.toThrow("no binding");
      await expect(its.send(answer())).rejects.toMatchObject({ isFinal: false });
    }, false));
});

describe("the Worker", () => {
  const hand = async (message: ForwardableEmailMessage, receive: (...given: unknown[]) => Promise<void>) => {
    const configured = {
      ...env,
      HERMES_CHANNELS: JSON.stringify({ email: ACCOUNT }),
      INSTANCE: { getByName: () => ({ receive }) },
    } as unknown as Env;
    await entry.email?.(message, configured, createExecutionContext());
  };

  it("has a mail stored before its sender is told that it was taken, and asks nobody about a stranger's", async () => {
    const asked: unknown[][] = [];
    const receive = async (...given: unknown[]) => {
      await scheduler.wait(1);
      asked.push(given);
    };
    await hand(mail(), receive);
    expect(asked).toEqual([["email", expect.objectContaining({ from: "ann@gmail.test" })]]);
    await hand(mail({ from: "eve@gmail.test" }), receive);
    expect(asked).toHaveLength(1);
  });

  it("has the sender's server try again what could not be stored", async () => {
    await expect(hand(mail(), () => Promise.reject(new Error("torn down")))).rejects.toThrow();
  });

  it("takes no mail where there is no such channel", async () => {
    await entry.email?.(mail(), env, createExecutionContext());
  });
});
