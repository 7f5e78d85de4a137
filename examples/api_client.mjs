// Send an event to the HTTP API and ask for a slate that contains it: node api_client.mjs USER ITEM
//
// FRESHET_API is the address (http://127.0.0.1:8080), FRESHET_TOKEN a token, if the server requires one.

const api = process.env.FRESHET_API ?? "http://127.0.0.1:8080";
const token = process.env.FRESHET_TOKEN;

async function ask(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token) headers["Authorization"] = `Bearer ${token}`;
  const answer = await fetch(api + path, { method, headers, body: JSON.stringify(body) }).catch((error) => {
    throw new Error(`no answer: ${error.cause?.message ?? error.message}: does freshet serve run on ${api}?`);
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(`${found.title}: ${found.field ?? ""} ${found.detail}`);
  return found;
}

async function main(user, item) {
  const { events } = await ask("POST", "/v1/events", { type: "click", user, item, time: Date.now() });
  const query = new URLSearchParams({ n: 3, min_offset: events[0].min_offset });
  const slate = await ask("GET", `/v1/users/${encodeURIComponent(user)}/recommendations?${query}`);
  console.log(`${slate.strategy} after ${slate.seq} ${slate.seq === 1 ? "event" : "events"}:`);
  for (const { item, score } of slate.items) console.log(`${score.toFixed(4).padStart(8)} ${item}`);
}

const [user, item] = process.argv.slice(2);
if (item === undefined) {
  console.error("usage: api_client.mjs USER ITEM");
  process.exit(2);
}
main(user, item).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
