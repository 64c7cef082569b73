// Follows a shape over as many connections as it takes, and keeps a copy of it that can be read with no network.

import { Copy, Differs, type Row, type RowChange } from "./copy.js";
import { CallError, Code, call, type Call } from "./grpcweb.js";
import { markOf, markRequest, responseOf, subscribeRequest, type Column, type Response, type Shape } from "./messages.js";
import { memoryStore, type Notice, type Store } from "./store.js";

/** The first wait before it is tried again, which doubles up to the last. */
const BACKOFF_MS_MIN = 100;
const BACKOFF_MS_MAX = 10_000;
/** The longest wait after a copy that differed: each time all rows come anew. */
const DIFFERED_MS_MAX = 300_000;
/** The node beats every 15 s. */
const QUIET_MS = 45_000;
/** Changes that are stored together, and the largest transaction that is shown as one. */
const TOGETHER_MAX = 20_000;

export interface FollowOptions<R extends Row = Row> {
  /** Where the node is, or the proxy before it: `https://data.example.com`. In a page, "" is the page's own origin. */
  url: string;
  shape: Shape;
  /** Begins here where the store has nothing: only changes behind it come, and no checksum is compared. */
  token?: Uint8Array;
  /** The right to ask, or how to get it; that is called for each connection. */
  bearer?: string | (() => string | Promise<string>);
  /** Where the copy is kept; in memory by default. */
  store?: Store;
  onChange?: (changes: RowChange<R>[]) => void;
  onStatus?: (status: Status) => void;
  /** Longest silence before a connection counts as broken; 45 s by default, as the node beats every 15. */
  quietMsMax?: number;
  fetch?: typeof globalThis.fetch;
  signal?: AbortSignal;
}

export interface Status {
  /**
   * `offline`: no connection; the copy is as old as its last change. `catching-up`: connected, and behind. `live`: the copy is the shape.
   * `refused`: the node will not answer this, however often it is asked; `error` says why. `closed`: by `close()`.
   */
  readonly state: "offline" | "catching-up" | "live" | "refused" | "closed";
  readonly error: Error | undefined;
  /** Why the copy is not stored, where it is not: it is kept in memory then. */
  readonly storeError: Error | undefined;
  /** The last checksum that came was the copy's own, and nothing changed since. */
  readonly proven: boolean;
  /** Rows that a snapshot is about to bring; 0 where it is not known. */
  readonly expected: number;
}

interface Mark {
  reached: () => void;
  given: (error: Error) => void;
  /** What pages on the same copy call it. */
  name: string;
  /** What the node calls it, once it was asked. */
  id: bigint | undefined;
}

/** Follows a shape until it is closed. */
export function follow<R extends Row = Row>(options: FollowOptions<R>): Follower<R> {
  return new Follower(options);
}

export class Follower<R extends Row = Row> {
  readonly #options: FollowOptions<R>;
  readonly #store: Store;
  readonly #copy: Copy;
  readonly #ender = new AbortController();
  readonly #changeListeners = new Set<(changes: RowChange<R>[]) => void>();
  readonly #statusListeners = new Set<(status: Status) => void>();
  readonly #marks = new Set<Mark>();
  readonly #ended: Promise<void>;
  #status: Status = { state: "offline", error: undefined, storeError: undefined, proven: false, expected: 0 };
  #rows: R[] | undefined;
  #leads = false;
  /** What the open stream is called. */
  #subscription: bigint | undefined;
  /** Marks that were reached before their numbers were known here; the node has at most 1024 open. */
  readonly #reached = new Set<bigint>();
  #waitMs = BACKOFF_MS_MIN;
  #differed = 0;
  /** Resolves when what the store held can be read; also where that was nothing, or failed. */
  readonly ready: Promise<void>;

  constructor(options: FollowOptions<R>) {
    this.#options = options;
    this.#store = options.store ?? memoryStore();
    this.#copy = new Copy(options.shape, options.token);
    if (options.onChange) this.#changeListeners.add(options.onChange);
    if (options.onStatus) this.#statusListeners.add(options.onStatus);
    options.signal?.addEventListener("abort", () => void this.close(), { once: true });
    this.ready = this.#load();
    this.#ended = this.ready.then(() => this.#run());
    if (options.signal?.aborted) void this.close();
  }

  /** The rows in the order of their keys: the same array until something changes. */
  rows(): readonly R[] {
    this.#rows ??= this.#copy.rows() as R[];
    return this.#rows;
  }

  get size(): number {
    return this.#copy.size;
  }

  get columns(): readonly Column[] {
    return this.#copy.columns;
  }

  /** The last change of the source that the copy has. */
  get lsn(): bigint {
    return this.#copy.lsn;
  }

  /** The last token that was stored. */
  get token(): Uint8Array {
    return this.#copy.token;
  }

  /** The sum of the rows' hashes, which the node's checkpoints are compared with. */
  get checksum(): bigint {
    return this.#copy.checksum;
  }

  get status(): Status {
    return this.#status;
  }

  /** Called after each change of the rows, with whole transactions of the source; the answer ends it. */
  onChange(listener: (changes: RowChange<R>[]) => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  onStatus(listener: (status: Status) => void): () => void {
    this.#statusListeners.add(listener);
    return () => this.#statusListeners.delete(listener);
  }

  /** Resolves when the copy has all that the source had committed by now: what this user wrote, say. Offline, it waits. */
  mark(): Promise<void> {
    const { state } = this.#status;
    if (state === "closed" || state === "refused") return Promise.reject(new Error(`the subscription is ${state}`));
    return new Promise((reached, given) => {
      const mark: Mark = { reached, given, name: crypto.randomUUID(), id: undefined };
      this.#marks.add(mark);
      void this.#ask(mark);
    });
  }

  /** Ends; what is stored stays. */
  async close(): Promise<void> {
    this.#ender.abort();
    await this.#ended;
  }

  /** Ends, and removes what is stored: when a user logs out. */
  async forget(): Promise<void> {
    await this.close();
    await this.#store.clear();
  }

  async #load(): Promise<void> {
    const { signal } = this.#ender;
    this.#store.hear?.((notice) => this.#hear(notice), signal);
    await this.#reload();
  }

  async #reload(): Promise<void> {
    try {
      const saved = await this.#store.load();
      if (saved && !this.#leads) this.#copy.restore(saved);
    } catch (error) {
      this.#say({ storeError: asError(error) });
    }
    this.#publish();
  }

  async #run(): Promise<void> {
    const { signal } = this.#ender;
    this.#store.tell?.({ is: "hello" });
    try {
      const waited = await this.#store.lead?.(signal);
      if (waited) await this.#reload();
    } catch (error) {
      if (!signal.aborted) this.#say({ storeError: asError(error) });
    }
    this.#leads = true;
    while (!signal.aborted) {
      const error = await this.#connection();
      this.#subscription = undefined;
      if (signal.aborted) break;
      if (error instanceof CallError && !error.passes && !this.#mayRenew(error)) {
        this.#end("refused", error);
        return;
      }
      this.#say({ state: "offline", error });
      await this.#pause(error instanceof Differs ? this.#differedMs() : this.#backoffMs());
    }
    this.#end("closed", undefined);
  }

  /** A right that ran out is asked for anew. */
  #mayRenew(error: CallError): boolean {
    return error.code === Code.unauthenticated && typeof this.#options.bearer === "function";
  }

  #end(state: "refused" | "closed", error: Error | undefined): void {
    for (const mark of this.#marks) mark.given(error ?? new Error("the subscription is closed"));
    this.#marks.clear();
    this.#say({ state, error });
  }

  /** Devices that lost one node together do not come again together. */
  #backoffMs(): number {
    const wait = this.#waitMs;
    this.#waitMs = Math.min(wait * 2, BACKOFF_MS_MAX);
    return wait * (0.5 + Math.random() / 2);
  }

  #differedMs(): number {
    this.#differed += 1;
    // The first is filled again at once.
    return this.#differed === 1 ? 0 : Math.min(1000 * 2 ** this.#differed, DIFFERED_MS_MAX);
  }

  /** Ends early when the browser says that there is a network again. */
  #pause(ms: number): Promise<void> {
    const { signal } = this.#ender;
    return new Promise((resolve) => {
      const events = globalThis.addEventListener === undefined ? undefined : globalThis;
      const done = () => {
        clearTimeout(timer);
        events?.removeEventListener("online", done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      events?.addEventListener("online", done);
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }

  async #call(method: Call["method"], body: Uint8Array): Promise<AsyncGenerator<Uint8Array[]>> {
    const { url, bearer, fetch } = this.#options;
    const right = typeof bearer === "function" ? await bearer() : bearer;
    return call({
      fetch: fetch ?? globalThis.fetch.bind(globalThis),
      url,
      method,
      body,
      bearer: right,
      signal: this.#ender.signal,
      quietMsMax: this.#options.quietMsMax ?? QUIET_MS,
    });
  }

  /** One connection, from the last token to whatever ends it. */
  async #connection(): Promise<Error> {
    try {
      const body = subscribeRequest(this.#options.shape, this.#copy.token);
      // A transaction whose end has not come. It goes with the connection, and comes again with the next.
      let open: Response[] = [];
      for await (const messages of await this.#call("Subscribe", body)) {
        let changes = 0;
        for (const message of messages) {
          const response = responseOf(message);
          open.push(response);
          changes += sizeOf(response);
          if (changes < TOGETHER_MAX) continue;
          await this.#take(open);
          [open, changes] = [[], 0];
        }
        const end = open.findLastIndex(isWhole) + 1;
        if (end > 0) await this.#take(open.splice(0, end));
        // A transaction that is larger than that is shown in parts.
        if (open.reduce((sum, response) => sum + sizeOf(response), 0) >= TOGETHER_MAX) await this.#take(open.splice(0));
      }
      return new CallError(Code.unavailable, "the stream ended");
    } catch (error) {
      if (error instanceof Differs) await this.#commit();
      return asError(error);
    }
  }

  /** Takes responses in, stores what they brought, and tells it. */
  async #take(responses: Response[]): Promise<void> {
    let status: Partial<Status> = {};
    const reached: bigint[] = [];
    for (const response of responses) {
      const { event } = response;
      this.#copy.apply(response);
      if (event.is === "ready") {
        this.#subscription = event.subscription;
        this.#reached.clear();
        this.#waitMs = BACKOFF_MS_MIN;
        status = { state: "catching-up", error: undefined, expected: event.mode === "snapshot" ? event.rows : 0 };
        for (const mark of this.#marks) {
          mark.id = undefined;
          void this.#ask(mark);
        }
      } else if (event.is === "reset") {
        status = { ...status, state: "catching-up", proven: false };
      } else if (event.is === "up-to-date") {
        status = { ...status, state: "live", expected: 0 };
      } else if (event.is === "batch" && event.changes.length > 0) {
        status = { ...status, proven: false };
      } else if (event.is === "checkpoint") {
        this.#differed = 0;
        status = { ...status, proven: true };
      } else if (event.is === "reached") {
        reached.push(event.mark);
      }
    }
    await this.#commit();
    this.#say(status);
    for (const id of reached) this.#reach(id);
  }

  async #commit(): Promise<void> {
    const commit = this.#copy.take();
    try {
      await this.#store.commit(commit);
      this.#store.tell?.({ is: "commit", commit });
      if (this.#status.storeError) this.#say({ storeError: undefined });
    } catch (error) {
      this.#copy.giveBack(commit);
      this.#say({ storeError: asError(error) });
    }
    this.#publish();
  }

  #publish(): void {
    const changes = this.#copy.changes() as RowChange<R>[];
    if (changes.length === 0) return;
    this.#rows = undefined;
    for (const listener of this.#changeListeners) guarded(() => listener(changes));
  }

  #say(change: Partial<Status>): void {
    const before = this.#status;
    const names = Object.keys(change) as (keyof Status)[];
    if (names.every((name) => before[name] === change[name])) return;
    this.#status = { ...before, ...change };
    this.#tellStatus();
    for (const listener of this.#statusListeners) guarded(() => listener(this.#status));
  }

  #tellStatus(): void {
    const { state, error, proven, expected } = this.#status;
    if (!this.#leads || state === "closed") return;
    this.#store.tell?.({ is: "status", state, error: error?.message, proven, expected });
  }

  /** What another page on the same copy says. */
  #hear(notice: Notice): void {
    if (this.#leads) {
      if (notice.is === "hello") this.#tellStatus();
      if (notice.is === "mark") {
        const { name } = notice;
        // One that is not reached here is asked for by the next that leads.
        this.mark().then(() => this.#store.tell?.({ is: "reached", name }), () => undefined);
      }
      return;
    }
    if (notice.is === "status") {
      const { state, error, proven, expected } = notice;
      this.#say({ state, error: error === undefined ? undefined : new Error(error), proven, expected });
    } else if (notice.is === "reached") {
      for (const mark of this.#marks) {
        if (mark.name === notice.name && this.#marks.delete(mark)) mark.reached();
      }
    } else if (notice.is === "commit") {
      if (this.#copy.adopt(notice.commit)) this.#publish();
      else void this.#reload();
    }
  }

  async #ask(mark: Mark): Promise<void> {
    if (!this.#leads) this.#store.tell?.({ is: "mark", name: mark.name });
    const subscription = this.#subscription;
    // The next READY asks for it.
    if (subscription === undefined) return;
    try {
      for await (const messages of await this.#call("Mark", markRequest(subscription))) {
        for (const message of messages) mark.id = markOf(message);
      }
    } catch (error) {
      // Where the stream has ended meanwhile, or is ending, the next one asks.
      const lost = error instanceof CallError && (error.passes || error.code === Code.notFound);
      if (!lost && this.#marks.delete(mark)) mark.given(asError(error));
    }
    if (mark.id !== undefined && this.#reached.delete(mark.id)) this.#reach(mark.id);
  }

  #reach(id: bigint): void {
    for (const mark of this.#marks) {
      if (mark.id !== id) continue;
      this.#marks.delete(mark);
      mark.reached();
      return;
    }
    this.#reached.add(id);
  }
}

/** Whether a copy that has this response shows no part of a transaction. */
function isWhole({ event }: Response): boolean {
  return event.is !== "batch" || event.transactionEnd;
}

function sizeOf({ event }: Response): number {
  return event.is === "batch" ? event.changes.length : 1;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** What a listener throws is the page's, and ends nothing here. */
function guarded(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
