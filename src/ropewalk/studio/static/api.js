// Asks the studio's server; what it refuses is an Error with its reason.

async function answer(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let reason = text.trim();
  try { reason = JSON.parse(text).error ?? reason; } catch { /* a plain line of the guard */ }
  throw new Error(reason || `the studio answered ${response.status}`);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The studio does not answer: has it ended? Start it again, and open the address that it prints.");
  }
  return answer(response);
}

export const read = (name, query = {}) => ask(`/api/${name}?${new URLSearchParams(query)}`);
export const send = (name, text) => ask(`/api/${name}`, { method: "POST", body: text });
export const act = (name, body = {}) => send(name, JSON.stringify(body));

// Calls `work` with the newest argument only: while one call is under way, later ones replace each other.
export function newestOnly(work) {
  let busy = false, next;
  return async function run(argument) {
    next = { argument };
    if (busy) return;
    busy = true;
    while (next) {
      const { argument: now } = next;
      next = undefined;
      try { await work(now); } catch (error) { if (!next) { busy = false; throw error; } }
    }
    busy = false;
  };
}
