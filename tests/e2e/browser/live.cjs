// Plays a live stream in headless Chromium, and prints how it goes: a line of JSON every 100 ms until standard input
// ends, and then one with the requests that were made.
// Usage: node live.cjs hls|shaka URL ADDRESS [OPTIONS]. ADDRESS: where every host name leads to; OPTIONS: JSON, for the player.
"use strict";
const { chromium } = require("playwright-core");
const { createServer } = require("node:http");
const { readFileSync } = require("node:fs");

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--mute-audio",
];

const LIBRARIES = { hls: "hls.js/dist/hls.min.js", shaka: "shaka-player/dist/shaka-player.compiled.js" };

// Runs in the page, from here on.
function start([engine, url, options]) {
  const video = document.querySelector("video");
  const seen = { errors: [], fatal: null, stalls: 0, parts: 0, segments: 0, discontinuities: 0, playing: false };
  let latency = () => null;
  video.addEventListener("playing", () => { seen.playing = true; });
  video.addEventListener("waiting", () => { if (seen.playing) seen.stalls += 1; });
  if (engine === "hls") {
    const hls = new Hls({ enableWorker: false, ...options });
    hls.on(Hls.Events.ERROR, (_, error) => {
      const status = error.response ? ` ${error.response.code}` : "";
      // It says so when it begins between two key frames, and skips to the later one: nothing is missing.
      if (error.details === "bufferSeekOverHole") return;
      seen.errors.push(`${error.details}${status}`);
      if (error.fatal) seen.fatal = `${error.details}${status}`;
    });
    hls.on(Hls.Events.FRAG_CHANGED, (_, { frag }) => {
      seen.discontinuities = Math.max(seen.discontinuities, frag.cc);
    });
    hls.on(Hls.Events.FRAG_LOADED, (_, { part }) => { seen[part ? "parts" : "segments"] += 1; });
    latency = () => hls.latency;
    hls.loadSource(url);
    hls.attachMedia(video);
  } else {
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    const fail = (error) => {
      const told = `${error.code} ${error.data}`;
      seen.errors.push(told);
      if (error.severity === 2) seen.fatal = told;
    };
    player.addEventListener("error", (event) => fail(event.detail));
    player.addEventListener("downloadcompleted", () => { seen.segments += 1; });
    player.configure(options);
    player.attach(video).then(() => player.load(url)).then(() => video.play()).catch(fail);
  }
  video.play().catch(() => {});
  window.state = () => {
    const { currentTime, videoWidth, buffered } = video;
    const end = buffered.length ? buffered.end(buffered.length - 1) : 0;
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    return { ...seen, currentTime, videoWidth, frames, buffered: end - currentTime, latency: latency() };
  };
}

(async () => {
  const [engine, url, address, options] = process.argv.slice(2);
  const library = readFileSync(require.resolve(LIBRARIES[engine]));
  const site = createServer((request, response) => {
    const page = request.url === "/";
    response.setHeader("Content-Type", page ? "text/html" : "text/javascript");
    response.end(page ? '<!doctype html><video muted playsinline></video><script src="player.js"></script>' : library);
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const args = [...FLAGS, `--host-resolver-rules=MAP * ${address}, EXCLUDE 127.0.0.1`];
  const browser = await chromium.launch({ executablePath, args });
  const page = await browser.newPage();
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.evaluate(start, [engine, url, JSON.parse(options || "{}")]);
  let ended = false;
  process.stdin.on("end", () => { ended = true; }).resume();
  while (!ended) {
    console.log(JSON.stringify(await page.evaluate(() => window.state())));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  console.log(JSON.stringify({ ...(await page.evaluate(() => window.state())), requests }));
  await browser.close();
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(2);
});
