//! How much each column of each matrix counts in a text: the squares of what it is multiplied by.
//!
//! A product's output is off by the sum over columns of the weight's error times the input there.
//! Over a text, with inputs that are not correlated, the squared error of an output is that of each
//! weight times the mean square of its input. The importance that
//! [`encode_weighted`](crate::base::quant::encode_weighted) gets is the root of that: a few columns
//! have most of the squares, and would be served at the cost of all others.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{
    base::{
        error::{Error, Result},
        num::{hex, round},
    },
    model::{
        config::Config,
        schema::{self, Key, Part},
    },
};

/// So many tokens is the mean of a layer's experts worth, beside an expert's own: it decides where
/// an expert was never chosen, and hardly counts where it was chosen often.
const PRIOR: f64 = 16.0;

/// A column counts at the least so much, as a part of the average: another text may use those that
/// this one did not.
const LEAST: f64 = 0.03;

/// Sums of squares of the inputs of every product of a model, by column.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    inputs: BTreeMap<Key, Sums>,
    tied: bool,
}

/// The inputs of one product.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The sum of squares of each column.
    pub squares: Vec<f64>,
    /// How many inputs were added up.
    pub rows: u64,
}

impl Sums {
    fn add(&mut self, row: &[f32]) {
        for (sum, &x) in self.squares.iter_mut().zip(row) {
            *sum += f64::from(x) * f64::from(x);
        }
        self.rows += 1;
    }
}

/// The key whose inputs are those of `key`: some matrices have the same.
fn shared(key: Key, tied: bool) -> Option<Key> {
    let part = match key.part {
        Part::Q | Part::K | Part::V => Part::Q,
        Part::ExpertGate | Part::ExpertUp => Part::ExpertGate,
        Part::DenseGate | Part::DenseUp => Part::DenseGate,
        Part::O | Part::ExpertDown | Part::DenseDown | Part::Head => key.part,
        Part::Embedding if tied => Part::Head,
        // The rows of the table are looked up, not multiplied.
        Part::Embedding
        | Part::PreAttnNorm
        | Part::PostAttnNorm
        | Part::PreMoeNorm
        | Part::PostMoeNorm
        | Part::FinalNorm
        | Part::Router => return None,
    };
    Some(Key { part, ..key })
}

/// Whether a matrix with these inputs is an expert's.
fn is_of_expert(key: Key) -> bool {
    matches!(key.part, Part::ExpertGate | Part::ExpertDown)
}

impl Importance {
    /// Sums of nothing, for the matrices of a model.
    pub fn new(config: &Config) -> Self {
        let tied = config.ends.tied;
        let mut inputs = BTreeMap::new();
        for want in schema::tensors(config) {
            if let Some(key) = shared(want.key, tied) {
                let columns = want.shape.last().copied().unwrap_or(0);
                let columns = usize::try_from(columns).unwrap_or(0);
                inputs.insert(key, Sums { squares: vec![0.0; columns], rows: 0 });
            }
        }
        Self { inputs, tied }
    }

    /// Adds inputs of the matrix `key`, and of those that have the same: `[rows, columns]`.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the matrix if an input is not finite, [`Error::Usage`] if there is
    /// no such matrix or it has other columns.
    pub fn add(&mut self, key: Key, rows: &[f32]) -> Result<()> {
        let sums = shared(key, self.tied).and_then(|key| self.inputs.get_mut(&key));
        let name = || key.name();
        let Some(sums) = sums else {
            return Err(Error::Usage(format!("`{}` is no matrix of the model", name())));
        };
        let columns = sums.squares.len().max(1);
        if !rows.len().is_multiple_of(columns) {
            return Err(Error::Usage(format!(
                "{} inputs of `{}`, which has {columns} columns",
                rows.len(),
                name()
            )));
        }
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let what = format!(
                "on the calibration text: column {} of an input of `{}` is {}",
                at % columns,
                name(),
                rows[at]
            );
            return Err(Error::NonFinite { what });
        }
        rows.chunks_exact(columns).for_each(|row| sums.add(row));
        Ok(())
    }

    /// The sums of the inputs of a matrix, if it is multiplied by something.
    pub fn sums(&self, key: Key) -> Option<&Sums> {
        self.inputs.get(&shared(key, self.tied)?)
    }

    /// How much each column of a matrix counts: one on average, and always more than nothing.
    /// `None` for tensors that are no matrices of a product, and where all inputs were zero.
    pub fn columns(&self, key: Key) -> Option<Vec<f32>> {
        let key = shared(key, self.tied)?;
        let own = self.inputs.get(&key)?;
        let mean: Vec<f64> = if is_of_expert(key) {
            let prior = self.of_layer(key);
            let of = |(own, prior): (&f64, &f64)| own + PRIOR * prior;
            let rows = own.rows as f64 + PRIOR;
            own.squares.iter().zip(&prior).map(of).map(|sum| sum / rows).collect()
        } else {
            own.squares.iter().map(|sum| sum / own.rows.max(1) as f64).collect()
        };
        let roots: Vec<f64> = mean.into_iter().map(f64::sqrt).collect();
        let average = roots.iter().sum::<f64>() / roots.len().max(1) as f64;
        // A sum of squares that is not finite has come from inputs near the end of f32.
        if !(average > 0.0 && average.is_finite()) {
            return None;
        }
        Some(roots.iter().map(|root| round((root / average).max(LEAST))).collect())
    }

    /// The mean squares of the inputs of all experts of a layer.
    fn of_layer(&self, key: Key) -> Vec<f64> {
        let (from, to) = (Key { expert: 0, ..key }, Key { expert: u32::MAX, ..key });
        let experts = self.inputs.range(from..=to).map(|(_, sums)| sums);
        let rows = experts.clone().map(|sums| sums.rows).sum::<u64>().max(1) as f64;
        let mut mean = vec![0.0; self.inputs.get(&key).map_or(0, |sums| sums.squares.len())];
        for sums in experts {
            for (mean, square) in mean.iter_mut().zip(&sums.squares) {
                *mean += square / rows;
            }
        }
        mean
    }

    /// The experts that no token has chosen: layers and experts.
    pub fn unreached(&self) -> Vec<(u32, u32)> {
        let unreached = |(key, sums): (&Key, &Sums)| {
            (key.part == Part::ExpertGate && sums.rows == 0).then_some((key.layer, key.expert))
        };
        self.inputs.iter().filter_map(unreached).collect()
    }

    /// How many tokens were added up.
    pub fn tokens(&self) -> u64 {
        let tokens = self.inputs.iter().filter(|(key, _)| !is_of_expert(**key));
        tokens.map(|(_, sums)| sums.rows).max().unwrap_or(0)
    }

    /// Tells these sums from others.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (key, sums) in &self.inputs {
            hash.update(format!("{key:?} {}", sums.rows));
            sums.squares.iter().for_each(|square| hash.update(square.to_le_bytes()));
        }
        hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn importance() -> Importance {
        Importance::new(&Config::preset("tiny").expect("a preset").with_layers(2))
    }

    fn expert(layer: u32, part: Part, expert: u32) -> Key {
        Key { part, layer, expert }
    }

    #[test]
    fn columns_are_mean_squares_and_matrices_share_them() {
        let mut sums = importance();
        let columns = sums.sums(Key::new(1, Part::Q)).expect("a matrix").squares.len();
        let mut row = vec![1.0f32; 2 * columns];
        row[3] = 3.0;
        row[columns + 3] = -5.0;
        row[7] = 0.0;
        row[columns + 7] = 0.0;
        sums.add(Key::new(1, Part::K), &row).expect("finite");
        let of = sums.sums(Key::new(1, Part::V)).expect("a matrix");
        assert_eq!((of.rows, of.squares[3], of.squares[4]), (2, 34.0, 2.0));
        let weights = sums.columns(Key::new(1, Part::Q)).expect("weights");
        let average: f32 = weights.iter().sum::<f32>() / columns as f32;
        assert!((average - 1.0).abs() < 0.01, "{average}");
        assert!((weights[3] / weights[4] - 17.0_f32.sqrt()).abs() < 1e-4);
        assert!((weights[7] - 0.03).abs() < 1e-6, "{}", weights[7]);
        assert_eq!(sums.columns(Key::new(0, Part::Q)), None, "no input");
        assert_eq!(sums.columns(Key::new(0, Part::Router)), None);
        assert_eq!(sums.columns(Key::new(0, Part::Embedding)), None, "rows are looked up");
    }

    #[test]
    fn an_expert_that_nothing_reached_has_the_mean_of_its_layer() {
        let mut sums = importance();
        let columns = sums.sums(expert(0, Part::ExpertGate, 0)).expect("a matrix").squares.len();
        let mut often = vec![1.0f32; columns];
        often[0] = 4.0;
        let mut seldom = vec![1.0f32; columns];
        seldom[1] = 4.0;
        for _ in 0..2000 {
            sums.add(expert(0, Part::ExpertUp, 0), &often).expect("finite");
        }
        sums.add(expert(0, Part::ExpertUp, 1), &seldom).expect("finite");
        let weights = |which| {
            let all = sums.columns(expert(0, Part::ExpertGate, which)).expect("weights");
            [all[0] / all[2], all[1] / all[2]].map(|ratio| ratio * ratio)
        };
        let [first, second, third] = [0, 1, 2].map(weights);
        assert!((first[0] - 16.0).abs() < 0.1 && (first[1] - 1.0).abs() < 0.1, "{first:?}");
        // One token of its own against the layer's, which are worth sixteen.
        assert!((second[0] - (16.0 * 16.0 + 1.0) / 17.0).abs() < 0.1, "{second:?}");
        assert!((second[1] - (16.0 + 16.0) / 17.0).abs() < 0.1, "{second:?}");
        assert!((third[0] - 16.0).abs() < 0.1 && (third[1] - 1.0).abs() < 0.1, "{third:?}");
        let unreached = sums.unreached();
        assert!(unreached.contains(&(0, 2)) && unreached.contains(&(1, 0)));
        assert!(!unreached.contains(&(0, 0)) && !unreached.contains(&(0, 1)));
    }

    #[test]
    fn inputs_that_are_no_numbers_are_refused() {
        let mut sums = importance();
        let key = Key::new(1, Part::DenseDown);
        let columns = sums.sums(key).expect("a matrix").squares.len();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = vec![0.5; columns];
            row[5] = bad;
            let error = sums.add(key, &row).expect_err("not finite").to_string();
            assert!(error.contains("column 5") && error.contains("layers.1.mlp"), "{error}");
        }
        assert_eq!(sums.add(key, &[1.0]).expect_err("a short row").code(), "usage");
        assert_eq!(sums.add(Key::new(0, Part::Router), &[]).expect_err("none").code(), "usage");
        assert_eq!(sums, importance());
    }

    #[test]
    fn other_sums_have_another_digest() {
        let mut sums = importance();
        let before = sums.digest();
        assert_eq!(before, importance().digest());
        let columns = sums.sums(Key::new(1, Part::O)).expect("a matrix").squares.len();
        sums.add(Key::new(1, Part::O), &vec![1.0; columns]).expect("finite");
        assert_ne!(before, sums.digest());
    }
}
