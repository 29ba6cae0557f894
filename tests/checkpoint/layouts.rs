//! Every layout reads back the same, and every mismatch is reported.

use std::path::Path;

use grok_wgpu::lab::{
    base::{error::Error, tensor::DType},
    checkpoint::{Checkpoint, Synthetic, write::Layout},
    model::{config::Config, schema, weights::Weights},
};
use pollster::block_on;

use crate::memory::{Files, Memory, file, open, problems, read_all, try_write, write};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn preset(name: &str) -> Config {
    Config::preset(name).expect("a preset")
}

/// A model whose dimensions are all different, so that no two axes can be confused.
fn lopsided() -> Config {
    let mut config = preset("tiny").with_layers(2).with_head_dim(8).with_widths(56, 48);
    config.hidden_size = 40;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.vocab_size = 70;
    config.experts.as_mut().expect("it has some").count = 3;
    config
}

#[test]
fn every_layout_reads_back_the_same() -> Outcome {
    for (config, layouts) in [
        (
            lopsided(),
            vec![
                Layout::Single,
                Layout::Indexed { shards: 1 },
                Layout::Indexed { shards: 5 },
                Layout::TensorParallel { slices: 1 },
                Layout::TensorParallel { slices: 2 },
                Layout::TensorParallel { slices: 8 },
            ],
        ),
        (
            preset("tiny-grok-1"),
            vec![Layout::Single, Layout::Grok1, Layout::TensorParallel { slices: 4 }],
        ),
    ] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let weights = Synthetic::new(&config, dtype, 3)?;
            for layout in &layouts {
                let files = write(&config, &weights, *layout);
                let checkpoint = open(&files, &config)?;
                let mut bytes = 0;
                for want in schema::tensors(&config) {
                    let [got, made] = [
                        read_all(&checkpoint, &want.name, want.shape[0]),
                        read_all(&weights, &want.name, want.shape[0]),
                    ];
                    assert_eq!(checkpoint.dtype(&want.name)?, dtype);
                    assert_eq!(got, made, "{} in {layout:?}", want.name);
                    bytes += got.len() as u64;
                }
                assert_eq!(checkpoint.bytes(), bytes);
                assert_eq!(checkpoint.warnings(), [""; 0]);
                let slices = match layout {
                    Layout::TensorParallel { slices } => *slices as usize,
                    _ => 1,
                };
                assert_eq!(checkpoint.slices(), slices);
            }
        }
    }
    Ok(())
}

#[test]
fn windows_of_rows_are_parts_of_the_whole() -> Outcome {
    let config = lopsided();
    let weights = Synthetic::new(&config, DType::BF16, 0)?;
    let files = write(&config, &weights, Layout::TensorParallel { slices: 4 });
    let checkpoint = open(&files, &config)?;
    for name in [
        "model.layers.1.block_sparse_moe.experts.2.w1.weight",
        "model.layers.1.block_sparse_moe.experts.2.w2.weight",
        "model.layers.0.pre_moe_norm.weight",
    ] {
        let rows = schema::tensors(&config)
            .into_iter()
            .find(|want| want.name == name)
            .map(|want| want.shape[0])
            .expect("in the schema");
        let all = read_all(&checkpoint, name, rows);
        let row_len = all.len() as u64 / rows;
        let mut got = vec![1, 2, 3];
        for row0 in 0..rows {
            for count in [0, 1, 2, 7, 12, 13, rows - row0] {
                if row0 + count > rows {
                    continue;
                }
                block_on(checkpoint.read_rows(name, row0, count, &mut got))?;
                let [from, to] =
                    [row0, row0 + count].map(|row| usize::try_from(row * row_len).expect("small"));
                assert_eq!(got, all[from..to], "{name} rows {row0} + {count}");
            }
        }
        for (row0, count) in [(rows, 1), (0, rows + 1), (u64::MAX, 1), (1, u64::MAX)] {
            let read = block_on(checkpoint.read_rows(name, row0, count, &mut got));
            assert!(matches!(read, Err(Error::Usage(_))), "{name} rows {row0} + {count}");
        }
    }
    assert!(matches!(checkpoint.dtype("nothing"), Err(Error::Usage(_))));
    Ok(())
}

#[test]
fn keyfan_names_are_known() -> Outcome {
    let config = preset("tiny-grok-1");
    let weights = Synthetic::new(&config, DType::F32, 0)?;
    let mut files = write(&config, &weights, Layout::Single);
    files.rename_tensors(|name| {
        name.replace("model.embed_tokens", "transformer.in_out_embed")
            .replace("model.norm", "transformer.rms_norm")
            .replace("model.layers.", "transformer.decoder_layer.")
            .replace("pre_attn_norm", "rms_norm")
            .replace("post_attn_norm", "rms_norm_1")
            .replace("pre_moe_norm", "rms_norm_2")
            .replace("post_moe_norm", "rms_norm_3")
            .replace("self_attn.q_proj", "multi_head_attention.query")
            .replace("self_attn.k_proj", "multi_head_attention.key")
            .replace("self_attn.v_proj", "multi_head_attention.value")
            .replace("self_attn.o_proj", "multi_head_attention.linear")
            .replace("block_sparse_moe.gate", "router")
            .replace("block_sparse_moe.experts", "moe")
            .replace("w1", "linear")
            .replace("w2", "linear_1")
            .replace("w3", "linear_v")
    });
    let checkpoint = open(&files, &config)?;
    for want in schema::tensors(&config) {
        assert_eq!(
            read_all(&checkpoint, &want.name, want.shape[0]),
            read_all(&weights, &want.name, want.shape[0])
        );
    }
    Ok(())
}

/// Every kind of mismatch, all reported at once.
#[test]
fn every_mismatch_is_told_at_once() -> Outcome {
    let config = lopsided();
    let mut files = write(&config, &Synthetic::new(&config, DType::BF16, 0)?, Layout::Single);
    files.edit_header("model.safetensors", |header| {
        let fields = header.as_object_mut().expect("an object");
        let q = &mut fields["model.layers.0.self_attn.q_proj.weight"]["shape"];
        assert_eq!(*q, serde_json::json!([32, 40]));
        *q = serde_json::json!([40, 32]);
        fields["model.norm.weight"]["dtype"] = "I16".into();
        let moved = fields.remove("model.layers.1.post_moe_norm.weight").expect("is there");
        fields.insert("model.layers.2.post_moe_norm.weight".into(), moved);
    });
    let told = problems(open(&files, &config));
    assert_eq!(
        told,
        [
            "unsupported dtype I16 for `model.norm.weight` in model.safetensors, wanted F32, F16 \
             or BF16",
            "`model.layers.0.self_attn.q_proj.weight` in model.safetensors has shape [40, 32], \
             wanted [32, 40] (it is transposed)",
            "`model.layers.1.post_moe_norm.weight` is missing (wanted [40])",
            "`model.layers.2.post_moe_norm.weight` in model.safetensors is not expected (BF16 \
             [40])",
        ]
    );
    Ok(())
}

/// More or fewer layers than the configuration says. The list of problems is cut, and the rest
/// counted.
#[test]
fn a_layer_too_many_or_too_few() -> Outcome {
    let config = lopsided();
    let weights = Synthetic::new(&config, DType::BF16, 0)?;
    let files = write(&config, &weights, Layout::Single);
    for (layers, word) in [(1, "unexpected"), (3, "missing")] {
        let other = config.clone().with_layers(layers);
        let told = problems(open(&files, &other));
        assert_eq!(told.len(), 11, "{told:#?}");
        // Four norms, four projections, a router, 3 x 3 in experts and 3 in the dense MLP.
        assert_eq!(told[10], format!("and 11 more {word} tensors"));
    }
    Ok(())
}

#[test]
fn a_tied_head_must_be_a_copy() -> Outcome {
    let tied = preset("tiny-grok-1");
    let mut untied = tied.clone();
    untied.ends.tied = false;
    let weights = Synthetic::new(&untied, DType::BF16, 0)?;
    let files = write(&untied, &weights, Layout::Single);
    open(&files, &untied)?;
    let told = problems(open(&files, &tied));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("set tie_word_embeddings to false"), "{told:?}");

    let files = write(&tied, &weights, Layout::Single);
    let told = problems(open(&files, &untied));
    assert_eq!(
        told,
        ["`lm_head.weight` is missing (wanted [256, 96], as tie_word_embeddings is false)"]
    );
    Ok(())
}

fn sliced(slices: u32) -> (Config, Files) {
    let config = lopsided();
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("a float type");
    let files = write(&config, &weights, Layout::TensorParallel { slices });
    (config, files)
}

/// Missing slices, the last ones included, and slices in any order.
#[test]
fn missing_slices_are_named() -> Outcome {
    let (config, files) = sliced(8);
    for gone in [vec![5], vec![7], vec![0, 1, 2, 3, 4, 5, 6], vec![1, 7]] {
        let mut files = files.clone();
        for rank in &gone {
            files.remove(&format!("pytorch_model-00007-TP-{rank:03}.safetensors"));
        }
        let wanted: Vec<String> = gone
            .iter()
            .map(|rank| {
                format!(
                    "tensor-parallel slice {rank} of 8 is missing \
                     (pytorch_model-00007-TP-{rank:03}.safetensors)"
                )
            })
            .collect();
        assert_eq!(problems(open(&files, &config)), wanted);
    }
    let mut shuffled = files.clone();
    shuffled.0.reverse();
    open(&shuffled, &config)?;
    Ok(())
}

/// A slice file copied under the name of another.
#[test]
fn equal_slices_are_noticed() {
    let (config, mut files) = sliced(4);
    let bytes = files.bytes("pytorch_model-00006-TP-001.safetensors").clone();
    *files.bytes("pytorch_model-00006-TP-002.safetensors") = bytes;
    assert_eq!(
        problems(open(&files, &config)),
        ["pytorch_model-00006-TP-001.safetensors and pytorch_model-00006-TP-002.safetensors hold \
          the same bytes, wanted different slices"]
    );
}

/// The same slice under two names, and a tensor that is both whole and cut.
#[test]
fn a_slice_in_two_files() {
    let (config, files) = sliced(4);
    let bytes = files.clone().bytes("pytorch_model-00006-TP-001.safetensors").clone();
    for name in
        ["pytorch_model-00030-TP-001.safetensors", "pytorch_model-00030-TP-common.safetensors"]
    {
        let mut files = files.clone();
        files.0.push((name.into(), bytes.clone()));
        let told = problems(open(&files, &config));
        assert!(told.len() >= 6, "{told:?}");
        for part in ["is stored twice", "in pytorch_model-00006-TP-00", name] {
            assert!(told[0].contains(part), "{told:?}");
        }
    }
}

/// Slices that do not divide the tensor, or differ in type or shape.
#[test]
fn slices_that_do_not_fit() {
    let (config, files) = sliced(4);
    let file = "pytorch_model-00006-TP-002.safetensors";
    let first = "model.layers.0.block_sparse_moe.experts.0.w1.weight";

    let mut odd = files.clone();
    odd.edit_header(file, |header| header[first]["dtype"] = "F16".into());
    let told = problems(open(&odd, &config));
    assert_eq!(
        told,
        [format!("`{first}` is BF16 in pytorch_model-00006-TP-000.safetensors, but F16 in {file}")]
    );

    let mut odd = files.clone();
    odd.edit_header(file, |header| header[first]["shape"] = serde_json::json!([6, 80]));
    let told = problems(open(&odd, &config));
    assert_eq!(
        told,
        [format!("slice 2 of `{first}` in {file} has shape [6, 80], but slice 0 has [12, 40]")]
    );

    let wider = config.with_widths(56, 56);
    let told = problems(open(&files, &wider));
    assert!(
        told[0].ends_with("has shape [12, 40], wanted equal parts of [56, 40] along axis 0"),
        "{told:?}"
    );
}

/// Slices cut along the other axis have a valid shape when the tensor is square.
#[test]
fn slices_of_the_wrong_axis() -> Outcome {
    let config = lopsided().with_widths(56, 40);
    let weights = Synthetic::new(&config, DType::F32, 0)?;
    let mut files = write(&config, &weights, Layout::TensorParallel { slices: 5 });
    for rank in 0..5 {
        files.edit_header(&format!("pytorch_model-00007-TP-{rank:03}.safetensors"), |header| {
            for (name, entry) in header.as_object_mut().expect("an object") {
                if name.ends_with("w2.weight") {
                    entry["shape"] = serde_json::json!([8, 40]);
                }
            }
        });
    }
    let told = problems(open(&files, &config));
    assert_eq!(told.len(), 6);
    assert!(told[0].contains("has shape [8, 40], wanted equal parts of [40, 40] along axis 1"));
    Ok(())
}

/// A tensor that is never cut may be in every slice file, but with equal bytes.
#[test]
fn copies_of_norms_must_agree() {
    let (config, mut files) = sliced(2);
    let name = "pytorch_model-00002-TP-common.safetensors";
    let bytes = files.bytes(name).clone();
    files.remove(name);
    for rank in 0..2 {
        files.0.push((format!("pytorch_model-00002-TP-{rank:03}.safetensors"), bytes.clone()));
    }
    open(&files, &config).expect("equal copies are fine");
    let last = files.bytes("pytorch_model-00002-TP-001.safetensors").last_mut();
    *last.expect("has data") ^= 1;
    assert_eq!(
        problems(open(&files, &config)),
        ["`model.norm.weight` in pytorch_model-00002-TP-000.safetensors and in \
          pytorch_model-00002-TP-001.safetensors differ, wanted equal copies"]
    );
}

fn indexed() -> (Config, Files) {
    let config = lopsided();
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("a float type");
    (config.clone(), write(&config, &weights, Layout::Indexed { shards: 4 }))
}

const INDEX: &str = "model.safetensors.index.json";

/// An index may not lead out of the folder.
#[test]
fn an_index_names_plain_files_only() {
    let (config, files) = indexed();
    for bad in ["/etc/passwd", "../../etc/passwd", "C:\\x.safetensors", "a\0.safetensors", "x/y"] {
        let mut files = files.clone();
        files.edit_json(INDEX, |index| {
            index["weight_map"]["model.norm.weight"] = bad.into();
        });
        let told = problems(open(&files, &config));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("for `model.norm.weight`"), "{told:?}");
        assert!(told[0].contains("wanted the plain name"), "{told:?}");
        assert!(!told[0].contains('\0'));
    }
    for bad in ["", "[]", "{}", "{\"weight_map\": 3}", "not json", "\u{feff}{}"] {
        let mut files = files.clone();
        *files.bytes(INDEX) = bad.as_bytes().to_vec();
        assert!(!problems(open(&files, &config)).is_empty());
    }
}

/// Files and tensors that are not where the index says.
#[test]
fn an_index_must_agree_with_the_files() -> Outcome {
    let (config, files) = indexed();
    let mut gone = files.clone();
    gone.remove("model-00002-of-00004.safetensors");
    gone.remove("model-00004-of-00004.safetensors");
    assert_eq!(
        problems(open(&gone, &config)),
        ["model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"]
            .map(|file| format!("{file} is missing ({INDEX} names it)"))
    );

    let mut moved = files.clone();
    moved.edit_json(INDEX, |index| {
        let map = index["weight_map"].as_object_mut().expect("an object");
        assert_eq!(map["model.embed_tokens.weight"], "model-00001-of-00004.safetensors");
        map["model.embed_tokens.weight"] = "model-00003-of-00004.safetensors".into();
        map.insert("more".into(), "model-00003-of-00004.safetensors".into());
        map.remove("model.norm.weight");
    });
    assert_eq!(
        problems(open(&moved, &config)),
        [
            format!(
                "`model.embed_tokens.weight` is not in model-00003-of-00004.safetensors, though \
                 {INDEX} says so"
            ),
            format!("`more` is not in model-00003-of-00004.safetensors, though {INDEX} says so"),
            format!(
                "`model.embed_tokens.weight` is in model-00001-of-00004.safetensors, but {INDEX} \
                 says model-00003-of-00004.safetensors"
            ),
            format!("`model.norm.weight` in model-00004-of-00004.safetensors is not in {INDEX}"),
        ]
    );

    let mut twice = files.clone();
    let text = String::from_utf8(twice.bytes(INDEX).clone())?;
    let text = text.replacen(
        "\"weight_map\": {",
        "\"weight_map\": {\"lm_head.weight\": \"model-00001-of-00004.safetensors\",",
        1,
    );
    *twice.bytes(INDEX) = text.into_bytes();
    let told = problems(open(&twice, &config));
    assert!(told[0].contains("duplicate field `lm_head.weight`"), "{told:?}");

    // A file that the index does not name is ignored.
    let mut extra = files.clone();
    extra.0.push(("other.safetensors".into(), b"nothing".to_vec()));
    open(&extra, &config)?;
    extra.0.push(("other.safetensors.index.json".into(), b"{}".to_vec()));
    assert!(problems(open(&extra, &config))[0].starts_with("more than one index: "));
    Ok(())
}

/// A wrong total size gives only a warning.
#[test]
fn a_wrong_total_size_is_a_warning() -> Outcome {
    let (config, mut files) = indexed();
    files.edit_json(INDEX, |index| index["metadata"]["total_size"] = 5.into());
    let checkpoint = open(&files, &config)?;
    assert_eq!(checkpoint.warnings().len(), 1);
    assert!(checkpoint.warnings()[0].contains("total_size is 5"));
    Ok(())
}

/// A tensor in two files without an index.
#[test]
fn merged_files_without_an_index() -> Outcome {
    let (config, mut files) = indexed();
    files.remove(INDEX);
    open(&files, &config)?;
    let bytes = files.bytes("model-00004-of-00004.safetensors").clone();
    files.0.push(("z.safetensors".into(), bytes));
    let told = problems(open(&files, &config));
    assert!(
        told.iter().any(|problem| problem
            == "`model.norm.weight` is stored twice: in model-00004-of-00004.safetensors and in \
                z.safetensors"),
        "{told:?}"
    );
    Ok(())
}

/// A source that fails leaves no weights behind.
#[test]
fn a_failed_read_leaves_nothing() -> Outcome {
    let (config, files) = sliced(4);
    let mut sources: Vec<Memory> = files.sources();
    let head = sources.iter_mut().find(|source| source.name.starts_with("pytorch_model-00001"));
    let head = head.expect("the file of lm_head");
    head.fail_from = Some(head.bytes.len() as u64 - 1);
    let checkpoint = block_on(Checkpoint::open(Path::new("m"), sources, &config))?;
    let mut bytes = vec![7; 10];
    let read = block_on(checkpoint.read_rows("lm_head.weight", 0, 70, &mut bytes));
    assert!(matches!(read, Err(Error::Io { .. })), "{read:?}");
    assert!(bytes.is_empty());
    block_on(checkpoint.read_rows("lm_head.weight", 0, 69, &mut bytes))?;
    assert_eq!(bytes.len(), 69 * 40 * 2);
    Ok(())
}

#[test]
fn layouts_that_do_not_suit_are_refused() -> Outcome {
    let config = lopsided();
    let weights = Synthetic::new(&config, DType::BF16, 0)?;
    for layout in [
        Layout::Grok1,
        Layout::TensorParallel { slices: 0 },
        Layout::TensorParallel { slices: 5 },
        Layout::Indexed { shards: 0 },
        Layout::Indexed { shards: 1000 },
    ] {
        let written = try_write(&config, &weights, layout);
        assert!(matches!(written, Err(Error::Usage(_))), "{layout:?}");
    }
    assert!(matches!(Synthetic::new(&config, DType::U32, 0), Err(Error::Usage(_))));
    Ok(())
}

/// The 39 released files at their real sizes: headers as they are, zeros for weights.
fn released() -> Vec<Memory> {
    const LAYER: &[(&str, &[u64])] = &[
        ("mlp.gate_proj", &[32_768, 8192]),
        ("mlp.down_proj", &[8192, 32_768]),
        ("mlp.up_proj", &[32_768, 8192]),
        ("w1", &[2048, 8192]),
        ("w2", &[8192, 2048]),
        ("w3", &[2048, 8192]),
        ("self_attn.k_proj", &[1024, 8192]),
        ("self_attn.o_proj", &[8192, 8192]),
        ("self_attn.q_proj", &[8192, 8192]),
        ("self_attn.v_proj", &[1024, 8192]),
        ("pre_attn_norm", &[8192]),
        ("post_attn_norm", &[8192]),
        ("pre_moe_norm", &[8192]),
        ("post_moe_norm", &[8192]),
        ("block_sparse_moe.gate", &[8, 8192]),
    ];
    let sparse = |name: String, tensors: &[String], shape: &[u64]| {
        let len = 2 * shape.iter().product::<u64>();
        let mut header = serde_json::Map::new();
        for (tensor, begin) in
            tensors.iter().zip((0..).step_by(usize::try_from(len).expect("small")))
        {
            let entry = serde_json::json!({
                "dtype": "BF16", "shape": shape, "data_offsets": [begin, begin + len],
            });
            header.insert(format!("{tensor}.weight"), entry);
        }
        let header = serde_json::Value::from(header).to_string();
        let bytes = file(header.as_bytes(), b"").as_slice().into();
        Memory { name, bytes, zeros: len * tensors.len() as u64, fail_from: None }
    };
    let mut files = Vec::new();
    for (number, (tensor, shape)) in [
        ("model.embed_tokens", &[131_072, 8192][..]),
        ("lm_head", &[131_072, 8192]),
        ("model.norm", &[8192]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("pytorch_model-{number:05}-TP-common.safetensors");
        files.push(sparse(name, &[tensor.into()], shape));
    }
    for (number, (tensor, shape)) in (3..).zip(LAYER) {
        let layers = (0..64).map(|layer| format!("model.layers.{layer}"));
        if !tensor.starts_with('w') {
            let name = format!("pytorch_model-{number:05}-TP-common.safetensors");
            let tensors: Vec<String> = layers.map(|layer| format!("{layer}.{tensor}")).collect();
            files.push(sparse(name, &tensors, shape));
            continue;
        }
        let tensors: Vec<String> = layers
            .flat_map(|layer| {
                (0..8).map(move |e| format!("{layer}.block_sparse_moe.experts.{e}.{tensor}"))
            })
            .collect();
        for rank in 0..8 {
            let name = format!("pytorch_model-{number:05}-TP-{rank:03}.safetensors");
            files.push(sparse(name, &tensors, shape));
        }
    }
    files
}

#[test]
fn the_released_layout_opens_at_full_size() -> Outcome {
    let config = preset("grok-2");
    let files = released();
    assert_eq!(files.len(), 39);
    let checkpoint = block_on(Checkpoint::open(Path::new("grok-2"), files, &config))?;
    assert_eq!(checkpoint.bytes(), 539_030_994_944);
    assert_eq!(checkpoint.slices(), 8);
    assert_eq!(checkpoint.tensors().count(), 64 * (4 + 4 + 1 + 3 + 24) + 3);
    let mut bytes = Vec::new();
    let name = "model.layers.63.block_sparse_moe.experts.7.w2.weight";
    block_on(checkpoint.read_rows(name, 8191, 1, &mut bytes))?;
    assert_eq!(bytes, vec![0; 2 * 16_384]);

    let mut files = released();
    files.retain(|file| file.name != "pytorch_model-00008-TP-007.safetensors");
    assert_eq!(
        problems(block_on(Checkpoint::open(Path::new("grok-2"), files, &config))),
        ["tensor-parallel slice 7 of 8 is missing (pytorch_model-00008-TP-007.safetensors)"]
    );
    Ok(())
}
