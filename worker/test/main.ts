// SPDX-License-Identifier: Apache-2.0
/**
 * The Worker under test; a bare Durable Object that lends its storage to tests of single parts; and the wires
 * to the stand-in machine. The wires exist because a refused connection has to be a refused connection here,
 * while everything that the stand-in throws beside workerd would arrive as a polite answer.
 */
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";

export { default, HermesInstance, Providers } from "../src/index.ts";

/** Storage, nothing else. */
export class Plain extends DurableObject {}

type Wires = Record<"MACHINE_ENGINE" | "MACHINE_LOOPBACK" | "MACHINE_PROVIDER", Fetcher>;

async function over(wire: Fetcher, request: Request): Promise<Response> {
  const answer = await wire.fetch(request);
  const refused = answer.headers.get("x-stand-in-refused");
  if (refused !== null) throw new Error(refused);
  return answer;
}

/** The engine's unix socket. */
export class EngineWire extends WorkerEntrypoint<Wires> {
  override fetch(request: Request): Promise<Response> {
    return over(this.env.MACHINE_ENGINE, request);
  }
}

/** 127.0.0.1. */
export class LoopbackWire extends WorkerEntrypoint<Wires> {
  override fetch(request: Request): Promise<Response> {
    return over(this.env.MACHINE_LOOPBACK, request);
  }
}

/** A provider's network. */
export class ProviderWire extends WorkerEntrypoint<Wires> {
  override fetch(request: Request): Promise<Response> {
    return over(this.env.MACHINE_PROVIDER, request);
  }
}
