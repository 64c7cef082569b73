// The messages of proto/tidemill/v1/subscriptions.proto. Field numbers are written out where they are read.

import { Reader, Writer, type Whole } from "./protobuf.js";

/** What is followed: a table of a source, some of its columns, a condition on its rows. */
export interface Shape {
  /** A source of the project. */
  source: string;
  /** `db.table`. */
  table: string;
  /** The columns that are sent, besides those of the key; all by default. */
  columns?: string[];
  /** A condition in MySQL's syntax; all rows by default. */
  where?: string;
  /** With `limit`: the order that says which rows are the first. The table's key decides between those that are equal in it. */
  orderBy?: OrderBy[];
  /** Only so many rows, the first ones by `orderBy`, at most 10,000; all by default. `rows()` has them in no particular order. */
  limit?: number;
}

export interface OrderBy {
  column: string;
  /** The greatest first. NULL is smaller than every value. */
  descending?: boolean;
}

export interface Column {
  name: string;
  /** As the source's information_schema prints it: `decimal(10,2)`. */
  type: string;
  nullable: boolean;
  /** Its place in the key, from 1; 0 where it is not of the key. */
  key: number;
  /** What the column was called in the schema before, where that is another name. */
  was?: string;
}

export type Kind = "null" | "int" | "uint" | "double" | "text" | "bytes";

/** A value with the kind that the wire gave it. */
export interface Cell {
  kind: Kind;
  value: Value;
}

/** What a column of a row holds. Whole numbers beyond 2^53 are `bigint`; DECIMAL, dates and JSON are text. */
export type Value = null | number | bigint | string | Uint8Array;

export const Op = { put: 1, delete: 2, leave: 3, truncate: 4 } as const;

export interface Change {
  op: number;
  lsn: bigint;
  cells: Cell[];
}

export type Event =
  | { is: "none" }
  | { is: "ready"; subscription: bigint; mode: "tail" | "net-changes" | "snapshot" | "unknown"; rows: number }
  | { is: "schema"; columns: Column[] }
  | { is: "batch"; changes: Change[]; transactionEnd: boolean }
  | { is: "snapshot-end" }
  | { is: "up-to-date" }
  | { is: "checkpoint"; rows: number; checksum: bigint }
  | { is: "heartbeat" }
  | { is: "reset"; reason: string; detail: string }
  | { is: "reached"; mark: bigint };

export interface Response {
  token: Uint8Array;
  lsn: bigint;
  event: Event;
}

const MODES = ["unknown", "tail", "net-changes", "snapshot"] as const;
const REASONS = ["unknown", "token", "shape", "journal", "epoch", "future", "compacted", "schema", "table", "window"];
const NULL: Cell = { kind: "null", value: null };

export function subscribeRequest(shape: Shape, token: Uint8Array): Uint8Array<ArrayBuffer> {
  const inner = new Writer().text(1, shape.source).text(2, shape.table);
  for (const column of shape.columns ?? []) inner.bytes(3, new TextEncoder().encode(column));
  inner.text(4, shape.where ?? "");
  for (const { column, descending } of shape.orderBy ?? []) {
    const by = new Writer().text(1, column);
    inner.bytes(5, (descending ? by.uint(2, 1n) : by).finish());
  }
  if (shape.limit) inner.uint(6, BigInt(shape.limit));
  const request = new Writer().bytes(1, inner.finish());
  return (token.length > 0 ? request.bytes(2, token) : request).finish();
}

export function markRequest(subscription: bigint): Uint8Array<ArrayBuffer> {
  return new Writer().uint(1, subscription).finish();
}

export function markOf(bytes: Uint8Array): bigint {
  return number(bytes);
}

/** Field 1 of a message that has nothing else. */
function number(bytes: Uint8Array): bigint {
  const reader = new Reader(bytes);
  let found: Whole = 0;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x08) found = reader.uint64();
    else reader.pass(tag);
  }
  return BigInt(found);
}

export function responseOf(bytes: Uint8Array): Response {
  const reader = new Reader(bytes);
  const response: Response = { token: new Uint8Array(), lsn: 0n, event: { is: "none" } };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    switch (tag) {
      case 0x0a:
        // Kept for long, so not as a part of the response's memory.
        response.token = reader.bytes().slice();
        break;
      case 0x10:
        response.lsn = BigInt(reader.uint64());
        break;
      case 0x1a:
        response.event = readyOf(reader.bytes());
        break;
      case 0x22:
        response.event = schemaOf(reader.bytes());
        break;
      case 0x2a:
        response.event = batchOf(reader.bytes());
        break;
      case 0x32:
        reader.bytes();
        response.event = { is: "snapshot-end" };
        break;
      case 0x3a:
        reader.bytes();
        response.event = { is: "up-to-date" };
        break;
      case 0x42:
        response.event = checkpointOf(reader.bytes());
        break;
      case 0x4a:
        reader.bytes();
        response.event = { is: "heartbeat" };
        break;
      case 0x52:
        response.event = resetOf(reader.bytes());
        break;
      case 0x5a:
        response.event = { is: "reached", mark: number(reader.bytes()) };
        break;
      default:
        reader.pass(tag);
    }
  }
  return response;
}

function readyOf(bytes: Uint8Array): Event {
  const reader = new Reader(bytes);
  const ready = { is: "ready" as const, subscription: 0n, mode: MODES[0] as (typeof MODES)[number], rows: 0 };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x08) ready.subscription = BigInt(reader.uint64());
    else if (tag === 0x10) ready.mode = MODES[reader.uint32()] ?? "unknown";
    else if (tag === 0x18) ready.rows = Number(reader.uint64());
    else reader.pass(tag);
  }
  return ready;
}

function schemaOf(bytes: Uint8Array): Event {
  const reader = new Reader(bytes);
  const columns: Column[] = [];
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x0a) columns.push(columnOf(reader.bytes()));
    else reader.pass(tag);
  }
  return { is: "schema", columns };
}

function columnOf(bytes: Uint8Array): Column {
  const reader = new Reader(bytes);
  const column: Column = { name: "", type: "", nullable: false, key: 0 };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x0a) column.name = reader.text();
    else if (tag === 0x12) column.type = reader.text();
    else if (tag === 0x18) column.nullable = reader.bool();
    else if (tag === 0x20) column.key = reader.uint32();
    else if (tag === 0x2a) column.was = reader.text();
    else reader.pass(tag);
  }
  return column;
}

function batchOf(bytes: Uint8Array): Event {
  const reader = new Reader(bytes);
  const changes: Change[] = [];
  let transactionEnd = false;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x0a) changes.push(changeOf(reader.bytes()));
    else if (tag === 0x10) transactionEnd = reader.bool();
    else reader.pass(tag);
  }
  return { is: "batch", changes, transactionEnd };
}

function changeOf(bytes: Uint8Array): Change {
  const reader = new Reader(bytes);
  const change: Change = { op: 0, lsn: 0n, cells: [] };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x08) change.op = reader.uint32();
    else if (tag === 0x10) change.lsn = BigInt(reader.uint64());
    else if (tag === 0x1a) change.cells.push(cellOf(reader.bytes()));
    else reader.pass(tag);
  }
  return change;
}

function cellOf(bytes: Uint8Array): Cell {
  const reader = new Reader(bytes);
  let cell = NULL;
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    switch (tag) {
      case 0x08:
        reader.bool();
        cell = NULL;
        break;
      case 0x10:
        cell = { kind: "int", value: reader.sint64() };
        break;
      case 0x18:
        cell = { kind: "uint", value: reader.uint64() };
        break;
      case 0x21:
        cell = { kind: "double", value: reader.double() };
        break;
      case 0x2a:
        cell = { kind: "text", value: reader.text() };
        break;
      case 0x32:
        cell = { kind: "bytes", value: reader.bytes().slice() };
        break;
      default:
        reader.pass(tag);
    }
  }
  return cell;
}

function checkpointOf(bytes: Uint8Array): Event {
  const reader = new Reader(bytes);
  const checkpoint = { is: "checkpoint" as const, rows: 0, checksum: 0n };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x08) checkpoint.rows = Number(reader.uint64());
    else if (tag === 0x11) checkpoint.checksum = reader.fixed64();
    else reader.pass(tag);
  }
  return checkpoint;
}

function resetOf(bytes: Uint8Array): Event {
  const reader = new Reader(bytes);
  const reset = { is: "reset" as const, reason: "unknown", detail: "" };
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x08) reset.reason = REASONS[reader.uint32()] ?? "unknown";
    else if (tag === 0x12) reset.detail = reader.text();
    else reader.pass(tag);
  }
  return reset;
}
