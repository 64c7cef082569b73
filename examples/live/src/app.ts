// The page: follows one table, and draws what the copy has whenever it changes.

import { follow, indexedDbStore, type Row, type Status } from "tidemill-client";
import { line } from "./chart.js";

interface Order extends Row {
  id: number;
  customer: string;
  product: string;
  /** DECIMAL is text, so that no cent is lost. */
  amount: string;
  status: "new" | "paid" | "sent";
  placed_at: string;
}

const MINUTE_MS = 60_000;
const MINUTES_SHOWN = 60;
const ORDERS_SHOWN = 10;

const money = new Intl.NumberFormat("en", { style: "currency", currency: "EUR" });
const round = new Intl.NumberFormat("en", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });
const count = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });

const element = (id: string): HTMLElement => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
};

const orders = follow<Order>({
  url: location.origin,
  shape: { source: "shop", table: "shop.orders" },
  store: indexedDbStore("orders"),
  onChange: (changes) => {
    for (const change of changes) if (change.type !== "delete") moved.add(change.row.id);
    // The first rows are not news.
    if (changes.length > ORDERS_SHOWN) moved.clear();
    lastChange = new Date();
    soon();
  },
  onStatus: (status) => say(status),
});

/** Orders that changed since the page was drawn. */
const moved = new Set<number>();
let lastChange: Date | undefined;
let drawing = false;

/** Draws once for all that changes before the next frame. */
function soon(): void {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function say({ state, error, proven, expected }: Status): void {
  document.body.dataset["state"] = state;
  const words = {
    live: "Live",
    "catching-up": expected > 0 ? `Loading ${count.format(expected)} rows` : "Catching up",
    offline: "Offline",
    refused: "Refused",
    closed: "Closed",
  };
  element("state").textContent = words[state];
  element("state").title = error?.message ?? "";
  element("proof").textContent = proven ? "checksum equal to the source's" : "";
  soon();
}

function draw(): void {
  const rows = orders.rows();
  const cents = rows.map((order) => Math.round(Number(order.amount) * 100));
  const revenue = cents.reduce((sum, part) => sum + part, 0) / 100;
  element("orders").textContent = count.format(rows.length);
  element("revenue").textContent = money.format(revenue);
  element("average").textContent = rows.length > 0 ? money.format(revenue / rows.length) : "–";
  element("waiting").textContent = count.format(rows.filter(({ status }) => status !== "sent").length);
  minutes(rows);
  latest(rows.slice(-ORDERS_SHOWN).reverse());
  products(rows);
  const since = lastChange && orders.status.state === "offline" ? `, as of ${lastChange.toLocaleTimeString()}` : "";
  element("place").textContent = `up to change ${orders.lsn}${since}`;
  moved.clear();
}

function minutes(rows: readonly Order[]): void {
  const minute = (order: Order) => Math.floor(Date.parse(order.placed_at) / MINUTE_MS);
  const newest = rows.reduce((latest, order) => Math.max(latest, minute(order)), 0);
  const sums = new Map<number, number>();
  for (const order of rows) sums.set(minute(order), (sums.get(minute(order)) ?? 0) + Number(order.amount));
  const shown = Array.from({ length: MINUTES_SHOWN }, (_, index) => newest - MINUTES_SHOWN + 1 + index);
  const points = shown.map((at) => ({ at: at * MINUTE_MS, value: sums.get(at) ?? 0 }));
  line(element("minutes"), points, { value: (value) => round.format(value), at: (at) => clock.format(at) });
  element("span").textContent = "last hour";
}

function latest(rows: Order[]): void {
  element("latest").replaceChildren(
    ...rows.map((order) => {
      const row = document.createElement("tr");
      if (moved.has(order.id)) row.className = "moved";
      const cell = (text: string, kind = "") => {
        const made = row.insertCell();
        made.className = kind;
        made.textContent = text;
        return made;
      };
      cell(`#${order.id}`);
      cell(order.customer);
      cell(order.product);
      cell(money.format(Number(order.amount)), "number");
      const tag = document.createElement("span");
      tag.className = `tag ${order.status}`;
      tag.textContent = order.status;
      cell("").append(tag);
      return row;
    }),
  );
}

function products(rows: readonly Order[]): void {
  const sums = new Map<string, number>();
  for (const { product, amount } of rows) sums.set(product, (sums.get(product) ?? 0) + Number(amount));
  const sorted = [...sums].sort(([, a], [, b]) => b - a);
  const most = sorted[0]?.[1] ?? 1;
  const list = element("products");
  // The same elements again, so that bars move instead of jumping.
  while (list.childElementCount > sorted.length) list.lastElementChild?.remove();
  while (list.childElementCount < sorted.length) {
    const item = document.createElement("li");
    item.append(document.createElement("b"), document.createElement("span"), document.createElement("i"));
    list.append(item);
  }
  sorted.forEach(([product, sum], index) => {
    const [name, value, bar] = list.children[index]?.children ?? [];
    if (!name || !value || !(bar instanceof HTMLElement)) return;
    name.textContent = product;
    value.textContent = round.format(sum);
    bar.style.setProperty("--part", `${(100 * sum) / most}%`);
  });
}

// For the console: `orders.rows()`, `await orders.mark()`.
Object.assign(globalThis, { orders });
addEventListener("resize", soon);
void orders.ready.then(soon);
void navigator.serviceWorker?.register("/sw.js");
