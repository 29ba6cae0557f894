//! Blocks that no Grok has, built from the same operators: layers without experts, layers that
//! differ, several rotary embeddings. Each is compared with another model that must give the same
//! logits. Runs on the host.

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{SessionOptions, session::Session, step::Readback},
    machine::host::Host,
    model::{
        config::{Config, Experts, LayerRule, RopeType},
        weights::Weights,
    },
};
use pollster::block_on;

const IDS: [u32; 5] = [11, 200, 3, 3, 77];

fn tiny() -> Config {
    Config::preset("tiny").expect("a preset").with_layers(2)
}

/// Weights of one model under the names of another; `zero` selects tensors to fill with zeros.
#[derive(Clone)]
struct Renamed {
    inner: Synthetic,
    name: fn(&str) -> String,
    zero: fn(&str) -> bool,
}

impl Renamed {
    fn new(config: &Config) -> Self {
        let inner = Synthetic::new(config, DType::F32, 5).expect("weights");
        Self { inner, name: str::to_owned, zero: |_| false }
    }
}

impl Weights for Renamed {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.inner.dtype(&(self.name)(name))
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.inner.read_rows(&(self.name)(name), row0, rows, into).await?;
        if (self.zero)(name) {
            into.fill(0);
        }
        Ok(())
    }
}

/// Bits of the logits after each token of the prompt and after two more tokens.
fn logits(config: &Config, weights: &Renamed) -> Vec<u32> {
    assert_eq!(config.problems(), [""; 0]);
    let sizes = SessionOptions::new(32, 8, DType::F32);
    let loaded = block_on(Session::load(Host::default(), config, weights, sizes, &mut |_| Ok(())));
    let mut session = loaded.expect("loads");
    let rows = block_on(session.prefill(&IDS, Readback::AllLogits)).expect("runs").rows;
    let mut all = rows.concat();
    for id in [9, 150] {
        let reply = block_on(session.decode(id, Readback::Logits)).expect("runs");
        all.extend(reply.candidates.iter().map(|candidate| candidate.logit));
    }
    let all: Vec<u32> = all.into_iter().map(f32::to_bits).collect();
    assert!(all.iter().any(|logit| *logit != all[0]), "the model says something");
    all
}

/// A layer with a dense MLP equals one with a single expert of the same weights.
#[test]
fn one_expert_is_a_dense_model() {
    let one = |mut config: Config| {
        let one = |all| Experts { count: 1, chosen: 1, joint_scale: 1.0, ..all };
        config.experts = config.experts.map(one);
        config
    };
    let [routed, dense] = [(None, true), (Some(64), false)].map(|(dense, routed)| LayerRule {
        rope: 0,
        dense,
        routed,
    });
    let with = |layers: [LayerRule; 2]| {
        let mut config = one(tiny());
        config.layers = layers.into();
        config
    };

    let want = logits(&with([routed; 2]), &Renamed::new(&with([routed; 2])));
    let names = |name: &str| {
        let expert = |name: &str, from: &str, to: &str| {
            name.replace(&format!("mlp.{from}"), &format!("block_sparse_moe.experts.0.{to}"))
        };
        let name = expert(name, "gate_proj", "w1");
        expert(&expert(&name, "up_proj", "w3"), "down_proj", "w2")
    };
    for layers in [[dense; 2], [dense, routed], [routed, dense]] {
        let weights = Renamed { name: names, ..Renamed::new(&with([routed; 2])) };
        assert!(logits(&with(layers), &weights) == want, "{layers:?}");
    }
    // A model without experts needs no configuration of experts.
    let mut plain = with([dense; 2]);
    plain.experts = None;
    let weights = Renamed { name: names, ..Renamed::new(&with([routed; 2])) };
    assert!(logits(&plain, &weights) == want);
}

/// A layer of experts alone must not use the dense MLP of the layer before it.
#[test]
fn no_dense_mlp_is_one_of_zeros() {
    let both = tiny();
    for zeroed in ["layers.0.mlp", "layers.1.mlp"] {
        let weights = Renamed {
            zero: match zeroed {
                "layers.0.mlp" => |name| name.contains("layers.0.mlp"),
                _ => |name| name.contains("layers.1.mlp"),
            },
            ..Renamed::new(&both)
        };
        let mut without = both.clone();
        without.layers[usize::from(zeroed == "layers.1.mlp")].dense = None;
        let want = logits(&both, &weights);
        assert!(logits(&without, &Renamed::new(&both)) == want, "{zeroed}");
        assert!(logits(&both, &Renamed::new(&both)) != want, "{zeroed} matters");
    }
}

#[test]
fn each_layer_turns_by_its_own_rope() {
    let plain = tiny().ropes[0];
    let mut slow = plain;
    slow.rope_type = RopeType::Linear;
    slow.scaling_factor = 4.0;
    let config = |ropes: &[_], by_layer: [u8; 2]| {
        let mut config = tiny();
        config.ropes = ropes.to_vec();
        for (layer, rope) in config.layers.iter_mut().zip(by_layer) {
            layer.rope = rope;
        }
        config
    };
    let weights = Renamed::new(&tiny());
    let run = |ropes: &[_], by_layer| logits(&config(ropes, by_layer), &weights);
    let [fast, slowly] = [plain, slow].map(|rope| run(&[rope], [0; 2]));
    assert!(fast != slowly);
    assert!(run(&[plain, slow], [1; 2]) == slowly);
    let mixed = run(&[plain, slow], [0, 1]);
    assert!(mixed != fast && mixed != slowly);
    assert!(run(&[slow, plain], [1, 0]) == mixed);
    assert!(run(&[plain, slow], [1, 0]) != mixed);
}

#[test]
fn layers_that_make_no_sense_are_told() {
    let mut config = tiny();
    config.layers[0].dense = Some(64);
    config.layers[1].rope = 1;
    assert_eq!(
        config.problems(),
        [
            "layer 1 has a dense MLP of another width than the others",
            "layer 1 has rope 1, but there are 1"
        ]
    );
    config.layers[1] = LayerRule { rope: 0, dense: None, routed: false };
    assert_eq!(config.problems(), ["layer 1 has neither experts nor a dense MLP"]);
    config.layers[1].routed = true;
    config.experts = None;
    assert_eq!(
        config.problems(),
        [0, 1].map(|i| format!("layer {i} is routed, but there are no experts"))
    );
}
