// gRPC-Web over fetch: a message is a frame of five bytes and itself; the last frame is the trailers, with what became of the call.

/** Bytes of the largest message that is taken. */
const MESSAGE_BYTES_MAX = 64 << 20;
const HEAD_BYTES = 5;
const TRAILERS = 0x80;

/** Codes of gRPC that this client tells apart. */
export const Code = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

/** What a call ended with. */
export class CallError extends Error {
  override name = "CallError";
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }

  /** Whether the same may be answered otherwise when it is asked again. */
  get passes(): boolean {
    const passing: number[] = [
      Code.unavailable,
      Code.unknown,
      Code.internal,
      Code.cancelled,
      Code.deadlineExceeded,
      Code.resourceExhausted,
      Code.aborted,
    ];
    return passing.includes(this.code);
  }
}

/** Puts frames together from chunks that are cut anywhere. */
export class Frames {
  #buffer = new Uint8Array(64 << 10);
  #from = 0;
  #to = 0;
  /** The trailers, once they have come. */
  trailers: Map<string, string> | undefined;

  /** Whether a part of a frame is here. */
  get isTorn(): boolean {
    return this.#from < this.#to;
  }

  /** The messages that are complete now: views of memory that the next call uses again. */
  push(chunk: Uint8Array): Uint8Array[] {
    this.#append(chunk);
    const messages: Uint8Array[] = [];
    while (this.#to - this.#from >= HEAD_BYTES) {
      const view = new DataView(this.#buffer.buffer, this.#from);
      const flags = view.getUint8(0);
      const length = view.getUint32(1);
      if (length > MESSAGE_BYTES_MAX) throw new CallError(Code.internal, `a message of ${length} bytes`);
      if ((flags & 0x7f) !== 0) throw new CallError(Code.internal, "a compressed message, which was not asked for");
      const begin = this.#from + HEAD_BYTES;
      if (this.#to < begin + length) break;
      const body = this.#buffer.subarray(begin, begin + length);
      this.#from = begin + length;
      if (flags === TRAILERS) this.trailers = trailersOf(new TextDecoder().decode(body));
      else messages.push(body);
    }
    return messages;
  }

  #append(chunk: Uint8Array): void {
    const held = this.#to - this.#from;
    const needed = held + chunk.length;
    if (this.#to + chunk.length > this.#buffer.length) {
      const target = needed > this.#buffer.length ? new Uint8Array(Math.max(needed, this.#buffer.length * 2)) : this.#buffer;
      target.set(this.#buffer.subarray(this.#from, this.#to), 0);
      this.#buffer = target;
      [this.#from, this.#to] = [0, held];
    }
    this.#buffer.set(chunk, this.#to);
    this.#to += chunk.length;
  }
}

function trailersOf(text: string): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const line of text.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) pairs.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  return pairs;
}

/** Throws unless the call ended well. */
function judge(said: { get(name: string): string | null | undefined }): void {
  const code = Number(said.get("grpc-status") ?? Code.unknown);
  if (code === Code.ok) return;
  const message = said.get("grpc-message") ?? "";
  let text = message;
  try {
    text = decodeURIComponent(message);
  } catch {
    // Not encoded as it should be: shown as it came.
  }
  throw new CallError(code, text);
}

export interface Call {
  fetch: typeof globalThis.fetch;
  /** Where the node is: `https://data.example.com`. */
  url: string;
  method: "Subscribe" | "Mark";
  body: Uint8Array;
  bearer: string | undefined;
  signal: AbortSignal;
  /** Longest silence before the connection counts as broken. */
  quietMsMax: number;
}

/** The messages of an answer, together as they arrive. Returns when the call ended well; throws `CallError` otherwise. */
export async function* call(request: Call): AsyncGenerator<Uint8Array[], void, undefined> {
  const ender = new AbortController();
  const end = () => ender.abort();
  request.signal.addEventListener("abort", end, { once: true });
  if (request.signal.aborted) end();
  let silence: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(end, request.quietMsMax);
  };
  try {
    heard();
    const response = await send(request, ender.signal);
    const reader = response.body?.getReader();
    const frames = new Frames();
    while (reader) {
      heard();
      const { done, value } = await reader.read();
      if (done) break;
      const messages = frames.push(value);
      // Whoever takes them may take long, and the connection is not to blame.
      clearTimeout(silence);
      if (messages.length > 0) yield messages;
      if (frames.trailers) {
        judge(frames.trailers);
        return;
      }
    }
    throw new CallError(Code.unavailable, frames.isTorn ? "the answer broke off within a message" : "the answer broke off");
  } catch (error) {
    if (error instanceof CallError) throw error;
    const quiet = ender.signal.aborted && !request.signal.aborted;
    throw new CallError(Code.unavailable, quiet ? silent(request.quietMsMax) : reasonOf(error));
  } finally {
    clearTimeout(silence);
    request.signal.removeEventListener("abort", end);
    end();
  }
}

function silent(ms: number): string {
  return `nothing came for ${ms / 1000} s, not even a heartbeat: does a proxy on the way hold answers back?`;
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node says no more than "fetch failed", and why in its cause.
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

async function send({ fetch, url, method, body, bearer }: Call, signal: AbortSignal): Promise<globalThis.Response> {
  const frame = new Uint8Array(HEAD_BYTES + body.length);
  new DataView(frame.buffer).setUint32(1, body.length);
  frame.set(body, HEAD_BYTES);
  const headers: Record<string, string> = {
    "content-type": "application/grpc-web+proto",
    accept: "application/grpc-web+proto",
    "x-grpc-web": "1",
  };
  if (bearer !== undefined) headers["authorization"] = `Bearer ${bearer}`;
  const path = `${url.replace(/\/+$/, "")}/tidemill.v1.Subscriptions/${method}`;
  const response = await fetch(path, { method: "POST", headers, body: frame, signal, cache: "no-store" });
  // An answer without a message has its trailers in the headers.
  if (response.headers.has("grpc-status")) judge(response.headers);
  const type = response.headers.get("content-type") ?? "";
  if (!response.ok) throw new CallError(codeOf(response.status), await refusal(response, type));
  if (!type.startsWith("application/grpc-web")) {
    // A proxy's page, or a network that wants a login first.
    throw new CallError(Code.unavailable, `an answer of type \`${type}\`: that is no node`);
  }
  return response;
}

function codeOf(status: number): number {
  if (status === 400) return Code.invalidArgument;
  if (status === 401) return Code.unauthenticated;
  if (status === 403) return Code.permissionDenied;
  if (status === 404) return Code.unimplemented;
  return Code.unavailable;
}

async function refusal(response: globalThis.Response, type: string): Promise<string> {
  const short = `HTTP ${response.status}`;
  if (!type.includes("json")) return short;
  try {
    const { detail, hint } = (await response.json()) as { detail?: string; hint?: string };
    return [detail ?? short, hint].filter(Boolean).join("; hint: ");
  } catch {
    return short;
  }
}
