// llama.cpp in its own process: loads a model, then measures it whenever the parent asks.
//
//     node llama.mjs {"gpu":"vulkan","model":FILE,"prompt":256,"tokens":32,"warmUp":96}

import { getLlama } from "node-llama-cpp";

const { gpu, model: modelPath, prompt, tokens, warmUp } = JSON.parse(process.argv[2]);

/** Deterministic ids, spread over the vocabulary; the same as in `grok-wgpu bench`. */
function ids(count, vocab) {
  return Array.from({ length: count }, (_, i) => {
    const mixed = Math.imul(i, 0x9e3779b9) >>> 0;
    return (((mixed << 15) | (mixed >>> 17)) >>> 0) % vocab;
  });
}

/** Seconds for a step, until a token is chosen. */
async function seconds(sequence, step) {
  // Without reading a result, the step would end before the device does.
  const input = step.map((id, i) =>
    i === step.length - 1 ? [id, { generateNext: { token: true, options: { temperature: 0 } } }] : id,
  );
  const start = performance.now();
  await sequence.controlledEvaluate(input);
  return (performance.now() - start) / 1000;
}

async function measure(sequence, prompt, made) {
  await sequence.clearHistory();
  const prefill = await seconds(sequence, prompt);
  const decode = [];
  for (const id of made) decode.push(await seconds(sequence, [id]));
  return { prefill, decode };
}

try {
  // The packages contain compiled libraries: build and download nothing.
  const llama = await getLlama({ gpu, build: "never", skipDownload: true, maxThreads: 1, vramPadding: 0 });
  const devices = gpu === false ? [] : await llama.getGpuDeviceNames();
  const release = llama.llamaCppRelease?.release ?? "";
  if (gpu !== false && devices.length === 0) {
    // It would compute on the CPU.
    process.send({ devices, release }, () => process.exit(0));
    await new Promise(() => {});
  }
  const model = await llama.loadModel({
    modelPath,
    gpuLayers: gpu === false ? 0 : "max",
    ignoreMemorySafetyChecks: true,
  });
  const context = await model.createContext({
    contextSize: prompt + tokens,
    batchSize: prompt,
    threads: 1,
    ignoreMemorySafetyChecks: true,
  });
  const sequence = context.getSequence();
  const vocab = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
  const [given, made] = [ids(prompt, vocab), ids(tokens, vocab)];
  await measure(sequence, given.slice(0, warmUp), made.slice(0, 1));
  process.send({ devices, release });
  process.on("message", async () => {
    try {
      process.send(await measure(sequence, given, made));
    } catch (error) {
      process.send({ error: String(error?.message ?? error) });
    }
  });
} catch (error) {
  process.send({ error: String(error?.message ?? error) });
  process.exitCode = 1;
  process.disconnect();
}
