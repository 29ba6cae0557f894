/** The parts of Node's modules that are used. Node's own types would put its globals beside those of pages. */

declare module "node:fs" {
  interface Stats {
    size: number;
    isDirectory(): boolean;
    isFile(): boolean;
  }
  export function readdirSync(path: string): string[];
  export function statSync(path: string): Stats;
}

declare module "node:fs/promises" {
  interface FileHandle {
    read(into: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
    close(): Promise<void>;
  }
  export function open(path: string): Promise<FileHandle>;
  export function readFile(path: URL): Promise<Uint8Array<ArrayBuffer>>;
}

declare module "node:path" {
  export function basename(path: string): string;
  export function join(...parts: string[]): string;
  export function resolve(path: string): string;
}

declare module "node:url" {
  export function fileURLToPath(url: string | URL): string;
}

declare module "node:worker_threads" {
  export class Worker {
    constructor(script: URL);
    on(event: "message", listener: (data: unknown) => void): this;
    on(event: "error" | "messageerror", listener: (error: Error) => void): this;
    on(event: "exit", listener: (code: number) => void): this;
    postMessage(message: unknown): void;
    terminate(): Promise<number>;
    ref(): void;
    unref(): void;
  }
  export const parentPort: {
    on(event: "message", listener: (data: unknown) => void): void;
    postMessage(message: unknown): void;
  };
}

/** Dawn, an optional peer. */
declare module "webgpu" {
  export const globals: Record<string, unknown>;
  export function create(options: string[]): unknown;
}
