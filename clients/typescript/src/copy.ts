// A copy of a shape in memory, and what of it a store has yet to write. The four rules of subscriptions.proto are here.
//
// A row that is put counts for its generation. RESET begins another one: rows of older generations are out of date, are shown until
// SNAPSHOT_END comes, and give way to any image that the server sends, whatever its lsn: the source's history may have begun anew.

import { rowHash } from "./hash.js";
import { Op, type Cell, type Change, type Column, type Kind, type Response, type Shape, type Value } from "./messages.js";

/** A row by the names of its columns. */
export type Row = Record<string, Value>;

/** A row as it is stored. */
export interface Held {
  /** The values of the row's key as one text. */
  key: string;
  lsn: bigint;
  /** What it adds to the checksum. */
  hash: bigint;
  generation: number;
  row: Row;
}

/** What is stored beside the rows, in one transaction with them. */
export interface State {
  shape: string;
  token: Uint8Array;
  lsn: bigint;
  columns: Column[];
  generation: number;
  /** A snapshot is on its way, and rows of older generations are out of date. */
  stale: boolean;
  /** The copy began at a token that was handed in, and never had the rows from before: checksums do not apply. */
  partial: boolean;
  /** Counts commits. */
  version: number;
}

/** What a store writes at once. */
export interface Commit {
  puts: Held[];
  deletes: string[];
  state: State;
}

export interface Saved {
  state: State;
  rows: Held[];
}

/** What became of a row between two publications. */
export type RowChange<R> =
  | { type: "insert"; row: R }
  | { type: "update"; row: R; before: R }
  | { type: "delete"; before: R };

/** The copy differs from the source: it is to be filled again without a token. */
export class Differs extends Error {
  override name = "Differs";
}

/** The server sent what does not fit. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

export class Copy {
  #held = new Map<string, Held>();
  #state: State;
  #checksum = 0n;
  /** What the store lacks: rows, and `undefined` for those that are gone. */
  #unsaved = new Map<string, Held | undefined>();
  /** What each row that has changed was when changes were last told. */
  #untold = new Map<string, Held | undefined>();

  /** Columns have changed since changes were last told. */
  #reshaped = false;

  constructor(shape: Shape, token: Uint8Array = new Uint8Array()) {
    const partial = token.length > 0;
    const window = shape.limit ? [shape.limit, (shape.orderBy ?? []).map((by) => [by.column, !!by.descending])] : [];
    const said = JSON.stringify([shape.source, shape.table, shape.columns ?? [], shape.where ?? "", ...window]);
    this.#state = { shape: said, token, lsn: 0n, columns: [], generation: 1, stale: false, partial, version: 0 };
  }

  /** The token to come again with; empty for a copy that has nothing. */
  get token(): Uint8Array {
    return this.#state.token;
  }

  get lsn(): bigint {
    return this.#state.lsn;
  }

  get columns(): readonly Column[] {
    return this.#state.columns;
  }

  get size(): number {
    return this.#held.size;
  }

  get version(): number {
    return this.#state.version;
  }

  /** The sum of the rows' hashes modulo 2^64. */
  get checksum(): bigint {
    return this.#checksum;
  }

  /** Has what was saved; answers false where that is of another shape, and was not taken. */
  restore(saved: Saved): boolean {
    if (saved.state.shape !== this.#state.shape) {
      // What is there is another shape's, and goes with the first commit.
      for (const { key } of saved.rows) this.#unsaved.set(key, undefined);
      this.#state.version = saved.state.version;
      return false;
    }
    const gone = new Set(this.#held.keys());
    this.#state = saved.state;
    for (const held of saved.rows) {
      gone.delete(held.key);
      this.#set(held.key, held);
    }
    for (const key of gone) this.#set(key, undefined);
    this.#unsaved.clear();
    return true;
  }

  /** Takes over what another copy on the same store has committed; answers false where one before it was missed. */
  adopt(commit: Commit): boolean {
    if (commit.state.version <= this.#state.version) return true;
    if (commit.state.version !== this.#state.version + 1 || commit.state.shape !== this.#state.shape) return false;
    for (const key of commit.deletes) this.#set(key, undefined);
    for (const held of commit.puts) this.#set(held.key, held);
    this.#state = commit.state;
    this.#unsaved.clear();
    return true;
  }

  /** Takes a response in. Throws `Differs` when a checksum is not the copy's own; the copy is then ready to be filled again. */
  apply({ token, lsn, event }: Response): void {
    switch (event.is) {
      case "schema":
        this.#reshape(event.columns);
        break;
      case "batch":
        for (const change of event.changes) this.#take(change);
        break;
      case "reset":
        // The token is dropped too: with what comes now, it would no longer say what is here.
        this.#state = { ...this.#state, token: new Uint8Array(), lsn: 0n, generation: this.#state.generation + 1, stale: true, partial: false };
        break;
      case "snapshot-end":
        if (this.#state.stale) this.#sweep();
        break;
      case "checkpoint":
        this.#compare(event.rows, event.checksum);
        break;
    }
    if (token.length > 0) this.#state = { ...this.#state, token, lsn };
  }

  /** Until a snapshot has ended, rows that go with it are still here. */
  #compare(rows: number, checksum: bigint): void {
    const { stale, partial, generation } = this.#state;
    if (stale || partial || (rows === this.size && checksum === this.#checksum)) return;
    const own = `${this.size} rows, ${this.#checksum.toString(16)}`;
    this.#state = { ...this.#state, token: new Uint8Array(), lsn: 0n, generation: generation + 1, stale: true };
    throw new Differs(`the copy has ${own}, and the source ${rows} rows, ${checksum.toString(16)}`);
  }

  /** What is to be written. */
  take(): Commit {
    this.#state = { ...this.#state, version: this.#state.version + 1 };
    const commit: Commit = { puts: [], deletes: [], state: this.#state };
    for (const [key, held] of this.#unsaved) {
      if (held) commit.puts.push(held);
      else commit.deletes.push(key);
    }
    this.#unsaved.clear();
    return commit;
  }

  /** What a store failed to write is written with the next. */
  giveBack(commit: Commit): void {
    for (const { key } of commit.puts) this.#unsaved.set(key, this.#held.get(key));
    for (const key of commit.deletes) this.#unsaved.set(key, this.#held.get(key));
  }

  /** What has changed since it was last asked. */
  changes(): RowChange<Row>[] {
    const told: RowChange<Row>[] = [];
    for (const [key, before] of this.#untold) {
      const now = this.#held.get(key);
      if (now && before) {
        if (now.row !== before.row && (now.hash !== before.hash || this.#reshaped)) told.push({ type: "update", row: now.row, before: before.row });
      } else if (now) told.push({ type: "insert", row: now.row });
      else if (before) told.push({ type: "delete", before: before.row });
    }
    this.#untold.clear();
    this.#reshaped = false;
    return told;
  }

  /** All rows in the order of their keys. */
  rows(): Row[] {
    const names = keyColumns(this.#state.columns).map((column) => column.name);
    const rows = Array.from(this.#held.values(), (held) => held.row);
    return rows.sort((a, b) => {
      for (const name of names) {
        const order = compared(a[name] ?? null, b[name] ?? null);
        if (order !== 0) return order;
      }
      return 0;
    });
  }

  #set(key: string, held: Held | undefined): void {
    const before = this.#held.get(key);
    if (before) this.#checksum -= before.hash;
    if (held) {
      this.#checksum += held.hash;
      this.#held.set(key, held);
    } else {
      this.#held.delete(key);
    }
    this.#checksum = BigInt.asUintN(64, this.#checksum);
    if (!this.#untold.has(key)) this.#untold.set(key, before);
    this.#unsaved.set(key, held);
  }

  #take({ op, lsn, cells }: Change): void {
    const { columns, generation } = this.#state;
    const places = keyPlaces(columns);
    if (op === Op.truncate) {
      for (const held of [...this.#held.values()]) {
        if (held.lsn < lsn || held.generation < generation) this.#set(held.key, undefined);
      }
      return;
    }
    const fits = cells.length === (op === Op.put ? columns.length : places.length) && places.length > 0;
    if (!fits || (op !== Op.put && op !== Op.delete && op !== Op.leave)) {
      throw new ProtocolError(`a change of kind ${op} with ${cells.length} values for ${columns.length} columns`);
    }
    const key = keyOf(op === Op.put ? places.map((place) => cells[place] as Cell) : cells);
    const held = this.#held.get(key);
    if (held && held.generation === generation && held.lsn > lsn) return;
    if (op !== Op.put) {
      if (held) this.#set(key, undefined);
      return;
    }
    const row: Row = {};
    columns.forEach((column, index) => (row[column.name] = cells[index]?.value ?? null));
    this.#set(key, { key, lsn, hash: rowHash(cells), generation, row });
  }

  /** A snapshot has ended: what it did not bring again goes. */
  #sweep(): void {
    for (const held of [...this.#held.values()]) {
      if (held.generation < this.#state.generation) this.#set(held.key, undefined);
    }
    this.#state = { ...this.#state, stale: false };
  }

  /** Rows have these columns from now on. What a column held stays, also under another name. */
  #reshape(columns: Column[]): void {
    const before = this.#state.columns;
    const same = (own: Column | undefined, other: Column) =>
      own?.name === other.name && own.type === other.type && own.nullable === other.nullable && own.key === other.key;
    if (before.length === columns.length && columns.every((column, index) => same(before[index], column))) return;
    if (keyPlaces(columns).length === 0) throw new ProtocolError("a schema without a key");
    this.#state = { ...this.#state, columns: columns.map(({ was: _, ...column }) => column) };
    if (before.length === 0) return;
    this.#reshaped = true;
    const places = keyPlaces(columns);
    const all = [...this.#held.values()];
    for (const { key } of all) this.#set(key, undefined);
    for (const { lsn, generation, row: old } of all) {
      const cells = columns.map((column) => cellAs(old[column.was || column.name] ?? null, column.type));
      const row: Row = {};
      columns.forEach((column, index) => (row[column.name] = cells[index]?.value ?? null));
      const key = keyOf(places.map((place) => cells[place] as Cell));
      this.#set(key, { key, lsn, hash: rowHash(cells), generation, row });
    }
  }
}

/** Indexes of the key's columns, in its order. */
function keyPlaces(columns: readonly Column[]): number[] {
  const key = (place: number) => columns[place]?.key ?? 0;
  return [...columns.keys()].filter((place) => key(place) > 0).sort((a, b) => key(a) - key(b));
}

function keyColumns(columns: readonly Column[]): Column[] {
  return keyPlaces(columns).map((place) => columns[place] as Column);
}

/** Text of any length says how long it is, so that no two keys are one text. */
function keyOf(cells: readonly Cell[]): string {
  return cells
    .map(({ kind, value }) => {
      if (value instanceof Uint8Array) {
        return `b${Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("")};`;
      }
      const text = String(value);
      return kind === "text" ? `t${text.length}:${text};` : `${kind[0]}${text};`;
    })
    .join("");
}

function compared(a: Value, b: Value): number {
  if (a === null || b === null) return a === b ? 0 : a === null ? -1 : 1;
  if (a instanceof Uint8Array && b instanceof Uint8Array) {
    for (let at = 0; at < a.length && at < b.length; at++) {
      const order = (a[at] as number) - (b[at] as number);
      if (order !== 0) return order;
    }
    return a.length - b.length;
  }
  // A number and a bigint compare by what they are worth.
  return a < b ? -1 : a > b ? 1 : 0;
}

const BYTES = ["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector", "geom", "point", "line", "poly", "multi"];
const WHOLE = ["tinyint", "smallint", "mediumint", "int", "bigint"];

/** How the server sends values of a type. */
function kindOf(type: string): Kind {
  const lower = type.toLowerCase();
  const is = (names: string[]) => names.some((name) => lower.startsWith(name));
  if (is(["year", "bit"])) return "uint";
  if (is(WHOLE)) return lower.includes("unsigned") ? "uint" : "int";
  if (is(["float", "double"])) return "double";
  return is(BYTES) ? "bytes" : "text";
}

/** A value as the server would send it, by its column's type. */
function cellAs(value: Value, type: string): Cell {
  if (value === null) return { kind: "null", value };
  if (value instanceof Uint8Array) return { kind: "bytes", value };
  const kind = kindOf(type);
  if (typeof value === "string") {
    const number = kind === "double" ? Number(value) : Number.NaN;
    return Number.isNaN(number) ? { kind: "text", value } : { kind, value: number };
  }
  if (kind === "text" || kind === "bytes") return { kind: "text", value: String(value) };
  return kind === "double" ? { kind, value: Number(value) } : { kind, value };
}
