// The visitor's EUID: `app.use(euid)` in Express, `await euid(request, response)` in plain node:http. `request.euid` is
// the answer for the page. A login is `await ask(request, "login", { email })`; a logout has "logout" alone.
import { request as send } from "node:http";
export async function ask(request, call = "page", form = {}, socketPath = "/run/euid-sidecar/api.sock") {
  const passed = Object.entries(request.headers).filter(([name]) => /^(cookie$|sec-|euid-|uid2-)/.test(name));
  const [headers, signal] = [Object.fromEntries(passed), AbortSignal.timeout(call.startsWith("page") ? 50 : 6000)];
  const to = { socketPath, path: `/v1/${call}`, method: call.startsWith("page") ? "GET" : "POST", headers, signal };
  const asked = new Promise((done, fail) => send(to, done).on("error", fail).end(`${new URLSearchParams(form)}`));
  const answer = asked.then((parts) => parts.toArray()).then((parts) => JSON.parse(Buffer.concat(parts)));
  return (request.euid = await answer.catch(() => ({})));
}
export async function euid(request, response, next = () => {}, { writeHead } = response) {
  response.writeHead = (status, ...rest) => {
    const { headers = {}, set_cookie = [] } = request.euid ?? {}; // The site may answer before the sidecar does.
    const given = rest.find((one) => typeof one === "object") ?? {}; // An object, or a list of names and values in turn.
    const pairs = given.flatMap?.((name, at) => (at % 2 ? [] : [[name, given[at + 1]]])) ?? Object.entries(given);
    const names = pairs.map(([name]) => name.toLowerCase());
    pairs.forEach((pair, at) => response[names.indexOf(names[at]) < at ? "appendHeader" : "setHeader"](...pair));
    const adds = (name) => name !== "cache-control" || /no-store/i.test(response.getHeader(name));
    for (const name in headers) response[adds(name) ? "appendHeader" : "setHeader"](name, headers[name]);
    for (const line of set_cookie) response.appendHeader("set-cookie", line);
    return writeHead.call(response, status, ...rest.filter((one) => typeof one === "string"));
  };
  await ask(request).then(() => next());
}
