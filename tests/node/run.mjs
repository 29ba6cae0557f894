// Runs the rows of the kernel table through Dawn, Chromium's WebGPU: the same inputs, expected values and bounds as
// natively, but compiled by Tint instead of naga.
//
//     cargo run -p grok-wgpu-tools --bin export_cases -- DIR --subgroups=$(node device.mjs)
//     node run.mjs DIR [--kernel NAME] [--case TEXT] [--tuning NAME] [--every N] [--json]
//         [--part I/N] [--check-itself]
//
// `--every N` runs each N-th row of every program, and `--part I/N` the rows of the I-th of N parts of the pipelines that
// are needed, so that several processes share the rows and each compiles its own. Rows say which subgroup sizes they need. Rows for other sizes than the device's are
// skipped and counted. On SwiftShader, which has subgroups of 4, `subgroup` variants run, while `spread` variants, which
// need 8, are only compiled, by `check.mjs`.
//
// `--check-itself` plants faults and passes if each is detected. Exit code 0: all passed; 1: something failed, or there
// is no adapter; 2: wrong usage.

import { parseArgs } from "node:util";
import { openDevice } from "./device.mjs";
import { checkItself } from "./faults.mjs";
import { pipelineKey, Runner, readRows } from "./rows.mjs";

const usage = (text) => {
  console.error(text);
  process.exit(2);
};

let given;
try {
  given = parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: "string" },
      case: { type: "string" },
      tuning: { type: "string" },
      every: { type: "string", default: "1" },
      part: { type: "string", default: "1/1" },
      json: { type: "boolean", default: false },
      "check-itself": { type: "boolean", default: false },
    },
  });
} catch (error) {
  usage(error.message);
}
const { values: options, positionals } = given;
if (positionals.length !== 1) {
  usage(
    "usage: node run.mjs DIR [--kernel NAME] [--case TEXT] [--tuning NAME] [--every N] [--part I/N] [--json] [--check-itself]",
  );
}
const [folder] = positionals;
let rows;
try {
  rows = readRows(folder);
} catch (error) {
  usage(`${folder}: ${error.message}; write it with \`cargo run -p grok-wgpu-tools --bin export_cases\``);
}
rows = rows.filter(
  (row) =>
    (options.kernel === undefined || row.kernel === options.kernel) &&
    (options.case === undefined || row.name.includes(options.case)) &&
    (options.tuning === undefined || row.tuning === options.tuning),
);
// Every n-th row of each kernel, tuning and element type, so that all programs run.
const every = Number(options.every);
if (!Number.isInteger(every) || every < 1) usage(`--every is ${options.every}, expected a whole number from 1 on`);
const seen = new Map();
rows = rows.filter((row) => {
  const program = `${row.kernel} ${row.tuning} ${row.name.split(" ")[0]}`;
  const before = seen.get(program) ?? 0;
  seen.set(program, before + 1);
  return before % every === 0;
});
const [part, parts] = (/^([1-9]\d*)\/([1-9]\d*)$/.exec(options.part) ?? []).slice(1).map(Number);
if (!(part <= parts)) usage(`--part is ${options.part}, expected I/N with I from 1 to N`);
const pipelines = new Map();
rows = rows.filter((row) => {
  const key = pipelineKey(row);
  if (!pipelines.has(key)) pipelines.set(key, pipelines.size);
  return pipelines.get(key) % parts === part - 1;
});
if (rows.length === 0) usage(`${folder}: no row of that name`);

const opened = await openDevice();
if (!opened) {
  console.error("Dawn found no adapter; no row was run");
  process.exit(1);
}
const { device, name, subgroups } = opened;
const runner = new Runner(device);
const sizes = subgroups ? `subgroups of ${subgroups.join(" to ")}` : "no subgroups";
const fits = (row) => !row.subgroups || String(row.subgroups) === String(subgroups);
const unfit = rows.filter((row) => !fits(row)).length;
rows = rows.filter(fits);
if (rows.length === 0) {
  console.error(`${folder}: these ${unfit} rows are for other subgroups; ${name} has ${sizes}`);
  process.exit(1);
}

const quoted = (word) => `'${word.replaceAll("'", `'\\''`)}'`;
const replay = (row) =>
  `node run.mjs ${quoted(folder)} --kernel ${row.kernel} --case ${quoted(row.name)} --tuning ${quoted(row.tuning)}`;

if (options["check-itself"]) {
  const { passed, failures } = await checkItself(runner, rows);
  for (const failure of failures) console.log(`NOT FOUND ${failure}`);
  console.log(`${passed} passed, ${failures.length} failed`);
  process.exit(failures.length === 0 ? 0 : 1);
}

const results = [];
await runner.run(rows, (row, report) => results.push({ row, ...report }));
const failures = results.filter(({ failure }) => failure !== null);
if (options.json) {
  const listed = results.map(({ row, elements, worst, failure }) => ({
    kernel: row.kernel,
    case: row.name,
    tuning: row.tuning,
    elements,
    worst: Number.isFinite(worst) ? worst : null,
    ...(failure !== null && { failure, replay: replay(row) }),
  }));
  console.log(JSON.stringify({ adapter: name, rows: listed, unfit, failures: failures.length }));
} else {
  console.log(`Dawn on ${name}, ${sizes}`);
  const header = ["kernel".padEnd(22), "rows".padStart(5), "elements".padStart(12)];
  console.log([...header, "worst/bound".padStart(12), "failed".padStart(8)].join(" "));
  for (const kernel of new Set(results.map(({ row }) => row.kernel))) {
    const group = results.filter(({ row }) => row.kernel === kernel);
    const worst = Math.max(...group.map((result) => result.worst));
    const elements = group.reduce((sum, result) => sum + result.elements, 0);
    const bad = group.filter(({ failure }) => failure !== null).length;
    const line = [kernel.padEnd(22), String(group.length).padStart(5), String(elements).padStart(12)];
    console.log([...line, worst.toFixed(3).padStart(12), String(bad).padStart(8)].join(" "));
  }
  for (const { row, failure } of failures) {
    console.log(`FAILED ${row.kernel}/${row.name} [${row.tuning}]: ${failure}\n  ${replay(row)}`);
  }
  const used = results.filter(({ row }) => row.subgroups).length;
  console.log(`${used} rows with subgroups; ${unfit} for other subgroups, which were not run`);
  console.log(`${results.length - failures.length} passed, ${failures.length} failed`);
}
process.exit(failures.length === 0 ? 0 : 1);
