// SPDX-License-Identifier: Apache-2.0
/**
 * Webhooks: what a program somewhere tells Hermes. Each has a name, a secret of its own, and a way in which its senders
 * sign; what is not signed by it, or was signed long ago, is refused before the instance is asked.
 */
import { digestOf, hex } from "../base/digests.ts";
import type { HookSettings } from "../config/channels.ts";
import type { Incoming, Source } from "./channel.ts";
import { AGE, type Bytes, hmacKey, joined, ofBase64, ofHex, plain } from "./signatures.ts";

/** The longest text that is made of a delivery, and of one thing in it. */
const LONGEST = 16_000;
const LONGEST_PART = 4000;

/** A secret of Svix's in base64; the controller refuses one that only begins like it. */
const ENCODED = /^whsec_((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)$/;

/** What a sender sent. */
export interface Delivery {
  headers: Headers;
  /** As it was signed. */
  body: Bytes;
}

/** A signed text and its signatures; of when it is, where the sender says so. */
interface Signed {
  text: Bytes;
  signatures: Bytes[];
  /** Milliseconds since the epoch. */
  at: number | null;
}

/** How one kind of sender signs, and says what it is about. */
interface Kind {
  /** Without one of these headers there is no signature. */
  headers: readonly string[];
  /** @returns `null` when there is no signature of this kind. */
  signed(delivery: Delivery): Promise<Signed | null> | Signed | null;
  key(secret: string): Bytes;
  /** The sender's own name for a delivery, which it signed; empty = none. */
  id(delivery: Delivery, told: Json): string;
  event(headers: Headers, told: Json): string;
}

type Json = Record<string, unknown>;

const COMMON = plain("the same text");
const typeOf = (_: Headers, told: Json) => String(told["event_type"] ?? told["type"] ?? "");

const github: Kind = {
  headers: ["x-hub-signature-256"],
  signed({ headers, body }) {
    const signature = /^sha256=([0-9a-f]{64})$/.exec(headers.get("x-hub-signature-256") ?? "")?.[1];
    return signature === undefined ? null : { text: body, signatures: [ofHex(signature)], at: null };
  },
  key: plain,
  // The one in its header is not signed.
  id: () => "",
  event: (headers) => headers.get("x-github-event") ?? "",
};

const gitlab: Kind = {
  headers: ["x-gitlab-token"],
  // It sends the secret itself. Two that sign one text alike are alike: so it is compared as signatures are.
  async signed({ headers }) {
    const token = headers.get("x-gitlab-token");
    if (!token) return null;
    const signature = await crypto.subtle.sign("HMAC", await hmacKey(plain(token)), COMMON);
    return { text: COMMON, signatures: [new Uint8Array(signature)], at: null };
  },
  key: plain,
  id: ({ headers }) => headers.get("idempotency-key") ?? "",
  event: (headers) => headers.get("x-gitlab-event") ?? "",
};

const stripe: Kind = {
  headers: ["stripe-signature"],
  signed({ headers, body }) {
    const parts = (headers.get("stripe-signature") ?? "").split(",").map((part) => part.trim().split("="));
    const of = (name: string) => parts.filter(([key]) => key === name).map(([, value]) => value ?? "");
    const [at = ""] = of("t");
    const signatures = of("v1").filter((one) => /^[0-9a-f]{64}$/.test(one));
    return timed(at, joined(`${at}.`, body), signatures.map(ofHex));
  },
  key: plain,
  id: (_, told) => (typeof told["id"] === "string" ? told["id"] : ""),
  event: typeOf,
};

/** Svix, and who else keeps to Standard Webhooks. */
const svix: Kind = {
  headers: ["svix-signature", "webhook-signature"],
  signed({ headers, body }) {
    const of = (name: string) => headers.get(`svix-${name}`) ?? headers.get(`webhook-${name}`) ?? "";
    const [id, at] = [of("id"), of("timestamp")];
    const signatures = of("signature")
      .split(" ")
      .flatMap((one) => (/^v1,([A-Za-z0-9+/]{43}=)$/.exec(one)?.[1] ?? "") || [])
      .map(ofBase64);
    return id === "" ? null : timed(at, joined(`${id}.${at}.`, body), signatures);
  },
  key(secret) {
    const encoded = ENCODED.exec(secret)?.[1];
    return encoded === undefined ? plain(secret) : ofBase64(encoded);
  },
  id: ({ headers }) => headers.get("svix-id") ?? headers.get("webhook-id") ?? "",
  event: typeOf,
};

/** As Hermes' own webhooks are signed. */
const hmac: Kind = {
  headers: ["x-webhook-signature-v2"],
  signed({ headers, body }) {
    const signature = headers.get("x-webhook-signature-v2") ?? "";
    const at = headers.get("x-webhook-timestamp") ?? "";
    return /^[0-9a-f]{64}$/.test(signature) ? timed(at, joined(`${at}.`, body), [ofHex(signature)]) : null;
  },
  key: plain,
  id: () => "",
  event: typeOf,
};

const KINDS: Readonly<Record<HookSettings["kind"], Kind>> = { github, gitlab, stripe, svix, hmac };

/** Whether a delivery has anything like a signature: the body of one that has none is not even read. */
export function isSigned({ kind }: HookSettings, headers: Headers): boolean {
  return KINDS[kind].headers.some((name) => headers.has(name));
}

/** Whether a delivery is of somebody who knows the hook's secret, and of now. */
export async function isGenuine(hook: HookSettings, delivery: Delivery, now: number): Promise<boolean> {
  const kind = KINDS[hook.kind];
  const signed = await kind.signed(delivery);
  if (signed === null || (signed.at !== null && Math.abs(now - signed.at) > AGE)) return false;
  for (const secret of hook.secrets) {
    const key = await hmacKey(kind.key(secret));
    for (const signature of signed.signatures)
      if (await crypto.subtle.verify("HMAC", key, signature, signed.text)) return true;
  }
  return false;
}

/**
 * Makes a message of a delivery that is genuine.
 * @returns `null` for an event that the hook does not want.
 * @throws Error when its body is no JSON.
 */
export async function messageOf(
  name: string,
  hook: HookSettings,
  delivery: Delivery,
): Promise<Incoming | null> {
  const kind = KINDS[hook.kind];
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(delivery.body);
  const body: unknown = JSON.parse(text);
  const told = typeof body === "object" && body !== null ? (body as Json) : {};
  const event = kind.event(delivery.headers, told);
  // GitHub's word that the hook is there.
  const isWanted = hook.events.length === 0 ? event !== "ping" : hook.events.includes(event);
  if (!isWanted) return null;
  // Of senders who sign no name for it, what was signed is the name.
  const signed = hook.kind === "hmac" ? `${delivery.headers.get("x-webhook-timestamp")}.${text}` : text;
  const id = kind.id(delivery, told) || hex(await digestOf(signed));
  const message = hex(await digestOf(`${name} ${id}`)).slice(0, 24);
  const said = rendered(hook.prompt, name, event, body);
  return {
    id,
    ...(hook.deliverOnly ? { isNotice: true } : {}),
    event: {
      // No text of a stranger's is a command of Hermes', as one that began with a slash would be.
      text: hook.deliverOnly ? said : `[webhook ${name}]\n${said}`,
      message_type: "text",
      message_id: `hook-${message}`,
      source: { ...sourceOf(name, hook, message), message_id: `hook-${message}` },
    },
  };
}

function sourceOf(
  name: string,
  { chat, session }: HookSettings,
  message: string,
): Omit<Source, "message_id"> {
  if (chat === null) {
    const own = session === "" ? `hook/${name}/${message}` : `session/${session}`;
    return {
      platform: "webhook",
      chat_id: own,
      chat_type: "webhook",
      chat_name: `webhook/${name}`,
      user_id: "webhook",
      user_name: name,
    };
  }
  const isGroup = chat.id.startsWith("-") || /^[CG]/.test(chat.id);
  const user = isGroup ? "webhook" : chat.id;
  const type = isGroup ? "group" : "dm";
  return { platform: chat.platform, chat_id: chat.id, chat_type: type, user_id: user, user_name: name };
}

/** A prompt with what a delivery tells in the places of its `{names}`; what is put there is not looked through again. */
function rendered(prompt: string, name: string, event: string, body: unknown): string {
  const template = prompt || `The webhook ${name} tells of "{event_type}":\n\n{__raw__}`;
  const text = template.replace(/\{([\w.-]+)\}/g, (place, path: string) => {
    if (path === "event_type") return event;
    const value = path === "__raw__" ? body : at(body, path);
    if (value === undefined) return place;
    const said = typeof value === "string" ? value : JSON.stringify(value, null, 2);
    return said.slice(0, LONGEST_PART);
  });
  return text.slice(0, LONGEST);
}

/** What stands at `a.0.b` of something that was JSON. */
function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((of, key) => {
    if (typeof of !== "object" || of === null || !Object.hasOwn(of, key)) return undefined;
    return (of as Json)[key];
  }, value);
}

function timed(at: string, text: Bytes, signatures: Bytes[]): Signed | null {
  return /^\d{1,12}$/.test(at) ? { text, signatures, at: Number(at) * 1000 } : null;
}
