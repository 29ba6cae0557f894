/** Builds the page: its modules, the engine's worker and module, fonts, and the worker that lets it open offline. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Tells the offline worker which files there are, and a version that changes with any of them. */
function offlineWorker(): Plugin {
  return {
    name: "offline-worker",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const names = [...Object.keys(bundle), ...readdirSync(here("page/public"))].filter((name) => name !== "sw.js");
      const worker = bundle["sw.js"];
      if (worker?.type !== "chunk") {
        throw new Error("the offline worker is missing from the bundle");
      }
      const hash = createHash("sha256");
      for (const name of names.sort()) {
        const item = bundle[name];
        const content = item
          ? item.type === "chunk"
            ? item.code
            : item.source
          : readFileSync(here(`page/public/${name}`));
        hash.update(name).update(content);
      }
      const files = JSON.stringify(["./", ...names.filter((name) => name !== "index.html")]);
      worker.code = worker.code
        .replace("__FILES__", () => files)
        .replace("__VERSION__", () => JSON.stringify(hash.digest("hex").slice(0, 16)));
    },
  };
}

/** The licences of the fonts, beside them. */
function licences(): Plugin {
  return {
    name: "font-licences",
    apply: "build",
    generateBundle() {
      for (const font of ["inter", "source-serif-4"]) {
        const source = readFileSync(here(`node_modules/@fontsource-variable/${font}/LICENSE`), "utf8");
        this.emitFile({ type: "asset", fileName: `assets/${font}-LICENSE.txt`, source });
      }
    },
  };
}

export default defineConfig({
  root: here("page"),
  base: "./",
  plugins: [licences(), offlineWorker()],
  // The package by its own name, as its users import it.
  resolve: { alias: { "grok-wgpu": here("dist/index.js") } },
  worker: { format: "es" },
  build: {
    outDir: here("site"),
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    // A font inside a style sheet would need a weaker content security policy.
    assetsInlineLimit: 0,
    rolldownOptions: {
      input: { index: here("page/index.html"), sw: here("page/sw.ts") },
      output: {
        entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
