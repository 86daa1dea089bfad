// Keeps the EUID state of an app whose `fetch` has no cookies, such as React Native or Node.
//
//     const send = await withEuid("https://www.example.com", store);
//     await send("/login", { method: "POST", body });   // use `send` for every request to the site
//
// `store` keeps a text while the app does not run, where only this app can read it: `load()` returns a promise of the text or
// null, `save(text)` one that is fulfilled once the text is kept.

const BEGINNINGS = ["euid-", "uid2-"]; // of the names in EUID and in UID2

export async function withEuid(site, store) {
  const kept = new Map(Object.entries(JSON.parse((await store.load()) ?? "{}")));
  let saved = Promise.resolve();

  return async (path, init = {}) => {
    if (!path.startsWith("/")) throw new TypeError("send takes a path of the site");
    const headers = new Headers(init.headers);
    for (const beginning of BEGINNINGS) headers.set(`${beginning}login`, ""); // says that the app wants headers
    for (const [name, value] of kept) headers.set(name, value);
    // A redirect to another site would take the headers there, and `fetch` hides those of the redirect itself.
    const response = await fetch(site + path, { ...init, headers, redirect: "error" });
    const changes = [...response.headers].filter(([name]) => BEGINNINGS.some((beginning) => name.startsWith(beginning)));
    for (const [name, value] of changes) value === "" ? kept.delete(name) : kept.set(name, value);
    if (changes.length > 0) {
      // One after the other, so that the last is what stays.
      saved = saved.catch(() => {}).then(() => store.save(JSON.stringify(Object.fromEntries(kept))));
      // The loss of a refresh only costs another one. A login or logout that is not saved fails.
      const isLoginOrLogout = changes.some(([name]) => name.endsWith("-login"));
      await (isLoginOrLogout ? saved : saved.catch(() => {}));
    }
    return response;
  };
}
