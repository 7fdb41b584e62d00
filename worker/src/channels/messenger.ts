// SPDX-License-Identifier: Apache-2.0
/** What the platforms' channels share: messages are sent here, and their APIs are asked in JSON. */
import {
  type Channel,
  type Outgoing,
  type PlatformParts,
  type Registered,
  SendRefused,
  type Update,
} from "./channel.ts";
import type { Body } from "./multipart.ts";
import { posted } from "./posted.ts";

/** Refusals by their status after which another attempt may end otherwise: a token that is being replaced among them. */
const FOR_NOW = [401, 408, 429];

/** A file is with a platform within so long; milliseconds. */
export const UPLOAD_PATIENCE = 120_000;

/** One account's calls; `S` is what its owner declared. */
export abstract class Messenger<S> implements Channel {
  /** What people call the platform. */
  protected abstract readonly label: string;
  readonly receives: "webhook" | "poll" = "webhook";
  readonly showsFor: number = 0;
  protected readonly settings: S;
  protected readonly parts: PlatformParts;

  constructor(settings: S, parts: PlatformParts) {
    this.settings = settings;
    this.parts = parts;
  }

  async read(told: object): Promise<Update[]> {
    return (told as { updates: Update[] }).updates;
  }

  abstract send(message: Outgoing): Promise<string>;

  async show(_chat: string, _thread: string | null): Promise<void> {}

  abstract register(address: string, look: boolean): Promise<Registered>;

  async unregister(): Promise<void> {}

  /** What a platform says that tells nothing of deliveries. */
  protected registered(bot: string, address: string, changed = false): Registered {
    return { bot, address, trouble: null, waiting: 0, changed };
  }

  /**
   * Asks the platform.
   * @param authorization by what it knows us; empty = by nothing.
   * @returns its answer, empty when that is no JSON.
   * @throws SendRefused when it cannot be reached.
   */
  protected async ask<A extends object>(
    url: string,
    authorization: string,
    method: string,
    body?: object,
  ): Promise<{ response: Response; answer: Partial<A> }> {
    const isForm = body instanceof URLSearchParams;
    const response = await posted(this.parts, url, this.label, {
      method,
      headers: {
        ...(authorization === "" ? {} : { authorization }),
        ...(isForm ? {} : { "content-type": "application/json; charset=utf-8" }),
      },
      ...(body === undefined ? {} : { body: isForm ? body : JSON.stringify(body) }),
    });
    return { response, answer: await response.json<Partial<A>>().catch(() => ({})) };
  }

  /** Gives the platform a file. @throws SendRefused when it cannot be reached. */
  protected async upload<A extends object>(
    url: string,
    authorization: string,
    { headers, body }: Body,
  ): Promise<{ response: Response; answer: Partial<A> }> {
    const known = authorization === "" ? {} : { authorization };
    const init = { method: "POST", headers: { ...headers, ...known }, body };
    const response = await posted(this.parts, url, this.label, init, UPLOAD_PATIENCE);
    return { response, answer: await response.json<Partial<A>>().catch(() => ({})) };
  }

  /**
   * Fetches a file's bytes.
   * @param isIt whether an answer is the file, and no page that says something else.
   * @param mayLead whether the platform may lead to where the file is, at which it wants no proof.
   * @throws SendRefused.
   */
  protected async bytesOf(
    url: string,
    authorization = "",
    isIt: (response: Response) => boolean = () => true,
    mayLead = false,
  ): Promise<ReadableStream<Uint8Array>> {
    const headers = authorization === "" ? {} : { authorization };
    const response = await posted(this.parts, url, this.label, { method: "GET", headers });
    if (response.status === 200 && response.body !== null && isIt(response)) return response.body;
    await response.body?.cancel();
    const there = response.headers.get("location");
    const target = mayLead && there ? URL.parse(there, url) : null;
    if (target !== null && [new URL(url).protocol, "https:"].includes(target.protocol))
      return this.bytesOf(target.href, "", isIt);
    if (response.status < 400) throw new SendRefused(`${this.label}: a file may not be read`, true);
    throw this.refusal(response, `a file was refused with ${response.status}`);
  }

  /** The same with a token, which goes to nobody but the platform. @param homes the origins of its files. */
  protected bytesAt(
    url: string,
    homes: readonly string[],
    authorization: string,
    isIt?: (response: Response) => boolean,
    mayLead = false,
  ): Promise<ReadableStream<Uint8Array>> {
    this.refuseUnless(url, homes);
    return this.bytesOf(url, authorization, isIt, mayLead);
  }

  /** @throws SendRefused for an address that is none of the platform's files. */
  protected refuseUnless(url: string, homes: readonly string[]): void {
    if (!homes.includes(URL.parse(url)?.origin ?? ""))
      throw new SendRefused(`${this.label}: a file is somewhere else`, true);
  }

  /** A refusal whose status tells whether it is final. */
  protected refusal({ status, headers }: Response, why: string | undefined, seconds = 0): SendRefused {
    const isFinal = status >= 400 && status < 500 && !FOR_NOW.includes(status);
    const wait = (seconds || Number(headers.get("retry-after") ?? 0) || 0) * 1000;
    return new SendRefused(`${this.label}: ${why ?? `refused with ${status}`}`, isFinal, wait);
  }
}
