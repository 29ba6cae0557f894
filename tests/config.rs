//! `config.json`: the released files, and every kind of error in one.

use std::path::Path;

use grok_wgpu::lab::{
    base::{activation::Gelu, error::Error},
    model::config::{Config, PRESETS, Rope, RopeType},
};
use serde_json::{Value, json};

/// The released Grok-2's fields.
fn grok_2() -> Value {
    json!({
        "architectures": ["Grok1ForCausalLM"],
        "model_type": "git",
        "torch_dtype": "bfloat16",
        "vocab_size": 131_072,
        "hidden_size": 8192,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 32_768,
        "moe_intermediate_size": 16_384,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "residual_moe": true,
        "rms_norm_eps": 1e-5,
        "embedding_multiplier_scale": 90.509_667_991_878_09,
        "output_multiplier_scale": 0.5,
        "attn_logit_softcapping": 30.0,
        "router_logit_softcapping": 30.0,
        "final_logit_softcapping": 50,
        "attn_temperature_len": 1024,
        "sliding_window_size": -1,
        "global_attn_every_n": 1,
        "max_position_embeddings": 131_072,
        "rope_theta": 208_533_496,
        "rope_type": "original",
        "original_max_position_embeddings": 8192,
        "scaling_factor": 16.0,
        "extrapolation_factor": 1.0,
        "attn_factor": 1.0,
        "beta_fast": 8,
        "beta_slow": 1,
    })
}

/// hpcai-tech/grok-1's fields.
fn grok_1() -> Value {
    json!({
        "architectures": ["Grok1ModelForCausalLM"],
        "vocab_size": 131_072,
        "hidden_size": 6144,
        "intermediate_size": 32_768,
        "num_hidden_layers": 64,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "attn_output_multiplier": 0.088_388_347_648_318_45,
        "embedding_multiplier_scale": 78.383_671_769_061_69,
        "output_multiplier_scale": 0.577_350_269_189_625_7,
        "max_attn_value": 30.0,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "use_cache": true,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": true,
        "num_experts_per_tok": 2,
        "num_experts": 8,
        "output_router_logits": false,
        "torch_dtype": "bfloat16",
    })
}

fn read(value: &Value) -> Result<(Config, Vec<String>), Error> {
    Config::from_json(Path::new("config.json"), &value.to_string())
}

/// Parses fields that must give neither errors nor warnings.
fn good(value: &Value) -> Config {
    let (config, warnings) = read(value).expect("a good configuration");
    assert_eq!(warnings, [""; 0]);
    config
}

fn problems(value: &Value) -> Vec<String> {
    match read(value) {
        Err(Error::Config { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

/// `base` with some fields changed; `null` removes a field.
fn with(mut base: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("not an object") };
    for (name, value) in changes {
        base[name] = value;
    }
    base
}

/// The problems reported after changing fields of the released Grok-2.
fn changed(changes: Value) -> Vec<String> {
    problems(&with(grok_2(), changes))
}

#[test]
fn released_files_are_the_presets() {
    assert_eq!(Some(good(&grok_2())), Config::preset("grok-2"));
    assert_eq!(Some(good(&grok_1())), Config::preset("grok-1"));
}

#[test]
fn presets_are_sound_and_come_back_from_json() {
    for name in PRESETS {
        let config = Config::preset(name).expect("a preset");
        assert_eq!(config.problems(), [""; 0], "{name}");
        let text = config.to_json();
        let again = Config::from_json(Path::new("config.json"), &text).expect("sound");
        assert_eq!(again, (config, Vec::new()), "{name}");
    }
    assert_eq!(Config::preset("grok-3"), None);
}

#[test]
fn every_rope_type_comes_back_from_json() {
    for rope_type in [
        RopeType::Original,
        RopeType::Linear,
        RopeType::Yarn,
        RopeType::YarnLog,
        RopeType::ThetaScale,
    ] {
        let mut config = Config::preset("grok-2").expect("a preset");
        config.ropes[0].rope_type = rope_type;
        let text = config.to_json();
        let (again, _) = Config::from_json(Path::new("config.json"), &text).expect("sound");
        assert_eq!(again, config);
    }
}

#[test]
fn absent_fields_take_the_reference_defaults() {
    let config = good(&with(
        grok_2(),
        json!({
            "head_dim": null, "attn_logit_softcapping": null, "router_logit_softcapping": null,
            "final_logit_softcapping": null, "attn_temperature_len": null, "rope_theta": null,
            "rope_type": null, "scaling_factor": null, "extrapolation_factor": null,
            "attn_factor": null, "beta_fast": null, "beta_slow": null,
            "original_max_position_embeddings": null, "sliding_window_size": null,
            "global_attn_every_n": null, "architectures": null, "model_type": null,
        }),
    ));
    let mut wanted = Config::preset("grok-2").expect("a preset");
    wanted.ends.softcap = 0.0;
    wanted.attention.temperature_len = 0;
    wanted.ropes[0] = Rope {
        rope_theta: 10_000.0,
        rope_type_named: false,
        scaling_factor: 1.0,
        beta_fast: 32.0,
        original_max_position_embeddings: 131_072,
        ..wanted.ropes[0]
    };
    assert_eq!(config, wanted);
}

#[test]
fn grok_1_has_its_own_defaults() {
    let config = good(&with(grok_1(), json!({"tie_word_embeddings": null})));
    let router_softcap = |config: &Config| config.experts.expect("it has some").softcap;
    assert!(config.ends.tied);
    assert_eq!(config.hidden_act, Gelu::Tanh);
    assert!(router_softcap(&config).abs() < f64::EPSILON);
    // An explicit `rope_type` decides.
    let config = good(&with(
        grok_1(),
        json!({
            "tie_word_embeddings": false, "hidden_act": "gelu", "router_logit_softcapping": 20,
            "max_attn_value": 25,
        }),
    ));
    assert!(!config.ends.tied);
    assert_eq!(config.hidden_act, Gelu::Erf);
    assert!((router_softcap(&config) - 20.0).abs() < f64::EPSILON);
    assert!((config.attention.softcap - 25.0).abs() < f64::EPSILON);
}

/// `model_type: "git"` makes Hugging Face write the fields of an image captioning model.
#[test]
fn git_leaks_nothing() {
    let leaked = with(
        grok_2(),
        json!({
            "bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0,
            "tie_word_embeddings": false, "vision_config": {"hidden_size": 768},
        }),
    );
    assert_eq!(Some(good(&leaked)), Config::preset("grok-2"));
}

#[test]
fn activations() {
    for (name, gelu) in [
        ("gelu", Gelu::Erf),
        ("gelu_tanh", Gelu::Tanh),
        ("gelu_new", Gelu::Tanh),
        ("gelu_pytorch_tanh", Gelu::Tanh),
    ] {
        assert_eq!(good(&with(grok_2(), json!({"hidden_act": name}))).hidden_act, gelu);
    }
    assert_eq!(
        changed(json!({"hidden_act": "silu"})),
        ["hidden_act is \"silu\", wanted gelu, gelu_tanh, gelu_new or gelu_pytorch_tanh"]
    );
}

#[test]
fn rope_rules() {
    let rope = |changes| good(&with(grok_2(), changes)).ropes[0];
    for (name, rope_type) in [
        ("default", RopeType::Original),
        ("linear", RopeType::Linear),
        ("yarn", RopeType::Yarn),
        ("yarn_linear", RopeType::Yarn),
        ("yarn_log", RopeType::YarnLog),
        ("theta_scale", RopeType::ThetaScale),
    ] {
        let config = rope(json!({"rope_type": name}));
        assert_eq!((config.rope_type, config.rope_type_named), (rope_type, true));
    }
    // Without a `rope_type`: position interpolation if the factor is not 1.
    let config = rope(json!({"rope_type": null}));
    assert_eq!((config.rope_type, config.rope_type_named), (RopeType::Linear, false));
    let config = rope(json!({"rope_type": null, "scaling_factor": 1}));
    assert_eq!((config.rope_type, config.rope_type_named), (RopeType::Original, false));

    let config = rope(json!({
        "rope_theta": null, "rope_type": null, "scaling_factor": null,
        "rope_parameters": {"rope_theta": 5000, "rope_type": "linear", "factor": 4},
    }));
    assert!((config.rope_theta - 5000.0).abs() < f64::EPSILON);
    assert_eq!(config.rope_type, RopeType::Linear);
    assert!((config.scaling_factor - 4.0).abs() < f64::EPSILON);
    rope(json!({"rope_parameters": {"rope_theta": 208_533_496.0, "rope_type": "original"}}));

    for (changes, wanted) in [
        (
            json!({"rope_parameters": {"rope_theta": 5000}}),
            "rope_theta is 208533496, but 5000 in rope_parameters",
        ),
        (
            json!({"rope_parameters": {"long_factor": [1]}}),
            "rope_parameters has the field \"long_factor\", which is not supported",
        ),
        (json!({"rope_parameters": 3}), "rope_parameters is 3, wanted an object"),
        (
            json!({"rope_scaling": {"type": "linear"}}),
            "rope_scaling is {\"type\":\"linear\"}, wanted rope_type, scaling_factor and their \
             like at the top level",
        ),
        (
            json!({"rope_type": "llama3"}),
            "rope_type is \"llama3\", wanted original, default, linear, yarn, yarn_linear, \
             yarn_log or theta_scale",
        ),
        (
            json!({"rope_type": "linear", "scaling_factor": 0}),
            "scaling_factor is 0, wanted a finite number above 0",
        ),
        (
            json!({"rope_type": "yarn", "beta_slow": -1}),
            "beta_slow is -1, wanted a finite number above 0",
        ),
        (
            json!({"rope_type": "theta_scale", "original_max_position_embeddings": 1}),
            "original_max_position_embeddings is 1, wanted a number from 16 to 16777216",
        ),
        (
            json!({"rope_rotate_half_dims": true}),
            "rope_rotate_half_dims is true, wanted false: all channels of a head are rotated",
        ),
    ] {
        assert_eq!(changed(changes), [wanted]);
    }
}

/// Text that is not a JSON object.
#[test]
fn not_an_object() {
    for (text, part) in [
        ("", "line 1 column 0"),
        ("null", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("{\n  \"a\": 1, // no\n}", "line 2 column"),
        ("{\n  \"a\": 1,\n}", "line 3 column 1"),
        ("{\"rms_norm_eps\": NaN}", "NaN and Infinity are not JSON"),
        ("{\"rope_theta\":\n -Infinity}", "NaN and Infinity are not JSON"),
        ("{\"rope_theta\": Infinity}", "NaN and Infinity are not JSON"),
        ("{\"rope_theta\": 1e400}", "number out of range at line 1 column"),
        ("{\"a\": 1, \"a\": 2}", "duplicate field `a`"),
        ("\u{feff}{}", "line 1 column 1"),
    ] {
        let error = Config::from_json(Path::new("dir/config.json"), text).expect_err(text);
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.starts_with("dir/config.json: ") && told.contains(part), "{told}");
    }
}

/// An empty object lacks every field that has no default, each once.
#[test]
fn required_fields() {
    assert_eq!(
        problems(&json!({})),
        [
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "num_local_experts",
            "max_position_embeddings",
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_experts_per_tok",
            "rms_norm_eps",
            "embedding_multiplier_scale",
            "output_multiplier_scale",
        ]
        .map(|field| format!("{field} is missing"))
    );
}

/// Numbers of heads.
#[test]
fn heads() {
    for (changes, wanted) in [
        (
            json!({"num_key_value_heads": 7}),
            &["num_attention_heads (64) must be a multiple of num_key_value_heads (7)"][..],
        ),
        (
            json!({"num_attention_heads": 0}),
            &["num_attention_heads is 0, wanted a number from 1 to 1024"],
        ),
        (
            json!({"num_key_value_heads": 0}),
            &["num_key_value_heads is 0, wanted a number from 1 to 1024"],
        ),
        (
            json!({"head_dim": 127}),
            &["head_dim is 127, but rotary embedding turns pairs of channels: wanted an even \
               number that is a multiple of 4"],
        ),
        (json!({"head_dim": 126}), &["head_dim is 126, wanted a multiple of 4"]),
        (json!({"head_dim": 260}), &["head_dim is 260, wanted a number from 4 to 256"]),
        (
            json!({"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 20}),
            &[
                "num_attention_heads * head_dim is 60, wanted a multiple of 8: the kernels load \
                 eight weights at a time",
                "num_key_value_heads * head_dim is 20, wanted a multiple of 8: the kernels load \
                 eight weights at a time",
            ],
        ),
    ] {
        assert_eq!(changed(changes), wanted);
    }
}

/// Sizes that must not reach an allocation.
#[test]
fn sizes() {
    for (changes, wanted) in [
        (json!({"num_hidden_layers": 0}), "num_hidden_layers is 0, wanted a number from 1 to 1024"),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "num_hidden_layers is 1000000000, wanted a number from 1 to 1024",
        ),
        (json!({"vocab_size": 0}), "vocab_size is 0, wanted a number from 1 to 16777216"),
        (
            json!({"vocab_size": 4_294_967_296_u64}),
            "vocab_size is 4294967296, wanted an integer from 0 to 4294967295",
        ),
        (json!({"vocab_size": -1}), "vocab_size is -1, wanted an integer from 0 to 4294967295"),
        (
            json!({"num_experts_per_tok": 0}),
            "num_experts_per_tok is 0, wanted a number from 1 to 8",
        ),
        (
            json!({"num_local_experts": 1}),
            "num_experts_per_tok (2) is more than num_local_experts (1)",
        ),
        (json!({"num_local_experts": 65}), "num_local_experts is 65, wanted a number from 1 to 64"),
        (
            json!({"num_experts": 7}),
            "num_local_experts is 8, but num_experts is 7: they are the same",
        ),
        (
            json!({"hidden_size": 8188}),
            "hidden_size is 8188, wanted a multiple of 8: the kernels load eight weights at a time",
        ),
        (
            json!({"moe_intermediate_size": 4}),
            "moe_intermediate_size is 4, wanted a number from 8 to 1048576",
        ),
        (
            json!({"context_len": 0}),
            "max_position_embeddings is 0, wanted a number from 1 to 16777216",
        ),
        (
            json!({"attn_temperature_len": 1}),
            "attn_temperature_len is 1, wanted -1 (off) or at least 2",
        ),
    ] {
        assert_eq!(changed(changes)[0], wanted);
    }
    let config = good(&with(grok_2(), json!({"context_len": 4096})));
    assert_eq!(config.max_position_embeddings, 4096);
}

/// Constants, and the values of a soft cap that switch it off.
#[test]
fn constants() {
    for eps in [json!(0), json!(-1), json!(1), json!(0.1)] {
        let told = changed(json!({"rms_norm_eps": eps}));
        assert_eq!(told, [format!("rms_norm_eps is {eps}, wanted a number between 0 and 0.1")]);
    }
    for theta in [json!(0), json!(1), json!(-5)] {
        let told = changed(json!({"rope_theta": theta}));
        assert_eq!(told, [format!("rope_theta is {theta}, wanted a finite number above 1")]);
    }
    assert_eq!(changed(json!({"output_multiplier_scale": 0})).len(), 1);
    assert_eq!(
        changed(json!({"router_logit_softcapping": -1})),
        ["router_logit_softcapping is -1, wanted a finite number, or 0 for no cap"]
    );
    let off = good(&with(
        grok_2(),
        json!({
            "attn_logit_softcapping": -30, "final_logit_softcapping": -50,
            "router_logit_softcapping": 0, "attn_temperature_len": -1,
        }),
    ));
    for cap in [off.attention.softcap, off.ends.softcap, off.experts.expect("it has some").softcap]
    {
        assert_eq!(cap.to_bits(), 0_f64.to_bits());
    }
    assert_eq!(off.attention.temperature_len, 0);
    assert_eq!(
        changed(json!({"max_attn_value": 20})),
        ["attn_logit_softcapping is 30, but max_attn_value is 20: they are the same"]
    );
    assert!(
        changed(json!({"attn_output_multiplier": 0.1}))[0]
            .starts_with("attn_output_multiplier is 0.1, wanted head_dim^-0.5")
    );
}

/// Types of fields.
#[test]
fn types() {
    let floats = with(grok_2(), json!({"hidden_size": 8192.0, "num_hidden_layers": 64.0}));
    assert_eq!(Some(good(&floats)), Config::preset("grok-2"));
    for (changes, wanted) in [
        (json!({"hidden_size": "8192"}), "hidden_size is \"8192\", wanted an integer"),
        (json!({"hidden_size": 8192.5}), "hidden_size is 8192.5, wanted an integer"),
        (json!({"hidden_size": true}), "hidden_size is true, wanted an integer"),
        (json!({"hidden_size": [8192]}), "hidden_size is [8192], wanted an integer"),
        (
            json!({"hidden_size": 9_007_199_254_740_993_u64}),
            "hidden_size is 9007199254740993, wanted an integer from 0 to 4294967295",
        ),
        (json!({"hidden_size": 1e300}), "hidden_size is 1e+300, wanted an integer"),
        (json!({"rope_theta": "1e4"}), "rope_theta is \"1e4\", wanted a number"),
        (json!({"residual_moe": 1}), "residual_moe is 1, wanted true or false"),
        (json!({"rope_type": 1}), "rope_type is 1, wanted a string"),
    ] {
        assert_eq!(changed(changes)[0], wanted);
    }
}

/// Other models, and unknown fields.
#[test]
fn what_is_not_supported() {
    for (changes, wanted) in [
        (
            json!({"architectures": ["LlamaForCausalLM"]}),
            "unsupported architectures [\"LlamaForCausalLM\"]; supported: Grok1ForCausalLM, ",
        ),
        (json!({"architectures": 3}), "unsupported architectures 3; supported: "),
        (
            json!({"architectures": null, "model_type": "llama"}),
            "unsupported model_type \"llama\"; supported: git, ",
        ),
        (
            json!({"quantization_config": {"quant_method": "fp8"}}),
            "quantization_config says the weights are quantized (method \"fp8\"), wanted plain",
        ),
        (
            json!({"sliding_window_size": 4096}),
            "sliding_window_size is 4096, wanted -1: every layer attends to the whole context",
        ),
        (
            json!({"global_attn_every_n": 2}),
            "global_attn_every_n is 2, wanted 1: every layer attends to the whole context",
        ),
        (
            json!({"attn_logit_softcapping_method": "rational"}),
            "attn_logit_softcapping_method is \"rational\", wanted \"tanh\"",
        ),
    ] {
        let told = changed(changes);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(wanted), "{told:?}");
    }
    good(&with(grok_2(), json!({"attn_logit_softcapping_method": "tanh"})));
    let (config, warnings) =
        read(&with(grok_2(), json!({"mystery": 3, "enigma\n": {}}))).expect("good but for names");
    assert_eq!(Some(config), Config::preset("grok-2"));
    assert_eq!(
        warnings,
        ["config.json has fields that are not known and not used: enigma\\n, mystery"]
    );
}

#[test]
fn all_problems_come_at_once() {
    let told = changed(json!({
        "hidden_size": "big", "num_key_value_heads": 7, "rms_norm_eps": 0, "vocab_size": 0,
        "rope_type": "none", "quantization_config": {"bits": 4},
    }));
    for field in ["hidden_size", "heads", "rms_norm_eps", "vocab_size", "rope_type", "quantization"]
    {
        assert!(told.iter().any(|problem| problem.contains(field)), "{field}: {told:?}");
    }
    assert_eq!(told.len(), 6, "{told:?}");
}

/// Files that are too large or nested too deep.
#[test]
fn bounded() {
    let path = Path::new("config.json");
    let long = format!("{{\"a\":\"{}\"}}", "b".repeat(5 << 20));
    let told = Config::from_json(path, &long).expect_err("too long").to_string();
    assert!(told.contains("at most 4 MiB"), "{told}");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let told = Config::from_json(path, &deep).expect_err("too deep").to_string();
    assert!(told.contains("recursion limit"), "{told}");
    let many: Vec<String> = (0..200_000).map(|i| format!("\"f{i}\":0")).collect();
    let many = format!("{{{}}}", many.join(","));
    let told = Config::from_json(path, &many).expect_err("nothing known").to_string();
    assert!(told.len() < 1000, "{told}");
}
