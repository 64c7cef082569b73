import assert from "node:assert/strict";
import { test } from "node:test";
import { murmur3, rowHash } from "../src/hash.js";
import { responseOf, subscribeRequest, type Cell } from "../src/messages.js";
import { Reader, Writer } from "../src/protobuf.js";
import { framesOf, RECORDED } from "./node.js";

const bytes = (text: string) => new TextEncoder().encode(text);

test("murmur3 is the published one", () => {
  // The answers that crates/flow/src/subscribe/wire.rs has.
  assert.equal(murmur3(bytes(""), 0), 0);
  assert.equal(murmur3(bytes(""), 1), 0x514e28b7);
  assert.equal(murmur3(Uint8Array.of(255, 255, 255, 255), 0), 0x76293b50);
  assert.equal(murmur3(Uint8Array.of(0x21, 0x43, 0x65, 0x87), 0), 0xf55b516b);
  assert.equal(murmur3(bytes("!Ce"), 0), 0x7e4a8634);
  assert.equal(murmur3(bytes("!C"), 0), 0xa0f7b07a);
  assert.equal(murmur3(bytes("!"), 0), 0x72661cf4);
  assert.equal(murmur3(bytes("Hello, world!"), 0x9747b28c), 0x24884cba);
});

test("a whole number hashes the same as a number and as a bigint", () => {
  for (const value of [0, 1, -1, 255, -256, 4294967296, -4294967297, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]) {
    const hash = (value: number | bigint) => rowHash([{ kind: "int", value }]);
    assert.equal(hash(value), hash(BigInt(value)), `${value}`);
  }
});

test("a row's hash is of the bytes that the proto describes", () => {
  const cells: Cell[] = [
    { kind: "null", value: null },
    { kind: "int", value: -2 },
    { kind: "uint", value: 3 },
    { kind: "double", value: 1 },
    { kind: "text", value: "é" },
    { kind: "bytes", value: Uint8Array.of(9) },
  ];
  const own = [0, 1, 254, 255, 255, 255, 255, 255, 255, 255, 2, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 240, 63, 4, 2, 0, 0, 0, 195, 169, 5, 1, 0, 0, 0, 9];
  const row = Uint8Array.from(own);
  assert.equal(rowHash(cells), (BigInt(murmur3(row, 0)) << 32n) | BigInt(murmur3(row, 0x9747b28c)));
  // Longer than the memory that is kept for rows.
  const long: Cell[] = [{ kind: "text", value: "x".repeat(5000) }];
  assert.equal(rowHash(long), rowHash(long));
});

test("numbers are numbers where that is exact, and bigints where it is not", () => {
  const read = (value: bigint) => new Reader(new Writer().uint(1, value).finish());
  const uint = (value: bigint) => {
    const reader = read(value);
    reader.tag();
    return reader.uint64();
  };
  const zigzag = (value: bigint) => {
    const reader = read(BigInt.asUintN(64, (value << 1n) ^ (value >> 63n)));
    reader.tag();
    return reader.sint64();
  };
  const safe = BigInt(Number.MAX_SAFE_INTEGER);
  assert.equal(uint(safe), Number.MAX_SAFE_INTEGER);
  assert.equal(uint(safe + 1n), safe + 1n);
  assert.equal(uint(2n ** 64n - 1n), 2n ** 64n - 1n);
  for (const value of [1n, -1n, 2n ** 32n, -(2n ** 32n), 2n ** 31n, -(2n ** 31n), safe, -safe, safe + 1n, -safe - 1n, 2n ** 63n - 1n, -(2n ** 63n)]) {
    const exact = value >= -safe && value <= safe;
    assert.equal(zigzag(value), exact ? Number(value) : value);
  }
});

test("text keeps a byte order mark, and what is no UTF-8 is refused", () => {
  const read = (value: Uint8Array) => {
    const reader = new Reader(new Writer().bytes(1, value).finish());
    reader.tag();
    return reader.text();
  };
  assert.equal(read(bytes("\ufeffx")), "\ufeffx");
  assert.throws(() => read(Uint8Array.of(255)), /UTF-8/);
});

test("a request is the bytes that protobuf's own compiler makes of it", () => {
  const request = subscribeRequest({ source: "s", table: "d.t", columns: ["a", "b"], where: "x" }, Uint8Array.of(7));
  const wanted = [10, 17, 10, 1, 115, 18, 3, 100, 46, 116, 26, 1, 97, 26, 1, 98, 34, 1, 120, 18, 1, 7];
  assert.deepEqual([...request], wanted);
});

test("a message cut anywhere is an error, and never an endless read", () => {
  for (const { bytes } of framesOf(RECORDED)) {
    const message = bytes.subarray(5);
    for (let end = 0; end < message.length; end++) {
      try {
        responseOf(message.subarray(0, end));
      } catch (error) {
        assert.equal((error as Error).name, "ProtobufError");
      }
    }
  }
});

test("a window's order and limit stand in the request", () => {
  const orderBy = [{ column: "a", descending: true }, { column: "b" }];
  const request = subscribeRequest({ source: "s", table: "d.t", orderBy, limit: 20 }, new Uint8Array());
  const shape = [0x0a, 1, 0x73, 0x12, 3, ...bytes("d.t"), 0x2a, 5, 0x0a, 1, 0x61, 0x10, 1, 0x2a, 3, 0x0a, 1, 0x62, 0x30, 20];
  assert.deepEqual([...request], [0x0a, shape.length, ...shape]);
});
