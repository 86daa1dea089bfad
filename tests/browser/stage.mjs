// Helpers for the tests of the publisher example: real Chromium, real processes, real sockets.
// Each test has its own site, with its own clock and operator. Tests wait for conditions, never for a fixed time.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test, { after, before } from "node:test";
import { chromium } from "playwright-core";

const PROGRAMS = join(process.env.CARGO_TARGET_DIR ?? "target", "debug");

// What the scopes differ in. The names of identities and records end with the tag of a login, which differs from login to
// login.
export const SCOPES = [
  {
    word: "euid",
    variables: "EUID_",
    source: "euid.eu",
    IDENTITY: "__Host-euid.",
    ANCHOR: "__Host-euid-login",
    OPT_OUT: "__Host-euid-optout.",
    MIGRATED: "__Host-euid.sdk",
    SCRIPT_TOKEN: "__euid_advertising_token",
    SDK_COOKIE: "__euid",
  },
  {
    word: "uid2",
    variables: "UID2_",
    source: "uidapi.com",
    IDENTITY: "__Host-uid2.",
    ANCHOR: "__Host-uid2-login",
    OPT_OUT: "__Host-uid2-optout.",
    MIGRATED: "__Host-uid2.sdk",
    SCRIPT_TOKEN: "__uid2_advertising_token",
    SDK_COOKIE: "__uid_2",
  },
];
// The site's own cookies.
const OF_SITE = ["__Host-session", "demo-region"];

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // Browsers accept `Secure` cookies over plain HTTP from localhost, so the site needs another name.
    args: ["--no-sandbox", "--host-resolver-rules=MAP publisher.example 127.0.0.1", "--disable-features=HttpsUpgrades"],
  });
});
after(() => browser.close());

// Defines a test with a site and a visitor on its front page. The site has both regions, or only the scope that is given. The
// operator is part of the site, or a process of its own if `lifetimes` are given. `env` is the environment of the site; the
// browser gets the other options.
export function visit(name, run, { env, scope, lifetimes, ...options } = {}) {
  test(name, { timeout: 30_000 }, async () => {
    const operator = lifetimes && (await startOperator(scope, lifetimes));
    const site = await startSite({ ...env, ...(scope && { SCOPE: scope.word }), ...operator?.env });
    const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
    context.setDefaultTimeout(10_000);
    try {
      const page = await context.newPage();
      await page.goto(site.url);
      await run({ site, scope, operator, context, page });
    } finally {
      await context.close();
      await site.stop();
      await operator?.stop();
    }
  });
}

// The same with each scope alone.
export function visitEach(name, run, options) {
  for (const scope of SCOPES) visit(`${scope.word}: ${name}`, run, { scope, ...options });
}

async function startSite(env) {
  const [[, url, port], stop] = await start(["examples/publisher"], { SITE_NAME: "publisher.example", ...env }, /^site: +(http:\/\/127\.0\.0\.1:(\d+)\/)/m);
  return { port, url, stop };
}

async function startOperator({ word, variables }, lifetimes) {
  const pattern = /(^(EUID|UID2)_[A-Z_]+=.+\n){3}/m;
  const [[output], stop] = await start(["euid-sidecar", "sandbox"], { EUID_SANDBOX_SCOPE: word, ...lifetimes }, pattern);
  const env = Object.fromEntries([...output.matchAll(/^([A-Z0-9_]+)=(.+)$/gm)].map(([, name, value]) => [name, value]));
  const [url, apiKey, secret] = ["OPERATOR_URL", "API_KEY", "CLIENT_SECRET"].map((name) => env[variables + name]);
  return { env, url, apiKey, secret, stop };
}

// Starts a program on a free port, and waits until its output matches. Returns the match and a function that stops it.
async function start([name, ...args], env, pattern) {
  const program = join(PROGRAMS, name);
  const process_ = spawn(program, args, { env: { ...process.env, PORT: "0", ...env }, stdio: ["ignore", "pipe", "ignore"] });
  const ended = once(process_, "exit");
  const stop = async () => {
    process_.kill();
    await ended;
  };
  let output = "";
  for await (const line of createInterface({ input: process_.stdout })) {
    output += `${line}\n`;
    const match = pattern.exec(output);
    if (match) return [match, stop];
  }
  throw new Error(`${program} did not start`);
}

// Actions of a visitor.
export async function press(page, name) {
  await page.getByRole("button", { name, exact: true }).click();
  await page.waitForFunction(() => !document.body.hasAttribute("aria-busy"));
}
export async function login(page, way, address) {
  await page.getByLabel(way === "email" ? "Email address" : "Phone number").fill(address);
  await press(page, `Log in with ${way}`);
}
export async function later(page, ...buttons) {
  for (const button of buttons) await press(page, button);
}

// The contents of the page, and the cookies.
export const state = (page) => page.locator(".pill").textContent();
export const headline = (page) => page.getByRole("heading", { level: 1 }).textContent();
export const lastRequest = (page) => page.locator("#requests li").first().innerText();
export const bidRequest = async (page) => JSON.parse(await page.locator("#bid-request code").textContent());
const eid = async (page) => (await bidRequest(page)).user.eids?.[0];
export const token = async (page) => (await eid(page))?.uids[0].id;
export const source = async (page) => (await eid(page))?.source;
export const withoutTag = (name) => name.replace(/^(__Host-(euid|uid2)(-optout)?\.)[\w-]{4}$/, "$1");
// The cookies of the layer and of scripts.
export const cookies = async (context) => (await context.cookies()).filter(({ name }) => !OF_SITE.includes(name));
export const cookieNames = async (context) => (await cookies(context)).map(({ name }) => withoutTag(name)).sort();
export const cookie = async (context, isName) => (await cookies(context)).find(({ name }) => isName(name))?.value;
