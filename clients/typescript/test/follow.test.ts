import assert from "node:assert/strict";
import { test } from "node:test";
import { follow, memoryStore, type Follower, type Status } from "../src/index.js";
import { Writer } from "../src/protobuf.js";
import { after, FINAL, framesOf, grpc, joined, open, RECORDED, tokenOf, trailers } from "./node.js";

const SHAPE = { source: "shop", table: "shop.things" };
const FRAMES = framesOf(RECORDED);

function until(follower: Follower, wanted: (status: Status) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (wanted(follower.status)) resolve();
    };
    follower.onStatus(look);
    follower.onChange(look);
    look();
  });
}

const complete = (follower: Follower) => () => follower.size === FINAL.rows && follower.checksum === FINAL.checksum;

test("what a node sent is what MySQL has", async () => {
  const follower = follow({ url: "http://node", shape: SHAPE, fetch: async (_, init) => open(RECORDED, init?.signal, 1) });
  await until(follower, (status) => complete(follower)() && status.proven);
  assert.equal(follower.status.state, "live");
  const rows = follower.rows();
  assert.equal(rows, follower.rows(), "the same array until something changes");
  assert.deepEqual(rows.map((row) => row["id"]), [1, 2, 5, 6, 7, 8, 18446744073709551615n]);
  assert.deepEqual(rows[0], {
    id: 1, part: "a", n: 0, f: 1.5, d: 0.1, amount: "12.5000", bin: Uint8Array.of(0, 255, 16),
    at: "2026-01-02 03:04:05.120", ts: "2026-01-02T03:04:05.120Z", e: "new", j: '{"a": [1, 2]}',
  });
  assert.equal(rows[1]?.["n"], -(2n ** 63n));
  assert.equal(rows[1]?.["part"], "米");
  await follower.close();
  assert.equal(follower.status.state, "closed");
});

test("an answer that is cut at any byte goes on from the last token that was stored", { timeout: 120_000 }, async () => {
  const resumed = new Set<string>();
  const cutAt = async (cut: number) => {
    const store = memoryStore();
    let asked = 0;
    const fetch = async (_: unknown, init?: RequestInit) => {
      const token = tokenOf(init?.body);
      // What it comes with is what is stored, and nothing later.
      const saved = await store.load();
      assert.deepEqual(token, saved?.state.token ?? new Uint8Array(), `cut at ${cut}`);
      if (asked++ === 0) return grpc(RECORDED.slice(0, cut));
      resumed.add(String(token));
      return open(after(token, FRAMES), init?.signal);
    };
    const follower = follow({ url: "http://node", shape: SHAPE, store, fetch });
    await until(follower, (status) => asked === 2 && status.state !== "offline" && complete(follower)());
    await follower.close();
    const saved = await store.load();
    assert.equal(saved?.rows.length, FINAL.rows, `cut at ${cut}`);
  };
  // Each waits before it comes again, so many at a time.
  const cuts = [...Array(RECORDED.length + 1).keys()];
  while (cuts.length > 0) await Promise.all(cuts.splice(0, 250).map(cutAt));
  assert.ok(resumed.size > 3, `${resumed.size} tokens were come again with`);
});

test("what a proxy holds back until its buffer is full, and then ends, is taken in pieces", async () => {
  // Each answer has 700 bytes more than the last one that was taken whole.
  let asked = 0;
  const fetch = async (_: unknown, init?: RequestInit) => {
    const rest = after(tokenOf(init?.body), FRAMES);
    return grpc(rest.slice(0, 700 * ++asked));
  };
  const follower = follow({ url: "http://node", shape: SHAPE, fetch });
  await until(follower, complete(follower));
  await follower.close();
});

test("changes are shown by whole transactions", async () => {
  const seen: string[][] = [];
  const follower = follow({ url: "http://node", shape: SHAPE, fetch: async (_, init) => open(RECORDED, init?.signal, 1) });
  follower.onChange(() => seen.push(follower.rows().map((row) => String(row["part"]))));
  await until(follower, complete(follower));
  await follower.close();
  // One transaction moved a row to another key and brought two.
  for (const parts of seen) {
    assert.equal(parts.includes("swapped"), parts.includes("g"));
    assert.equal(parts.includes("g"), parts.includes("h"));
    assert.notEqual(parts.includes("swapped"), parts.includes("e"));
  }
});

test("the copy is read before anything is asked, and stays readable when nothing answers", async () => {
  const store = memoryStore();
  const first = follow({ url: "http://node", shape: SHAPE, store, fetch: async (_, init) => open(RECORDED, init?.signal) });
  await until(first, complete(first));
  await first.close();
  const second = follow({
    url: "http://node",
    shape: SHAPE,
    store,
    fetch: async () => {
      throw new TypeError("fetch failed");
    },
  });
  await second.ready;
  assert.equal(second.size, FINAL.rows);
  await until(second, (status) => status.error !== undefined);
  assert.equal(second.status.state, "offline");
  assert.equal(second.size, FINAL.rows);
  await second.forget();
  assert.equal(await store.load(), undefined);
});

test("a refusal is said and not asked again; what passes is", async () => {
  let asked = 0;
  const follower = follow({
    url: "http://node",
    shape: SHAPE,
    fetch: async () => (++asked < 3 ? grpc(trailers(14, "the node ends")) : grpc(trailers(5, "there is no source `schop`; hint: see"))),
  });
  await until(follower, (status) => status.state === "refused");
  assert.match(String(follower.status.error?.message), /no source `schop`; hint/);
  assert.equal(asked, 3);
  await assert.rejects(follower.mark(), /refused/);
  await follower.close();
});

test("a page that stands where the node should is not believed", async () => {
  let asked = 0;
  const follower = follow({
    url: "http://node",
    shape: SHAPE,
    fetch: async (_, init) => {
      if (++asked === 1) return new Response("<h1>Log in to the train's network</h1>", { headers: { "content-type": "text/html" } });
      return open(RECORDED, init?.signal);
    },
  });
  await until(follower, (status) => status.error !== undefined);
  assert.match(String(follower.status.error?.message), /no node/);
  await until(follower, complete(follower));
  await follower.close();
});

test("the right is asked for with each connection, and an old one is renewed", async () => {
  const rights: (string | null)[] = [];
  let given = 0;
  const follower = follow({
    url: "http://node",
    shape: SHAPE,
    bearer: async () => `right ${++given}`,
    fetch: async (_, init) => {
      rights.push(new Headers(init?.headers).get("authorization"));
      return rights.length < 2 ? new Response("", { status: 401 }) : open(RECORDED, init?.signal);
    },
  });
  await until(follower, complete(follower));
  assert.deepEqual(rights, ["Bearer right 1", "Bearer right 2"]);
  await follower.close();
});

test("a store that fails is told, and the copy goes on in memory", async () => {
  const store = { ...memoryStore(), commit: async () => Promise.reject(new Error("the disk is full")) };
  const follower = follow({ url: "http://node", shape: SHAPE, store, fetch: async (_, init) => open(RECORDED, init?.signal) });
  await until(follower, complete(follower));
  assert.match(String(follower.status.storeError?.message), /full/);
  await follower.close();
});

test("a copy that differs is filled again, and shown meanwhile", async () => {
  // The checkpoint of a table with more rows.
  const point = new Writer().bytes(8, new Writer().uint(1, 1000).finish()).finish();
  const frame = new Uint8Array(5 + point.length);
  new DataView(frame.buffer).setUint32(1, point.length);
  frame.set(point, 5);
  const tokens: number[] = [];
  const sizes: number[] = [];
  const follower = follow({
    url: "http://node",
    shape: SHAPE,
    fetch: async (_, init) => {
      tokens.push(tokenOf(init?.body).length);
      const bytes = tokens.length === 1 ? joined([RECORDED, frame]) : RECORDED;
      return open(bytes, init?.signal);
    },
  });
  follower.onChange(() => sizes.push(follower.size));
  await until(follower, () => tokens.length === 2 && complete(follower)() && follower.status.proven);
  assert.deepEqual(tokens, [0, 0]);
  assert.ok(sizes.slice(1).every((size) => size > 0), `${sizes}`);
  await follower.close();
});

test("a mark is reached when the stream says so, whichever comes first", async () => {
  const message = (bytes: Uint8Array) => {
    const frame = new Uint8Array(5 + bytes.length);
    new DataView(frame.buffer).setUint32(1, bytes.length);
    frame.set(bytes, 5);
    return frame;
  };
  const reached = message(new Writer().bytes(11, new Writer().uint(1, 3).finish()).finish());
  let more: ((bytes: Uint8Array<ArrayBuffer>) => void) | undefined;
  let answer: (() => void) | undefined;
  const follower = follow({
    url: "http://node",
    shape: SHAPE,
    fetch: async (input, init) => {
      if (String(input).endsWith("/Mark")) {
        await new Promise<void>((resolve) => (answer = resolve));
        return grpc(joined([message(new Writer().uint(1, 3).finish()), trailers(0, "")]));
      }
      const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
        start(controller) {
          controller.enqueue(RECORDED);
          more = (bytes) => controller.enqueue(bytes);
          init?.signal?.addEventListener("abort", () => controller.error(new Error("aborted")));
        },
      });
      return grpc(body);
    },
  });
  await until(follower, (status) => status.state === "live");
  const mark = follower.mark();
  while (!answer) await new Promise((resolve) => setImmediate(resolve));
  more?.(reached);
  await new Promise((resolve) => setImmediate(resolve));
  answer();
  await mark;
  await follower.close();
});
