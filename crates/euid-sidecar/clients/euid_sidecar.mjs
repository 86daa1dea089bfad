// The visitor's EUID: `app.use(euid)` in Express, `await euid(request, response)` in plain node:http. `request.euid` is
// the answer for the page. A login is `await ask(request, "login", { email })`; a logout has "logout" alone.
import { request as send } from "node:http";
export async function ask(request, call = "page", form = {}, socketPath = "/run/euid-sidecar/api.sock") {
  const passed = Object.entries(request.headers).filter(([name]) => /^(cookie$|sec-|euid-|uid2-)/.test(name));
  const [headers, signal] = [Object.fromEntries(passed), AbortSignal.timeout(call.startsWith("page") ? 50 : 6000)];
  const to = { socketPath, path: `/v1/${call}`, method: call.startsWith("page") ? "GET" : "POST", headers, signal };
  const got = new Promise((done, fail) => send(to, done).on("error", fail).end(`${new URLSearchParams(form)}`));
  return (request.euid = await got.then(async (it) => JSON.parse(Buffer.concat(await it.toArray()))).catch(() => ({})));
}
export async function euid(request, response, next = () => {}, { writeHead } = response) {
  response.writeHead = (status, ...rest) => {
    // The site may answer before the sidecar does. It gives its headers as an object, or as a list of names and values.
    const [{ headers, set_cookie = [] }, given = {}] = [request.euid ?? {}, rest.find((it) => it === Object(it))];
    const pairs = given.flatMap?.((name, at) => (at % 2 ? [] : [[name, given[at + 1]]])) ?? Object.entries(given);
    for (const pair of pairs) response[given.flatMap ? "appendHeader" : "setHeader"](...pair);
    const adds = (name) => name !== "cache-control" || /no-store/i.test(response.getHeader(name));
    for (const [name, value] of Object.entries({ ...headers, "set-cookie": set_cookie }))
      response[adds(name) ? "appendHeader" : "setHeader"](name, value);
    return writeHead.call(response, status, ...rest.filter((one) => typeof one === "string"));
  };
  await ask(request).then(() => next());
}
