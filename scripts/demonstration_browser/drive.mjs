// Opens the page of the example demo in a browser, presses its buttons, and compares what it shows
// with the limiter's numbers and with what this program has sent itself.
//
//     node drive.mjs DEMO CHROMIUM [PICTURE]
//
// DEMO is the program of the example. With PICTURE nothing is compared: a picture is taken there.
// Both programs are ended by their process ids.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const [demo, browserPath, picture] = process.argv.slice(2);
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const KINDS = ["admitted", "over", "refused"];
const AT_MOST_MS = 60_000;

const example = spawn(demo, [], {
  env: { ...process.env, LISTEN: "127.0.0.1:0" },
  stdio: ["ignore", "pipe", "inherit"],
});
const ended = new Promise((resolve) => example.once("exit", resolve));
const profile = await mkdtemp(join(tmpdir(), "demonstration-"));
let browser;
try {
  const [api, address] = await addresses();
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: browserPath,
    headless: true,
    args: FLAGS,
    locale: "en-US",
    viewport: { width: 1280, height: 800 },
    colorScheme: "light",
  });
  const page = await browser.newPage();
  const complaints = complaintsOf(page, address);
  await page.goto(address);
  if (picture) {
    await takePicture(page);
  } else {
    await compare(page, address, api);
    assert.deepEqual(complaints, [], "complaints of the browser, and what was fetched elsewhere");
    await says("when the example has ended the page says so", () => endOf(page));
  }
} finally {
  await browser?.close();
  example.kill("SIGKILL");
  await ended;
  await rm(profile, { recursive: true, force: true });
}

// Where the API is, and where the page is: the example prints both, in this order.
async function addresses() {
  const found = [];
  for await (const line of createInterface({ input: example.stdout })) {
    found.push(line.match(/http:\/\/[\d.:]+\//)[0]);
    if (found.length === 2) {
      return found;
    }
  }
  throw new Error(`the example ended after it had printed ${JSON.stringify(found)}`);
}

function complaintsOf(page, address) {
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) {
      complaints.push(message.text());
    }
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(address) && !request.url().startsWith("data:")) {
      complaints.push(`it fetched ${request.url()}`);
    }
  });
  return complaints;
}

async function compare(page, address, api) {
  const state = async () => (await fetch(`${address}state`)).json();
  const totals = (from) => from.callers.map((caller) => caller.total);

  await says("the attacker is on, and limits are enforced fully, from the start", async () => {
    await pressed(page, { "attack-on": true, "enforce-full": true });
    await until(async () => (await shown(page)).callers[0].total.refused > 0);
  });

  await says("under attack the page shows the limiter's numbers, one refresh old at most", () =>
    underLoad(page, state));

  await says("in shadow mode nothing is refused, and what is over is counted", async () => {
    await page.getByRole("button", { name: "Shadow" }).click();
    await pressed(page, { "enforce-full": false, "enforce-shadow": true });
    assert.equal((await state()).enforcement, "shadow");
    const refused = totals(await state()).map((total) => total.refused);
    await until(async () => (await shown(page)).callers[0].total.over > 200);
    await until(async () => (await shown(page)).callers[0].rates.refused === "0.0");
    assert.deepEqual((await shown(page)).callers.map(({ total }) => total.refused), refused);
    await underLoad(page, state);
  });

  await says("with full enforcement requests are refused again", async () => {
    await page.getByRole("button", { name: "Full" }).click();
    await pressed(page, { "enforce-full": true, "enforce-shadow": false });
    const { refused } = totals(await state())[0];
    await until(async () => (await shown(page)).callers[0].total.refused > refused);
  });

  await says("the customer, whose client keeps to the limits, was never refused", async () => {
    const now = await state();
    assert.ok(now.callers[1].total.admitted > 50, JSON.stringify(now.callers[1]));
    assert.equal(now.callers[1].total.refused, 0);
    assert.equal(now.client.refused, 0);
    assert.ok(now.client.sent > 25);
  });

  await says("the limit is changed while requests run, from the keyboard too", async () => {
    const slider = page.getByRole("slider", { name: "Limit" });
    await slider.focus();
    await slider.press("ArrowRight");
    await until(async () => (await state()).calls_per_minute === 520);
    await slider.fill("100");
    await until(async () => (await state()).calls_per_minute === 100);
    await until(async () => (await shown(page)).callers[1].buckets.call?.endsWith(" of 100"));
    assert.equal(await page.locator("#limit-value").textContent(), "100");
  });

  await says("without the attack its numbers stand still and its buckets fill up", async () => {
    await page.getByRole("button", { name: "Off" }).click();
    await pressed(page, { "attack-on": false, "attack-off": true });
    const stands = async () => JSON.stringify(totals(await state())[0]);
    await until(async () => {
      const before = await stands();
      await sleep(600);
      return before === (await stands());
    });
    const before = left(await state(), "agent");
    await until(async () => left(await state(), "agent") > before);
    const least = left(await state(), "agent");
    const now = count((await refreshed(page)).callers[0].buckets.agent.split(" of ")[0]);
    const most = left(await state(), "agent");
    assert.ok(least <= now && now <= most, `agent: ${least} <= ${now} <= ${most}`);
    const expected = totals(await state())[0];
    await until(async () => (await shown(page)).callers[0].rates.refused === "0.0");
    assert.deepEqual((await shown(page)).callers[0].total, expected);
  });

  await says("the page counts the calls that its button and this program send", async () => {
    await page.getByRole("button", { name: "Place 50 calls" }).click();
    await until(async () => (await shown(page)).callers[2].total.admitted === 50);
    const headers = { Authorization: "Bearer you" };
    const statuses = [];
    let fields;
    // So many that some are over the limit of 100, however slow this machine is.
    for (let call = 0; call < 80 || (call < 1000 && !statuses.includes(429)); call += 1) {
      const response = await fetch(`${api}call`, { method: "POST", headers });
      await response.text();
      statuses.push(response.status);
      fields = response.headers.get("RateLimit");
    }
    const expected = {
      admitted: 50 + statuses.filter((status) => status === 200).length,
      over: 0,
      refused: statuses.filter((status) => status === 429).length,
    };
    assert.ok(expected.refused > 0, `no call was over the limit: ${fields}`);
    await until(async () => (await shown(page)).callers[2].total.refused === expected.refused);
    assert.deepEqual((await shown(page)).callers[2].total, expected);
    assert.deepEqual(totals(await state())[2], expected);
  });

  await says("a value that is out of range is refused with the rule", async () => {
    for (const calls_per_minute of [0, 59, 1001, 2 ** 32]) {
      const response = await fetch(`${address}limit`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ calls_per_minute }),
      });
      assert.ok([400, 422].includes(response.status), `${response.status}`);
    }
    assert.equal((await state()).calls_per_minute, 100);
  });

  const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 400]) {
      await says(`it can be read at ${width} pixels, ${colorScheme}`, async () => {
        await page.setViewportSize({ width, height: 800 });
        await page.emulateMedia({ colorScheme });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `the page is ${wide} pixels wide`);
        await page.evaluate(axe);
        const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
        const found = violations.map(({ id, nodes }) => [id, ...nodes.map((node) => node.html)]);
        assert.deepEqual(found, [], "what axe says about accessibility");
        assert.ok(passes.some(({ id }) => id === "color-contrast"));
      });
    }
  }
}

async function endOf(page) {
  example.kill("SIGKILL");
  await until(async () => /does not answer/.test(await page.locator("#notice").textContent()));
  assert.ok(await page.locator("#notice").isVisible());
}

function left(state, limit) {
  return state.callers[0].buckets.find((bucket) => bucket.limit === limit).remaining;
}

// What the page shows is not older than the state before it was refreshed, and not newer than the
// state after that.
async function underLoad(page, state) {
  for (let round = 0; round < 4; round += 1) {
    const before = await state();
    const now = await refreshed(page);
    const after = await state();
    now.callers.forEach((caller, at) => {
      for (const kind of KINDS) {
        const [least, most] = [before, after].map((from) => from.callers[at].total[kind]);
        const found = `${caller.name}, ${kind}: ${least} <= ${caller.total[kind]} <= ${most}`;
        assert.ok(least <= caller.total[kind] && caller.total[kind] <= most, found);
      }
      for (const bucket of before.callers[at].buckets) {
        const [left, burst] = caller.buckets[bucket.limit].split(" of ");
        assert.equal(burst, text(bucket.burst));
        assert.ok(count(left) <= bucket.burst, left);
      }
    });
    const possible = [...before.samples, ...after.samples].map((sample) => JSON.stringify([
      ...sample.rates.map((rates) => KINDS.map((kind) => text(rates[kind]))),
      [text(sample.latency?.median_ms), text(sample.latency?.p99_ms)],
    ]));
    const rates = now.callers.map((caller) => KINDS.map((kind) => caller.rates[kind]));
    const seen = JSON.stringify([...rates, [now.median, now.p99]]);
    assert.ok(possible.includes(seen), `${seen} is no sample`);
  }
}

// What the page shows after it has asked for a state anew. The first change that is seen may come
// from a request that had begun before, so this waits for the second.
async function refreshed(page) {
  let now;
  for (let change = 0; change < 2; change += 1) {
    const { admitted } = (await shown(page)).callers[1].total;
    await until(async () => {
      now = await shown(page);
      return now.callers[1].total.admitted > admitted;
    });
  }
  return now;
}

// "1,000" is 1000.
function count(text) {
  return Number(text.replaceAll(",", ""));
}

// As the page writes a number, computed in another way.
function text(number) {
  if (number === undefined) {
    return "–";
  }
  const digits = number < 10 ? number.toFixed(1) : Math.round(number).toString();
  return digits.replace(/\B(?=(\d{3})+$)/, ",");
}

// All numbers on the page, read at one moment.
async function shown(page) {
  return page.evaluate((kinds) => {
    const number = (element) => Number(element.textContent.replaceAll(",", ""));
    const callers = ["attacker", "customer", "you"].map((name) => {
      const card = document.getElementById(name);
      const of = (attribute, read) => Object.fromEntries(kinds.map((kind) =>
        [kind, read(card.querySelector(`[data-${attribute}=${kind}]`))]));
      const buckets = [...card.querySelectorAll(".buckets li")].map((item) =>
        [item.dataset.limit, item.querySelector(".left").textContent]);
      return {
        name,
        total: of("total", number),
        rates: of("of", (element) => element.textContent),
        buckets: Object.fromEntries(buckets),
      };
    });
    const [median, p99] = ["median", "p99"].map((id) => document.getElementById(id).textContent);
    return { callers, median, p99 };
  }, KINDS);
}

async function pressed(page, buttons) {
  for (const [id, isPressed] of Object.entries(buttons)) {
    await until(async () =>
      (await page.locator(`#${id}`).getAttribute("aria-pressed")) === String(isPressed));
  }
}

async function until(holds) {
  const end = Date.now() + AT_MOST_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `this did not come true: ${holds}`);
    await sleep(20);
  }
}

async function says(sentence, test) {
  await test();
  console.log(`  ${sentence}`);
}

// Half a minute of full enforcement, a while of shadow, and full enforcement again.
async function takePicture(page) {
  await sleep(20_000);
  await page.getByRole("button", { name: "Place 50 calls" }).click();
  await sleep(12_000);
  await page.getByRole("button", { name: "Shadow" }).click();
  await sleep(12_000);
  await page.getByRole("button", { name: "Full" }).click();
  await sleep(16_000);
  await page.evaluate(() => document.activeElement.blur());
  const { width, height } = await page.evaluate(() =>
    document.documentElement.getBoundingClientRect().toJSON());
  const session = await browser.newCDPSession(page);
  const { data } = await session.send("Page.captureScreenshot", {
    format: "webp",
    quality: 70,
    captureBeyondViewport: true,
    clip: { x: 0, y: 0, width, height, scale: 1 },
  });
  await writeFile(picture, Buffer.from(data, "base64"));
}
