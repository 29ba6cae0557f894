// Measures grok-wgpu, llama.cpp and wllama on one file, alternating, and prints rates, ratios and bars.
// `scripts/bench_peers` installs what it needs and starts it.

import { execFile, fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

import { Browser, Wllama } from "./browser.mjs";
import { rate, svg, text } from "./plot.mjs";

const here = dirname(fileURLToPath(import.meta.url));
/**
 * Warm-up tokens for each engine: kernels are compiled at their first run, and prompts of more than 64 rows use other
 * kernels.
 */
const WARM_UP = 96;
const PHASES = ["prefill", "decode"];

const { values: options } = parseArgs({
  options: {
    program: { type: "string" },
    model: { type: "string" },
    prompt: { type: "string", default: "256" },
    tokens: { type: "string", default: "32" },
    rounds: { type: "string", default: "3" },
    adapter: { type: "string" },
    out: { type: "string" },
    "no-browser": { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const [prompt, tokens, rounds] = ["prompt", "tokens", "rounds"].map((name) => {
  const count = Number(options[name]);
  if (!Number.isInteger(count) || count <= 0) {
    console.error(`error: --${name} is ${options[name]}, wanted a whole number above 0`);
    process.exit(2);
  }
  return count;
});
const note = (line) => console.error(line);

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Rates from the seconds of a prompt and of each token, by the median step, as in `grok-wgpu bench`. */
const rates = ({ prefill, decode }) => ({ prefill: prompt / prefill, decode: 1 / median(decode) });

/** grok-wgpu on a device. */
class Ours {
  key = "grok-wgpu";
  name = "grok-wgpu";

  async start() {}

  async measure() {
    const args = ["bench", options.model, "--compat", "llama.cpp", "--json", "--rates", "--repeats", "1"];
    // The same warm-up as llama.cpp.
    args.push("--warm-up", `${Math.min(prompt, WARM_UP)}`);
    args.push("--prompt", `${prompt}`, "--tokens", `${tokens}`);
    if (options.adapter) args.push("--adapter", options.adapter);
    const { stdout } = await promisify(execFile)(options.program, args, { maxBuffer: 1 << 26 });
    const report = JSON.parse(stdout);
    this.device = report.adapter;
    return { rates: Object.fromEntries(PHASES.map((phase) => [phase, report[phase].tokens_per_second])) };
  }

  stop() {}
}

/** llama.cpp on its CPU backend, or on a device. */
class Llama {
  constructor(key, name, gpu) {
    Object.assign(this, { key, name, gpu });
  }

  async start() {
    const { devices, release } = await this.begin({});
    this.release = release;
    this.device = devices.join(", ") || "CPU, 1 thread";
    if (this.gpu === false || devices.length > 0) return;
    // llama.cpp takes a GPU where there is one, and ignores devices that are CPUs unless they are named.
    this.stop();
    const { devices: named } = await this.begin({ GGML_VK_VISIBLE_DEVICES: "0" });
    if (named.length === 0) throw new Error("it found no device, and computes on the CPU");
    this.device = named.join(", ");
  }

  /** Starts the process; returns its first answer. */
  begin(more) {
    const job = { gpu: this.gpu, model: options.model, prompt, tokens, warmUp: WARM_UP };
    // Busy-waiting threads stall it on few cores.
    const env = { OMP_WAIT_POLICY: "passive", ...more, ...process.env };
    this.child = fork(join(here, "llama.mjs"), [JSON.stringify(job)], {
      env,
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.log = "";
    this.child.stderr.on("data", (data) => (this.log = (this.log + data).slice(-2000)));
    return this.answer();
  }

  measure() {
    const answer = this.answer();
    this.child.send("measure");
    return answer;
  }

  /** The child's next message, or the error that ended it. */
  answer() {
    return new Promise((resolve, reject) => {
      const done = (act, value) => {
        this.child.off("message", heard).off("exit", died);
        act(value);
      };
      const heard = (message) => (message.error ? done(reject, new Error(message.error)) : done(resolve, message));
      const died = (code, signal) =>
        done(reject, new Error(`it ended with ${signal ?? `code ${code}`}: ${this.log.trim()}`));
      this.child.on("message", heard).on("exit", died);
    });
  }

  stop() {
    this.child?.kill("SIGKILL");
  }
}

/** Chromium, which is opened once for all engines in it. */
const inBrowser = () => {
  browser ??= Browser.open(options.model, { "/wllama/": join(here, "node_modules/@wllama/wllama/esm") });
  return browser;
};
let browser;

const [api, apiName] = process.platform === "darwin" ? ["metal", "Metal"] : ["vulkan", "Vulkan"];
const engines = [new Ours(), new Llama(api, `llama.cpp, ${apiName}`, api), new Llama("cpu", "llama.cpp, CPU", false)];
if (!options["no-browser"]) {
  const job = { prompt, tokens, warmUp: Math.min(prompt, WARM_UP) };
  engines.push(new Wllama("wllama-webgpu", "wllama, WebGPU", true, inBrowser, job));
  engines.push(new Wllama("wllama-cpu", "wllama, CPU", false, inBrowser, job));
}
function stop() {
  for (const engine of engines) engine.stop();
}
process.on("exit", stop);
process.on("SIGINT", () => process.exit(130));

/** Records and prints why an engine cannot run. */
function drop(engine, error) {
  // The error is usually the last line.
  const said = error.stderr?.trim().split("\n").at(-1);
  engine.reason = said || error.message.split("\n")[0] || "it said nothing";
  engine.stop();
  note(`${engine.name} CANNOT RUN: ${engine.reason}`);
}

for (const engine of engines) {
  engine.rounds = [];
  note(`starting ${engine.name}`);
  await engine.start().catch((error) => drop(engine, error));
}
for (let round = 1; round <= rounds; round += 1) {
  for (const engine of engines.filter((engine) => !engine.reason)) {
    try {
      const measured = await engine.measure(round);
      const result = measured.rates ?? rates(measured);
      engine.rounds.push(result);
      note(`round ${round}: ${engine.name}: prefill ${rate(result.prefill)}, decode ${rate(result.decode)} tokens/s`);
    } catch (error) {
      drop(engine, error);
    }
  }
}
stop();
await browser?.then((it) => it.close()).catch(() => {});

const [ours] = engines;
const ran = engines.filter((engine) => !engine.reason);
for (const engine of ran) {
  for (const phase of PHASES) engine[phase] = median(engine.rounds.map((round) => round[phase]));
}
if (ours.reason) process.exit(1);

// The engines of a round run one after the other, so ratios are fair even on a busy machine.
const ratio = (peer, phase) => median(ours.rounds.map((round, i) => round[phase] / peer.rounds[i][phase]));
const report = {
  format: "grok-wgpu peers",
  version: 1,
  model: options.model,
  prompt,
  tokens,
  rounds,
  engines: engines.map(({ key, name, device, release, reason, rounds, prefill, decode }) => ({
    key,
    name,
    device,
    release,
    cannot_run: reason,
    prefill,
    decode,
    rounds,
  })),
  ratios: Object.fromEntries(
    ran.slice(1).map((peer) => [peer.key, Object.fromEntries(PHASES.map((phase) => [phase, ratio(peer, phase)]))]),
  ),
};

const title = `Tokens a second: ${prompt} of a prompt, ${tokens} made after it`;
const charts = PHASES.map((phase) => ({
  title: phase,
  rows: ran.map((engine) => ({ name: engine.name, value: engine[phase], ours: engine === ours })),
}));
if (options.out) writeFileSync(options.out, svg(`${title} (logarithmic)`, charts));
if (options.json) {
  console.log(JSON.stringify(report));
} else {
  const width = Math.max(...engines.map((engine) => engine.name.length)) + "grok-wgpu / ".length;
  const line = (name, prefill, decode, rest = "") =>
    console.log(`${name.padEnd(width)}${prefill.padStart(12)}${decode.padStart(12)}   ${rest}`.trimEnd());
  console.log(`${title}; medians of ${rounds} rounds\n`);
  line("", "prefill", "decode", "on");
  for (const engine of ran) line(engine.name, rate(engine.prefill), rate(engine.decode), engine.device);
  for (const engine of engines) if (engine.reason) console.log(`${engine.name} CANNOT RUN: ${engine.reason}`);
  console.log();
  for (const peer of ran.slice(1)) {
    const { prefill, decode } = report.ratios[peer.key];
    line(`grok-wgpu / ${peer.name}`, `${prefill.toPrecision(3)}`, `${decode.toPrecision(3)}`);
  }
  console.log(`\n${text(charts)}`);
}
process.exit(0);
