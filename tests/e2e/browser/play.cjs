// Opens a page in headless Chromium, waits until its player has ended or failed, and prints what happened as JSON.
// Usage: node play.cjs URL. Exit code 0 when the video was played to its end.
"use strict";
const { chromium } = require("playwright-core");

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
];

(async () => {
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  const page = await browser.newPage();
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(process.argv[2]);
  const done = () => ["ended", "error"].includes(document.documentElement.dataset.state);
  await page.waitForFunction(done, null, { timeout: 60_000 }).catch(() => {});
  const outcome = await page.evaluate(() => {
    const { state, error } = document.documentElement.dataset;
    const { currentTime, duration } = document.querySelector("video");
    return { state, error, currentTime, duration };
  });
  console.log(JSON.stringify({ ...outcome, requests }));
  await browser.close();
  process.exit(outcome.state === "ended" ? 0 : 1);
})().catch((error) => {
  console.error(error);
  process.exit(2);
});
