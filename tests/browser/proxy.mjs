// A proxy that serves a site over HTTPS, like a load balancer. It can hold back a response.

import http from "node:http";
import https from "node:https";

export async function startProxy(sitePort, certificate) {
  let holdBack;
  const server = https.createServer(certificate, (request, response) => {
    const { method, url: path, headers } = request;
    const onward = http.request({ host: "127.0.0.1", port: sitePort, method, path, headers }, async (answer) => {
      if (holdBack?.matches(answer)) {
        const { arrived, released } = holdBack;
        holdBack = undefined;
        arrived();
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
    // Holds back the next response for which `matches` is true, until `release` is called. `arrival` resolves when the
    // proxy has the response.
    holdBack(matches) {
      const arrival = new Promise((arrived) => (holdBack = { matches, arrived }));
      let release;
      holdBack.released = new Promise((resolve) => (release = resolve));
      return { arrival, release };
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((stopped) => server.close(stopped));
    },
  };
}
