// A client of Tidemill's subscriptions: rows of MySQL tables on a device, kept up to date, readable without a network.

export { follow, Follower, type FollowOptions, type Status } from "./follow.js";
export { indexedDbStore } from "./indexeddb.js";
export { memoryStore, type Notice, type Store } from "./store.js";
export { CallError } from "./grpcweb.js";
export { Differs, ProtocolError, type Commit, type Held, type Row, type RowChange, type Saved, type State } from "./copy.js";
export { rowHash } from "./hash.js";
export type { Cell, Column, Kind, OrderBy, Shape, Value } from "./messages.js";
