// Prints the messages of a room: those that were missed since it last ran, and then as they come. Its place is a token in a file.
//
//   node after/listen.mjs [ROOM [NODE [PLACE]]]      by default 1, http://127.0.0.1:7070 and ./place

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { follow } from "../../../clients/typescript/dist/src/index.js";

const [room = "1", url = "http://127.0.0.1:7070", place = "place"] = process.argv.slice(2);

const messages = follow({
  url,
  shape: { source: "chat", table: "chat.messages", where: `room = ${Number(room)}` },
  token: existsSync(place) ? readFileSync(place) : undefined,
  onChange: (changes) => {
    for (const { type, row } of changes) if (type === "insert") console.log(`${row.author}: ${row.text}`);
    // In one step, so that no kill leaves a part of it.
    writeFileSync(`${place}.next`, messages.token);
    renameSync(`${place}.next`, place);
  },
  onStatus: ({ state, error }) => console.log(state === "live" ? "listening" : [state, error?.message].filter(Boolean).join(": ")),
});
