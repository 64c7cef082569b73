// The hash of a row, of which checksums are sums modulo 2^64: `Checkpoint` of subscriptions.proto describes it.

import type { Cell } from "./messages.js";

const TWO_32 = 0x1_0000_0000;
const utf8 = new TextEncoder();

/** A row's bytes, in memory that is used again for each row. */
let scratch = new Uint8Array(1024);
let view = new DataView(scratch.buffer);

function reserve(bytes: number): void {
  if (bytes <= scratch.length) return;
  const larger = new Uint8Array(Math.max(bytes, scratch.length * 2));
  larger.set(scratch);
  scratch = larger;
  view = new DataView(larger.buffer);
}

/** The hash of a row whose values are in the schema's order. */
export function rowHash(cells: readonly Cell[]): bigint {
  let at = 0;
  for (const { kind, value } of cells) {
    reserve(at + 9);
    switch (kind) {
      case "null":
        scratch[at++] = 0;
        break;
      case "int":
      case "uint":
        scratch[at] = kind === "int" ? 1 : 2;
        if (typeof value === "bigint") {
          view.setBigUint64(at + 1, BigInt.asUintN(64, value), true);
        } else {
          view.setUint32(at + 1, Number(value) >>> 0, true);
          view.setInt32(at + 5, Math.floor(Number(value) / TWO_32), true);
        }
        at += 9;
        break;
      case "double":
        scratch[at] = 3;
        view.setFloat64(at + 1, Number(value), true);
        at += 9;
        break;
      case "text":
      case "bytes": {
        const long = kind === "text" ? utf8.encode(String(value)) : (value as Uint8Array);
        reserve(at + 5 + long.length);
        scratch[at] = kind === "text" ? 4 : 5;
        view.setUint32(at + 1, long.length, true);
        scratch.set(long, at + 5);
        at += 5 + long.length;
        break;
      }
    }
  }
  const bytes = scratch.subarray(0, at);
  return (BigInt(murmur3(bytes, 0)) << 32n) | BigInt(murmur3(bytes, 0x9747_b28c));
}

/** MurmurHash3_x86_32, as an unsigned number. */
export function murmur3(bytes: Uint8Array, seed: number): number {
  const blocks = bytes.length & ~3;
  let hash = seed | 0;
  for (let at = 0; at < blocks; at += 4) {
    const k = byte(bytes, at) | (byte(bytes, at + 1) << 8) | (byte(bytes, at + 2) << 16) | (byte(bytes, at + 3) << 24);
    hash ^= mixed(k);
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe654_6b64) | 0;
  }
  let rest = 0;
  for (let at = bytes.length - 1; at >= blocks; at--) rest = (rest << 8) | byte(bytes, at);
  if (blocks < bytes.length) hash ^= mixed(rest);
  hash ^= bytes.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function byte(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}

function mixed(k: number): number {
  const first = Math.imul(k, 0xcc9e_2d51);
  return Math.imul((first << 15) | (first >>> 17), 0x1b87_3593);
}
