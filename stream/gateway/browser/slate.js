// What changed between two slates, in numbers and words. No DOM, no requests.

// Places are from 1; `from` is 0 for an item that was not there.
export function moves(before, now) {
  const places = new Map(before.map((item, index) => [item, index + 1]));
  const shown = new Set(now);
  return {
    rows: now.map((item, index) => ({ item, to: index + 1, from: places.get(item) || 0 })),
    left: before.filter((item) => !shown.has(item)).map((item) => ({ item, from: places.get(item) })),
  };
}

export function moveText({ from, to }, first) {
  if (first) return { kind: "same", text: "" };
  if (!from) return { kind: "new", text: `new → ${to}` };
  if (from === to) return { kind: "same", text: `stays ${to}` };
  return from > to ? { kind: "up", text: `▲ ${from} → ${to}` } : { kind: "down", text: `▼ ${from} → ${to}` };
}

export function summary(change) {
  const fresh = change.rows.filter((row) => !row.from).length;
  const moved = change.rows.filter((row) => row.from && row.from !== row.to).length;
  if (!fresh && !moved && !change.left.length) return "nothing moved";
  return `${fresh} new, ${moved} moved, ${change.left.length} left`;
}

// An explanation in words, then the parts of the score.
export function why(explanation) {
  if (!explanation) return "";
  const parts = Object.entries(explanation.parts || {})
    .filter(([, value]) => Math.abs(value) >= 0.005)
    .sort(([, one], [, other]) => Math.abs(other) - Math.abs(one))
    .map(([name, value]) => `${name} ${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`);
  return [explanation.text, parts.join(", ")].filter(Boolean).join(" · ");
}

// Whether a state with these applied offsets contains a record.
export function covers(applied, { topic, partition, offset }) {
  const last = applied[`${topic}/${partition}`];
  return last !== undefined && last >= offset;
}

export function visitor(key) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  if (key === "long") return String(bytes.slice(0, 6).reduce((sum, byte) => sum * 256 + byte, 0));
  return `visitor-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function ratings([low, high]) {
  const step = high - low <= 5 ? 0.5 : (high - low) / 10;
  const found = [];
  for (let value = high; value > low + step / 2; value -= step) found.push(Number(value.toFixed(4)));
  return [...found, low];
}
