// Shows the JSON of /state, and presses the buttons. All numbers are computed by the example.
"use strict";

const REFRESH_MS = 500;
const CALLS_AT_ONCE = 50;
const KINDS = ["admitted", "over", "refused"];

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const rounded = (number) => (number < 10 ? tenths : whole).format(number);

// Counts both ends of each button's request: a state that was asked for before such an end may be
// that of before the button was pressed, and is not shown.
let presses = 0;

async function refresh() {
  const before = presses;
  const state = await ask("state");
  if (state && before === presses) {
    show(state);
  }
  setTimeout(refresh, REFRESH_MS);
}

async function press(path, body) {
  presses += 1;
  const state = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  presses += 1;
  if (state) {
    show(state);
  }
}

// The new state, or undefined, and a notice that says why there is none.
async function ask(path, options) {
  let failed = "";
  try {
    const response = await fetch(path, options);
    if (response.ok) {
      return await response.json();
    }
    failed = await response.text();
  } catch {
    failed = "The demonstration does not answer. Is it still running?";
  } finally {
    $("notice").hidden = failed === "";
    $("notice").textContent = failed;
  }
  return undefined;
}

function show(state) {
  mark("attack-on", state.attack);
  mark("attack-off", !state.attack);
  const full = state.enforcement === "full";
  mark("enforce-full", full);
  mark("enforce-shadow", !full);
  $("enforcement-hint").textContent = full
    ? "What is over a limit is refused"
    : "What is over a limit goes through";
  if (!isSliding) {
    $("limit").value = state.calls_per_minute;
    showLimit();
  }
  $("api").textContent = state.api;
  state.callers.forEach((caller, at) => showCaller(caller, at, state.samples));
  showLatency(state.samples);
  showStory(state, full);
}

function mark(id, isPressed) {
  $(id).setAttribute("aria-pressed", String(isPressed));
}

function showCaller(caller, at, samples) {
  const card = $(caller.name);
  const rates = samples.at(-1)?.rates[at];
  for (const kind of KINDS) {
    card.querySelector(`[data-of=${kind}]`).textContent = rates ? rounded(rates[kind]) : "–";
    card.querySelector(`[data-total=${kind}]`).textContent = whole.format(caller.total[kind]);
  }
  showBuckets(card.querySelector(".buckets"), caller);
  const most = Math.max(...samples.flatMap((sample) => total(sample.rates[at])), 0);
  drawAreas(card.querySelector(".chart"), samples.map((sample) => sample.rates[at]), most);
}

const total = (rates) => KINDS.reduce((sum, kind) => sum + rates[kind], 0);

function showBuckets(list, caller) {
  while (list.children.length < caller.buckets.length) {
    const item = document.createElement("li");
    item.innerHTML = '<span class="name"></span><span class="bar" aria-hidden="true"><i></i></span>'
      + '<span class="left"></span>';
    list.append(item);
  }
  caller.buckets.forEach((bucket, at) => {
    const item = list.children[at];
    item.dataset.limit = bucket.limit;
    item.querySelector(".name").textContent = bucket.limit;
    item.querySelector("i").style.width = `${(100 * bucket.remaining) / bucket.burst}%`;
    item.querySelector(".left").textContent =
      `${whole.format(bucket.remaining)} of ${whole.format(bucket.burst)}`;
    const wait = bucket.limit === "call" ? caller.next_call_in_ms : null;
    item.title = wait === null ? "" : `the next call is admitted in ${whole.format(wait)} ms`;
  });
}

function showLatency(samples) {
  const now = samples.at(-1)?.latency;
  $("median").textContent = now ? rounded(now.median_ms) : "–";
  $("p99").textContent = now ? rounded(now.p99_ms) : "–";
  drawLines($("latency-chart"), samples.map((sample) => sample.latency));
}

function showStory(state, full) {
  const now = state.samples.at(-1);
  if (!now) {
    return;
  }
  const [attacker] = now.rates;
  const took = now.latency ? `${rounded(now.latency.median_ms)} ms` : "a while";
  const customer = `The customer’s requests take <strong>${took}</strong>, and `
    + `<strong>${whole.format(state.callers[1].total.refused)}</strong> of them have been refused.`;
  $("story").innerHTML = `${attackStory(state.attack, full, attacker)} ${customer}`;
}

function attackStory(isOn, full, rates) {
  if (!isOn) {
    return "No attack. The attacker’s buckets fill up again.";
  }
  const sends = `The attacker sends <strong>${rounded(total(rates))}</strong> requests a second.`;
  if (!full) {
    return `${sends} In shadow mode the <strong>${rounded(rates.over)}</strong> over the limits go
      through. That is more than the API can do, so all callers wait.`;
  }
  return rates.refused < 1
    ? `${sends} Its buckets are not empty yet, so they are admitted.`
    : `${sends} The limiter refuses <strong>${rounded(rates.refused)}</strong> of them.`;
}

// Charts. Their numbers are also in the text above each of them.

const LEFT = 38;
const TOP = 6;
const BOTTOM = 18;
const SAMPLES = 120;

function chart(element, most, unit, label) {
  const [width, height] = [element.clientWidth, element.clientHeight];
  const top = nice(most);
  const x = (at, count) => LEFT + ((width - LEFT) * (SAMPLES - count + at)) / (SAMPLES - 1);
  const y = (value) => TOP + (height - BOTTOM - TOP) * (1 - value / top);
  const grid = [0, top / 2, top].map((value) =>
    `<line class="grid" x1="${LEFT}" x2="${width}" y1="${y(value)}" y2="${y(value)}"/>`
    + `<text x="${LEFT - 6}" y="${y(value) + 4}" text-anchor="end">${whole.format(value)}</text>`);
  const stripes = `stripes-${element.parentElement.id}`;
  const draw = (marks) => {
    element.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">
      <defs><pattern id="${stripes}" width="5" height="5" patternUnits="userSpaceOnUse"
        patternTransform="rotate(45)"><line class="stripe" x1="1.5" x2="1.5" y2="5"
        stroke-width="3"/></pattern></defs>
      ${grid.join("")}${marks}
      <text x="${LEFT}" y="${height - 2}">1 minute ago</text>
      <text x="${width}" y="${height - 2}" text-anchor="end">${unit}, now</text></svg>`;
  };
  return { x, y, draw, stripes };
}

// The next of 2, 4, 6, 8, 10, 20, 40, ...: the half of it is a whole number.
function nice(most) {
  for (let scale = 1; ; scale *= 10) {
    const step = [2, 4, 6, 8, 10].find((step) => most <= step * scale);
    if (step) {
      return step * scale;
    }
  }
}

function drawAreas(element, rates, most) {
  const { x, y, draw, stripes } = chart(element, Math.max(most, 10), "requests a second",
    "Requests per second in the last minute");
  let floor = rates.map(() => 0);
  const areas = KINDS.map((kind) => {
    const roof = floor.map((below, at) => below + rates[at][kind]);
    const points = [...roof.map((value, at) => [at, value]),
      ...floor.map((value, at) => [at, value]).reverse()];
    floor = roof;
    const path = points.map(([at, value]) =>
      `${x(at, rates.length).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const fill = kind === "over" ? `fill="url(#${stripes})"` : "";
    return `<polygon class="${kind}" ${fill} points="${path}"/>`;
  });
  draw(areas.join(""));
}

function drawLines(element, latencies) {
  const known = latencies.filter(Boolean);
  const most = Math.max(...known.map((latency) => latency.p99_ms), 40);
  const { x, y, draw } = chart(element, most, "ms", "Latency in the last minute");
  const line = (kind) => {
    const points = latencies.flatMap((latency, at) => (latency
      ? [`${x(at, latencies.length).toFixed(1)},${y(latency[`${kind}_ms`]).toFixed(1)}`] : []));
    return `<polyline class="${kind}" points="${points.join(" ")}"/>`;
  };
  draw(line("p99") + line("median"));
}

// Buttons.

let isSliding = false;

function showLimit() {
  $("limit-value").textContent = whole.format($("limit").value);
}

for (const caller of ["attacker", "customer", "you"]) {
  $(caller).append($("caller").content.cloneNode(true));
}
$("attack-on").onclick = () => press("attack", { on: true });
$("attack-off").onclick = () => press("attack", { on: false });
$("enforce-full").onclick = () => press("enforcement", { full: true });
$("enforce-shadow").onclick = () => press("enforcement", { full: false });
$("limit").oninput = () => {
  isSliding = true;
  showLimit();
};
$("limit").onchange = async () => {
  await press("limit", { calls_per_minute: Number($("limit").value) });
  isSliding = false;
};
$("place-calls").onclick = async () => {
  $("place-calls").disabled = true;
  await press("calls", { calls: CALLS_AT_ONCE });
  $("place-calls").disabled = false;
};
refresh();
