/** The engine's worker where it may read the disk and has WebGPU: in Deno. */

import "./worker.js";
import { readDisk } from "./disk.js";

readDisk();
