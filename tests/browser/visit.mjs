// Tests of the publisher example in a browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startProxy } from "./proxy.mjs";
import { cookie, cookieNames, cookies, headline, lastRequest, later, login, press, source, state, token } from "./stage.mjs";
import { visit, visitEach, withoutTag } from "./stage.mjs";

const SCREENSHOTS = process.env.BROWSER_SCREENSHOTS || "target/browser";
const WIDTHS = { desktop: 1280, phone: 360 };

visitEach("a login by email or by phone gives the page a token", async ({ page, scope }) => {
  assert.equal(await state(page), "Absent");
  assert.equal(await token(page), undefined);
  await login(page, "email", "user@example.com");
  assert.equal(await state(page), "Active");
  const first = await token(page);
  assert.ok(first.length > 100);
  assert.equal(await source(page), scope.source);
  await login(page, "phone", "+442345678901");
  assert.equal(await state(page), "Active");
  assert.notEqual(await token(page), first);
});

visit("an invalid email address shows an error on the page", async ({ page }) => {
  await page.locator("form[action='/login']").first().evaluate((form) => (form.noValidate = true));
  await login(page, "email", "not-an-address");
  assert.match(await page.getByRole("alert").innerText(), /an email address has an @/);
  assert.equal(await state(page), "Absent");
});

visitEach("the token is refreshed when due, and kept before and after", async ({ page }) => {
  await login(page, "email", "user@example.com");
  const first = await token(page);
  await later(page, "10 minutes later");
  assert.match(await lastRequest(page), /kept/);
  assert.equal(await token(page), first);
  await later(page, "10 minutes later");
  assert.match(await lastRequest(page), /refreshed[^]*operator call: refresh/);
  const second = await token(page);
  assert.notEqual(second, first);
  await press(page, "Load the page again");
  assert.match(await lastRequest(page), /kept[^]*No operator call/);
  assert.equal(await token(page), second);
});

visitEach("an opt-out shows at the next refresh and stays", async ({ page, context, scope: { ANCHOR, OPT_OUT } }) => {
  await login(page, "email", "user@example.com");
  await press(page, "Opt this person out");
  assert.equal(await state(page), "Active");
  await later(page, "10 minutes later", "10 minutes later");
  assert.equal(await state(page), "Opted out");
  assert.match(await lastRequest(page), /opt-out remembered/);
  assert.deepEqual(await cookieNames(context), [ANCHOR, OPT_OUT]);
  await page.reload();
  assert.equal(await state(page), "Opted out");
  assert.match(await lastRequest(page), /kept[^]*The cookies stay as they are/);
  assert.equal(await token(page), undefined);
});

visitEach("a logout removes the cookies, and the page is absent", async ({ page, context, scope: { ANCHOR, IDENTITY } }) => {
  await login(page, "email", "user@example.com");
  assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY]);
  await press(page, "Log out");
  assert.equal(await state(page), "Absent");
  assert.deepEqual(await cookieNames(context), []);
  await page.reload();
  assert.equal(await state(page), "Absent");
});

visitEach("scripts of the page can't read the cookies", async ({ page, context, scope: { ANCHOR, IDENTITY } }) => {
  await login(page, "email", "user@example.com");
  assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY]);
  assert.equal(await page.evaluate(() => document.cookie), "");
});

visitEach("pages keep the token while the operator is down, until it expires", async ({ page, context, scope: { IDENTITY } }) => {
  await login(page, "email", "user@example.com");
  const first = await token(page);
  const identity = () => cookie(context, (name) => name.startsWith(IDENTITY));
  const sealed = await identity();
  await press(page, "Down");
  await later(page, "10 minutes later", "10 minutes later");
  assert.equal((await page.reload()).status(), 200);
  assert.equal(await headline(page), "The token is still valid");
  assert.equal(await token(page), first);

  await later(page, "1 hour later");
  assert.equal((await page.reload()).status(), 200);
  assert.equal(await state(page), "Unavailable");
  assert.equal(await token(page), undefined);
  assert.equal(await identity(), sealed);

  await press(page, "Up");
  await later(page, "10 minutes later");
  assert.equal(await state(page), "Active");
  assert.notEqual(await token(page), first);
});

visit("a login while the operator is down shows an error and ends the previous login", async ({ page, context }) => {
  await login(page, "email", "user@example.com");
  await press(page, "Down");
  await login(page, "email", "other@example.com");
  assert.match(await page.getByRole("alert").innerText(), /does not answer/);
  assert.equal(await state(page), "Absent");
  assert.deepEqual(await cookieNames(context), []);
});

visit("the forms work without JavaScript", async ({ page }) => {
  const submit = async (name) => {
    const loaded = page.waitForEvent("load");
    await page.getByRole("button", { name, exact: true }).click();
    await loaded;
  };
  await submit("Log in with email");
  assert.equal(await state(page), "Active");
  await submit("US");
  assert.equal(await state(page), "Absent");
  await submit("EU");
  await submit("10 minutes later");
  await submit("10 minutes later");
  assert.match(await lastRequest(page), /refreshed/);
  await submit("Down");
  assert.equal(await page.getByRole("button", { name: "Down", pressed: true }).count(), 1);
  await submit("Log out");
  assert.equal(await state(page), "Absent");
}, { javaScriptEnabled: false });

visit("each region has its own identity until the logout, which ends both", async ({ page, context }) => {
  const region = () => page.locator("#scope").textContent();
  assert.equal(await region(), "EUID in the EU");
  await login(page, "email", "user@example.com");
  assert.equal(await source(page), "euid.eu");
  const euid = await token(page);

  await press(page, "US");
  assert.equal(await region(), "UID2 in the US");
  assert.equal(await state(page), "Absent");
  await login(page, "email", "user@example.com");
  assert.equal(await source(page), "uidapi.com");

  await press(page, "EU");
  assert.equal(await region(), "EUID in the EU");
  assert.equal(await state(page), "Active");
  assert.equal(await token(page), euid);
  assert.deepEqual(await cookieNames(context), ["euid-login", "euid.", "uid2-login", "uid2."].map((end) => `__Host-${end}`));

  await press(page, "Log out");
  assert.deepEqual((await context.cookies()).map(({ name }) => name), ["demo-region"]);
  for (const name of ["EU", "US"]) {
    await press(page, name);
    assert.equal(await state(page), "Absent");
    assert.equal(await token(page), undefined);
  }
});

visit("the identity of one region ends with another visitor's login in the other", async ({ page, context }) => {
  await login(page, "email", "user@example.com");
  await press(page, "US");
  await login(page, "email", "other@example.com");
  assert.equal(await state(page), "Active");
  await press(page, "EU");
  assert.equal(await state(page), "Absent");
  assert.ok(!(await cookieNames(context)).includes("__Host-euid."));
});

// HTTPS

function visitOverTlsEach(name, run, options) {
  visitEach(name, async ({ site, scope, context, page }) => {
    const proxy = await startProxy(site.port, certificate());
    try {
      await page.goto(`https://publisher.example:${proxy.port}/`);
      await run({ site, scope, context, page, proxy });
    } finally {
      await proxy.stop();
    }
  }, options);
}

function certificate() {
  const folder = mkdtempSync(join(tmpdir(), "browser-"));
  const [keyFile, certFile] = [join(folder, "key"), join(folder, "cert")];
  try {
    execFileSync("openssl", [
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1".split(" "),
      ...["-subj", "/CN=publisher.example", "-keyout", keyFile, "-out", certFile],
    ], { stdio: "ignore" });
    return { key: readFileSync(keyFile), cert: readFileSync(certFile) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

// Whether a `Set-Cookie` sets, and does not remove, a cookie whose name begins like this.
const sets = (beginning, line) => line.startsWith(beginning) && !/^[^=]*=;/.test(line);

visitOverTlsEach("the browser stores the cookies over https with all attributes", async ({ page, context, scope: { ANCHOR, IDENTITY } }) => {
  await login(page, "email", "user@example.com");
  assert.equal(await state(page), "Active");
  const stored = (await cookies(context)).map(({ name, value, expires, ...attributes }) => ({ name: withoutTag(name), ...attributes }));
  const expected = { domain: "publisher.example", path: "/", httpOnly: true, secure: true, sameSite: "Lax" };
  assert.deepEqual(stored.sort((a, b) => (a.name < b.name ? -1 : 1)), [
    { name: ANCHOR, ...expected },
    { name: IDENTITY, ...expected },
  ]);
});

visitEach("the browser refuses the cookies over plain http", async ({ site, page, context, scope: { IDENTITY } }) => {
  await page.goto(`http://publisher.example:${site.port}/`);
  const answered = page.waitForResponse((response) => response.url().endsWith("/login"));
  await login(page, "email", "user@example.com");
  const headers = (await (await answered).headersArray()).map(({ name, value }) => [name.toLowerCase(), value]);
  assert.equal(headers.filter(([name, value]) => name === "set-cookie" && sets(IDENTITY, value)).length, 1);
  assert.equal(await state(page), "Absent");
  assert.deepEqual(await cookieNames(context), []);
});

// Reloads the tab until a response sets a cookie whose name begins like this. The proxy holds that response back, until
// the returned function is called.
async function holdBack(tab, proxy, beginning) {
  const late = proxy.holdBack(({ headers }) => headers["set-cookie"]?.some((line) => sets(beginning, line)));
  let reload;
  for (let arrived = false; !arrived; ) {
    reload = tab.reload();
    arrived = await Promise.race([reload.then(() => false), late.arrival.then(() => true)]);
  }
  return async () => {
    late.release();
    await reload;
  };
}

// The same for the outcome of a refresh: the operator answers while the tab reloads.
async function holdBackRefresh(tab, proxy, beginning) {
  await press(tab, "Slow");
  await later(tab, "10 minutes later", "10 minutes later");
  assert.equal(await headline(tab), "The token is still valid");
  return holdBack(tab, proxy, beginning);
}

visitOverTlsEach("a refresh that arrives late does not undo a logout in another tab", async ({ page: a, context, proxy, scope: { IDENTITY } }) => {
  await login(a, "email", "user@example.com");
  const b = await context.newPage();
  await b.goto(a.url());
  const release = await holdBackRefresh(a, proxy, IDENTITY);
  await press(b, "Log out");
  assert.equal(await state(b), "Absent");
  assert.deepEqual(await cookieNames(context), []);

  await release();
  // The late response has restored the identity, but not the anchor that it needs.
  assert.deepEqual(await cookieNames(context), [IDENTITY]);
  for (const tab of [a, b, a]) {
    await tab.reload();
    assert.equal(await state(tab), "Absent");
    assert.equal(await token(tab), undefined);
  }
  assert.deepEqual(await cookieNames(context), []);
});

for (const [late, address, isOptOut] of [
  ["a refresh", "user@example.com", false],
  ["an opt-out", "refresh-optout@example.com", true],
]) {
  visitOverTlsEach(`${late} that arrives late changes nothing of a login in another tab`, async ({ page: a, context, proxy, scope }) => {
    const { ANCHOR, IDENTITY, OPT_OUT } = scope;
    const beginning = isOptOut ? OPT_OUT : IDENTITY;
    await login(a, "email", address);
    const b = await context.newPage();
    await b.goto(a.url());
    const release = await holdBackRefresh(a, proxy, beginning);
    await press(b, "Up");
    await login(b, "phone", "+12345678901");
    assert.equal(await state(b), "Active");
    assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY]);
    const [newer, before] = [await token(b), await cookies(context)];

    await release();
    assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY, beginning].sort());
    for (const tab of [a, b, a]) {
      await tab.reload();
      assert.equal(await state(tab), "Active");
      assert.equal(await token(tab), newer);
    }
    const byName = (a, b) => (a.name < b.name ? -1 : 1);
    assert.deepEqual((await cookies(context)).sort(byName), before.sort(byName));
  });
}

// The identity of the JavaScript SDK's cookie is fresh, so a page takes it over without a call to the operator.
async function addSdkCookie(context, page, { SDK_COOKIE }) {
  const now = Date.now();
  const identity = {
    advertising_token: "QUFB",
    refresh_token: "QUFB",
    refresh_response_key: Buffer.alloc(32).toString("base64"),
    refresh_from: now + 3_600_000,
    identity_expires: now + 7_200_000,
    refresh_expires: now + 86_400_000,
  };
  await context.addCookies([{ name: SDK_COOKIE, value: encodeURIComponent(JSON.stringify(identity)), url: page.url() }]);
}

const MIGRATES = { env: { COOKIES_FOR_SCRIPTS: "1" } };

visitOverTlsEach("a late migration of the sdk's cookie does not undo a logout in another tab", async ({ page: a, context, proxy, scope }) => {
  const { ANCHOR, MIGRATED, SCRIPT_TOKEN } = scope;
  const b = await context.newPage();
  await b.goto(a.url());
  await addSdkCookie(context, a, scope);
  const release = await holdBack(a, proxy, MIGRATED);
  await press(b, "Log out");
  assert.deepEqual(await cookieNames(context), [ANCHOR]);

  await release();
  assert.deepEqual(await cookieNames(context), [ANCHOR, MIGRATED, SCRIPT_TOKEN]);
  for (const tab of [a, b, a]) {
    await tab.reload();
    assert.equal(await state(tab), "Absent");
    assert.equal(await token(tab), undefined);
    assert.deepEqual(await cookieNames(context), [ANCHOR]);
  }
}, MIGRATES);

visitOverTlsEach("a late migration of the sdk's cookie changes nothing of a login in another tab", async ({ page: a, context, proxy, scope }) => {
  const { ANCHOR, IDENTITY, MIGRATED, SCRIPT_TOKEN } = scope;
  const b = await context.newPage();
  await b.goto(a.url());
  await addSdkCookie(context, a, scope);
  const release = await holdBack(a, proxy, MIGRATED);
  await login(b, "email", "user@example.com");
  assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY, SCRIPT_TOKEN]);
  const newer = await token(b);

  await release();
  assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY, MIGRATED, SCRIPT_TOKEN]);
  for (const tab of [a, b, a]) {
    await tab.reload();
    assert.equal(await token(tab), newer);
    assert.equal(await cookie(context, (name) => name === SCRIPT_TOKEN), newer);
    assert.deepEqual(await cookieNames(context), [ANCHOR, IDENTITY, SCRIPT_TOKEN]);
  }
}, MIGRATES);

visit("a page waits half a second for a slow operator, and a later page has the new token", async ({ page }) => {
  await login(page, "email", "user@example.com");
  await later(page, "10 minutes later");
  await press(page, "Slow");
  await later(page, "10 minutes later");
  assert.equal(await headline(page), "The token is still valid");
  const took = Number(/(\d+) ms/.exec(await lastRequest(page))[1]);
  assert.ok(took >= 450 && took < 1900, `${took} ms`);
  const first = await token(page);
  while ((await token(page)) === first) await page.reload();
  assert.match(await lastRequest(page), /refreshed[^]*the answer to an earlier page[^]*No operator call/);
});

// Accessibility and layout

visit("every control has a label, can be reached by keyboard and shows its focus", async ({ page }) => {
  const controls = [
    page.getByRole("link", { name: "The Daily Example" }),
    ...["EU", "US"].map((name) => page.getByRole("button", { name, exact: true })),
    page.getByLabel("Email address"),
    page.getByLabel("Phone number"),
    ...["Log in with email", "Log in with phone", "Log out", "Load the page again", "10 minutes later", "1 hour later"]
      .concat(["Up", "Slow", "Down", "Opt this person out"])
      .map((name) => page.getByRole("button", { name, exact: true })),
    page.getByText("Test identities"),
  ];
  const all = await page.locator("a, button, input, select, textarea, summary").count();
  assert.equal(all, controls.length, "a control is missing from this test");
  for (const control of controls) await control.evaluate((element) => (element.dataset.expected = "yes"));

  const reached = new Set();
  for (let tabs = 0; tabs < 2 * controls.length; tabs++) {
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const index = [...document.querySelectorAll("[data-expected]")].indexOf(element);
      return { index, shown: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 };
    });
    if (focus.index < 0) continue;
    assert.ok(focus.shown, `focus is not visible on control ${focus.index}`);
    reached.add(focus.index);
  }
  assert.equal(reached.size, controls.length);
});

visit("a login works by keyboard alone, and a screen reader gets its result", async ({ page }) => {
  await page.getByLabel("Email address").focus();
  await page.keyboard.press("Enter");
  const status = page.getByRole("status");
  await status.filter({ hasText: "There is a token for the bid request" }).waitFor({ state: "attached" });
  await page.getByRole("button", { name: "Down" }).focus();
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Down", pressed: true }).waitFor();
  // The page has replaced the control, and the focus is still on it.
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Down");
});

const SCENES = {
  absent: async () => {},
  active: (page) => login(page, "email", "user@example.com"),
  refreshed: (page) => later(page, "10 minutes later", "10 minutes later"),
  "operator-down": async (page) => {
    await press(page, "Down");
    await later(page, "10 minutes later", "10 minutes later");
  },
  unavailable: (page) => later(page, "1 hour later"),
  "opted-out": async (page) => {
    await press(page, "Up");
    await press(page, "Opt this person out");
    await later(page, "10 minutes later");
  },
};

visit("the page fits a phone and is readable in every state", async ({ page }) => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  for (const [scene, act] of Object.entries(SCENES)) {
    await act(page);
    for (const [device, width] of Object.entries(WIDTHS)) {
      await page.setViewportSize({ width, height: 600 });
      const content = await page.evaluate(() => {
        const { scrollWidth: width, scrollHeight: height } = document.documentElement;
        return { width, height };
      });
      assert.ok(content.width <= width, `${scene} is ${content.width} px wide on ${width} px`);
      // The window has the height of the page, so the picture includes what is fixed to the bottom of the window.
      await page.setViewportSize({ width, height: content.height });
      await page.screenshot({ path: join(SCREENSHOTS, `${scene}-${device}.png`) });
    }
    assert.deepEqual(await page.evaluate(faintTexts), [], `${scene}: contrast below 4.5`);
  }
});

// Runs in the page. Returns its texts whose contrast with their background is below 4.5 (WCAG 2, AA).
function faintTexts() {
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      const [, , , alpha = 1] = channels(backgroundColor);
      if (alpha > 0) return backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { textContent, parentElement } = texts.currentNode;
    if (!textContent.trim() || !parentElement.checkVisibility()) continue;
    const [light, dark] = [getComputedStyle(parentElement).color, ground(parentElement)]
      .map(luminance)
      .sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faint.push(`${textContent.trim()}: ${contrast.toFixed(2)}`);
  }
  return faint;
}
