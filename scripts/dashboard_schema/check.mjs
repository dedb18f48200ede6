// Checks a Grafana dashboard: `node check.mjs dashboard.json`, or `--self-test` as the second
// argument, to show on changed dashboards that each rule can fail.
//
// * Its JSON is compiled as TypeScript against the types that Grafana generates from its schema, so
//   that a key that is not in the schema, a missing one and a wrong value are errors.
// * Units are of Grafana's list.
// * Each panel has an id of its own and a description, and the panels fill the grid.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as units from "@grafana/grafana-foundation-sdk/units";

const folder = dirname(fileURLToPath(import.meta.url));
const COLUMNS = 24;
// What panels of each type are made of. The general type of a panel says `any` for these.
const TYPES = {
  timeseries: ["timeseries.Options", "timeseries.FieldConfig"],
  stat: ["stat.Options", "never"],
};

// In JSON an enum is one of its texts or numbers.
const HEAD = `
import type * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import type * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";
type Json<T> = unknown extends T ? T : T extends string ? \`\${T}\`
  : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Query = Omit<prometheus.Dataquery, "_implementsDataqueryVariant">;
type Field<Custom> = Omit<dashboard.FieldConfig, "custom"> & { custom?: Custom };
type FieldsOf<Custom> =
  Omit<dashboard.FieldConfigSource, "defaults"> & { defaults: Field<Custom> };
type Panel<Type, Options, Custom> = Json<
  Omit<dashboard.Panel, "type" | "options" | "fieldConfig" | "targets">
  & { type: Type; options: Options; fieldConfig: FieldsOf<Custom>; targets: Query[] }>;
type Row = Json<dashboard.RowPanel>;
type Dashboard = Json<Omit<dashboard.Dashboard, "panels">>;
`;

// What is wrong with each of the dashboards. One run of the compiler checks all of them.
function errorsOf(dashboards) {
  const types = typeErrors(dashboards);
  return dashboards.map((dashboard, at) =>
    [...types[at], ...unitErrors(dashboard), ...panelErrors(dashboard)]);
}

function typeErrors(dashboards) {
  const sources = dashboards.map(source);
  const files = sources.map((_, at) => `dashboard${at}.ts`);
  files.forEach((file, at) => writeFileSync(join(folder, file), sources[at]));
  const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--pretty", "false", "--target",
    "esnext", "--module", "nodenext"];
  const ran = spawnSync(process.execPath, [compiler, ...options, ...files], {
    cwd: folder,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  const errors = sources.map(() => []);
  for (const line of ran.stdout.split("\n")) {
    const found = line.match(/^dashboard(\d+)\.ts\((\d+),\d+\): (.*)/);
    if (found) {
      const [, at, number, message] = found;
      errors[at].push(`${sources[at].split("\n")[number - 1].trim()}: ${message}`);
    }
  }
  if ((ran.status !== 0) !== errors.some((of) => of.length > 0)) {
    throw new Error(`the compiler ended with ${ran.status}: ${ran.stdout}${ran.stderr}`);
  }
  return errors;
}

function source({ panels, ...rest }) {
  const text = (value) => JSON.stringify(value, null, 1);
  const parts = panels.map((panel, at) => {
    const types = TYPES[panel.type] ?? ["never", "never"];
    const type = panel.type === "row" ? "Row"
      : `Panel<${JSON.stringify(panel.type)}, ${types.join(", ")}>`;
    return `export const panel${at}: ${type} = ${text(panel)};\n`;
  });
  return `${HEAD}export const all: Dashboard = ${text(rest)};\n${parts.join("")}`;
}

function unitErrors({ panels }) {
  const known = new Set(Object.values(units));
  const used = panels.flatMap((panel) => panel.fieldConfig?.defaults.unit ?? []);
  return used.filter((unit) => !known.has(unit)).map((unit) => `${unit} is no unit of Grafana's`);
}

function panelErrors({ panels }) {
  const errors = [];
  const ids = panels.map((panel) => panel.id);
  if (new Set(ids).size < ids.length) {
    errors.push(`two panels have the same id: ${ids}`);
  }
  for (const panel of panels) {
    if (panel.type !== "row" && !panel.description?.endsWith(".")) {
      errors.push(`${panel.title}: a description, in sentences, is missing`);
    }
  }
  const taken = new Map();
  for (const { title, gridPos: { x, y, w, h } } of panels) {
    for (let cell = 0; cell < w * h; cell += 1) {
      const at = `${x + (cell % w)},${y + Math.floor(cell / w)}`;
      if (taken.has(at)) {
        errors.push(`${title} and ${taken.get(at)} are both at ${at}`);
        break;
      }
      taken.set(at, title);
    }
  }
  const rows = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  if (errors.length === 0 && taken.size !== rows * COLUMNS) {
    errors.push(`the panels take ${taken.size} cells of ${rows * COLUMNS}`);
  }
  return errors;
}

// Each change breaks one rule. `$` is the first panel that is no row, `graph` the first graph.
const BROKEN = {
  "a key that is not in the schema": ({ dashboard }) => { dashboard.heading = "a title"; },
  "a missing key": ({ dashboard }) => { delete dashboard.schemaVersion; },
  "a value of another type": ({ $ }) => { $.gridPos.w = "4"; },
  "an unknown type of panel": ({ $ }) => { $.type = "graph"; },
  "an unknown option": ({ $ }) => { $.options.colourMode = "value"; },
  "a value that an option does not have": ({ $ }) => { $.options.colorMode = "rainbow"; },
  "an unknown style of a graph": ({ graph }) => {
    graph.fieldConfig.defaults.custom.lineThickness = 2;
  },
  "an unknown key of a query": ({ $ }) => { $.targets[0].expression = "up"; },
  "a color mode that does not exist": ({ $ }) => { $.fieldConfig.defaults.color.mode = "pale"; },
  "an unknown unit": ({ $ }) => { $.fieldConfig.defaults.unit = "requests"; },
  "an id that is taken": ({ $, graph }) => { $.id = graph.id; },
  "no description": ({ graph }) => { delete graph.description; },
  "a panel on another": ({ $, graph }) => { $.gridPos.y = graph.gridPos.y; },
  "a gap between panels": ({ $ }) => { $.gridPos.h -= 1; },
};

function broken(text, change) {
  const dashboard = JSON.parse(text);
  const $ = dashboard.panels.find((panel) => panel.type !== "row");
  const graph = dashboard.panels.find((panel) => panel.type === "timeseries");
  change({ dashboard, $, graph });
  return dashboard;
}

function selfTest(text) {
  const found = errorsOf(Object.values(BROKEN).map((change) => broken(text, change)));
  Object.keys(BROKEN).forEach((rule, at) => {
    console.log(`  ${rule}: ${found[at][0]?.slice(0, 120) ?? "NOT FOUND"}`);
  });
  return found.every((errors) => errors.length > 0);
}

const [path, option] = process.argv.slice(2);
const text = readFileSync(path, "utf8");
if (option === "--self-test") {
  process.exit(selfTest(text) ? 0 : 1);
}
const [errors] = errorsOf([JSON.parse(text)]);
errors.forEach((error) => console.error(error));
process.exit(errors.length > 0 ? 1 : 0);
