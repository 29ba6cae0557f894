// Planted faults, to prove that `run.mjs` detects them.

/** For each kernel, a piece of its program and the replacement that breaks it. */
const CHARACTERS = {
  attention: ["shrink + weight", "shrink - weight"],
  attention_merge: ["sum / total", "sum * total"],
  combine_norm: ["h.low += probs", "h.low -= probs"],
  embed: ["ids[group.x] - params.row0", "ids[group.x] + params.row0"],
  expert_gated_matmul: ["second[i][j]", "second[j][i]"],
  expert_gated_matvec: ["loaded.other_scale", "(loaded.other_scale + 1)"],
  expert_groups: ["start + done", "start - done"],
  expert_matmul: ["x_tile[quad * TILE + t] = v", "x_tile[quad * TILE + t] = -v"],
  expert_matvec: ["(quad.x + quad.y) +", "(quad.x + quad.x) +"],
  gated_matmul: ["gelu(g, ", "gelu(u, "],
  gated_matvec: ["gelu(g, ", "gelu(u, "],
  gather: ["c += 64u", "c += 65u"],
  matmul: ["params.row0 + r;", "params.row0 - r;"],
  matvec: ["(quad.z + quad.w)", "(quad.z + quad.z)"],
  multiply_adds: ["store(first, a)", "store(first, -a)"],
  norm_route: ["e > last_id", "e < last_id"],
  rms_norm: ["mean + params.eps", "mean - params.eps"],
  rms_norm_add: ["s.low + change.low", "s.low - change.low"],
  rope_cache: ["a * angle.x - b", "a * angle.x + b"],
  topk: ["sort_ids[b] < sort_ids[a]", "sort_ids[b] > sort_ids[a]"],
  topk_merge: ["vb > va", "vb < va"],
};

/** The same for variants that need an optional feature, by name. */
const VARIANT_CHARACTERS = {
  subgroup: ["half > 0u", "half > 1u"],
  spread: ["lane % 8u", "lane % 7u"],
};

/** The row with one expected value of each output changed to be outside of its bound. */
function expectMore(row) {
  const operands = row.operands.map((operand) => {
    const at = operand.expected?.findLastIndex((_, i) => !operand.kept.has(i)) ?? -1;
    if (at < 0) return operand;
    const expected = operand.expected.slice();
    if (operand.dtype === "U32") expected[at] ^= 1 << 30;
    else expected[at] += 3 * operand.bounds[at] + Math.abs(expected[at]) * 2 ** -20 + 1e-30;
    return { ...operand, expected, also: new Map() };
  });
  return { ...row, operands };
}

/** Whether all expected values of a row are finite. */
const allFinite = ({ operands }) =>
  operands.every((o) => !o.bounds || o.expected.every((v, i) => o.kept.has(i) || Number.isFinite(v)));

/** The first expected value that is not finite, with its part of the arena. */
function notFinite({ row, runs }, run) {
  for (const [i, operand] of row.operands.entries()) {
    if (!operand.bounds || operand.dtype !== "F32") continue;
    const at = operand.expected.findIndex((v, i) => !operand.kept.has(i) && !Number.isFinite(v));
    if (at >= 0) return { part: runs[run].parts[i + 1], at };
  }
  return null;
}

/** Faults in place of a non-finite value: a finite number, or the poison value. */
const HIDDEN = [
  ["a number where there is none", () => 0x3f800000],
  ["nothing where there is no number", (poison) => poison],
].map(([what, bits]) => [
  what,
  /got .*, expected (NaN|-?Infinity)/,
  (job, _read, write) => {
    for (const [run, { poison }] of job.runs.entries()) {
      const { part, at } = notFinite(job, run);
      word(write, part.offset + 4 * at).setUint32(0, bits(poison), true);
    }
  },
]);

/** Outputs with written elements: operand, part of the arena, and the last such element. */
function outputs({ row, runs }, run) {
  return row.operands.flatMap((operand, i) => {
    const last = operand.expected?.findLastIndex((_, at) => !operand.kept.has(at)) ?? -1;
    return last < 0 ? [] : [{ operand, part: runs[run].parts[i + 1], last }];
  });
}

const word = (bytes, offset) => new DataView(bytes.buffer, bytes.byteOffset + offset, 4);

/** Faults in results: description, expected report, and a function that makes the fault. */
const DAMAGE = [
  [
    "an element left unwritten",
    /got .*, expected/,
    (job, _read, write) => {
      for (const [run, { poison }] of job.runs.entries()) {
        const [{ part, last }] = outputs(job, run);
        word(write, part.offset + 4 * last).setUint32(0, poison, true);
      }
    },
  ],
  [
    "not a number",
    /got (NaN|2143289344), expected/,
    (job, _read, write) => {
      for (const run of job.runs.keys()) {
        const floats = outputs(job, run).find(({ operand }) => operand.dtype === "F32");
        const { part, last } = floats ?? outputs(job, run)[0];
        word(write, part.offset + 4 * last).setUint32(0, 0x7fc00000, true);
      }
    },
  ],
  ...[1, 2].map((run) => [
    `another bit in run ${run}`,
    // A change of one unit in the last place may also exceed the bound.
    /gave other bits|got .*, expected/,
    (job, _read, write) => {
      const [{ part, last }] = outputs(job, run);
      write[part.offset + 4 * last] ^= 1;
    },
  ]),
  [
    "a write before an output",
    /a byte outside .* was overwritten/,
    (job, _read, write) => {
      write[outputs(job, 0)[0].part.offset - 1] ^= 1;
    },
  ],
  [
    "a write after an output",
    /a byte outside .* was overwritten/,
    (job, _read, write) => {
      const [{ part }] = outputs(job, 0);
      write[part.offset + part.length] ^= 1;
    },
  ],
  [
    "a write at the end of a binding",
    /a byte outside .* was overwritten/,
    (job, _read, write) => {
      const [{ part }] = outputs(job, 1);
      write[part.offset + part.size - 1] ^= 1;
    },
  ],
  [
    "a changed input",
    /the input .* was changed/,
    (job, read) => {
      const input = job.row.operands.findIndex(({ access }) => access === "read");
      read[job.runs[0].parts[input + 1].offset] ^= 1;
    },
  ],
];

/** The kernel of a row, with its tuning if the variant needs subgroups. */
const program = ({ kernel, tuning, subgroups }) => (subgroups ? `${kernel} [${tuning}]` : kernel);

/** A program's rows that write something, the smallest first. */
function bySize(rows, name) {
  const size = (row) => row.operands.reduce((sum, { initial }) => sum + initial.length, 0);
  return rows
    .filter((row) => program(row) === name)
    .filter((row) => row.operands.some((o) => o.expected && o.kept.size < o.expected.length))
    .sort((one, other) => size(one) - size(other));
}

/** Plants faults in the rows of each kernel and variant. Returns how many were detected, and which were not. */
export async function checkItself(runner, rows) {
  let passed = 0;
  const failures = [];
  let bitsDiffered = false;
  const failure = async (row, damage = null) => {
    let found = null;
    await runner.run([row], (_, report) => (found = report.failure), damage);
    return found;
  };
  const expect = (what, pattern, found) => {
    if (pattern.test(found ?? "")) passed += 1;
    else failures.push(`${what}: ${found ?? "nothing was reported"}`);
    bitsDiffered ||= /gave other bits/.test(found);
  };
  for (const kernel of new Set(rows.map(program))) {
    const all = bySize(rows, kernel);
    const sorted = all.filter(allFinite);
    const [row] = sorted;
    // Without a planted fault, the row must pass.
    expect(`${kernel}: its row as it is`, /^$/, await failure(row));
    const wrong = await failure(expectMore(row));
    expect(`${kernel}: an expected value changed`, /got .*, expected/, wrong);
    for (const [what, pattern, damage] of DAMAGE) {
      expect(`${kernel}: ${what}`, pattern, await failure(row, damage));
    }
    const spoiled = all.find((row) => notFinite({ row, runs: [{ parts: [] }] }, 0) !== null);
    if (spoiled) {
      expect(`${kernel}: its row without a number as it is`, /^$/, await failure(spoiled));
      for (const [what, pattern, damage] of HIDDEN) {
        expect(`${kernel}: ${what}`, pattern, await failure(spoiled, damage));
      }
    }
    const { [row.tuning.split(" ")[0]]: ofVariant } = row.subgroups ? VARIANT_CHARACTERS : {};
    const [from, to] = ofVariant ?? CHARACTERS[kernel] ?? [];
    let found = null;
    for (const row of sorted.filter(({ code }) => from !== undefined && code.includes(from))) {
      found = await failure({ ...row, code: row.code.replace(from, to) });
      if (found !== null) break;
    }
    // A program that Dawn refuses would prove nothing about the comparison.
    expect(`${kernel}: \`${from}\` changed to \`${to}\``, /got .*, expected|outside|bits/, found);
  }
  expect("one bit within its bound", /gave other bits/, bitsDiffered ? "gave other bits" : null);
  return { passed, failures };
}
