// A copy in IndexedDB, which outlives the page.
//
//   tidemill:NAME     the database
//     rows            Held, by its key
//     state           State, under STATE
//
// Of the pages that are open on one copy, one leads: it follows and writes. The others see what it commits over a channel, and one of
// them leads when it is closed.

import type { Commit, Held, Saved, State } from "./copy.js";
import type { Notice, Store } from "./store.js";

const STATE = "state";

/** A copy called `name` in this browser, for this origin. */
export function indexedDbStore(name: string): Store {
  const called = `tidemill:${name}`;
  let database: Promise<IDBDatabase> | undefined;
  const open = () => {
    database ??= opened(called, () => (database = undefined)).catch((error: unknown) => {
      database = undefined;
      throw error;
    });
    return database;
  };
  const channel = typeof BroadcastChannel === "undefined" ? undefined : new BroadcastChannel(called);
  // In Node a channel would keep the process.
  (channel as { unref?: () => void } | undefined)?.unref?.();
  return {
    async load(): Promise<Saved | undefined> {
      const transaction = (await open()).transaction(["rows", "state"], "readonly");
      const state = answer<State | undefined>(transaction.objectStore("state").get(STATE));
      const rows = answer<Held[]>(transaction.objectStore("rows").getAll());
      const [found, all] = await Promise.all([state, rows]);
      return found && { state: found, rows: all };
    },

    async commit(commit: Commit): Promise<void> {
      const transaction = (await open()).transaction(["rows", "state"], "readwrite", { durability: "relaxed" });
      const done = ended(transaction);
      const rows = transaction.objectStore("rows");
      for (const key of commit.deletes) rows.delete(key);
      for (const held of commit.puts) rows.put(held);
      transaction.objectStore("state").put(commit.state, STATE);
      await done;
    },

    async clear(): Promise<void> {
      const transaction = (await open()).transaction(["rows", "state"], "readwrite");
      const done = ended(transaction);
      transaction.objectStore("rows").clear();
      transaction.objectStore("state").clear();
      await done;
    },

    async lead(signal: AbortSignal): Promise<boolean> {
      const locks = globalThis.navigator?.locks;
      if (!locks) return false;
      const until = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      // A lock is held until the promise of its callback is settled.
      const held = (options: LockOptions) =>
        new Promise<boolean>((resolve, reject) => {
          locks
            .request(called, options, (lock) => {
              resolve(lock !== null);
              return lock === null ? undefined : until;
            })
            .catch(reject);
        });
      if (await held({ ifAvailable: true })) return false;
      await held({ signal });
      return true;
    },

    tell(notice: Notice): void {
      channel?.postMessage(notice);
    },

    hear(listener: (notice: Notice) => void, signal: AbortSignal): void {
      channel?.addEventListener("message", (event) => listener((event as MessageEvent<Notice>).data), { signal });
    },
  };
}

function opened(called: string, lost: () => void): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(called, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("rows", { keyPath: "key" });
      request.result.createObjectStore("state");
    };
    request.onsuccess = () => {
      const database = request.result;
      database.onclose = lost;
      // Another page deletes it, or a newer version of this library makes it anew.
      database.onversionchange = () => {
        database.close();
        lost();
      };
      resolve(database);
    };
    request.onerror = () => reject(request.error ?? new Error("IndexedDB does not open"));
  });
}

function answer<T>(request: IDBRequest): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result as T);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}

function ended(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("IndexedDB gave a transaction up"));
  });
}
