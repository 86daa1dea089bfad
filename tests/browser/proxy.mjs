// HTTPS in front of a site, as a load balancer puts it there; and a way to keep an answer back.

import http from "node:http";
import https from "node:https";

export async function startProxy(sitePort, certificate) {
  let keepBack;
  const server = https.createServer(certificate, (request, response) => {
    const { method, url: path, headers } = request;
    const onward = http.request({ host: "127.0.0.1", port: sitePort, method, path, headers }, async (answer) => {
      if (keepBack?.which(answer)) {
        const { noticed, released } = keepBack;
        keepBack = undefined;
        noticed();
        await released;
      }
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  server.listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));

  return {
    port: server.address().port,
    // Keeps the next answer back that `which` is true for, from when it is `there` until `release`.
    keepBack(which) {
      const there = new Promise((noticed) => (keepBack = { which, noticed }));
      let release;
      keepBack.released = new Promise((resolve) => (release = resolve));
      return { there, release };
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((stopped) => server.close(stopped));
    },
  };
}
