import assert from "node:assert/strict";
import { test } from "node:test";
import { createCollection, createLiveQueryCollection, gt } from "@tanstack/db";
import { memoryStore, type Row } from "../src/index.js";
import { tidemillCollectionOptions } from "../src/tanstack.js";
import { FINAL, open, RECORDED } from "./node.js";

interface Thing extends Row {
  id: number;
  part: string;
  n: number;
}

test("a collection has the rows, live queries move, and it is ready offline from what was stored", async () => {
  const store = memoryStore();
  const options = {
    url: "http://node",
    shape: { source: "shop", table: "shop.things" },
    store,
    getKey: (row: Thing) => `${row.id}/${row.part}`,
  };
  const things = createCollection(
    tidemillCollectionOptions<Thing, string>({ id: "things", ...options, fetch: async (_, init) => open(RECORDED, init?.signal, 64) }),
  );
  const some = createLiveQueryCollection((query) => query.from({ thing: things }).where(({ thing }) => gt(thing.id, 5)));
  await some.preload();
  await new Promise<void>((resolve) => {
    const look = () => {
      if (things.size === FINAL.rows && some.size === 4) resolve();
    };
    some.subscribeChanges(look);
    look();
  });
  assert.deepEqual(things.get("1/a")?.n, 0);
  assert.equal(things.has("4/d"), false);
  assert.equal(things.utils.status()?.state, "live");
  await some.cleanup();
  await things.cleanup();
  const offline = createCollection(
    tidemillCollectionOptions<Thing, string>({
      id: "offline",
      ...options,
      fetch: async () => {
        throw new TypeError("fetch failed");
      },
    }),
  );
  await offline.preload();
  assert.equal(offline.size, FINAL.rows);
  await offline.cleanup();
});
