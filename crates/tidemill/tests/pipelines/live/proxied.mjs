// Follows `shop.orders` in Node through a proxy that this process is, too, and that behaves as it is told. An expression a line on stdin, over
// `orders`, `proxy` and `told`; what it evaluates to, awaited, a line on stdout: {"value": …} or {"error": "…"}. Ends with stdin.
//
//   node proxied.mjs CLIENT NODE      the built client's index.js, and the node's address

import { createServer, request } from "node:http";
import { createInterface } from "node:readline";

const [client, node] = process.argv.slice(2);
const { follow } = await import(client);

// `mode`: "pass"; "hold", which answers only when the whole answer is there; "blocks", which passes whole blocks of `bytes` only; "cut", which
// resets each answer behind `bytes`. `answers` counts those that began, `cuts` those that were reset.
const proxy = { mode: "pass", bytes: 0, answers: 0, cuts: 0, open: new Set() };

/** What is open ends: as when the proxy is started anew with other settings. */
proxy.become = (mode, bytes = 0) => {
  [proxy.mode, proxy.bytes] = [mode, bytes];
  for (const outgoing of proxy.open) outgoing.destroy();
};

const server = createServer((incoming, outgoing) => {
  const { mode, bytes } = proxy;
  proxy.open.add(outgoing);
  const { method, url, headers } = incoming;
  const onward = request(new URL(url, node), { method, headers: { ...headers, host: new URL(node).host } }, (answer) => {
    proxy.answers += 1;
    const head = () => outgoing.headersSent || outgoing.writeHead(answer.statusCode, answer.headers);
    let held = Buffer.alloc(0);
    let passed = 0;
    if (mode !== "hold") {
      head();
      outgoing.flushHeaders();
    }
    answer.on("data", (chunk) => {
      if (mode === "pass") outgoing.write(chunk);
      else if (mode === "cut") {
        const part = chunk.subarray(0, bytes - passed);
        passed += part.length;
        // The reset may overtake what was written: so it waits for that.
        if (passed < bytes) outgoing.write(part);
        else outgoing.write(part, () => ((proxy.cuts += 1), outgoing.destroy()));
      } else {
        held = Buffer.concat([held, chunk]);
        const whole = mode === "blocks" ? held.length - (held.length % bytes) : 0;
        if (whole > 0) outgoing.write(held.subarray(0, whole));
        held = held.subarray(whole);
      }
    });
    answer.on("end", () => (head(), outgoing.end(held)));
    answer.on("error", () => outgoing.destroy());
  });
  onward.on("error", () => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end()));
  outgoing.on("close", () => (proxy.open.delete(outgoing), onward.destroy()));
  incoming.pipe(onward);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

// How often each order was told as new, and every error that was shown.
const told = { inserts: new Map(), errors: [] };
let orders;
const begin = () => {
  orders = follow({
    url: `http://127.0.0.1:${server.address().port}`,
    shape: { source: "shop", table: "shop.orders" },
    quietMsMax: 1500,
    onChange: (changes) => {
      for (const { type, row } of changes) if (type === "insert") told.inserts.set(row.id, (told.inserts.get(row.id) ?? 0) + 1);
    },
    onStatus: ({ state, error }) => {
      if (state === "offline" && error) told.errors.push(error.message);
    },
  });
};

/** Looks with each change and status until it is true. */
const until = (holds) =>
  new Promise((done) => {
    const look = () => holds() && (done(true), stops.forEach((stop) => stop()));
    const stops = [orders.onChange(look), orders.onStatus(look)];
    look();
  });

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { value: (await eval(line)) ?? null };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  console.log(JSON.stringify(answer));
}
process.exit(0);
