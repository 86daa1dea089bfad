// A visitor of the site in host.mjs. Checks which cookies each response sets and which state each page sees. run.sh starts it.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { after, beforeEach, test } from "node:test";
import { Reactor, site } from "./host.mjs";

const { REACTOR, EUID_OPERATOR_URL, EUID_API_KEY, EUID_CLIENT_SECRET } = process.env;
const MINUTES = 60_000;
const ATTRIBUTES = "HttpOnly; SameSite=Lax; Secure; Path=/";
// The tag of a login follows the dot.
const IDENTITY = "__Host-euid.";
const ANCHOR = "__Host-euid-login";
const OPT_OUT = "__Host-euid-optout.";

// The operator uses the real time. The tests can move the site's clock ahead of it.
let ahead = 0;
const clock = () => Date.now() + ahead;
beforeEach(() => (ahead = 0));

const servers = [];
async function listen(server) {
  servers.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  return `http://127.0.0.1:${server.address().port}`;
}
after(() => servers.forEach((server) => server.close()));

const cookieKeys = randomBytes(32).toString("base64");
async function node(operatorUrl) {
  const configuration = {
    cookie_keys: cookieKeys,
    operator_url: operatorUrl,
    api_key: EUID_API_KEY,
    client_secret: EUID_CLIENT_SECRET,
  };
  return await listen(site(await Reactor.load(REACTOR, configuration), clock));
}

let calls = 0;
const { fetch } = globalThis;
globalThis.fetch = (url, options) => {
  if (String(url).startsWith(EUID_OPERATOR_URL)) calls += 1;
  return fetch(url, options);
};

const here = await node(EUID_OPERATOR_URL);
// Another node of the same site, with the same keys. Its operator closes every connection.
const cutOff = await node(await listen(createServer((socket) => socket.destroy())));

/** A browser, as far as cookies go. */
class Visitor {
  #jar = new Map();

  /** Sends a request. The result has the response's cookies by name in `set`, and the number of operator calls. */
  async send(method, path, { at = here, body, headers = {} } = {}) {
    const before = calls;
    const cookie = [...this.#jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(at + path, { method, body, headers: { ...headers, cookie, connection: "close" } });
    const set = {};
    for (const line of response.headers.getSetCookie()) {
      const [, name, value, attributes] = /^([^=]+)=([^;]*); (.*)$/.exec(line);
      set[name] = { value, attributes };
      if (attributes.endsWith("Max-Age=0")) this.#jar.delete(name);
      else this.#jar.set(name, value);
    }
    const cacheControl = response.headers.get("cache-control");
    return { status: response.status, ...parsed(await response.text()), set, cacheControl, calls: calls - before };
  }

  page({ path = "/", ...options } = {}) {
    return this.send("GET", path, options);
  }

  login(email, options) {
    return this.send("POST", "/login", { ...options, body: email });
  }
}

/** Asserts that a cookie is kept for `seconds`, of which a few may have passed already. */
function assertSet({ value, attributes }, seconds) {
  const [, rest, maxAge] = /^(.*); Max-Age=(\d+)$/.exec(attributes);
  assert.equal(rest, ATTRIBUTES);
  assert.ok(value.length > 0 && maxAge <= seconds && maxAge > seconds - 60, attributes);
}

function assertRemoved({ value, attributes }) {
  assert.deepEqual({ value, attributes }, { value: "", attributes: `${ATTRIBUTES}; Max-Age=0` });
}

const parsed = (text) => (text.startsWith("{") ? JSON.parse(text) : {});

/** The names of the cookies, without the tags of logins. */
const names = (set) => Object.keys(set).map((name) => /^[^.]*\.?/.exec(name)[0]).sort();

/** The only cookie whose name is this prefix and a tag, with its tag. */
function tagged(set, prefix) {
  const found = Object.keys(set).filter((name) => name.startsWith(prefix));
  assert.equal(found.length, 1, `${found}`);
  return { tag: found[0].slice(prefix.length), ...set[found[0]] };
}

test("the module is a reactor that imports randomness but no clock and no file", async () => {
  const module = await WebAssembly.compile(await readFile(REACTOR));
  const exports = WebAssembly.Module.exports(module).map(({ name }) => name);
  assert.ok(exports.includes("_initialize") && !exports.includes("_start"));
  const imports = WebAssembly.Module.imports(module).map(({ name }) => name);
  assert.ok(imports.includes("random_get"));
  assert.deepEqual(imports.filter((name) => /clock|path|sock/.test(name)), []);
});

test("a visitor without cookies is absent, and the page sets no cookie", async () => {
  const page = await new Visitor().page();
  assert.equal(page.state, "absent");
  assert.deepEqual(page.set, {});
  assert.equal(page.cacheControl, null);
});

test("a login sets identity, anchor and the site's own cookie", async () => {
  const { status, outcome, set, cacheControl } = await new Visitor().login("user@example.com");
  assert.deepEqual([status, outcome], [200, "identity"]);
  assert.deepEqual(names(set), [ANCHOR, IDENTITY, "session"]);
  assertSet(tagged(set, IDENTITY), 24 * 3600);
  assertSet(set[ANCHOR], 400 * 24 * 3600);
  assert.equal(tagged(set, IDENTITY).tag, set[ANCHOR].value.slice(0, 4));
  assert.equal(cacheControl, "private, no-store");
});

test("a page with a fresh token shows it and sets no cookie", async () => {
  const visitor = new Visitor();
  await visitor.login("user@example.com");
  const page = await visitor.page();
  assert.equal(page.state, "active");
  assert.ok(page.token.length > 100);
  assert.deepEqual([page.set, page.calls], [{}, 0]);
  assert.equal(page.cacheControl, "private, no-cache");
});

test("a page with a due token refreshes it and sets only the identity", async () => {
  const visitor = new Visitor();
  await visitor.login("user@example.com");
  const { token } = await visitor.page();
  ahead = 20 * MINUTES;
  const due = await visitor.page();
  assert.equal(due.state, "active");
  assert.notEqual(due.token, token);
  assert.equal(due.calls, 1);
  assert.deepEqual(names(due.set), [IDENTITY]);
  // The operator's clock is 20 minutes behind the site's. By the operator's clock the pair lasts for a day.
  assertSet(tagged(due.set, IDENTITY), 24 * 3600 - 20 * 60);
  // By the site's clock the new pair is already due. `settle` prevents another refresh by the next page.
  const next = await visitor.page();
  assert.deepEqual([next.token, next.set, next.calls], [due.token, {}, 0]);
});

test("an image and a form do not wait for a due refresh", async () => {
  const visitor = new Visitor();
  await visitor.login("user@example.com");
  ahead = 20 * MINUTES;
  const image = await visitor.page({ headers: { "sec-fetch-dest": "image" } });
  assert.deepEqual([image.state, image.set, image.calls], ["active", {}, 0]);
  const form = await visitor.send("POST", "/form");
  assert.deepEqual([form.status, form.set, form.calls], [404, {}, 0]);
  assert.equal((await visitor.page()).calls, 1);
});

test("a failing page still refreshes, and an invalid request harms no other request", async (t) => {
  t.mock.method(console, "error", () => {});
  const visitor = new Visitor();
  await visitor.login("user@example.com");
  ahead = 20 * MINUTES;
  const failed = await visitor.page({ path: "/fails" });
  assert.deepEqual([failed.status, names(failed.set)], [500, [IDENTITY]]);
  const socket = connect(new URL(here).port, "127.0.0.1").setEncoding("latin1");
  socket.write("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=\x7f\r\nConnection: close\r\n\r\n", "latin1");
  const [answer] = await once(socket, "data");
  assert.match(answer, /^HTTP\/1.1 [45]00 /);
  assert.equal((await visitor.page()).state, "active");
});

test("concurrent exchanges are kept apart", async () => {
  const [one, two, other] = [new Visitor(), new Visitor(), new Visitor()];
  await Promise.all([one.login("one@example.com"), two.login("two@example.com"), other.page()]);
  const pages = await Promise.all([one.page(), two.page(), other.page()]);
  assert.deepEqual(pages.map((page) => page.state), ["active", "active", "absent"]);
  assert.notEqual(pages[0].token, pages[1].token);
});

test("a page keeps its token while the operator is down, until the token expires", async () => {
  const visitor = new Visitor();
  await visitor.login("user@example.com");
  const { token } = await visitor.page();
  ahead = 20 * MINUTES;
  const page = await visitor.page({ at: cutOff });
  assert.deepEqual([page.state, page.token, page.set], ["active", token, {}]);
  ahead = 61 * MINUTES;
  const late = await visitor.page({ at: cutOff });
  assert.deepEqual([late.state, late.token, late.set], ["unavailable", null, {}]);
});

test("a failed login ends the previous one", async () => {
  for (const [email, at, status, outcome] of [
    ["other@example.com", cutOff, 503, "failed"],
    ["not-an-address", here, 400, "invalid"],
  ]) {
    const visitor = new Visitor();
    await visitor.login("user@example.com");
    const login = await visitor.login(email, { at });
    assert.deepEqual([login.status, login.outcome], [status, outcome]);
    assertRemoved(tagged(login.set, IDENTITY));
    assert.equal((await visitor.page()).state, "absent");
  }
});

test("an opt-out is remembered", async () => {
  const visitor = new Visitor();
  const { outcome, set } = await visitor.login("optout@example.com");
  assert.equal(outcome, "opted_out");
  assertSet(set[ANCHOR], 72 * 3600);
  assertSet(tagged(set, OPT_OUT), 72 * 3600);
  assert.equal(tagged(set, OPT_OUT).tag, set[ANCHOR].value.slice(0, 4));
  const page = await visitor.page();
  assert.deepEqual([page.state, page.token, page.set], ["opted_out", null, {}]);
});

test("a logout removes all cookies, and the next page is absent", async () => {
  const visitor = new Visitor();
  await visitor.login("user@example.com");
  const { set } = await visitor.send("POST", "/logout");
  assert.deepEqual(names(set), [ANCHOR, IDENTITY]);
  assert.equal(Object.keys(set).at(-1), ANCHOR, "the anchor goes last");
  Object.values(set).forEach(assertRemoved);
  const page = await visitor.page();
  assert.deepEqual([page.state, page.token, page.set], ["absent", null, {}]);
});
