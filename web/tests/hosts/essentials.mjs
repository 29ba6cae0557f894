// What the package must do in every host. It runs in the host itself, so it imports nothing; `common.mjs` checks what it
// returns.

/** Runs the package's essentials on a model; `note` hears of each step before it begins. */
export async function essentials({ GrokWgpu }, source, question, note = () => {}) {
  const began = performance.now();
  const took = { total: 0, load: 0 };
  const phases = new Set();
  note("loading");
  const onProgress = ({ phase }) => phases.add(phase);
  const engine = await GrokWgpu.load(source, { context: 256, prefill: 32, cache: false, onProgress });
  took.load = performance.now() - began;
  try {
    note("a greedy text");
    const generation = engine.generate("Once upon a time", { temperature: 0, max_tokens: 8 });
    let pieces = "";
    for await (const { text } of generation) {
      pieces += text;
    }
    const { text } = await generation.finish;
    note("an answer");
    const messages = [{ role: "user", content: question }];
    const { choices, finish } = await engine.chat(messages, { temperature: 0, max_tokens: 16 });
    note("the self-test");
    const { passed, failed, unfinished, rows } = await engine.selftest({ kernel: "rms_norm", every: 8 });
    note("disposing");
    await engine.dispose();
    const after = await engine.generate("x").finish.catch(({ code }) => code);
    took.total = performance.now() - began;
    return {
      userAgent: globalThis.navigator?.userAgent ?? `Node.js/${process.versions.node}`,
      adapter: engine.adapter,
      model: engine.model,
      phases: [...phases],
      pieces,
      text,
      answer: choices[0].message.content,
      tokensPerSecond: finish.tokensPerSecond,
      selftest: { passed, failed, unfinished, worst: Math.max(...rows.map(({ worst }) => worst ?? Infinity)) },
      after,
      took,
    };
  } finally {
    await engine.dispose();
  }
}
