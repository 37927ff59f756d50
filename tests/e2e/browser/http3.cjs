// Opens a page in headless Chromium, which speaks HTTP/3 to its origin alone, waits until its player has ended or failed,
// and prints what happened as JSON, with the protocol of each request.
// Usage: node http3.cjs URL CA. CA: the root certificate, in PEM. Exit code 0 when the video was played to its end.
"use strict";
const { chromium } = require("playwright-core");
const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { connect } = require("node:tls");

// The hash of the certificate's key: over QUIC, Chromium takes no other root than the public ones for anything else.
function keyHash({ hostname, port }, ca) {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, servername: hostname, ca }, () => {
      const key = socket.getPeerX509Certificate().publicKey.export({ type: "spki", format: "der" });
      socket.end();
      resolve(createHash("sha256").update(key).digest("base64"));
    });
    socket.on("error", reject);
  });
}

(async () => {
  const url = new URL(process.argv[2]);
  const hash = await keyHash(url, readFileSync(process.argv[3]));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
      // localhost is ::1, too, and over QUIC Chromium tries no second address.
      "--host-resolver-rules=MAP *.localhost 127.0.0.1", "--enable-quic", `--origin-to-force-quic-on=${url.host}`, `--ignore-certificate-errors-spki-list=${hash}`,
    ],
  });
  const page = await browser.newPage();
  await page.goto(url.href);
  const done = () => ["ended", "error"].includes(document.documentElement.dataset.state);
  await page.waitForFunction(done, null, { timeout: 60_000 }).catch(() => {});
  const outcome = await page.evaluate(() => {
    const { state, error } = document.documentElement.dataset;
    const { currentTime } = document.querySelector("video");
    const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const asked = entries.filter((entry) => entry.name.startsWith(location.origin));
    const protocols = Object.fromEntries(asked.map((entry) => [entry.name, entry.nextHopProtocol]));
    return { state, error, currentTime, protocols };
  });
  console.log(JSON.stringify(outcome));
  await browser.close();
  process.exit(outcome.state === "ended" ? 0 : 1);
})().catch((error) => {
  console.error(error);
  process.exit(2);
});
