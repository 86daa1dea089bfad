// A host for the reactor: a web site on Node's own server. The reactor knows the engine; this file has the sockets.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { WASI } from "node:wasi";

/** The module, and how messages get in and out of it. */
export class Reactor {
  #exports;

  /** Loads the module at `path` and configures it; `configured` is its reply. */
  static async load(path, configuration) {
    // No files, no arguments, no variables. The module needs randomness, and stderr if it panics.
    const wasi = new WASI({ version: "preview1" });
    const { instance } = await WebAssembly.instantiate(await readFile(path), wasi.getImportObject());
    wasi.initialize(instance);
    const reactor = new Reactor();
    reactor.#exports = instance.exports;
    reactor.configured = reactor.call("configure", configuration);
    return reactor;
  }

  /** Calls a function of the module with a message and returns its reply. */
  call(name, message) {
    const bytes = new TextEncoder().encode(JSON.stringify(message));
    this.#buffer(bytes.length).set(bytes);
    const length = this.#exports[name]();
    const reply = JSON.parse(new TextDecoder().decode(this.#buffer(length)));
    if (reply.error) throw new Error(`${name}: ${reply.error}`);
    return reply;
  }

  #buffer(length) {
    const address = this.#exports.buffer(length);
    // Create the view only now: the memory may have grown, and then it has a new ArrayBuffer.
    return new Uint8Array(this.#exports.memory.buffer, address, length);
  }
}

/** One request and its response, as the reactor counts them. */
class Exchange {
  #reactor;
  #clock;
  #number;

  constructor(reactor, clock) {
    this.#reactor = reactor;
    this.#clock = clock;
  }

  /** What the page may see: `{ state, token }`. Waits for a refresh if one is due. */
  async begin(request) {
    const headers = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      headers.push([request.rawHeaders[i].toLowerCase(), request.rawHeaders[i + 1]]);
    }
    const begun = this.#reactor.call("begin", { now: this.#clock(), method: request.method, headers });
    this.#number = begun.exchange;
    return (await this.#settle(begun)).euid;
  }

  /** The outcome of a login: `{ outcome, error }`. */
  async login(email) {
    return (await this.#settle(this.#call("login", { email }))).login;
  }

  /** The headers of the response, as pairs, with the cookies among them. */
  finish({ change = "none", status, headers = [] }) {
    const finished = this.#call("finish", { change, status, headers });
    for (const line of finished.log) console.error(line);
    return finished.headers;
  }

  /** Makes the call to the operator that a reply holds, if it holds one. */
  async #settle(reply) {
    if (!reply.fetch) return reply;
    return this.#call("answered", { answer: await send(reply.fetch, this.#reactor.configured.max_answer) });
  }

  #call(name, message) {
    return this.#reactor.call(name, { exchange: this.#number, now: this.#clock(), ...message });
  }
}

/** Sends a request to the operator. Returns its response, or null if there is none in time. */
async function send({ url, method, headers, body }, maxAnswer) {
  try {
    const response = await fetch(url, {
      method,
      headers,
      body: Buffer.from(body, "base64"),
      redirect: "error",
      signal: AbortSignal.timeout(2000),
    });
    const chunks = [];
    let length = 0;
    for await (const chunk of response.body ?? []) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > maxAnswer) break;
    }
    const answer = Buffer.concat(chunks).toString("base64");
    return { status: response.status, headers: [...response.headers], body: answer };
  } catch {
    return null;
  }
}

/** The site: a page, a login, a logout. `clock` returns milliseconds since 1970. */
export function site(reactor, clock) {
  return createServer(async (request, response) => {
    let page;
    try {
      page = await respond(request, new Exchange(reactor, clock));
    } catch (error) {
      console.error(error);
      page = { status: 500, headers: [], body: "error" };
    }
    response.writeHead(page.status, page.headers.flat()).end(page.body);
  });
}

/** The response to a request, with the engine around the application. */
async function respond(request, exchange) {
  try {
    const euid = await exchange.begin(request);
    const page = await handle(request, euid, exchange);
    return { ...page, headers: exchange.finish(page) };
  } catch (error) {
    console.error(error);
    // Finish after a failure, too: the engine may have a cookie to write, and the reactor must forget the exchange.
    const page = { status: 500, body: "error" };
    return { ...page, headers: exchange.finish(page) };
  }
}

/** The application. It knows nothing of cookies that hold identities. */
async function handle(request, euid, exchange) {
  const headers = [["content-type", "application/json"]];
  switch (`${request.method} ${request.url}`) {
    case "GET /":
      return { status: 200, headers, body: JSON.stringify(euid) };
    case "POST /login": {
      const login = await exchange.login(await text(request));
      const status = { failed: 503, invalid: 400 }[login.outcome] ?? 200;
      headers.push(["set-cookie", "session=17; HttpOnly"]);
      return { status, headers, change: "login", body: JSON.stringify(login) };
    }
    case "POST /logout":
      return { status: 200, headers, change: "logout", body: "{}" };
    case "GET /fails":
      throw new Error("this page always fails");
    default:
      return { status: 404, headers, body: "{}" };
  }
}

async function text(request) {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) {
    text += chunk;
    if (text.length > 1024) throw new Error("the body is too long");
  }
  return text;
}
