// SPDX-License-Identifier: Apache-2.0
/** The little of Node that the simulator needs; the types of the Worker's own platform are the global ones. */
declare module "node:sqlite" {
  export class DatabaseSync {
    constructor(path: string);
    exec(sql: string): void;
    prepare(sql: string): { all(...bindings: unknown[]): Record<string, unknown>[] };
    close(): void;
  }
}
declare module "node:crypto" {
  export function createHash(name: string): {
    update(data: Uint8Array): unknown;
    digest(): Uint8Array;
  };
}
declare module "node:async_hooks" {
  export class AsyncLocalStorage<T> {
    getStore(): T | undefined;
    run<R>(store: T, work: () => R): R;
  }
}
declare const process: { env: Record<string, string | undefined> };
declare function setImmediate(callback: () => void): unknown;
