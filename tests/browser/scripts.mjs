// What scripts of other people find and leave in the browser: Prebid, and EUID's JavaScript SDK. Both are what
// npm has of them, run in a page of the publisher example.

import assert from "node:assert/strict";
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { ANCHOR, IDENTITY, bidRequest, cookieNames, later, login, press, state, token, visit } from "./stage.mjs";

const MODULES = new URL("node_modules/", import.meta.url);
const HANDED_OVER = "__euid_advertising_token";
const FOR_SCRIPTS = { env: { COOKIES_FOR_SCRIPTS: "1" } };

// Prebid

// The chunks that Prebid's own `gulp bundle --modules=…` puts together, in its order.
const PREBID = bundle("prebid-core", "consentManagementTcf", "userId", "euidIdSystem");

function bundle(...modules) {
  const read = (name) => readFileSync(new URL(`prebid.js/dist/chunks/${name}`, MODULES), "utf8");
  const files = modules.map((name) => `${name}.js`);
  const dependencies = JSON.parse(read("dependencies.json"));
  const chunks = new Set([files[0], ...files.flatMap((file) => dependencies[file] ?? []), ...files]);
  return [...chunks].map(read).join(";\n") + ";\npbjs.processQueue();";
}

// A visitor to whom GDPR applies and who lets EUID's vendor store.
const EUID_VENDOR = 21;
const CONSENT = {
  gdprApplies: true,
  tcString: "CPhJRpMPhJRpMABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA",
  purpose: { consents: { 1: true }, legitimateInterests: {} },
  vendor: { consents: { [EUID_VENDOR]: true }, legitimateInterests: {} },
};

// What Prebid would put into its bid requests, on the page as it is loaded now.
async function prebidEids(page) {
  await page.reload();
  await page.addScriptTag({ content: PREBID });
  return page.evaluate((consentData) => {
    pbjs.setConfig({
      consentManagement: { gdpr: { cmpApi: "static", consentData } },
      userSync: { userIds: [{ name: "euid" }] },
    });
    return pbjs.getUserIdsAsync().then(() => pbjs.getUserIdsAsEids());
  }, CONSENT);
}

visit("prebid takes from the cookie the eids that the server would send", async ({ page }) => {
  await login(page, "email", "user@example.com");
  const eids = await prebidEids(page);
  assert.equal(eids.length, 1);
  assert.deepEqual({ user: { eids } }, await bidRequest(page));
}, FOR_SCRIPTS);

visit("after a refresh prebid has the new token", async ({ page }) => {
  await login(page, "email", "user@example.com");
  const first = await prebidEids(page);
  await later(page, "10 minutes later", "10 minutes later");
  const eids = await prebidEids(page);
  assert.notDeepEqual(eids, first);
  assert.deepEqual({ user: { eids } }, await bidRequest(page));
}, FOR_SCRIPTS);

visit("after a logout prebid has nothing", async ({ page, context }) => {
  await login(page, "email", "user@example.com");
  assert.equal((await prebidEids(page)).length, 1);
  await press(page, "Log out");
  assert.deepEqual(await prebidEids(page), []);
  assert.deepEqual(await cookieNames(context), []);
}, FOR_SCRIPTS);

visit("after an opt-out prebid has nothing", async ({ page }) => {
  await login(page, "email", "user@example.com");
  await press(page, "Opt this person out");
  await later(page, "10 minutes later", "10 minutes later");
  assert.deepEqual(await prebidEids(page), []);
}, FOR_SCRIPTS);

visit("unless the site says so prebid has nothing", async ({ page }) => {
  await login(page, "email", "user@example.com");
  assert.deepEqual(await prebidEids(page), []);
  assert.equal(await state(page), "Active");
});

// EUID's JavaScript SDK

const SDK = readFileSync(new URL("@unified-id/euid-sdk/euidSdk.mjs", MODULES), "utf8");
const SDK_COOKIE = "__euid";
// Its other cookie, which holds no identity and is left alone.
const SDK_SETTINGS = "__euid_config";

// The SDK as a site has it that lets it keep the identity in its cookie. It calls the operator itself, across origins.
async function startSdk(page, { env }, identity) {
  await page.addScriptTag({ content: SDK, type: "module" });
  // A module runs some time after its tag is there.
  await page.waitForFunction(() => window.__euid?.init);
  await page.evaluate(
    ({ identity, baseUrl }) =>
      new Promise((callback) => __euid.init({ identity, baseUrl, useCookie: true, callback })),
    { identity, baseUrl: env.EUID_OPERATOR_URL },
  );
}

// As a site's server would: one call of generate.
async function generate({ env }, email) {
  const secret = Buffer.from(env.EUID_CLIENT_SECRET, "base64");
  const iv = randomBytes(12);
  const now = Buffer.alloc(8);
  now.writeBigInt64BE(BigInt(Date.now()));
  const cipher = createCipheriv("aes-256-gcm", secret, iv);
  const sealed = [now, randomBytes(8), Buffer.from(JSON.stringify({ email }))].map((part) => cipher.update(part));
  cipher.final();
  const response = await fetch(`${env.EUID_OPERATOR_URL}/v2/token/generate`, {
    method: "POST",
    headers: { authorization: `Bearer ${env.EUID_API_KEY}` },
    body: Buffer.concat([Buffer.of(1), iv, ...sealed, cipher.getAuthTag()]).toString("base64"),
  });
  const answer = Buffer.from(await response.text(), "base64");
  const decipher = createDecipheriv("aes-256-gcm", secret, answer.subarray(0, 12));
  decipher.setAuthTag(answer.subarray(-16));
  const opened = Buffer.concat([decipher.update(answer.subarray(12, -16)), decipher.final()]);
  return JSON.parse(opened.subarray(16)).body;
}

visit("who the sdk knew is logged in, and its cookie is gone", async ({ page, context, operator }) => {
  const identity = await generate(operator, "user@example.com");
  await startSdk(page, operator, identity);
  assert.deepEqual(await cookieNames(context), [SDK_COOKIE, SDK_SETTINGS]);
  for (const load of ["first", "second"]) {
    await page.reload();
    assert.equal(await state(page), "Active", load);
    assert.equal(await token(page), identity.advertising_token, load);
    assert.deepEqual(await cookieNames(context), [IDENTITY, ANCHOR, HANDED_OVER, SDK_SETTINGS].sort(), load);
  }
}, { ...FOR_SCRIPTS, lifetimes: {} });

const DUE_AT_ONCE = { ...FOR_SCRIPTS, lifetimes: { EUID_SANDBOX_REFRESH_FROM: "0" } };

visit("the sdk refreshes its pair at the sandbox, across origins", async ({ page, operator }) => {
  const identity = await generate(operator, "user@example.com");
  const answer = page.waitForResponse((answer) => answer.url().startsWith(operator.env.EUID_OPERATOR_URL));
  await startSdk(page, operator, identity);
  const refresh = await answer;
  const { origin } = new URL(page.url());
  assert.equal(new URL(refresh.url()).pathname, "/v2/token/refresh");
  assert.notEqual(new URL(refresh.url()).origin, origin);
  assert.equal(refresh.status(), 200);
  assert.equal((await refresh.allHeaders())["access-control-allow-origin"], origin);
  await page.waitForFunction((old) => ![old, undefined].includes(__euid.getAdvertisingToken()), identity.advertising_token);
}, DUE_AT_ONCE);

visit("a preflight lets through the headers that the operator knows, and no others", async ({ page, operator }) => {
  const statusWith = (header) =>
    page.evaluate(
      ({ url, header }) =>
        fetch(url, { method: "POST", headers: { [header]: "a" }, body: "no token" }).then(
          ({ status }) => status,
          ({ name }) => name,
        ),
      { url: `${operator.env.EUID_OPERATOR_URL}/v2/token/refresh`, header },
    );
  assert.equal(await statusWith("X-UID2-Client-Version"), 400);
  assert.equal(await statusWith("X-Other"), "TypeError");
}, { lifetimes: {} });

visit("a pair that the sdk has refreshed is refreshed further", async ({ page, operator }) => {
  const identity = await generate(operator, "user@example.com");
  const generated = identity.advertising_token;
  await startSdk(page, operator, identity);
  const bySdk = await page.waitForFunction((generated) => {
    const token = __euid.getAdvertisingToken();
    return token !== generated && token;
  }, generated);
  const refreshed = await bySdk.jsonValue();
  await page.reload();
  assert.equal(await state(page), "Active");
  assert.ok(![generated, refreshed].includes(await token(page)));
}, DUE_AT_ONCE);

visit("an opt-out that the sdk was told is remembered", async ({ page, operator }) => {
  await startSdk(page, operator, await generate(operator, "refresh-optout@example.com"));
  await page.waitForFunction(() => __euid.hasOptedOut());
  for (const load of ["first", "second"]) {
    await page.reload();
    assert.equal(await state(page), "Opted out", load);
  }
}, DUE_AT_ONCE);
