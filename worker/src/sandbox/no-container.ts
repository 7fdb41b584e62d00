// SPDX-License-Identifier: Apache-2.0
/** What stands for the sandbox as long as Cloudflare has no container application for the Worker. */
import { ApiError } from "../base/errors.ts";
import {
  type Exit,
  LOCAL_START,
  type Sandbox,
  type SandboxInfo,
  type SandboxProcess,
  type Snapshot,
} from "./sandbox.ts";

/** Refuses everything by its reason, so that the gate and the instance's own answers go on. */
export class NoContainer implements Sandbox {
  readonly startPatience = LOCAL_START;

  inspect(): Promise<SandboxInfo> {
    return refused();
  }

  start(): Promise<void> {
    return refused();
  }

  exec(): Promise<SandboxProcess> {
    return refused();
  }

  getTcpPort(): { fetch(): Promise<Response> } {
    return { fetch: refused };
  }

  signal(): Promise<void> {
    return refused();
  }

  /** Nothing runs. */
  destroy(): Promise<void> {
    return Promise.resolve();
  }

  monitor(): Promise<Exit> {
    return refused();
  }

  setInactivityTimeout(): Promise<void> {
    return refused();
  }

  snapshotContainer(): Promise<Snapshot> {
    return refused();
  }
}

function refused(): Promise<never> {
  return Promise.reject(
    new ApiError({
      status: 503,
      code: "no_container",
      message:
        "Cloudflare has no container application for this Worker, or not yet. " +
        "Run the deploy again where this lasts: it makes one.",
      retryAfter: 10,
    }),
  );
}
