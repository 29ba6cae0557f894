//! Lower bounds of a pass, for any implementation: bytes that must move, floating-point operations.

use crate::{
    base::tensor::DType,
    measure::capacity::cache_position_bytes,
    model::{Model, config::Config},
};

/// Bytes that must be read for `tokens` tokens after `before` others: the weights that they need,
/// once, and the keys and values of all positions, stored as `cache`, once.
///
/// Activations do not count, since they could stay in registers or caches. As many experts count as
/// the tokens can choose.
pub fn least_bytes(model: &Model, cache: DType, tokens: u32, before: u32) -> u64 {
    let positions = u64::from(before) + u64::from(tokens);
    model.needed_bytes(tokens) + positions * cache_position_bytes(&model.config, cache)
}

/// Floating-point operations for `tokens` tokens after `before` others, with the logits of the
/// last: two for each multiply-add.
///
/// It counts the matrices of all layers, with only the chosen experts; the dot products of each
/// query with the keys up to its own position, and the weighted sums of their values; and the head.
/// Norms, activations and the softmax do not count.
pub fn flops(c: &Config, tokens: u32, before: u32) -> u64 {
    let [tokens, before, layers, hidden, heads, head_dim] =
        [tokens, before, c.num_hidden_layers(), c.hidden_size, c.num_attention_heads, c.head_dim]
            .map(u64::from);
    let matrices: u64 = c.layers.iter().map(|layer| c.active_weights(layer)).sum();
    // The query at position p attends to p + 1 positions.
    let seen = tokens * before + tokens * (tokens + 1) / 2;
    let head = hidden * u64::from(c.vocab_size);
    2 * (tokens * matrices + layers * 2 * heads * head_dim * seen + head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Synthetic, engine::SessionOptions, machine::counting::DeviceLimits,
        measure::capacity::Planner,
    };

    fn planner(name: &str, dtype: DType) -> Planner {
        let config = Config::preset(name).expect("a preset");
        let weights = Synthetic::new(&config, dtype, 0).expect("weights");
        Planner::new(&config, &weights, DeviceLimits::BASELINE).expect("fits")
    }

    #[test]
    fn operations_are_two_for_each_active_parameter() {
        for name in ["grok-2", "grok-1", "bench"] {
            let c = Config::preset(name).expect("a preset");
            let norms = u64::from(c.hidden_size) * (4 * u64::from(c.num_hidden_layers()) + 1);
            let keys = 2 * u64::from(c.num_attention_heads * c.head_dim);
            let attention = u64::from(c.num_hidden_layers()) * keys;
            let active = c.parameters().active - norms;
            assert_eq!(flops(&c, 1, 0), 2 * (active + attention), "{name}");
            assert_eq!(flops(&c, 1, 99), 2 * (active + 100 * attention), "{name}");
        }
    }

    #[test]
    fn a_prompt_is_its_tokens_one_by_one_with_one_head() {
        let c = Config::preset("bench").expect("a preset");
        let one_by_one: u64 = (0..10).map(|i| flops(&c, 1, 5 + i)).sum();
        let head = 2 * u64::from(c.hidden_size) * u64::from(c.vocab_size);
        assert_eq!(flops(&c, 10, 5), one_by_one - 9 * head);
    }

    #[test]
    fn many_tokens_need_all_weights_and_one_needs_its_experts() {
        for dtype in [DType::BF16, DType::Q4] {
            let model = planner("tiny", dtype).model().clone();
            let table = u64::from(model.config.vocab_size) * dtype.row_bytes(64);
            assert_eq!(model.needed_bytes(u32::MAX), model.bytes() + table);
            let [one, two] = [1, 2].map(|tokens| model.needed_bytes(tokens));
            // One token chooses two of eight experts, two tokens four; each matrix has 64 rows of
            // 64 columns.
            let expert = 3 * 3 * 64 * dtype.row_bytes(64);
            assert_eq!(two - one, 2 * expert + dtype.row_bytes(64));
        }
    }

    #[test]
    fn a_token_touches_hardly_more_than_it_must() {
        for dtype in [DType::Q4, DType::Q8, DType::BF16] {
            let planner = planner("bench", dtype);
            let plan = planner.plan(SessionOptions::new(288, 256, DType::F32)).expect("fits");
            // The plan is that of the first step, which is also used while the positions fill one
            // split.
            let least =
                least_bytes(planner.model(), DType::F32, 1, SessionOptions::SPLIT - 1) as f64;
            let ratio = plan.decode.bytes_touched as f64 / least;
            assert!((1.0..=1.05).contains(&ratio), "{dtype}: {ratio}");
            assert!(plan.decode.bytes_bound > plan.decode.bytes_touched);
        }
    }
}
