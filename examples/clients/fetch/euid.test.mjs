// Tests the sample against the publisher example. Build the example first: cargo build --example publisher

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { withEuid } from "./euid.mjs";

const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../../target", import.meta.url));

/** Starts the publisher on an embedded sandbox. Returns its address. */
async function publisher(t, variables) {
  const env = { ...process.env, PORT: "0", ...variables };
  const child = spawn(`${target}/debug/examples/publisher`, { env, stdio: ["ignore", "pipe", "ignore"] });
  t.after(() => child.kill());
  for await (const line of createInterface({ input: child.stdout })) {
    const site = line.match(/^site: +(http:\S+)\/$/);
    if (site) return site[1];
  }
  throw new Error("the publisher has printed no address");
}

/** Keeps the text in memory, as a restart of the app would find it. */
class Store {
  text = null;
  load = async () => this.text;
  save = async (text) => void (this.text = text);
  names = () => Object.keys(JSON.parse(this.text)).map((name) => name.replace(/-[0-9a-f]{6}$/, "-TAG")).sort();
}

const form = (fields) => ({ method: "POST", headers: { accept: "application/json" }, body: new URLSearchParams(fields) });
const login = async (send) => assert.equal((await send("/login", form({ email: "user@example.com" }))).status, 204);
const page = async (send) => (await send("/api/identity")).json();

const cases = ["euid", "uid2"].flatMap((SCOPE) => [
  [{ SCOPE }, [`${SCOPE}-identity-TAG`, `${SCOPE}-login`]],
  // The identity is in a store, and the app keeps the login alone.
  [{ SCOPE, EUID_STORE_URL: "memory:" }, [`${SCOPE}-login`]],
]);

for (const [variables, names] of cases) {
  test(`app keeps ${names.join(" and ")} over refresh and restart until the logout`, async (t) => {
    const site = await publisher(t, variables);
    const store = new Store();
    let send = await withEuid(site, store);
    assert.deepEqual(await page(send), { state: "absent", advertising_token: null });

    await login(send);
    assert.deepEqual(store.names(), names);
    const first = await page(send);
    assert.equal(first.state, "active");
    assert.equal(first.eids[0].uids[0].id, first.advertising_token);

    send = await withEuid(site, store);
    assert.deepEqual(await page(send), first);

    // A refresh is due 15 minutes after the login.
    await fetch(`${site}/sandbox/advance`, { ...form({ seconds: "900" }), redirect: "manual" });
    const second = await page(send);
    assert.equal(second.state, "active");
    assert.notEqual(second.advertising_token, first.advertising_token);
    send = await withEuid(site, store);
    assert.deepEqual(await page(send), second);

    assert.equal((await send("/logout", form({}))).status, 204);
    assert.deepEqual(store.names(), []);
    for (const after of [send, await withEuid(site, store)]) assert.equal((await page(after)).state, "absent");
  });
}

/** Starts a server. Returns its address and the headers of its requests. */
async function server(t, answer) {
  const requests = [];
  const listener = createServer((request, response) => {
    requests.push(request.headers);
    answer(response, requests.length);
  });
  t.after(() => listener.close());
  await once(listener.listen(0, "127.0.0.1"), "listening");
  return [`http://127.0.0.1:${listener.address().port}`, requests];
}

test("redirect is an error, so that another site gets no header", async (t) => {
  const [elsewhere, stolen] = await server(t, (response) => response.end());
  const [site] = await server(t, (response) => response.writeHead(302, { location: elsewhere }).end());
  const send = await withEuid(site, new Store());
  await assert.rejects(send("/"));
  await assert.rejects(send("0/"), /a path of the site/); // the address of the site with "0/" behind it has another port
  assert.equal(stolen.length, 0);
});

test("login that is not saved is an error, a refresh is none", async (t) => {
  const [site, requests] = await server(t, (response, count) =>
    response.writeHead(204, count === 1 ? { "Euid-Identity-0a1b2c": "new" } : { "Euid-Login": "x" }).end());
  let saves = 0;
  const save = async () => {
    if (++saves !== 2) throw new Error("full");
  };
  const send = await withEuid(site, { load: async () => '{"euid-identity-0a1b2c":"old"}', save });
  assert.equal((await send("/")).status, 204, "a refresh is not saved");
  assert.equal((await send("/")).status, 204, "a login is saved");
  await assert.rejects(send("/"), /full/, "a login is not saved");
  assert.deepEqual(requests.map((headers) => headers["euid-identity-0a1b2c"]), ["old", "new", "new"]);
});
