// Tests of the publisher example on a store: the browser has a handle, or nothing.

import assert from "node:assert/strict";
import { cookieNames, later, login, press, state, token, visitEach } from "./stage.mjs";

// With both kinds of store the page is the same. `kept` are the cookies of a login, `told` those after an opt-out.
const KINDS = [
  { kind: "by login", env: {}, kept: ({ ANCHOR }) => [ANCHOR], told: ({ ANCHOR, OPT_OUT }) => [ANCHOR, OPT_OUT] },
  {
    kind: "by user",
    env: { EUID_STORE_SECRET: "qCk9l3gJ5n2m8Yw0cV1bXz7RtQeUo6Ai4DsFhGjKpLM=" },
    kept: () => [],
    told: ({ OPT_OUT }) => [OPT_OUT],
  },
];

for (const { kind, env, kept, told } of KINDS) {
  const options = { env: { EUID_STORE_URL: "memory:", ...env } };

  visitEach(`on a store ${kind}, a login is refreshed without a cookie, and ends at a logout`, async ({ page, context, scope }) => {
    await login(page, "email", "user@example.com");
    assert.equal(await state(page), "Active");
    const first = await token(page);
    const cookies = await context.cookies();
    assert.deepEqual(await cookieNames(context), kept(scope));
    await later(page, "10 minutes later", "10 minutes later");
    const second = await token(page);
    assert.ok(second.length > 100 && second !== first);
    const pairs = (cookies) => cookies.map(({ name, value }) => `${name}=${value}`).sort();
    assert.deepEqual(pairs(await context.cookies()), pairs(cookies));
    await press(page, "Log out");
    assert.equal(await state(page), "Absent");
    assert.deepEqual(await cookieNames(context), []);
  }, options);

  visitEach(`on a store ${kind}, an opt-out is kept by the browser`, async ({ page, context, scope }) => {
    await login(page, "email", "user@example.com");
    await press(page, "Opt this person out");
    await later(page, "10 minutes later", "10 minutes later");
    assert.equal(await state(page), "Opted out");
    assert.deepEqual(await cookieNames(context), told(scope));
    await page.reload();
    assert.equal(await state(page), "Opted out");
    assert.equal(await token(page), undefined);
  }, options);
}
