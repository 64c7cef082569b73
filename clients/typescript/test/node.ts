// A node that answers from a recording, for tests without a network.

import { readFileSync } from "node:fs";
import { Frames } from "../src/grpcweb.js";
import { responseOf, type Response } from "../src/messages.js";
import { Reader } from "../src/protobuf.js";

/** What a node of this version sent for a table of seven columns: a snapshot, six transactions, a checkpoint. */
export const RECORDED = new Uint8Array(readFileSync(new URL("../../test/recorded.bin", import.meta.url)));

/** What `tidemill subscribe --into` found for the same table. */
export const FINAL = { rows: 7, checksum: 0x28ad_5e16_804a_5bb2n };

export interface Recorded {
  bytes: Uint8Array;
  response: Response;
}

export function framesOf(bytes: Uint8Array): Recorded[] {
  const found: Recorded[] = [];
  let at = 0;
  while (at + 5 <= bytes.length) {
    const length = new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(1);
    const frame = bytes.slice(at, at + 5 + length);
    found.push({ bytes: frame, response: responseOf(frame.subarray(5)) });
    at += 5 + length;
  }
  return found;
}

export function joined(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The token of a request for a subscription. */
export function tokenOf(body: unknown): Uint8Array {
  const [message] = new Frames().push(body as Uint8Array);
  const reader = new Reader(message as Uint8Array);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === 0x12) return reader.bytes().slice();
    reader.pass(tag);
  }
  return new Uint8Array();
}

/** What a node would send to a device that comes with this token: what it was told before, and what came after. */
export function after(token: Uint8Array, frames: Recorded[]): Uint8Array<ArrayBuffer> {
  const place = frames.findLastIndex(({ response }) => token.length > 0 && equal(response.token, token));
  const heads = frames.filter(({ response: { event } }, at) => at <= place && (event.is === "ready" || event.is === "schema"));
  return joined([...heads, ...frames.slice(place + 1)].map(({ bytes }) => bytes));
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

export function grpc(body: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>>): globalThis.Response {
  return new Response(body, { headers: { "content-type": "application/grpc-web+proto" } });
}

/** An answer that stays open after its bytes. */
export function open(bytes: Uint8Array<ArrayBuffer>, signal: AbortSignal | null | undefined, piece = bytes.length): globalThis.Response {
  let at = 0;
  return grpc(
    new ReadableStream({
      start(controller) {
        signal?.addEventListener("abort", () => controller.error(new Error("aborted")));
      },
      pull(controller) {
        if (at >= bytes.length) return new Promise(() => {});
        controller.enqueue(bytes.slice(at, (at += piece)));
      },
    }),
  );
}

export function trailers(code: number, message: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(`grpc-status:${code}\r\ngrpc-message:${encodeURIComponent(message)}\r\n`);
  const frame = new Uint8Array(5 + text.length);
  frame[0] = 0x80;
  new DataView(frame.buffer).setUint32(1, text.length);
  frame.set(text, 5);
  return frame;
}
