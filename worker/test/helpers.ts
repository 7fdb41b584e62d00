// SPDX-License-Identifier: Apache-2.0
import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { env as bare, exports } from "cloudflare:workers";
import type { Env } from "../src/config/settings.ts";
import { instanceOf } from "../src/gate/instance-stub.ts";
import entry from "../src/index.ts";
import type { HermesInstance } from "../src/instance/instance.ts";
import type { Knobs, Seen } from "./stand-ins/machine.ts";

export const env = bare as unknown as Env & { PLAIN: DurableObjectNamespace; ENGINE: Fetcher };
export const TOKEN = "correct-horse-battery-staple";

type IncomingRequest = Parameters<NonNullable<ExportedHandler<Env>["fetch"]>>[0];

const worker = exports as unknown as { default: Fetcher; Dashboard: Fetcher; Providers: Fetcher };

/** The one instance. */
export function instance(): DurableObjectStub<HermesInstance> {
  return instanceOf(env);
}

/** A request to the Worker with the right token. */
export function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (!headers.has("authorization")) headers.set("authorization", `Bearer ${TOKEN}`);
  return worker.default.fetch(`http://worker${path}`, { ...init, headers });
}

/** A request with exactly these headers. */
export function askBare(path: string, init: RequestInit = {}): Promise<Response> {
  return worker.default.fetch(`http://worker${path}`, init);
}

/** A request to a Worker that is configured otherwise; the instance behind it is the same. */
export function askWith(
  change: Record<string, string | null>,
  path: string,
  headers: Record<string, string>,
  init: RequestInit = {},
  base = "http://worker",
): Promise<Response> {
  const configured = { ...env, ...change } as Env;
  const request = new Request(`${base}${path}`, { ...init, headers }) as IncomingRequest;
  return Promise.resolve(entry.fetch?.(request, configured, createExecutionContext()) as Promise<Response>);
}

/** A request to the dashboard on its hostname. */
export function askDashboard(path: string, init: RequestInit = {}): Promise<Response> {
  return worker.default.fetch(`https://hermes.example${path}`, { redirect: "manual", ...init });
}

/** A request to the dashboard's own socket. */
export function askDashboardSocket(url: string, init: RequestInit = {}): Promise<Response> {
  return worker.Dashboard.fetch(url, { redirect: "manual", ...init });
}

/** A request to the `Providers` entrypoint. */
export function askProviders(url: string, init: RequestInit = {}): Promise<Response> {
  return worker.Providers.fetch(url, init);
}

/** One chat turn. */
export function chat(text: string, session?: string, more: Record<string, unknown> = {}): Promise<Response> {
  return ask("/v1/chat/completions", {
    method: "POST",
    headers: session === undefined ? {} : { "x-hermes-session-id": session },
    body: JSON.stringify({ model: "any", messages: [{ role: "user", content: text }], ...more }),
  });
}

/** What a chat answered. */
export async function said(response: Response): Promise<string> {
  const body = (await response.json()) as { choices?: { message: { content: string } }[] };
  return body.choices?.[0]?.message.content ?? JSON.stringify(body);
}

/** The error of an answer. */
export async function refusal(
  response: Response,
): Promise<{ status: number; code: string; message: string }> {
  const { error } = (await response.json()) as {
    error: { code: string; message: string; request_id: string };
  };
  return { status: response.status, code: error.code, message: error.message };
}

async function control(order: Record<string, unknown>): Promise<Seen> {
  const answer = await env.ENGINE.fetch("http://control/", { method: "POST", body: JSON.stringify(order) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** Steers the stand-in machine. */
export const machine = {
  reset: () => control({ do: "reset" }),
  set: (knobs: Partial<Knobs>) => control({ do: "set", knobs }),
  provider: (
    answer: { status: number; headers: Record<string, string>; body: string; endless?: true } | null,
  ) => control({ do: "provider", answer }),
  release: () => control({ do: "release" }),
  kill: (exitCode: number) => control({ do: "kill", exitCode }),
  look: () => control({ do: "look" }),
};

/** A machine with nothing on it and an instance that remembers nothing. */
export async function anew(): Promise<void> {
  await machine.reset();
  await runInDurableObject(instance(), async (_, state) => {
    await state.storage.deleteAlarm();
    await state.storage.deleteAll();
  });
  await crash();
}

/**
 * Whether anything has begun to wake Hermes. It is asked on the way that a wake would have taken, behind it: one that
 * nobody waits for has not reached the machine yet, nor perhaps the instance.
 */
export async function woken(): Promise<boolean> {
  const { state } = (await (await ask("/api/instance/status")).json()) as { state: string };
  return state !== "asleep" || (await machine.look()).starts > 0;
}

/** The object is torn down as by a deploy or a crash; its storage stays. */
export async function crash(): Promise<void> {
  await runInDurableObject(instance(), async (_, state) => {
    await state.storage.sync();
    state.abort("torn down by the test");
  }).catch(() => undefined);
}

/** Waits until a condition holds; for effects that arrive by another connection. */
export async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 200; round++) {
    if (await holds()) return;
    await scheduler.wait(10);
  }
  throw new Error("It never came true.");
}
