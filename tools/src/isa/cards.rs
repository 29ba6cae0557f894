//! The cards that estimates are made for, with figures that their vendors publish.

use grok_wgpu::lab::variants::Capabilities;

/// A card. A core is an SM of NVIDIA, a compute unit of AMD, a core of Apple, an Xe core of Intel.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// Name.
    pub name: &'static str,
    /// Where the figures come from.
    pub source: &'static str,
    /// GB/s of its memory.
    pub bandwidth: f64,
    /// Cores.
    pub cores: u32,
    /// Clock in GHz that the peak belongs to.
    pub clock: f64,
    /// Lanes of a core: vector instructions that it issues in a clock, counted for each invocation.
    pub lanes: u32,
    /// Published peak in f32, in TFLOP/s.
    pub peak: f64,
    /// Registers of a core, in KiB.
    pub registers: u32,
    /// Workgroup memory of a core, in KiB.
    pub shared: u32,
    /// Most invocations that a core holds.
    pub invocations: u32,
    /// Least and largest subgroup.
    pub subgroups: (u32, u32),
}

impl Card {
    /// What decides over its default tuning.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities { is_cpu: false, subgroups: Some(self.subgroups), matrices: false }
    }
}

/// The cards, in the order of the tables.
pub const CARDS: [Card; 5] = [
    Card {
        name: "H100 SXM",
        source: "NVIDIA's data sheet of the H100 (bandwidth, peak) and white paper of Hopper \
                 (SMs, registers, shared memory); the clock is what gives that peak",
        bandwidth: 3350.0,
        cores: 132,
        clock: 1.98,
        lanes: 128,
        peak: 67.0,
        registers: 256,
        shared: 228,
        invocations: 2048,
        subgroups: (32, 32),
    },
    Card {
        name: "RTX 4090",
        source: "NVIDIA's white paper of Ada",
        bandwidth: 1008.0,
        cores: 128,
        clock: 2.52,
        lanes: 128,
        peak: 82.6,
        registers: 256,
        shared: 100,
        invocations: 1536,
        subgroups: (32, 32),
    },
    Card {
        name: "RX 7900 XTX",
        source: "AMD's product page (bandwidth, compute units, clock, peak) and manual of the \
                 RDNA3 instruction set; the peak counts two multiply-adds for a lane, which no \
                 program here is compiled to, so half of it can be reached",
        bandwidth: 960.0,
        cores: 96,
        clock: 2.5,
        lanes: 64,
        peak: 61.4,
        registers: 384,
        shared: 64,
        invocations: 2048,
        subgroups: (32, 64),
    },
    Card {
        name: "M2 Max",
        source: "Apple's announcement (bandwidth, cores, peak); Apple does not publish the rest: \
                 128 lanes a core, the clock that gives the peak, and registers and workgroup \
                 memory as others have measured them",
        bandwidth: 400.0,
        cores: 38,
        clock: 1.398,
        lanes: 128,
        peak: 13.6,
        registers: 208,
        shared: 60,
        invocations: 3072,
        subgroups: (32, 32),
    },
    Card {
        name: "Arc B580",
        source: "Intel's product page (bandwidth, Xe cores, clock) and guide to Xe2 (8 vector \
                 engines of 16 lanes a core, registers, workgroup memory); the peak follows",
        bandwidth: 456.0,
        cores: 20,
        clock: 2.67,
        lanes: 128,
        peak: 13.67,
        registers: 512,
        shared: 128,
        invocations: 1024,
        subgroups: (16, 32),
    },
];
