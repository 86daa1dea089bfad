// Tests of scripts by other vendors in a page of the publisher example: Prebid and the JavaScript SDK, both from npm.

import assert from "node:assert/strict";
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { bidRequest, cookie, cookieNames, later, login, press, state, token, visitEach } from "./stage.mjs";

const MODULES = new URL("node_modules/", import.meta.url);
const FOR_SCRIPTS = { env: { COOKIES_FOR_SCRIPTS: "1" } };

// Prebid

const PREBID = Object.fromEntries(
  ["euid", "uid2"].map((word) => [word, bundle("prebid-core", "consentManagementTcf", "userId", `${word}IdSystem`)]),
);

// The chunks in the order in which Prebid's own `gulp bundle --modules=…` joins them.
function bundle(...modules) {
  const read = (name) => readFileSync(new URL(`prebid.js/dist/chunks/${name}`, MODULES), "utf8");
  const files = modules.map((name) => `${name}.js`);
  const dependencies = JSON.parse(read("dependencies.json"));
  const chunks = new Set([files[0], ...files.flatMap((file) => dependencies[file] ?? []), ...files]);
  return [...chunks].map(read).join(";\n") + ";\npbjs.processQueue();";
}

// The consent of a visitor under GDPR who allows EUID's vendor to store data. Prebid's module for UID2 works only where GDPR
// does not apply.
const EUID_VENDOR = 21;
const CONSENT = {
  euid: {
    gdprApplies: true,
    tcString: "CPhJRpMPhJRpMABAMBFRACBoALAAAEJAAIYgAKwAQAKgArABAAqAAA",
    purpose: { consents: { 1: true }, legitimateInterests: {} },
    vendor: { consents: { [EUID_VENDOR]: true }, legitimateInterests: {} },
  },
  uid2: { gdprApplies: false },
};

// Reloads the page. Returns the eids that Prebid would put into its bid requests.
async function prebidEids(page, { word }) {
  await page.reload();
  await page.addScriptTag({ content: PREBID[word] });
  return page.evaluate(
    ({ name, consentData }) => {
      pbjs.setConfig({
        consentManagement: { gdpr: { cmpApi: "static", consentData } },
        userSync: { userIds: [{ name }] },
      });
      return pbjs.getUserIdsAsync().then(() => pbjs.getUserIdsAsEids());
    },
    { name: word, consentData: CONSENT[word] },
  );
}

visitEach("prebid reads the same eids from the cookie as the server would send", async ({ page, scope }) => {
  await login(page, "email", "user@example.com");
  const eids = await prebidEids(page, scope);
  assert.equal(eids.length, 1);
  assert.deepEqual({ user: { eids } }, await bidRequest(page));
}, FOR_SCRIPTS);

visitEach("prebid has the new token after a refresh", async ({ page, scope }) => {
  await login(page, "email", "user@example.com");
  const first = await prebidEids(page, scope);
  await later(page, "10 minutes later", "10 minutes later");
  const eids = await prebidEids(page, scope);
  assert.notDeepEqual(eids, first);
  assert.deepEqual({ user: { eids } }, await bidRequest(page));
}, FOR_SCRIPTS);

visitEach("prebid has no eids after a logout", async ({ page, scope, context }) => {
  await login(page, "email", "user@example.com");
  assert.equal((await prebidEids(page, scope)).length, 1);
  await press(page, "Log out");
  assert.deepEqual(await prebidEids(page, scope), []);
  // The site migrates the SDK's cookie, so the anchor that is left says that no login counts.
  assert.deepEqual(await cookieNames(context), [scope.ANCHOR]);
  assert.equal(await cookie(context, (name) => name === scope.ANCHOR), "none");
}, FOR_SCRIPTS);

visitEach("prebid has no eids after an opt-out", async ({ page, scope }) => {
  await login(page, "email", "user@example.com");
  await press(page, "Opt this person out");
  await later(page, "10 minutes later", "10 minutes later");
  assert.deepEqual(await prebidEids(page, scope), []);
}, FOR_SCRIPTS);

visitEach("prebid has no eids unless the site exposes the token to scripts", async ({ page, scope }) => {
  await login(page, "email", "user@example.com");
  assert.deepEqual(await prebidEids(page, scope), []);
  assert.equal(await state(page), "Active");
});

// The JavaScript SDK

// Both SDKs are built from one source. That of UID2 (`@uid2/uid2-sdk`) differs in names: the package of EUID exports the
// class that takes them.
const EUID_SDK = readFileSync(new URL("@unified-id/euid-sdk/euidSdk.mjs", MODULES), "utf8");
const UID2_SDK = `${EUID_SDK};
class UID2 extends SdkBase {}
window.__uid2 = new UID2(undefined, {
  name: "UID2",
  defaultBaseUrl: "https://prod.uidapi.com",
  localStorageKey: "UID2-sdk-identity",
  cookieName: "__uid_2",
});`;
const SDK = { euid: EUID_SDK, uid2: UID2_SDK };

// Starts the SDK with the option to keep the identity in its cookie. It calls the operator itself, across origins. Returns
// the SDK.
async function startSdk(page, { word }, { url: baseUrl }, identity) {
  await page.addScriptTag({ content: SDK[word], type: "module" });
  // A module runs some time after its tag is added.
  const sdk = await page.waitForFunction((name) => window[name]?.init && window[name], `__${word}`);
  await sdk.evaluate(
    (sdk, { identity, baseUrl }) =>
      new Promise((callback) => sdk.init({ identity, baseUrl, useCookie: true, callback })),
    { identity, baseUrl },
  );
  return sdk;
}

// Calls generate, as the server of a site does.
async function generate({ url, apiKey, secret: base64 }, email) {
  const secret = Buffer.from(base64, "base64");
  const iv = randomBytes(12);
  const now = Buffer.alloc(8);
  now.writeBigInt64BE(BigInt(Date.now()));
  const cipher = createCipheriv("aes-256-gcm", secret, iv);
  const sealed = [now, randomBytes(8), Buffer.from(JSON.stringify({ email }))].map((part) => cipher.update(part));
  cipher.final();
  const response = await fetch(`${url}/v2/token/generate`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}` },
    body: Buffer.concat([Buffer.of(1), iv, ...sealed, cipher.getAuthTag()]).toString("base64"),
  });
  const answer = Buffer.from(await response.text(), "base64");
  const decipher = createDecipheriv("aes-256-gcm", secret, answer.subarray(0, 12));
  decipher.setAuthTag(answer.subarray(-16));
  const opened = Buffer.concat([decipher.update(answer.subarray(12, -16)), decipher.final()]);
  return JSON.parse(opened.subarray(16)).body;
}

visitEach("the sdk's cookie is migrated and removed", async ({ page, scope, context, operator }) => {
  const identity = await generate(operator, "user@example.com");
  await startSdk(page, scope, operator, identity);
  const { MIGRATED, SCRIPT_TOKEN, SDK_COOKIE } = scope;
  // The other cookie of the SDK. It holds no identity, and the layer does not touch it.
  const SDK_SETTINGS = `${SDK_COOKIE}_config`;
  assert.deepEqual(await cookieNames(context), [SDK_COOKIE, SDK_SETTINGS]);
  for (const load of ["first", "second"]) {
    await page.reload();
    assert.equal(await state(page), "Active", load);
    assert.equal(await token(page), identity.advertising_token, load);
    assert.deepEqual(await cookieNames(context), [MIGRATED, SCRIPT_TOKEN, SDK_SETTINGS].sort(), load);
  }
}, { ...FOR_SCRIPTS, lifetimes: {} });

// Waits until the SDK has a token other than that of `identity`, and returns it.
async function newToken(page, sdk, { advertising_token: old }) {
  const isNew = ({ sdk, old }) => {
    const token = sdk.getAdvertisingToken();
    return token !== old && token;
  };
  return (await page.waitForFunction(isNew, { sdk, old })).jsonValue();
}

const DUE_AT_ONCE = { ...FOR_SCRIPTS, lifetimes: { EUID_SANDBOX_REFRESH_FROM: "0" } };

visitEach("the sdk refreshes its pair at the sandbox, across origins", async ({ page, scope, operator }) => {
  const identity = await generate(operator, "user@example.com");
  const answer = page.waitForResponse((answer) => answer.url().startsWith(operator.url));
  const sdk = await startSdk(page, scope, operator, identity);
  const refresh = await answer;
  const { origin } = new URL(page.url());
  assert.equal(new URL(refresh.url()).pathname, "/v2/token/refresh");
  assert.notEqual(new URL(refresh.url()).origin, origin);
  assert.equal(refresh.status(), 200);
  assert.equal((await refresh.allHeaders())["access-control-allow-origin"], origin);
  await newToken(page, sdk, identity);
}, DUE_AT_ONCE);

visitEach("a preflight allows only the headers that the operator knows", async ({ page, scope, operator }) => {
  const statusWith = (header) =>
    page.evaluate(
      ({ url, header }) =>
        fetch(url, { method: "POST", headers: { [header]: "a" }, body: "no token" }).then(
          ({ status }) => status,
          ({ name }) => name,
        ),
      { url: `${operator.url}/v2/token/refresh`, header },
    );
  assert.equal(await statusWith("X-UID2-Client-Version"), 400);
  assert.equal(await statusWith("X-Other"), "TypeError");
}, { lifetimes: {} });

visitEach("a pair that the sdk has refreshed is refreshed again by the layer", async ({ page, scope, operator }) => {
  const identity = await generate(operator, "user@example.com");
  const sdk = await startSdk(page, scope, operator, identity);
  const refreshed = await newToken(page, sdk, identity);
  await page.reload();
  assert.equal(await state(page), "Active");
  assert.ok(![identity.advertising_token, refreshed].includes(await token(page)));
}, DUE_AT_ONCE);

visitEach("an opt-out that the sdk has found is remembered", async ({ page, scope, operator }) => {
  const sdk = await startSdk(page, scope, operator, await generate(operator, "refresh-optout@example.com"));
  await page.waitForFunction((sdk) => sdk.hasOptedOut(), sdk);
  for (const load of ["first", "second"]) {
    await page.reload();
    assert.equal(await state(page), "Opted out", load);
  }
}, DUE_AT_ONCE);
