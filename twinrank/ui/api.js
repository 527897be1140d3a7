// The server, asked: JSON there and back, what it refuses as a sentence, and the key that it may want.

import { byId } from "./dom.js";

const KEPT = "twinrank.key";

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** GET, or POST where there is a body. Rejects with Failure, or with AbortError where `signal` ended it. */
export async function ask(path, { body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEPT);
    const headers = { Accept: "application/json" };
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const request = { method: body === undefined ? "GET" : "POST", headers, signal, credentials: "same-origin" };
    if (body !== undefined) request.body = JSON.stringify(body);
    const response = await send(path, request);
    if (response.ok) return answered(response);
    const message = await sentence(response);
    if (response.status !== 401 || !(await newKey(key, message))) throw new Failure(message, response.status);
  }
}

async function send(path, request) {
  try {
    return await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("the server cannot be reached", 0);
  }
}

async function answered(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("what came back is no answer of this server", response.status);
  }
}

async function sentence(response) {
  try {
    const told = await response.json();
    const said = told.error?.message ?? told.detail;
    if (typeof said === "string") return said;
    if (Array.isArray(said)) return said.map((one) => one.msg).join("; ");
  } catch {
    // no JSON: a proxy, perhaps
  }
  const busy = response.status === 429 || response.status === 503;
  return busy ? "the server is busy; try again in a moment" : `the server answered ${response.status}`;
}

let asking = null;

/** Ask for another key than `used`; false where the user has none. Requests that wait for a key share one question. */
function newKey(used, why) {
  const kept = sessionStorage.getItem(KEPT);
  if (kept && kept !== used) return Promise.resolve(true);
  asking ??= new Promise((resolve) => {
    const dialog = byId("key"), input = byId("key-value");
    byId("key-why").textContent = used ? why : "Paste the one that you were given by whoever runs it.";
    input.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" ? input.value.trim() : "";
      input.value = "";
      if (given) sessionStorage.setItem(KEPT, given);
      else sessionStorage.removeItem(KEPT);
      asking = null;
      resolve(Boolean(given));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
