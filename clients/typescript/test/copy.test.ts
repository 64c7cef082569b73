import assert from "node:assert/strict";
import { test } from "node:test";
import { Copy, Differs, type Saved } from "../src/copy.js";
import { rowHash } from "../src/hash.js";
import { Op, type Cell, type Change, type Column, type Event } from "../src/messages.js";

const SHAPE = { source: "shop", table: "shop.orders" };
const COLUMNS: Column[] = [
  { name: "id", type: "int", nullable: false, key: 1 },
  { name: "name", type: "varchar(40)", nullable: false, key: 0 },
];
const cells = (id: number, name: string): Cell[] => [
  { kind: "int", value: id },
  { kind: "text", value: name },
];
const put = (lsn: number, id: number, name: string): Change => ({ op: Op.put, lsn: BigInt(lsn), cells: cells(id, name) });
const remove = (lsn: number, id: number): Change => ({ op: Op.delete, lsn: BigInt(lsn), cells: cells(id, "").slice(0, 1) });
let lsn = 0n;
const apply = (copy: Copy, event: Event) => copy.apply({ token: Uint8Array.of(Number(++lsn & 255n)), lsn, event });
const batch = (copy: Copy, ...changes: Change[]) => apply(copy, { is: "batch", changes, transactionEnd: true });
const names = (copy: Copy) => copy.rows().map((row) => `${row["id"]}=${row["name"]}`);

function filled(): Copy {
  const copy = new Copy(SHAPE);
  apply(copy, { is: "schema", columns: COLUMNS });
  batch(copy, put(10, 2, "b"), put(11, 1, "a"), put(12, 3, "c"));
  apply(copy, { is: "snapshot-end" });
  return copy;
}

test("a change that is older than its row is passed over", () => {
  const copy = filled();
  batch(copy, put(9, 1, "old"), remove(10, 3), put(13, 2, "new"), remove(14, 1));
  assert.deepEqual(names(copy), ["2=new", "3=c"]);
  batch(copy, { op: Op.truncate, lsn: 13n, cells: [] });
  assert.deepEqual(names(copy), ["2=new"]);
  batch(copy, { op: Op.leave, lsn: 15n, cells: cells(2, "").slice(0, 1) });
  assert.deepEqual([names(copy), copy.checksum], [[], 0n]);
});

test("after a reset the rows stay until the snapshot has ended, and a history that began anew wins over them", () => {
  const copy = filled();
  copy.apply({ token: new Uint8Array(), lsn: 0n, event: { is: "reset", reason: "journal", detail: "" } });
  assert.deepEqual([copy.size, copy.token.length], [3, 0]);
  // Its numbers begin at 1 again.
  batch(copy, put(1, 2, "anew"), put(2, 4, "d"));
  apply(copy, { is: "checkpoint", rows: 2, checksum: 0n });
  apply(copy, { is: "snapshot-end" });
  assert.deepEqual(names(copy), ["2=anew", "4=d"]);
  apply(copy, { is: "checkpoint", rows: 2, checksum: copy.checksum });
  assert.throws(() => apply(copy, { is: "checkpoint", rows: 3, checksum: copy.checksum }), Differs);
  assert.equal(copy.token.length, 0);
  assert.equal(copy.size, 2, "shown until it is filled again");
  batch(copy, put(1, 2, "true"));
  apply(copy, { is: "snapshot-end" });
  assert.deepEqual(names(copy), ["2=true"]);
});

test("a snapshot that was interrupted after a reset goes on from the store and still sweeps", () => {
  const copy = filled();
  apply(copy, { is: "reset", reason: "compacted", detail: "" });
  batch(copy, put(20, 1, "a2"));
  const held = copy.take();
  const saved: Saved = { state: held.state, rows: held.puts };
  const again = new Copy(SHAPE);
  assert.ok(again.restore(structuredClone(saved)));
  batch(again, put(21, 9, "z"));
  apply(again, { is: "snapshot-end" });
  assert.deepEqual(names(again), ["1=a2", "9=z"]);
});

test("columns that are renamed, added and retyped keep what they held, and the sum is of the new rows", () => {
  const copy = filled();
  copy.changes();
  apply(copy, {
    is: "schema",
    columns: [
      { name: "id", type: "bigint unsigned", nullable: false, key: 1 },
      { name: "title", type: "varchar(40)", nullable: false, key: 0, was: "name" },
      { name: "note", type: "varchar(9)", nullable: true, key: 0 },
    ],
  });
  assert.deepEqual(copy.rows()[0], { id: 1, title: "a", note: null });
  // Of keys of another type: each row goes and comes.
  assert.equal(copy.changes().length, 6);
  const row = (id: number, title: string) =>
    rowHash([{ kind: "uint", value: id }, { kind: "text", value: title }, { kind: "null", value: null }]);
  assert.equal(copy.checksum, BigInt.asUintN(64, row(1, "a") + row(2, "b") + row(3, "c")));
  batch(copy, { op: Op.delete, lsn: 30n, cells: [{ kind: "uint", value: 1 }] });
  assert.equal(copy.size, 2, "the key is the new type's");
});

test("changes are told once, with what was before", () => {
  const copy = filled();
  copy.changes();
  batch(copy, put(20, 1, "x"), put(21, 1, "y"), remove(22, 2), put(23, 7, "new"), put(24, 3, "c"), put(25, 8, "short"), remove(26, 8));
  assert.deepEqual(copy.changes(), [
    { type: "update", row: { id: 1, name: "y" }, before: { id: 1, name: "a" } },
    { type: "delete", before: { id: 2, name: "b" } },
    { type: "insert", row: { id: 7, name: "new" } },
  ]);
  assert.deepEqual(copy.changes(), []);
});

test("what a store failed to write comes with the next commit", () => {
  const copy = filled();
  const first = copy.take();
  copy.giveBack(first);
  batch(copy, remove(40, 1));
  const second = copy.take();
  assert.deepEqual(second.puts.map((held) => held.row["id"]).sort(), [2, 3]);
  assert.deepEqual(second.deletes.length, 1);
});

test("a copy of another shape is not taken for this one", () => {
  const held = filled().take();
  const other = new Copy({ ...SHAPE, where: "id > 1" });
  assert.equal(other.restore({ state: held.state, rows: held.puts }), false);
  assert.deepEqual([other.size, other.token.length, other.take().deletes.length], [0, 0, 3]);
});

test("keys of text cannot be mistaken for one another", () => {
  const copy = new Copy(SHAPE);
  const both = (name: string, key: number): Column => ({ name, type: "varchar(9)", nullable: false, key });
  apply(copy, { is: "schema", columns: [both("a", 1), both("b", 2)] });
  const row = (a: string, b: string): Change => ({
    op: Op.put,
    lsn: 1n,
    cells: [{ kind: "text", value: a }, { kind: "text", value: b }],
  });
  batch(copy, row("x;t1:y", "z"), row("x", "y;z"), row("x;", "t1:y;z"));
  assert.equal(copy.size, 3);
});
