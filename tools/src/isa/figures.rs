//! What is counted in an iteration of a program's main loop.

use serde::{Deserialize, Serialize};

/// Declares [`Figures`] by its fields, each with its name in tables.
macro_rules! figures {
    ($($(#[$doc:meta])* $field:ident $name:literal,)+) => {
        /// What an iteration takes along a path. Loads, waits and so on are those of one subgroup;
        /// weights are those of one invocation.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Figures {
            $($(#[$doc])* pub $field: u32,)+
        }

        impl Figures {
            /// Names of [`Figures::numbers`], as tables have them.
            pub const NAMES: [&str; 12] = [$($name),+];

            /// All of them, in the order of the fields.
            pub fn numbers(&self) -> [u32; 12] {
                [$(self.$field),+]
            }

            /// The figures with these [`Figures::numbers`].
            pub fn of_numbers([$($field),+]: [u32; 12]) -> Self {
                Self { $($field),+ }
            }
        }
    };
}

figures! {
    /// Vector instructions.
    vector "vector",
    /// Operations of them: two for a dual instruction.
    operations "operations",
    /// Those of the operations that multiply and add floats, or bytes (dp4a).
    multiply_adds "multiply-adds",
    /// Scalar instructions, without branches, waits and loads.
    scalar "scalar",
    /// Loads into scalar registers.
    scalar_loads "scalar-loads",
    /// Loads from memory.
    loads "loads",
    /// The most loads that are waited for at once.
    in_flight "in-flight",
    /// Waits for all loads that are in flight.
    waits "waits",
    /// Round trips to memory that follow each other: waits for a load that was issued after the
    /// last such wait. What is computed between may hide a part of one.
    trips "trips",
    /// Accesses to workgroup memory.
    shared "shared",
    /// Barriers.
    barriers "barriers",
    /// Weights that an invocation loads.
    weights "weights",
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
    /// Vector instructions for each weight that is loaded; `None` if none are.
    pub fn vector_per_weight(&self) -> Option<f64> {
        (self.weights > 0).then(|| f64::from(self.vector) / f64::from(self.weights))
    }

    /// Multiply-adds among the vector operations, in percent.
    pub fn share(&self) -> f64 {
        100.0 * f64::from(self.multiply_adds) / f64::from(self.operations.max(1))
    }
}
