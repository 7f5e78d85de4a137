import { Problem, ask, description, follow, useToken, userPath } from "./api.js";
import { covers, moveText, moves, ratings, summary, visitor, why } from "./slate.js";
import { buttons, by, make, options, replaceRows } from "./view.js";

const RULE = "demo-page";
const RULE_HOURS = 1; // a rule that somebody forgets ends by itself
const SHOWN_EVENTS = 12;
const KEPT = "freshet-visitor"; // this tab's own visitor, so that a reload keeps it

const items = new Map(); // id -> { title, categories }
let server = null;
let catalogue = null;
let user = "";
let shown = null; // the slate on the page
let following = new AbortController();
let asked = 0; // numbers the requests for slates: only the newest answer is shown
let chosenDiversity = null;
const pending = []; // events whose slate has not come yet
let sending = 0; // events whose answer has not come yet
let newest = 0; // seq of the newest slate of the worker
let running = false;

// problems

function tell(error) {
  if (error.name === "AbortError") return;
  const expected = error instanceof Problem;
  if (!expected) console.error(error);
  by("problem").textContent = expected ? error.message : "This page has a fault; the browser's console says which.";
  by("problem").hidden = false;
  if (error.status === 401) askForToken();
}

function clearProblem() {
  by("problem").hidden = true;
}

function safely(work) {
  return (...values) => Promise.resolve().then(() => work(...values)).catch(tell);
}

function askForToken() {
  by("access").hidden = false;
  by("token").focus();
}

// titles

async function learn(ids) {
  const unknown = ids.filter((id) => !items.has(id));
  for (let from = 0; from < unknown.length; from += 20) {
    const found = await ask("GET", "v1/items", { query: { item: unknown.slice(from, from + 20) } });
    found.items.forEach((one) => items.set(one.item, one));
  }
}

const titleOf = (id) => items.get(id)?.title || id;
const about = (id) => (items.get(id)?.categories || []).join(", ");

// who

async function become(name) {
  following.abort();
  following = new AbortController();
  user = name;
  shown = null;
  pending.length = newest = 0;
  by("user").textContent = name;
  by("user-state").textContent = "";
  by("events").replaceChildren();
  by("no-events").hidden = false;
  by("moved").textContent = "";
  by("left").textContent = "";
  by("connection").textContent = "connecting";
  follow(name, following.signal, safely(onSlate), onConnection).catch(tell);
  await refresh({ reason: "" });
  if (name === user && shown?.seq) await showPast(name);
}

async function newVisitor() {
  const name = visitor(catalogue.key);
  sessionStorage.setItem(KEPT, name);
  await become(name);
}

function onConnection(connected) {
  by("connection").textContent = connected ? `connected · freshet ${server.version}` : "not connected; trying again";
}

async function showPast(name) {
  let state;
  try {
    state = await ask("GET", userPath(name, ""));
  } catch (error) {
    if ([401, 403, 404].includes(error.status)) return; // a token that must not read events, or a user just forgotten
    throw error;
  }
  const recent = state.recent.slice(-SHOWN_EVENTS).reverse();
  await learn(recent.map((one) => one.item));
  if (name !== user || by("events").children.length) return;
  by("no-events").hidden = recent.length > 0;
  by("events").replaceChildren(...recent.map((one) => eventRow(one, new Date(one.time).toLocaleDateString())));
}

// events

const VERBS = { click: "clicked", rating: "rated", comment: "commented on" };

function eventRow(event, place) {
  const value = event.value === null || event.value === undefined ? "" : ` · ${event.value}`;
  const what = make("span", { className: "about", textContent: `${VERBS[event.type] || event.type}${value}` });
  return make(
    "li", {}, make("span", {}, make("span", { className: "title", textContent: titleOf(event.item) }), " ", what),
    make("span", { className: "position", textContent: place }),
  );
}

function act(kind, item, title) {
  if (kind === "click") return safely(send)({ type: "click", item });
  by("dialog-title").textContent = `${kind === "rating" ? "Rate" : "Comment on"} ${title}`;
  by("value-label").hidden = kind !== "rating";
  by("text-label").hidden = kind !== "comment";
  by("text").value = "";
  by("text").required = kind === "comment";
  by("dialog").dataset.kind = kind;
  by("dialog").dataset.item = item;
  by("dialog").showModal();
  by(kind === "rating" ? "value" : "text").focus();
}

function sendDialog() {
  const { kind, item } = by("dialog").dataset;
  by("dialog").close();
  const event = { type: kind, item };
  if (kind === "rating") event.value = Number(by("value").value);
  else event.text = by("text").value;
  return send(event);
}

async function send(event) {
  clearProblem();
  sending += 1;
  try {
    await write(event);
  } finally {
    sending -= 1;
  }
  await catchUp("an event of another program");
}

async function write(event) {
  const began = performance.now();
  const whose = user;
  const scene = by("scene").value;
  const body = { ...event, user: whose, time: Date.now(), id: visitor() };
  if (scene) body.scene = scene;
  const written = (await ask("POST", "v1/events", { body })).events[0];
  if (whose !== user) return;
  const position = `${written.topic}/${written.partition}/${written.offset}`;
  const row = eventRow(event, position);
  by("no-events").hidden = true;
  by("events").prepend(row);
  while (by("events").children.length > SHOWN_EVENTS) by("events").lastChild.remove();
  const one = { written, row, position, title: titleOf(event.item), verb: VERBS[event.type], latency: null };
  pending.push(one);
  await refresh({ minOffset: written.min_offset, reason: one, began });
}

// The worker's own slate says how long it took; the page shows the answer of the API, which knows the options chosen here.
async function onSlate(slate) {
  if (slate.user !== user) return;
  newest = Math.max(newest, slate.seq);
  let reason = "an event of another program";
  for (const one of [...pending]) {
    if (!covers(slate.applied, one.written)) continue;
    pending.splice(pending.indexOf(one), 1);
    reason = one;
    if (slate.latency_ms < 0) continue;
    one.latency = slate.latency_ms;
    one.row.lastChild.textContent = `${one.position} · ${slate.latency_ms} ms`;
    if (by("moved").dataset.position === one.position) by("moved-latency").textContent = latencyText(one.latency);
  }
  await catchUp(reason);
}

async function catchUp(reason) {
  if (shown && newest > shown.seq && !sending) await refresh({ reason });
}

const latencyText = (latency) => (latency === null ? "" : ` · event to slate ${latency} ms`);

// the slate

async function refresh({ minOffset, reason, began = performance.now() }) {
  const number = ++asked;
  const whose = user;
  const query = { min_offset: minOffset, scene: by("scene").value };
  if (chosenDiversity !== null) query.diversity = chosenDiversity;
  const slate = await ask("GET", userPath(whose, "/recommendations"), { query });
  await learn(slate.items.map((one) => one.item));
  if (whose !== user || number !== asked) return;
  show(slate, reason, began);
  if (server.explains) await explain(whose, query, slate);
}

// Asked for after the slate is shown, since it takes longer.
async function explain(whose, query, slate) {
  const explained = await ask("GET", userPath(whose, "/recommendations"), { query: { ...query, explain: "true" } });
  if (shown !== slate || explained.chain !== slate.chain) return;
  const rows = new Map([...by("slate").children].map((row) => [row.dataset.item, row]));
  for (const one of explained.items) {
    const words = why(one.explanation);
    const row = rows.get(one.item);
    if (words && row) Object.assign(row.querySelector(".why"), { textContent: words, title: words });
  }
}

function show(slate, reason, began) {
  const now = slate.items.map((one) => one.item);
  const before = shown ? shown.items.map((one) => one.item) : [];
  const first = !shown;
  const change = moves(before, now);
  const rows = slate.items.map((one, index) => slateRow(one, change.rows[index], first));
  replaceRows(by("slate"), rows, by("slate"));
  shown = slate;
  const milliseconds = Math.round(performance.now() - began);
  if (!first && reason) {
    const event = typeof reason === "object";
    const words = event ? `After you ${reason.verb} ${reason.title}: ` : `After ${reason}: `;
    const parts = [words, make("strong", { textContent: summary(change) }), ` · on this page after ${milliseconds} ms`];
    if (event) {
      parts.push(make("span", { id: "moved-latency", textContent: latencyText(reason.latency) }), ` · ${reason.position}`);
    }
    by("moved").replaceChildren(...parts);
    by("moved").dataset.position = event ? reason.position : "";
    by("moved").dataset.milliseconds = milliseconds;
    by("moved").scrollIntoView({ block: "nearest" });
  } else if (first) {
    const popular = slate.strategy === "popularity";
    by("moved").textContent = popular ? "Not known yet, so these are the popular items. Click one." : "The slate as it is now.";
  }
  by("left").textContent = !first && change.left.length
    ? `Left: ${change.left.map((one) => `${titleOf(one.item)} (was ${one.from})`).join(", ")}` : "";
  by("user-state").textContent = slate.seq === 1 ? "1 event" : `${slate.seq} events`;
  by("freshness").textContent = [
    `state ${slate.chain.slice(0, 8)}`, `replica age ${Math.round(slate.replica.age_ms)} ms`, `catalogue ${slate.catalogue}`,
    slate.rules === undefined ? "no rules" : `rules ${slate.rules}`, `diversity ${slate.diversity ?? 0}`, slate.strategy,
  ].join(" · ");
}

function slateRow(one, move, first) {
  const title = titleOf(one.item);
  const { kind, text } = moveText(move, first);
  const row = make(
    "li", {}, make("span", { className: "place", textContent: move.to }),
    make("span", { className: `move ${kind}`, textContent: text }),
    make("span", {}, make("span", { className: "title", textContent: title }), make("br"),
      make("span", { className: "about", textContent: about(one.item) })),
    buttons(one.item, title, act),
  );
  if (server.explains) row.append(make("span", { className: "why" })); // its room is kept, so that nothing moves when it comes
  row.dataset.item = one.item;
  return row;
}

// the catalogue

let searching = new AbortController();

async function search() {
  searching.abort();
  searching = new AbortController();
  const words = by("query").value.trim();
  const found = await ask("GET", "v1/items", { query: { query: words, n: 8 }, signal: searching.signal });
  found.items.forEach((one) => items.set(one.item, one));
  by("found").textContent = words
    ? `${found.items.length === 8 ? "the best 8" : found.items.length} of ${catalogue.live.toLocaleString("en")} live items`
    : `the most popular of ${catalogue.live.toLocaleString("en")} live items`;
  for (const id of ["found", "results"]) by(id).classList.toggle("idle", !words); // a phone has no room for them then
  by("results").replaceChildren(...found.items.map((one) => {
    const title = titleOf(one.item);
    return make(
      "li", {}, make("span", {}, make("span", { className: "title", textContent: title }), make("br"),
        make("span", { className: "about", textContent: about(one.item) })), buttons(one.item, title, act),
    );
  }));
}

function delayed(work, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(safely(work), milliseconds);
  };
}

// options

function showDiversity() {
  by("diversity-value").textContent = Number(by("diversity").value).toFixed(2) + (chosenDiversity === null ? " (default)" : "");
}

function rule() {
  const kind = by("rule-kind").value;
  const category = by("rule-category").value;
  const found = {
    rule: RULE, kind, until: Date.now() + RULE_HOURS * 3_600_000, note: "switched on at the demo page; ends by itself",
  };
  if (kind === "cap") return { ...found, most: 2, category };
  if (kind === "boost") found.factor = 10;
  return { ...found, filter: { category } };
}

async function switchRule() {
  clearProblem();
  const on = by("rule").getAttribute("aria-checked") !== "true";
  const path = `v1/rules/${RULE}`;
  const written = on ? await ask("PUT", path, { body: rule() }) : await ask("DELETE", path);
  await showRules(written.min_offset);
  await refresh({ minOffset: written.min_offset, reason: on ? "the rule was switched on" : "the rule was switched off" });
}

async function showRules(minOffset) {
  const found = await ask("GET", "v1/rules", { query: { min_offset: minOffset } });
  const own = found.rules.find((one) => one.rule === RULE);
  const on = Boolean(own && own.in_force && own.message.until > Date.now());
  by("rule").setAttribute("aria-checked", String(on));
  by("rule").textContent = on ? "On" : "Off";
  by("rule-kind").disabled = by("rule-category").disabled = on;
  if (on) {
    by("rule-kind").value = own.message.kind;
    by("rule-category").value = own.message.category ?? own.message.filter?.category ?? "";
  }
  const others = found.rules.filter((one) => one.rule !== RULE && one.in_force).length;
  const more = others ? ` ${others} other ${others === 1 ? "rule is" : "rules are"} in force.` : "";
  by("rules").textContent = `It holds for everybody's slates, for ${RULE_HOURS} h at most.${more}`;
}

// live figures

const number = (value, digits) => (value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits }));
const inMilliseconds = (value) => (value === undefined ? "–" : `${number(value, 0)} ms`);

async function showFigures() {
  if (document.hidden) return;
  const found = await ask("GET", "v1/figures");
  by("rate").textContent = number(found.events_per_second, 1);
  by("p50").textContent = inMilliseconds(found.p50_ms);
  by("p99").textContent = inMilliseconds(found.p99_ms);
  const hits = found.hit_rate;
  by("hit-rate").hidden = !hits || !hits.counted;
  if (!hits || !hits.counted) return;
  const most = Math.max(hits.freshet, hits.popularity, 1e-9);
  for (const name of ["freshet", "popularity"]) {
    by(`hit-${name}`).textContent = hits[name].toFixed(4);
    by(`bar-${name}`).style.width = `${(100 * hits[name]) / most}%`;
  }
  by("hit-state").textContent = `${hits.final ? "of" : "so far, of"} ${number(hits.counted, 0)} next items`;
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
  by("hit-difference").textContent =
    `difference ${signed(hits.freshet - hits.popularity)} (95 %: ${signed(hits.low)} to ${signed(hits.high)})`;
}

async function keepFigures() {
  for (;;) {
    try {
      await showFigures();
    } catch {
      for (const id of ["rate", "p50", "p99"]) by(id).textContent = "–"; // what follows the slates tells why
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

// the start

async function begin() {
  clearProblem();
  by("access").hidden = true;
  catalogue = await ask("GET", "v1/catalogue");
  options(by("scene"), [["", catalogue.scenes.length ? "any" : "any (no item names a scene)"], ...catalogue.scenes.map((one) => [one, one])]);
  by("scene").disabled = !catalogue.scenes.length;
  options(by("rule-category"), catalogue.categories.map((one) => [one, one]));
  by("rule").disabled = !catalogue.categories.length;
  options(by("value"), ratings(catalogue.rating_scale).map((one) => [one, one]));
  by("diversity").value = catalogue.diversity;
  showDiversity();
  await Promise.all([search(), showRules()]);
  const kept = sessionStorage.getItem(KEPT);
  await (kept ? become(kept) : newVisitor());
  document.body.dataset.ready = "true";
  if (!running) keepFigures();
  running = true;
}

function on(id, kind, work) {
  by(id).addEventListener(kind, safely(work));
}

function submitted(id, work) {
  by(id).addEventListener("submit", (event) => {
    event.preventDefault();
    safely(work)(event);
  });
}

async function start() {
  server = await description();
  submitted("token-form", () => {
    useToken(by("token").value);
    by("token").value = "";
    return begin();
  });
  submitted("user-form", () => become(by("user-id").value));
  submitted("search-form", search);
  submitted("dialog-form", sendDialog);
  on("visitor", "click", newVisitor);
  on("cancel", "click", () => by("dialog").close());
  on("rule", "click", switchRule);
  on("scene", "change", () => refresh({ reason: "the scene was chosen" }));
  by("query").addEventListener("input", delayed(search, 150));
  const changed = delayed(() => refresh({ reason: "diversity was changed" }), 150);
  by("diversity").addEventListener("input", () => {
    chosenDiversity = Number(by("diversity").value);
    showDiversity();
    changed();
  });
  if (server.needsToken) askForToken();
  else await begin();
}

safely(start)();
