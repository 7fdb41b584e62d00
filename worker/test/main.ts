// SPDX-License-Identifier: Apache-2.0
/**
 * The Worker under test; a bare Durable Object that lends its storage to tests of single parts; and the wires
 * to the stand-in machine. The wires exist because a refused connection has to be a refused connection here,
 * while everything that the stand-in throws beside workerd would arrive as a polite answer.
 */
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";

export { Dashboard, default, HermesInstance, Providers } from "../src/index.ts";

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
  override async fetch(request: Request): Promise<Response> {
    if (request.headers.get("upgrade") !== "websocket") return over(this.env.MACHINE_LOOPBACK, request);
    const headers = new Headers(request.headers);
    headers.delete("upgrade");
    const answer = await over(this.env.MACHINE_LOOPBACK, new Request(request.url, { headers }));
    if (!answer.ok || answer.headers.has("x-stand-in-no-socket")) return answer;
    return echo(request.headers.get("sec-websocket-protocol"));
  }
}

/** A WebSocket that says everything again; the wire to the machine carries none. */
function echo(protocol: string | null): Response {
  const { 0: outside, 1: inside } = new WebSocketPair();
  inside.binaryType = "arraybuffer";
  inside.addEventListener("message", ({ data }) => {
    if (data === "bye") inside.close(4000, "as you wish");
    else inside.send(data);
  });
  inside.accept();
  const headers = new Headers(protocol === null ? {} : { "sec-websocket-protocol": protocol });
  return new Response(null, { status: 101, webSocket: outside, headers });
}

/** A provider's network. */
export class ProviderWire extends WorkerEntrypoint<Wires> {
  override fetch(request: Request): Promise<Response> {
    return over(this.env.MACHINE_PROVIDER, request);
  }
}
