//! What is counted in an iteration of a program's main loop.

use serde::{Deserialize, Serialize};

/// What an iteration takes along a path. Loads, waits and so on are those of one subgroup;
/// weights are those of one invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Vector instructions.
    pub vector: u32,
    /// Operations of them: two for a dual instruction.
    pub operations: u32,
    /// Those of the operations that multiply and add floats, or bytes (dp4a).
    pub multiply_adds: u32,
    /// Scalar instructions, without branches, waits and loads.
    pub scalar: u32,
    /// Loads into scalar registers.
    pub scalar_loads: u32,
    /// Loads from memory.
    pub loads: u32,
    /// The most loads that are waited for at once.
    pub in_flight: u32,
    /// Waits for all loads that are in flight.
    pub waits: u32,
    /// Round trips to memory that follow each other: waits for a load that was issued after the
    /// last such wait. What is computed between may hide a part of one.
    pub trips: u32,
    /// Accesses to workgroup memory.
    pub shared: u32,
    /// Barriers.
    pub barriers: u32,
    /// Weights that an invocation loads.
    pub weights: u32,
}

/// The main loop of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainLoop {
    /// Along the path with the fewest vector instructions.
    pub least: Figures,
    /// Along the path with the most.
    pub most: Figures,
    /// How often the loops right inside of it run; 0 if that is not a constant: then they count
    /// once.
    pub inner: Vec<u32>,
}

impl Figures {
    /// Names of [`Figures::numbers`], as tables have them.
    pub const NAMES: [&str; 12] = [
        "vector",
        "operations",
        "multiply-adds",
        "scalar",
        "scalar-loads",
        "loads",
        "in-flight",
        "waits",
        "trips",
        "shared",
        "barriers",
        "weights",
    ];

    /// All of them, in the order of the fields.
    pub fn numbers(&self) -> [u32; 12] {
        [
            self.vector,
            self.operations,
            self.multiply_adds,
            self.scalar,
            self.scalar_loads,
            self.loads,
            self.in_flight,
            self.waits,
            self.trips,
            self.shared,
            self.barriers,
            self.weights,
        ]
    }

    /// The figures with these [`Figures::numbers`].
    pub fn of_numbers(all: [u32; 12]) -> Self {
        let [
            vector,
            operations,
            multiply_adds,
            scalar,
            scalar_loads,
            loads,
            in_flight,
            waits,
            trips,
            shared,
            barriers,
            weights,
        ] = all;
        Self {
            vector,
            operations,
            multiply_adds,
            scalar,
            scalar_loads,
            loads,
            in_flight,
            waits,
            trips,
            shared,
            barriers,
            weights,
        }
    }

    /// Vector instructions for each weight that is loaded; `None` if none are.
    pub fn vector_per_weight(&self) -> Option<f64> {
        (self.weights > 0).then(|| f64::from(self.vector) / f64::from(self.weights))
    }

    /// Multiply-adds among the vector operations, in percent.
    pub fn share(&self) -> f64 {
        100.0 * f64::from(self.multiply_adds) / f64::from(self.operations.max(1))
    }
}
