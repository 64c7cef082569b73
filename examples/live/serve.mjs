// Serves the page, and passes calls of the browser on to the node: both have one origin, as behind any reverse proxy.
//
//   node serve.mjs [PORT [NODE]]      by default 8080 and http://127.0.0.1:7070

import { createReadStream, statSync } from "node:fs";
import { createServer, request } from "node:http";
import { extname, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const [port = "8080", node = "http://127.0.0.1:7070"] = process.argv.slice(2);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const FOLDERS = [
  ["/client/", here("../../clients/typescript/dist/src/")],
  ["/app/", here("dist/")],
  ["/", here("page/")],
];
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

function proxy(incoming, outgoing) {
  const { method, url: path, headers } = incoming;
  const { host } = new URL(node);
  const onward = request(new URL(path, node), { method, headers: { ...headers, host } }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    // Each message at once, not when a buffer is full.
    outgoing.flushHeaders();
    answer.pipe(outgoing);
    answer.on("error", () => outgoing.destroy());
  });
  onward.on("error", () => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end()));
  outgoing.on("close", () => onward.destroy());
  incoming.pipe(onward);
}

function file(path, outgoing) {
  const [prefix, folder] = FOLDERS.find(([prefix]) => path.startsWith(prefix));
  const name = folder + (normalize(`/${path.slice(prefix.length)}`).slice(1) || "index.html");
  if (!name.startsWith(folder) || !statSync(name, { throwIfNoEntry: false })?.isFile()) {
    outgoing.writeHead(404).end("there is nothing at this path\n");
    return;
  }
  outgoing.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "cache-control": "no-cache" });
  createReadStream(name).pipe(outgoing);
}

const server = createServer((incoming, outgoing) => {
  const path = decodeURIComponent(new URL(incoming.url, "http://here").pathname);
  if (path.startsWith("/tidemill.v1.")) proxy(incoming, outgoing);
  else file(path, outgoing);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
