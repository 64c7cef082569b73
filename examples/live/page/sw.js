// Keeps the page itself for when there is no network; its rows are in IndexedDB. What the network has is always newer.

const KEPT = "live-1";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  event.respondWith(
    fetch(event.request).then(
      async (answer) => {
        if (answer.ok) (await caches.open(KEPT)).put(event.request, answer.clone());
        return answer;
      },
      async () => (await caches.match(event.request)) ?? Response.error(),
    ),
  );
});
