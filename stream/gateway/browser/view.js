// Elements. Every text goes in as text: nothing here reads HTML.

export const by = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value, textContent: text })));
  if (chosen !== undefined) select.value = chosen;
}

// Click, Rate, Comment for one item.
export function buttons(item, title, act) {
  const one = (kind, text) => {
    const button = make("button", { type: "button", textContent: text });
    button.dataset.kind = kind;
    button.setAttribute("aria-label", `${text} ${title}`);
    button.addEventListener("click", () => act(kind, item, title));
    return button;
  };
  return make("span", { className: "buttons" }, one("click", "Click"), one("rating", "Rate"), one("comment", "Comment"));
}

// Replace the rows of a list, with motion from the old places and without losing the keyboard's place.
export function replaceRows(list, rows, fallback) {
  const active = document.activeElement;
  const row = list.contains(active) ? active.closest("li") : null;
  const kind = row ? active.dataset.kind : "";
  const index = row ? [...list.children].indexOf(row) : -1;
  const tops = new Map([...list.children].map((one) => [one.dataset.item, one.getBoundingClientRect().top]));
  list.replaceChildren(...rows);
  if (row) {
    const kept = rows.find((one) => one.dataset.item === row.dataset.item) || rows[Math.min(index, rows.length - 1)];
    const button = kept && kept.querySelector(`[data-kind="${kind}"]`);
    (button || fallback).focus({ preventScroll: true });
  }
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const one of rows) {
    const before = tops.get(one.dataset.item);
    const shift = before === undefined ? 0 : before - one.getBoundingClientRect().top;
    if (shift) one.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], { duration: 250, easing: "ease-out" });
    else if (before === undefined && tops.size) one.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 250 });
  }
}
