/** The name of the graphics adapter, and whether it is one. */

/** What browsers and the engine tell of an adapter. Older ones lack some of it. */
interface Told {
  vendor?: string;
  architecture?: string;
  device?: string;
  description?: string;
  summary?: string;
  software?: boolean;
  isFallbackAdapter?: boolean;
}

/** Adapters that compute on the processor, by the names that they give. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b|\bcpu\b/i;

/** What is to be said of a software adapter. */
export const SOFTWARE_NOTE =
  "This browser has no graphics hardware to compute with; a program on the processor stands in for it. Everything " +
  "works, but slowly: an engine that is compiled for the processor, such as llama.cpp, is faster on this computer.";

/** The adapter's name, and whether it is software. */
export function adapterName(told: Told): { name: string; software: boolean } {
  const words = [told.description, told.vendor, told.architecture, told.device].filter(
    (word, i, all): word is string => !!word && all.indexOf(word) === i,
  );
  const named = words.join(", ");
  return {
    name: named || "Unnamed adapter (the browser hides it)",
    software: told.software ?? (told.isFallbackAdapter === true || SOFTWARE.test(named)),
  };
}
