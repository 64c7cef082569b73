// The part of protobuf that proto/tidemill/v1/subscriptions.proto needs: varints, 64-bit numbers, and what has a length.

/** A whole number: a `number` where that is exact, a `bigint` beyond 2^53. */
export type Whole = number | bigint;

const TWO_32 = 0x1_0000_0000;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8Encoder = new TextEncoder();

/** A message that breaks off, or is none. */
export class ProtobufError extends Error {
  override name = "ProtobufError";
}

/** Two halves of 64 bits as a number, exactly. */
function whole(low: number, high: number): Whole {
  return high < 0x20_0000 ? high * TWO_32 + low : (BigInt(high) << 32n) | BigInt(low);
}

/** Reads the fields of one message in the order they come. */
export class Reader {
  #at = 0;
  #low = 0;
  #high = 0;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The next field's number and wire type as `number << 3 | type`; 0 at the end. */
  tag(): number {
    return this.#at >= this.#bytes.length ? 0 : this.uint32();
  }

  #varint(): void {
    let [low, high] = [0, 0];
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw new ProtobufError("a number breaks off");
      const part = byte & 0x7f;
      if (shift < 28) low |= part << shift;
      else if (shift === 28) {
        low |= part << 28;
        high |= part >>> 4;
      } else high |= part << (shift - 32);
      if (byte < 0x80) {
        this.#low = low >>> 0;
        this.#high = high >>> 0;
        return;
      }
    }
    throw new ProtobufError("a number is too long");
  }

  uint32(): number {
    this.#varint();
    return this.#low;
  }

  bool(): boolean {
    this.#varint();
    return this.#low !== 0 || this.#high !== 0;
  }

  uint64(): Whole {
    this.#varint();
    return whole(this.#low, this.#high);
  }

  int64(): Whole {
    this.#varint();
    return signed(this.#low, this.#high);
  }

  sint64(): Whole {
    this.#varint();
    // Zigzag: the lowest bit is the sign.
    const sign = -(this.#low & 1);
    const low = (((this.#low >>> 1) | (this.#high << 31)) ^ sign) >>> 0;
    const high = ((this.#high >>> 1) ^ sign) >>> 0;
    return signed(low, high);
  }

  fixed64(): bigint {
    return this.#view.getBigUint64(this.#skip(8), true);
  }

  double(): number {
    return this.#view.getFloat64(this.#skip(8), true);
  }

  /** A view of the message's own memory. */
  bytes(): Uint8Array {
    const length = this.uint32();
    const from = this.#skip(length);
    return this.#bytes.subarray(from, from + length);
  }

  text(): string {
    const bytes = this.bytes();
    try {
      return utf8.decode(bytes);
    } catch {
      throw new ProtobufError("text is not UTF-8");
    }
  }

  /** Passes over a field that is not known. */
  pass(tag: number): void {
    switch (tag & 7) {
      case 0:
        this.#varint();
        return;
      case 1:
        this.#skip(8);
        return;
      case 2:
        this.#skip(this.uint32());
        return;
      case 5:
        this.#skip(4);
        return;
      default:
        throw new ProtobufError(`a field of type ${tag & 7}`);
    }
  }

  #skip(length: number): number {
    const from = this.#at;
    if (from + length > this.#bytes.length) throw new ProtobufError("a message breaks off");
    this.#at = from + length;
    return from;
  }
}

function signed(low: number, high: number): Whole {
  const top = high | 0;
  if (top >= -0x20_0000 && top < 0x20_0000) {
    const value = top * TWO_32 + low;
    if (Number.isSafeInteger(value)) return value;
  }
  return (BigInt(top) << 32n) | BigInt(low);
}

/** Writes the fields of one message; what has its default is left out, as in proto3. */
export class Writer {
  readonly #out: number[] = [];

  #varint(value: bigint): void {
    let rest = BigInt.asUintN(64, value);
    while (rest >= 0x80n) {
      this.#out.push(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    this.#out.push(Number(rest));
  }

  uint(field: number, value: Whole): this {
    if (BigInt(value) !== 0n) {
      this.#varint(BigInt(field << 3));
      this.#varint(BigInt(value));
    }
    return this;
  }

  /** Written also where it is empty: a member of a `oneof`, or of a repeated field. */
  bytes(field: number, value: Uint8Array): this {
    this.#varint(BigInt((field << 3) | 2));
    this.#varint(BigInt(value.length));
    for (const byte of value) this.#out.push(byte);
    return this;
  }

  text(field: number, value: string): this {
    return value === "" ? this : this.bytes(field, utf8Encoder.encode(value));
  }

  finish(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#out);
  }
}
