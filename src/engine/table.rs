//! The rows of the embedding table that the tokens of a step have.

use crate::{
    base::error::{Error, Result},
    model::{
        Embedding, Model,
        schema::EMBEDDING,
        weights::{Stored, Weights as _},
    },
};

/// Bytes of the largest table that is held in memory. Rows of a larger one are read when they are
/// needed.
const MOST_HELD: u64 = 64 << 20;

/// Where the rows of the embedding table come from.
#[derive(Debug)]
pub(super) struct Table {
    /// Bytes of a row.
    row: usize,
    home: Home,
}

#[derive(Debug)]
enum Home {
    /// The machine has the table.
    Machine,
    /// The whole table is in memory.
    Held(Vec<u8>),
    /// Rows are read one by one.
    Stored(Stored),
    /// The model has no weights, so all are zero.
    Zeros,
}

impl Table {
    /// The table of a model with these weights, and how many bytes of it are done with: none need
    /// be read later to load the model.
    ///
    /// # Errors
    ///
    /// Errors of reading `weights`.
    pub(super) async fn load(model: &Model, weights: &Stored) -> Result<(Self, u64)> {
        let mut table = Self::zeros(model);
        if matches!(table.home, Home::Machine) {
            return Ok((table, 0));
        }
        let rows = u64::from(model.config.vocab_size);
        let bytes = rows * table.row as u64;
        table.home = if bytes <= MOST_HELD {
            let mut held = Vec::new();
            weights.read_rows(EMBEDDING, 0, rows, &mut held).await?;
            if held.len() as u64 != bytes {
                return Err(short(held.len(), bytes));
            }
            Home::Held(held)
        } else {
            Home::Stored(weights.clone())
        };
        Ok((table, bytes))
    }

    /// The table of a model whose weights are not loaded.
    pub(super) fn zeros(model: &Model) -> Self {
        match model.embedding {
            Embedding::Tied => Self { row: 0, home: Home::Machine },
            Embedding::Fetched(dtype) => {
                let row = dtype.row_bytes(model.config.hidden_size.into());
                let row = usize::try_from(row).expect("a row fits into a binding");
                Self { row, home: Home::Zeros }
            }
        }
    }

    /// The rows of these tokens, one after another; nothing if the machine has the table.
    ///
    /// # Errors
    ///
    /// Errors of reading the weights.
    pub(super) async fn rows(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut rows = Vec::with_capacity(ids.len() * self.row);
        match &self.home {
            Home::Machine => {}
            Home::Held(table) => {
                for &id in ids {
                    rows.extend_from_slice(&table[id as usize * self.row..][..self.row]);
                }
            }
            Home::Stored(weights) => {
                let mut row = Vec::new();
                for &id in ids {
                    weights.read_rows(EMBEDDING, id.into(), 1, &mut row).await?;
                    if row.len() != self.row {
                        return Err(short(row.len(), self.row as u64));
                    }
                    rows.extend_from_slice(&row);
                }
            }
            Home::Zeros => rows.resize(ids.len() * self.row, 0),
        }
        Ok(rows)
    }
}

/// The error for rows of another length.
fn short(got: usize, wanted: u64) -> Error {
    Error::Usage(format!("`{EMBEDDING}`: {got} bytes were read, wanted {wanted}"))
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::{
        base::tensor::DType,
        checkpoint::Synthetic,
        machine::counting::{Counting, DeviceLimits},
        model::config::Config,
    };

    #[test]
    fn rows_are_the_same_from_memory_and_from_files() {
        let config = Config::preset("tiny").expect("a preset");
        for dtype in [DType::F32, DType::BF16, DType::Q8, DType::Q4] {
            let weights = Synthetic::new(&config, dtype, 0).expect("weights");
            let mut machine = Counting::new(DeviceLimits::BASELINE);
            let model = Model::alloc(&mut machine, &config, &weights).expect("fits");
            let stored = Stored::new(&weights);
            let (held, bytes) = block_on(Table::load(&model, &stored)).expect("reads");
            assert!(matches!(held.home, Home::Held(_)));
            assert_eq!(bytes, u64::from(config.vocab_size) * held.row as u64);
            let read = Table { home: Home::Stored(stored), row: held.row };
            let ids = [7, 0, 255, 7];
            let [held, read] = [&held, &read].map(|table| block_on(table.rows(&ids)));
            let (held, read) = (held.expect("reads"), read.expect("reads"));
            assert!(held == read && held.len() as u64 == 4 * dtype.row_bytes(64), "{dtype}");
            assert!(held.iter().any(|&byte| byte != 0));
            let zeros = block_on(Table::zeros(&model).rows(&ids)).expect("makes");
            assert!(zeros.len() == held.len() && zeros.iter().all(|&byte| byte == 0));
        }
    }
}
