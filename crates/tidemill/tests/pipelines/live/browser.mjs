// Drives a headless Chromium by the DevTools protocol, over a pipe: no port, no library. A command a line on stdin, an answer a line on
// stdout: {"value": …} or {"error": "…"}. The browser ends with stdin.
//
//   node browser.mjs CHROMIUM PROFILE
//     {"open": URL}                                   until the page has loaded
//     {"ask": EXPRESSION}                             what it evaluates to, awaited, as JSON
//     {"picture": FILE, "width": N, "height": N, "dark": true, "scale": N}
//     {"tab": N}                                      the commands that follow are for that page; made where there is none

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

const COMMAND_MS_MAX = 30_000;

const [program, profile] = process.argv.slice(2);
const options = ["--headless", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe", `--user-data-dir=${profile}`];
const browser = spawn(program, [...options, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
browser.on("exit", (code) => process.exit(code ?? 1));
const [, , , into, from] = browser.stdio;

let last = 0;
const waiting = new Map();
const loaded = new Map();
let rest = "";
from.setEncoding("utf8");
from.on("data", (text) => {
  const parts = (rest + text).split("\0");
  rest = parts.pop();
  for (const part of parts) {
    const { id, result, error, method, sessionId } = JSON.parse(part);
    if (id !== undefined) {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error) reject(new Error(error.message));
      else resolve(result);
    } else if (method === "Page.loadEventFired") loaded.get(sessionId)?.();
  }
});

function call(method, params = {}, sessionId = undefined) {
  const id = ++last;
  into.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

const tabs = new Map();
let tab = 0;

async function session() {
  if (!tabs.has(tab)) {
    const { targetId } = await call("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
    await call("Page.enable", {}, sessionId);
    tabs.set(tab, { sessionId, targetId });
  }
  return tabs.get(tab).sessionId;
}

async function run(command) {
  if (command.tab !== undefined) tab = command.tab;
  const page = await session();
  if (command.close) {
    await call("Target.closeTarget", { targetId: tabs.get(tab).targetId });
    tabs.delete(tab);
  } else if (command.open) {
    const load = new Promise((resolve) => loaded.set(page, resolve));
    const { errorText } = await call("Page.navigate", { url: command.open }, page);
    if (errorText) throw new Error(errorText);
    await load;
  } else if (command.ask) {
    const params = { expression: command.ask, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await call("Runtime.evaluate", params, page);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  } else if (command.picture) {
    const { width = 1120, height = 860, scale = 1, dark = false } = command;
    await call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: scale, mobile: false }, page);
    await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] }, page);
    // Two frames: the page draws what the new size asks for.
    const frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 500))))";
    await call("Runtime.evaluate", { expression: frames, awaitPromise: true }, page);
    const { data } = await call("Page.captureScreenshot", {}, page);
    writeFileSync(command.picture, Buffer.from(data, "base64"));
  }
  return null;
}

for await (const line of createInterface({ input: process.stdin })) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("it took too long")), COMMAND_MS_MAX)));
  const answer = await Promise.race([run(JSON.parse(line)), late]).then(
    (value) => ({ value: value ?? null }),
    (error) => ({ error: error.message }),
  );
  clearTimeout(timer);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
browser.kill();
