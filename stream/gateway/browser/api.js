// The API of the server that this page comes from. Addresses are relative, so a proxy may serve both under any path.

let token = "";

export function useToken(value) {
  token = value.trim();
}

export class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.field = problem.field;
  }
}

function headers(more) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function sent(method, path, { query = {}, body, signal } = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") parameters.append(name, one);
    }
  }
  const address = parameters.size ? `${path}?${parameters}` : path;
  let answer;
  try {
    answer = await fetch(address, {
      method, signal, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The server does not answer." });
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // not from the API: a proxy's own page
  }
  throw new Problem(answer.status, problem);
}

export async function ask(method, path, options) {
  return (await sent(method, path, options)).json();
}

// What the server offers: whether it needs a token, and which parameters it has.
export async function description() {
  const found = await ask("GET", "openapi.json");
  const parameters = found.paths["/v1/users/{user}/recommendations"].get.parameters;
  return {
    version: found.info.version,
    needsToken: Boolean(found.components.securitySchemes),
    explains: parameters.some((one) => one.name === "explain"),
  };
}

export function userPath(user, rest) {
  return `v1/users/${encodeURIComponent(user)}${rest}`;
}

// Call onSlate with each new slate of a user. EventSource cannot send a token, so the stream is read here.
export async function follow(user, signal, onSlate, onState) {
  let pause = 500;
  while (!signal.aborted) {
    try {
      const answer = await sent("GET", userPath(user, "/stream"), { signal });
      onState(true);
      pause = 500;
      await read(answer.body, onSlate);
    } catch (error) {
      if (signal.aborted) return;
      if ([401, 403, 400, 421].includes(error.status)) throw error;
    }
    onState(false);
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(10000, pause * 2);
  }
}

async function read(stream, onSlate) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value;
    const parts = waiting.split("\n\n");
    waiting = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").find((line) => line.startsWith("data: "));
      if (data) onSlate(JSON.parse(data.slice(6)));
    }
  }
}
