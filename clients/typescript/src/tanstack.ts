// A collection of TanStack DB that is a copy of a shape.

import type { CollectionConfig, UtilsRecord } from "@tanstack/db";
import type { Row, RowChange } from "./copy.js";
import { follow, type Follower, type FollowOptions, type Status } from "./follow.js";

export interface TidemillCollectionConfig<R extends Row, K extends string | number> extends Omit<FollowOptions<R>, "onChange" | "signal"> {
  /** What the collection is called. */
  id?: string;
  /** The key of a row. */
  getKey: (row: R) => K;
  /** Writes go to the application's own API; `await collection.utils.mark()` then waits until they have come back. */
  onInsert?: CollectionConfig<R, K>["onInsert"];
  onUpdate?: CollectionConfig<R, K>["onUpdate"];
  onDelete?: CollectionConfig<R, K>["onDelete"];
}

export interface TidemillUtils extends UtilsRecord {
  /** Resolves when the collection has all that the source had committed by now. */
  mark: () => Promise<void>;
  /** `undefined` until the collection is used. */
  status: () => Status | undefined;
}

/**
 * Options for `createCollection`. The collection is ready as soon as there is a copy from before, online or not; without one, when all rows
 * have come. Each transaction of the source is one of the collection.
 */
export function tidemillCollectionOptions<R extends Row, K extends string | number>(
  config: TidemillCollectionConfig<R, K>,
): CollectionConfig<R, K, never, TidemillUtils> & { utils: TidemillUtils } {
  const { id, getKey, onInsert, onUpdate, onDelete, onStatus, ...options } = config;
  let follower: Follower<R> | undefined;
  const given = { id, onInsert, onUpdate, onDelete };
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Pick<
    CollectionConfig<R, K, never, TidemillUtils>,
    "id" | "onInsert" | "onUpdate" | "onDelete"
  >;
  return {
    ...set,
    getKey,
    sync: {
      rowUpdateMode: "full",
      sync: ({ begin, write, commit, markReady, markError }) => {
        const tell = (changes: RowChange<R>[]) => {
          begin();
          // Rows whose keys were swapped go before they come.
          for (const change of changes) {
            if (change.type === "delete") write({ type: "delete", key: getKey(change.before) });
          }
          for (const change of changes) {
            if (change.type !== "delete") write({ type: change.type, value: change.row });
          }
          commit();
        };
        const own = follow<R>({
          ...options,
          onChange: tell,
          onStatus: (status) => {
            if (status.state === "live") markReady();
            if (status.state === "refused") markError(status.error);
            onStatus?.(status);
          },
        });
        follower = own;
        void own.ready.then(() => {
          if (own.size > 0) markReady();
        });
        return () => {
          if (follower === own) follower = undefined;
          void own.close();
        };
      },
    },
    utils: {
      mark: () => follower?.mark() ?? Promise.reject(new Error("the collection is not in use")),
      status: () => follower?.status,
    },
  };
}
