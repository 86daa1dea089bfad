// A site on the Node client, for tests/process.py: node site.mjs PORT
import express from "express";
import { ask, euid } from "./euid_sidecar.mjs";

const site = express();
site.use((request, _, next) => {
  request.began = performance.now();
  next();
});
site.get("/early", (request, response) => {
  euid(request, response);
  response.cookie("theme", "dark").json({ euid: null, milliseconds: 0 });
});
site.use(euid);
site.use(async (request, response) => {
  if (["/login", "/logout"].includes(request.path)) await ask(request, request.path.slice(1), request.query);
  response.cookie("theme", "dark").set("Server-Timing", "site");
  const milliseconds = performance.now() - request.began;
  const cacheControl = "strict" in request.query ? "No-Store" : "public, max-age=60";
  const headers = ["Vary", "Accept-Encoding", "Cache-Control", cacheControl];
  response.writeHead(200, "strict" in request.query ? headers : Object.fromEntries([headers.slice(0, 2), headers.slice(2)]));
  response.end(JSON.stringify({ euid: request.euid, milliseconds }));
});
site.listen(Number(process.argv[2]), "127.0.0.1");
