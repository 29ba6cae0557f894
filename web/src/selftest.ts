/** The self-test of the engine in the worker: rows of kernels, then small models. */

import { describeAdapter, findAdapter, start } from "./adapter.js";
import { abortedError, GrokWgpuError, toError } from "./errors.js";
import { getBytes } from "./http.js";
import type { News, SentSelfTestOptions } from "./messages.js";
import type { SelfTestModel, SelfTestReport, SelfTestRow } from "./types.js";
import { SelfTest, version } from "./wasm/grok_wgpu.js";

/** Small models for the self-test and their golden logits. Bundlers need literal addresses. */
const SMALL_MODELS: [string, URL][] = [
  ["grok2_40", new URL("./golden/grok2_40.safetensors", import.meta.url)],
  ["grok1_12", new URL("./golden/grok1_12.safetensors", import.meta.url)],
];

export async function selftest(
  { kernel, case: name, every = 1 }: SentSelfTestOptions,
  signal: AbortSignal,
  emit: (news: News) => void,
): Promise<SelfTestReport> {
  await start();
  await findAdapter();
  const started = performance.now();
  const test = await SelfTest.open();
  try {
    const all = JSON.parse(test.rows()) as { kernel: string; case: string }[];
    const chosen = all
      .map((row, index) => ({ ...row, index }))
      .filter((row) => kernel === undefined || row.kernel === kernel)
      .filter((row) => name === undefined || test.isMeantBy(row.index, name))
      .filter((_, i) => i % every === 0);
    if (chosen.length === 0) {
      const kernels = [...new Set(all.map((row) => row.kernel))].join(", ");
      throw new GrokWgpuError("usage", `no row of the self-test is meant; the kernels are ${kernels}`);
    }
    const rows: SelfTestRow[] = [];
    const models: SelfTestModel[] = [];
    const unlessStopped = () => {
      if (signal.aborted) {
        throw abortedError("the self-test");
      }
    };
    let unfinished: string | null = null;
    try {
      for (const { index } of chosen) {
        unlessStopped();
        const row = JSON.parse(await test.run(index)) as SelfTestRow;
        rows.push(row);
        emit({ kind: "row", row, done: rows.length, total: chosen.length });
      }
      for (const [file, url] of kernel === undefined && name === undefined ? SMALL_MODELS : []) {
        unlessStopped();
        for (const model of JSON.parse(
          await test.runModel(file, await getBytes(url.href, signal)),
        ) as SelfTestModel[]) {
          models.push(model);
          emit({ kind: "model", model });
        }
      }
    } catch (thrown) {
      // The report includes the results before the failure.
      unlessStopped();
      unfinished = toError(thrown).message;
    }
    const failed = [...rows, ...models].filter(({ failure }) => typeof failure === "string").length;
    const adapter = await describeAdapter(test.caps());
    const { userAgent } = navigator;
    const date = new Date().toISOString();
    const milliseconds = performance.now() - started;
    const command = `GrokWgpu.selftest(${JSON.stringify({ kernel, case: name, every })})`;
    return {
      engine: version(),
      adapter,
      userAgent,
      date,
      passed: rows.length + models.length - failed,
      failed,
      milliseconds,
      rows,
      models,
      unfinished,
      ...(JSON.parse(test.report(adapter.summary, userAgent, command, date, milliseconds / 1000, unfinished)) as Pick<
        SelfTestReport,
        "html" | "suspects"
      >),
    };
  } finally {
    test.close();
  }
}
