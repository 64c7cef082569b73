// A line over time as SVG.

export interface Point {
  /** Milliseconds since 1970. */
  at: number;
  value: number;
}

const MARGIN = { top: 8, right: 12, bottom: 24, left: 44 };

/** The smallest round number that is not below a value, and goes into thirds or quarters well. */
function ceiling(value: number): number {
  const scale = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return ([1, 1.2, 1.6, 2, 3, 4, 6, 8, 10].find((step) => step * scale >= value) ?? 10) * scale;
}

export function line(into: HTMLElement, points: Point[], labels: { value: (value: number) => string; at: (at: number) => string }): void {
  const { width, height } = into.getBoundingClientRect();
  const first = points[0];
  const last = points.at(-1);
  if (!first || !last || width === 0) return;
  const top = ceiling(Math.max(...points.map(({ value }) => value)));
  const x = (at: number) => MARGIN.left + ((at - first.at) / (last.at - first.at || 1)) * (width - MARGIN.left - MARGIN.right);
  const y = (value: number) => height - MARGIN.bottom - (value / top) * (height - MARGIN.top - MARGIN.bottom);
  const place = (point: Point) => `${x(point.at).toFixed(1)},${y(point.value).toFixed(1)}`;
  const rules = [0, 0.5, 1].map((part) => {
    const at = y(part * top);
    return `<line class="rule" x1="${MARGIN.left}" x2="${width - MARGIN.right}" y1="${at}" y2="${at}"/>
      <text x="${MARGIN.left - 10}" y="${at + 4}" text-anchor="end">${labels.value(part * top)}</text>`;
  });
  const count = Math.max(2, Math.min(7, Math.floor(width / 120)));
  const times = Array.from({ length: count }, (_, index) => first.at + ((last.at - first.at) * index) / (count - 1));
  const anchors = (index: number) => (index === 0 ? "start" : index === count - 1 ? "end" : "middle");
  const marks = times.map((at, index) => `<text x="${x(at)}" y="${height - 4}" text-anchor="${anchors(index)}">${labels.at(at)}</text>`);
  const path = points.map(place).join(" L");
  // The last minute is not over.
  const [over, open] = [points.slice(0, -1), points.slice(-2)].map((part) => part.map(place).join(" L"));
  into.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${labels.value(last.value)} in the last minute">
    <defs><linearGradient id="wash" x2="0" y2="1">
      <stop stop-color="var(--tide)" stop-opacity="0.28"/><stop offset="1" stop-color="var(--tide)" stop-opacity="0.02"/>
    </linearGradient></defs>
    ${rules.join("")}${marks.join("")}
    <path class="area" d="M${x(first.at)},${y(0)} L${path} L${x(last.at)},${y(0)} Z"/>
    <path class="line" d="M${over}"/><path class="line open" d="M${open}"/>
    <circle class="now" cx="${x(last.at)}" cy="${y(last.value)}" r="4.5"/>
  </svg>`;
}
