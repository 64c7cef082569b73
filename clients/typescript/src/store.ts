// Where a copy is kept between visits. A store writes the rows and the token of a commit in one transaction, or neither.

import type { Commit, Held, Saved, State } from "./copy.js";

/** What followers on one store tell each other: the one that leads, and those that look on. */
export type Notice =
  | { is: "commit"; commit: Commit }
  | { is: "status"; state: "offline" | "catching-up" | "live" | "refused"; error: string | undefined; proven: boolean; expected: number }
  | { is: "hello" }
  /** Asks the one that leads for a mark, which answers when it has told all that came before. */
  | { is: "mark"; name: string }
  | { is: "reached"; name: string };

export interface Store {
  /** What was committed last; `undefined` where nothing was. */
  load(): Promise<Saved | undefined>;
  commit(commit: Commit): Promise<void>;
  /** Forgets all. */
  clear(): Promise<void>;
  /** Waits until no other follower leads; answers whether it had to. The lead ends with the signal. */
  lead?(signal: AbortSignal): Promise<boolean>;
  tell?(notice: Notice): void;
  /** Calls the listener with what others tell, until the signal. */
  hear?(listener: (notice: Notice) => void, signal: AbortSignal): void;
}

/** Keeps a copy as long as the program runs. */
export function memoryStore(): Store {
  const rows = new Map<string, Held>();
  let state: State | undefined;
  return {
    load: async () => state && { state, rows: [...rows.values()] },
    commit: async (commit) => {
      for (const key of commit.deletes) rows.delete(key);
      for (const held of commit.puts) rows.set(held.key, held);
      state = commit.state;
    },
    clear: async () => {
      rows.clear();
      state = undefined;
    },
  };
}
