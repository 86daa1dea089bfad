// Tests of scripts by other vendors in a page of the publisher example: Prebid and EUID's JavaScript SDK, both from
// npm.

import assert from "node:assert/strict";
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { ANCHOR, MIGRATED, SCRIPT_TOKEN } from "./stage.mjs";
import { bidRequest, cookie, cookieNames, later, login, press, state, token, visit } from "./stage.mjs";

const MODULES = new URL("node_modules/", import.meta.url);
const FOR_SCRIPTS = { env: { COOKIES_FOR_SCRIPTS: "1" } };

// Prebid

// The chunks in the order in which Prebid's own `gulp bundle --modules=…` joins them.
const PREBID = bundle("prebid-core", "consentManagementTcf", "userId", "euidIdSystem");

function bundle(...modules) {
  const read = (name) => readFileSync(new URL(`prebid.js/dist/chunks/${name}`, MODULES), "utf8");
  const files = modules.map((name) => `${name}.js`);
  const dependencies = JSON.parse(read("dependencies.json"));
  const chunks = new Set([files[0], ...files.flatMap((file) => dependencies[file] ?? []), ...files]);
  return [...chunks].map(read).join(";\n") + ";\npbjs.processQueue();";
}

// The consent of a visitor under GDPR who allows EUID's vendor to store data.
const EUID_VENDOR = 21;
const CONSENT = {
  gdprApplies: true,
  tcString: "CPhJRpMPhJRpMABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA",
  purpose: { consents: { 1: true }, legitimateInterests: {} },
  vendor: { consents: { [EUID_VENDOR]: true }, legitimateInterests: {} },
};

// Reloads the page. Returns the eids that Prebid would put into its bid requests.
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

visit("prebid reads the same eids from the cookie as the server would send", async ({ page }) => {
  await login(page, "email", "user@example.com");
  const eids = await prebidEids(page);
  assert.equal(eids.length, 1);
  assert.deepEqual({ user: { eids } }, await bidRequest(page));
}, FOR_SCRIPTS);

visit("prebid has the new token after a refresh", async ({ page }) => {
  await login(page, "email", "user@example.com");
  const first = await prebidEids(page);
  await later(page, "10 minutes later", "10 minutes later");
  const eids = await prebidEids(page);
  assert.notDeepEqual(eids, first);
  assert.deepEqual({ user: { eids } }, await bidRequest(page));
}, FOR_SCRIPTS);

visit("prebid has no eids after a logout", async ({ page, context }) => {
  await login(page, "email", "user@example.com");
  assert.equal((await prebidEids(page)).length, 1);
  await press(page, "Log out");
  assert.deepEqual(await prebidEids(page), []);
  // The site migrates the SDK's cookie, so the anchor that is left says that no login counts.
  assert.deepEqual(await cookieNames(context), [ANCHOR]);
  assert.equal(await cookie(context, (name) => name === ANCHOR), "none");
}, FOR_SCRIPTS);

visit("prebid has no eids after an opt-out", async ({ page }) => {
  await login(page, "email", "user@example.com");
  await press(page, "Opt this person out");
  await later(page, "10 minutes later", "10 minutes later");
  assert.deepEqual(await prebidEids(page), []);
}, FOR_SCRIPTS);

visit("prebid has no eids unless the site exposes the token to scripts", async ({ page }) => {
  await login(page, "email", "user@example.com");
  assert.deepEqual(await prebidEids(page), []);
  assert.equal(await state(page), "Active");
});

// EUID's JavaScript SDK

const SDK = readFileSync(new URL("@unified-id/euid-sdk/euidSdk.mjs", MODULES), "utf8");
const SDK_COOKIE = "__euid";
// The other cookie of the SDK. It holds no identity, and the layer does not touch it.
const SDK_SETTINGS = "__euid_config";

// Starts the SDK with the option to keep the identity in its cookie. It calls the operator itself, across origins.
async function startSdk(page, { env }, identity) {
  await page.addScriptTag({ content: SDK, type: "module" });
  // A module runs some time after its tag is added.
  await page.waitForFunction(() => window.__euid?.init);
  await page.evaluate(
    ({ identity, baseUrl }) =>
      new Promise((callback) => __euid.init({ identity, baseUrl, useCookie: true, callback })),
    { identity, baseUrl: env.EUID_OPERATOR_URL },
  );
}

// Calls generate, as the server of a site does.
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

visit("the sdk's cookie is migrated and removed", async ({ page, context, operator }) => {
  const identity = await generate(operator, "user@example.com");
  await startSdk(page, operator, identity);
  assert.deepEqual(await cookieNames(context), [SDK_COOKIE, SDK_SETTINGS]);
  for (const load of ["first", "second"]) {
    await page.reload();
    assert.equal(await state(page), "Active", load);
    assert.equal(await token(page), identity.advertising_token, load);
    assert.deepEqual(await cookieNames(context), [MIGRATED, SCRIPT_TOKEN, SDK_SETTINGS].sort(), load);
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

visit("a preflight allows only the headers that the operator knows", async ({ page, operator }) => {
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

visit("a pair that the sdk has refreshed is refreshed again by the layer", async ({ page, operator }) => {
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

visit("an opt-out that the sdk has found is remembered", async ({ page, operator }) => {
  await startSdk(page, operator, await generate(operator, "refresh-optout@example.com"));
  await page.waitForFunction(() => __euid.hasOptedOut());
  for (const load of ["first", "second"]) {
    await page.reload();
    assert.equal(await state(page), "Opted out", load);
  }
}, DUE_AT_ONCE);
