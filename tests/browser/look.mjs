// What a Chromium makes of a page. usage: node look.mjs PAGE_URL PICTURE.png WIDTH HEIGHT; run where
// tests/browser/package.json is installed. It prints one JSON object, and photographs the page.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const here = createRequire(`${process.cwd()}/`);
const load = async (name) => (await import(pathToFileURL(here.resolve(name)))).default;
const [chromium, puppeteer] = [await load("@sparticuz/chromium"), await load("puppeteer-core")];
const [url, picture, width, height] = process.argv.slice(2);

const browser = await puppeteer.launch({
  args: chromium.args,
  executablePath: await chromium.executablePath(),
  headless: "shell",
});
try {
  const page = await browser.newPage();
  const requests = [];
  const complaints = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.setViewport({ width: Number(width), height: Number(height) });
  await page.goto(url);
  const seen = await page.evaluate(() => ({
    title: document.title,
    wide: document.documentElement.scrollWidth,
    pictures: [...document.images].map((image) => [image.naturalWidth, image.naturalHeight, image.width]),
    rows: [...document.querySelectorAll("tr")].map((row) => row.innerText),
    captions: [...document.querySelectorAll("figcaption")].map((caption) => caption.innerText),
    bars: [...document.querySelectorAll("meter")].map((bar) => [bar.value, bar.offsetWidth]),
  }));
  await page.screenshot({ path: picture });
  console.log(JSON.stringify({ ...seen, requests, complaints }));
} finally {
  await browser.close();
}
