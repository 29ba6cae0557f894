//! Grok-1's first release: what Python wrote, the released sizes, and files that do not fit.

use std::{cell::Cell, fs, path::Path, rc::Rc};

use grok_wgpu::lab::{
    base::{error::Error, tensor::DType},
    checkpoint::{Checkpoint, ModelFiles, Release, Synthetic, folder, open},
    engine::{SessionOptions, session::Session},
    files::{Source, native::FileSource},
    machine::host::Host,
    model::{
        config::{Compat, Config},
        schema::{self, Kind, Part as Role},
        weights::Weights,
    },
    selftest::check_logits,
};
use pollster::block_on;

use crate::pickles::{Array, Part, Sparse, plain, quantized};

/// The files that `tests/data/make_release.py` wrote.
fn written() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/release/model"))
}

fn rows(weights: &impl Weights, name: &str, row0: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![1, 2, 3];
    block_on(weights.read_rows(name, row0, count, &mut bytes)).expect("rows");
    bytes
}

#[test]
fn what_python_wrote_has_the_bits_of_its_safetensors() {
    let release = block_on(folder::open(written())).expect("a release");
    let expected =
        block_on(folder::open(written().with_file_name("expected"))).expect("a checkpoint");
    assert!(matches!(*release.weights, ModelFiles::Release(_)));
    assert_eq!(release.config, expected.config);
    assert_eq!((release.warnings, expected.warnings), (Vec::new(), Vec::new()));
    let (release, expected) = (release.weights, expected.weights);
    assert_eq!(release.bytes(), expected.bytes());
    let found: Vec<_> = release.tensors().collect();
    assert_eq!(found, expected.tensors().collect::<Vec<_>>());
    for (name, _, shape) in found {
        let wanted = rows(&expected, name, 0, shape[0]);
        assert!(rows(&release, name, 0, shape[0]) == wanted, "{name}");
        // In other steps, and in another order.
        let row_bytes = wanted.len() / usize::try_from(shape[0]).expect("small");
        for (row0, count) in [(shape[0] - 3, 3), (0, 0), (1, 2), (shape[0] / 2, 2), (2, 1)] {
            let at = usize::try_from(row0).expect("small") * row_bytes;
            let wanted = &wanted[at..at + usize::try_from(count).expect("small") * row_bytes];
            assert!(rows(&release, name, row0, count) == wanted, "{name} {row0}");
        }
        for (row0, count) in [(shape[0], 1), (0, shape[0] + 1), (u64::MAX, 2)] {
            let mut bytes = Vec::new();
            let told = block_on(release.read_rows(name, row0, count, &mut bytes));
            assert!(matches!(told, Err(Error::Usage(_))), "{name} {row0}");
        }
    }
    assert!(matches!(release.dtype("model.layers.2.pre_attn_norm.weight"), Err(Error::Usage(_))));
}

/// Matrices of which only some rows are kept at a time.
#[test]
fn little_memory_gives_the_same_rows() {
    let expected = block_on(folder::open(written().with_file_name("expected"))).expect("good");
    let tensors = written().join("ckpt-0");
    for bytes in [1, 200, 1000, 5000] {
        let names = fs::read_dir(&tensors).expect("the tensors");
        let files: Vec<_> = names
            .map(|entry| FileSource::open(entry.expect("a file").path()).expect("a file"))
            .collect();
        let release =
            block_on(Release::open(&tensors, files, &expected.config)).expect("a release");
        let release = release.keep_at_most(bytes);
        for (name, _, shape) in expected.weights.tensors() {
            let wanted = rows(&expected.weights, name, 0, shape[0]);
            assert!(rows(&release, name, 0, shape[0]) == wanted, "{name} {bytes}");
        }
    }
}

#[test]
fn its_logits_are_those_of_the_program_in_f64() {
    let opened = block_on(folder::open(written())).expect("a release");
    let sizes = SessionOptions::new(64, 32, DType::F32);
    let mut session = block_on(Session::load(
        Host::default(),
        &opened.config,
        &opened.weights,
        sizes,
        &mut |_| Ok(()),
    ))
    .expect("loads");
    let golden = fs::read(written().with_file_name("golden.safetensors")).expect("a file");
    let worst = block_on(check_logits(&mut session, &golden)).expect("the same logits");
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn the_folder_its_tensors_or_one_of_them_name_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("ckpt-0")).expect("a folder");
    for entry in fs::read_dir(written().join("ckpt-0")).expect("the tensors") {
        let from = entry.expect("a file").path();
        fs::copy(&from, at("ckpt-0").join(from.file_name().expect("a name"))).expect("copied");
    }
    // Without a configuration it is Grok-1 itself, and these files are too small for that.
    for path in [at(""), at("ckpt-0"), at("ckpt-0/tensor00003_000")] {
        let error = block_on(folder::open(&path)).expect_err("other sizes");
        let told = error.to_string();
        assert!(matches!(error, Error::Checkpoint { .. }), "{told}");
        assert!(told.contains("tensor00026_000 is missing"), "{told}");
        assert!(told.contains("and 734 more missing files"), "{told}");
        assert!(told.contains("config.json"), "{told}");
    }
    fs::copy(written().join("config.json"), at("config.json")).expect("copied");
    fs::write(at("ckpt-0/README.md"), "not a tensor").expect("written");
    for path in [at(""), at("ckpt-0"), at("ckpt-0/tensor00003_000")] {
        let opened = block_on(folder::open(&path)).expect("a release");
        assert_eq!(opened.weights.sources().len(), 26);
        assert_eq!(folder::folder_of(&path), dir.path().join("").as_path());
        let (config, _) = block_on(folder::open_config(&path)).expect("a configuration");
        assert_eq!(config, opened.config);
    }
    // Tensors that lie beside their configuration.
    fs::rename(at("config.json"), at("ckpt-0/config.json")).expect("moved");
    fs::rename(at("ckpt-0"), at("flat")).expect("moved");
    block_on(folder::open(at("flat"))).expect("a release");
    // Other weights in the folder are the model.
    fs::rename(at("flat"), at("ckpt-0")).expect("moved");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(written().with_file_name("expected").join(name), at(name)).expect("copied");
    }
    let opened = block_on(folder::open(dir.path())).expect("a checkpoint");
    assert!(matches!(*opened.weights, ModelFiles::Safetensors(_)));
    // A folder of that name without tensors.
    fs::create_dir_all(at("other/ckpt-0")).expect("a folder");
    let told = block_on(folder::open(at("other"))).expect_err("nothing there").to_string();
    assert!(told.contains("holds no tensor00000_000"), "{told}");
}

/// The order of the tensors of a layer, each as stored.
const LAYER: [Role; 12] = [
    Role::ExpertGate,
    Role::ExpertDown,
    Role::ExpertUp,
    Role::K,
    Role::O,
    Role::Q,
    Role::V,
    Role::PreAttnNorm,
    Role::PostAttnNorm,
    Role::PreMoeNorm,
    Role::PostMoeNorm,
    Role::Router,
];

/// The files of a release with these tensors: what `make` says of each, and of its extents.
fn files(config: &Config, make: &dyn Fn(schema::Key, &[u64]) -> Vec<Part>) -> Vec<Sparse> {
    let mut keys = vec![schema::Key::new(0, Role::Embedding), schema::Key::new(0, Role::FinalNorm)];
    let mut layers: Vec<u32> = (0..).take(config.layers.len()).collect();
    layers.sort_by_key(|layer| format!("decoder_layer_{layer}/"));
    for layer in layers {
        keys.extend(LAYER.map(|part| schema::Key::new(layer, part)));
    }
    let read = Rc::new(Cell::new(0));
    let file = |(number, key): (usize, schema::Key)| {
        let mut shape = schema::shape(config, key);
        if shape.len() == 2 && key.part != Role::Embedding {
            shape.reverse();
        }
        if key.part.kind() == Kind::Expert {
            shape.insert(0, config.num_local_experts().into());
        }
        Sparse {
            name: format!("tensor{number:05}_000"),
            parts: make(key, &shape),
            read: read.clone(),
        }
    };
    keys.into_iter().enumerate().map(file).collect()
}

fn open_files(files: Vec<Sparse>, config: &Config) -> Result<Release<Sparse>, Error> {
    block_on(Release::open(Path::new("ckpt-0"), files, config))
}

#[test]
fn layers_are_in_the_order_of_their_names() {
    // More than ten layers, and no two extents alike.
    let mut config =
        Config::preset("tiny-grok-1").expect("a preset").with_layers(12).with_head_dim(8);
    config.hidden_size = 40;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.vocab_size = 70;
    let experts = config.experts.as_mut().expect("it has some");
    (experts.count, experts.width) = (3, 56);
    for (code, dtype) in [("f4", DType::F32), ("bfloat16", DType::BF16), ("f2", DType::F16)] {
        let weights = Synthetic::new(&config, dtype, 5).expect("weights");
        let make = |key: schema::Key, stored: &[u64]| {
            let shape = schema::shape(&config, key);
            let experts = if stored.len() == 3 { config.num_local_experts() } else { 1 };
            let mut data = Vec::new();
            for expert in 0..experts {
                let matrix = rows(&weights, &schema::Key { expert, ..key }.name(), 0, shape[0]);
                if stored == shape {
                    data.extend(matrix);
                    continue;
                }
                let [out, inner] = [shape[0], shape[1]].map(|n| usize::try_from(n).expect("small"));
                let size = matrix.len() / out / inner;
                for (col, row) in (0..inner).flat_map(|col| (0..out).map(move |row| (col, row))) {
                    let at = (row * inner + col) * size;
                    data.extend_from_slice(&matrix[at..at + size]);
                }
            }
            plain(&Array::new(code, stored, data))
        };
        let release = open_files(files(&config, &make), &config).expect("a release");
        assert_eq!(release.tensors().count(), schema::tensors(&config).len());
        for want in schema::tensors(&config) {
            assert_eq!(release.dtype(&want.name).expect("there"), dtype);
            let [got, wanted] = [
                rows(&release, &want.name, 0, want.shape[0]),
                rows(&weights, &want.name, 0, want.shape[0]),
            ];
            assert!(got == wanted, "{} {dtype}", want.name);
        }
    }
}

/// The file of a tensor of the release, all zeros.
fn as_released(key: schema::Key, shape: &[u64]) -> Vec<Part> {
    if !key.part.kind().is_large() || key.part == Role::Embedding {
        return plain(&Array::zeros("f4", shape));
    }
    let blocks = if matches!(key.part, Role::O | Role::ExpertDown) { 8 } else { 1 };
    let mut scales = shape.to_vec();
    scales[shape.len() - 2] = blocks;
    quantized("__main__", &Array::zeros("i1", shape), &Array::zeros("bfloat16", &scales))
}

/// The lengths of the released files are public. Files of these shapes, types and names have
/// exactly those.
#[test]
fn files_of_these_shapes_have_the_released_lengths() {
    let config = Config::preset("grok-1").expect("a preset");
    let files = files(&config, &as_released);
    assert_eq!(files.len(), 770);
    let lens: Vec<u64> = files.iter().map(Source::len).collect();
    assert_eq!(lens[..2], [3_221_225_637, 24_727]);
    for layer in lens[2..].chunks(12) {
        assert_eq!(
            layer,
            [
                1_611_137_347,
                1_611_399_491,
                1_611_137_347,
                6_293_814,
                37_847_359,
                37_761_334,
                6_293_814,
                24_727,
                24_727,
                24_727,
                24_727,
                196_770,
            ]
        );
    }
    let read = files[0].read.clone();
    let release = open_files(files, &config).expect("Grok-1 fits");
    let wanted = schema::tensors(&config);
    assert_eq!(release.tensors().count(), wanted.len());
    // Only heads are read.
    assert!(read.get() < 3 << 20, "{}", read.get());
    // An expert's matrix is read once for all of its rows.
    let name = "model.layers.63.block_sparse_moe.experts.7.w2.weight";
    let before = read.get();
    for row in (0..6144).step_by(512) {
        assert_eq!(rows(&release, name, row, 64).len(), 64 * 2 * 32_768);
    }
    assert!(read.get() - before < 210 << 20, "{}", read.get() - before);
}

/// A release of one layer, with one file changed.
fn changed(number: usize, parts: Vec<Part>) -> String {
    let config = Config::preset("tiny-grok-1").expect("a preset").with_layers(1);
    let mut files = files(&config, &as_released);
    files[number].parts = parts;
    open_files(files, &config).expect_err("a file does not fit").to_string()
}

#[test]
fn tensors_that_do_not_fit_are_told() {
    let config = Config::preset("tiny-grok-1").expect("a preset").with_layers(1);
    let hidden = u64::from(config.hidden_size);
    let experts = u64::from(config.num_local_experts());
    let width = u64::from(config.moe_intermediate_size());
    let gate = [experts, hidden, width];
    let [i1, f4, bf16] = [
        |shape: &[u64]| Array::zeros("i1", shape),
        |shape: &[u64]| Array::zeros("f4", shape),
        |shape: &[u64]| Array::zeros("bfloat16", shape),
    ];
    open_files(files(&config, &as_released), &config).expect("nothing is changed");
    for (number, parts, told) in [
        // The embedding table turned, and quantized.
        (0, plain(&f4(&[hidden, config.vocab_size.into()])), "shape ["),
        (0, plain(&i1(&[config.vocab_size.into(), hidden])), "int8 without scales"),
        (1, quantized("model", &i1(&[hidden]), &bf16(&[1])), "wanted an array of floats"),
        (1, plain(&f4(&[hidden, 1])), "shape ["),
        (1, plain(&f4(&[])), "shape [], wanted ["),
        // Up and down projections in each other's place.
        (
            2,
            as_released(schema::Key::new(0, Role::ExpertDown), &[experts, width, hidden]),
            "scales",
        ),
        (2, plain(&f4(&[experts, width, hidden])), "shape ["),
        (2, quantized("__main__", &i1(&gate), &bf16(&[experts, 8, width])), "scales have shape ["),
        (2, quantized("__main__", &i1(&gate), &bf16(&[experts, width])), "scales have shape ["),
        (2, quantized("__main__", &i1(&gate), &f4(&[experts, 1, width])), "scales in float32"),
        (2, quantized("__main__", &bf16(&gate), &i1(&[experts, 1, width])), "weights are bfloat16"),
        (13, plain(&f4(&[experts, hidden])), "router/w"),
        (
            13,
            vec![Part::Bytes(b"version https://git-lfs.github.com/spec/v1".as_slice().into())],
            "git lfs pull",
        ),
        (13, vec![], "the file is empty"),
    ] {
        let error = changed(number, parts);
        assert!(error.contains(told), "{told}: {error}");
        assert!(error.contains(&format!("tensor{number:05}_000 (")), "{error}");
    }
}

#[test]
fn files_that_are_missing_or_too_many_are_told() {
    let config = Config::preset("tiny-grok-1").expect("a preset").with_layers(1);
    let all = || files(&config, &as_released);
    let told = |files: Vec<Sparse>| open_files(files, &config).expect_err("no").to_string();

    let mut fewer = all();
    fewer.remove(13);
    fewer.remove(5);
    let text = told(fewer);
    assert!(text.contains("tensor00005_000 is missing"), "{text}");
    assert!(text.contains("tensor00013_000 is missing"), "{text}");

    let renamed = |name: &str| {
        let mut more = all();
        let read = more[0].read.clone();
        more.push(Sparse { name: name.into(), parts: Vec::new(), read });
        more
    };
    let text = told(renamed("tensor00014_000"));
    assert!(text.contains("tensor00014_000 is one too many: the configuration has 14"), "{text}");
    let text = told(renamed("tensor00003_001"));
    assert!(text.contains("tensor00003_001 is shard 1"), "{text}");
    for other in ["tensor00003_000.part", "tensor3_0", "tensor+0003_000", "README.md", "x"] {
        open_files(renamed(other), &config).expect("other files are left out");
    }
}

#[test]
fn configurations_of_other_models_are_told() {
    for change in [
        (|config: &mut Config| config.layers[0].dense = Some(64)) as fn(&mut Config),
        |config: &mut Config| config.layers[0].routed = false,
        |config: &mut Config| config.ends.tied = false,
    ] {
        let mut config = Config::preset("tiny-grok-1").expect("a preset").with_layers(1);
        let all = files(&config, &as_released);
        change(&mut config);
        let error = open_files(all, &config).expect_err("another model");
        let told = error.to_string();
        assert!(matches!(error, Error::Checkpoint { .. } | Error::Config { .. }), "{told}");
        if let Error::Checkpoint { .. } = error {
            assert!(told.contains("config.json is of another model"), "{told}");
        }
    }
    // Eight blocks need rows that eight divides.
    let mut config = Config::preset("tiny-grok-1").expect("a preset").with_layers(1);
    config.experts.as_mut().expect("it has some").width = 60;
    if config.problems().is_empty() {
        let told = open_files(files(&config, &as_released), &config).expect_err("60 rows");
        assert!(told.to_string().contains("equal blocks of rows"), "{told}");
    }
}

/// Files in a list, as a page has them.
#[test]
fn a_list_of_files_is_a_release_too() {
    let config = Config::preset("grok-1").expect("a preset");
    let open = |files: Vec<Sparse>| {
        block_on(open::open(Path::new("dropped"), files, Compat::Reference)).expect("a release")
    };
    let opened = open(files(&config, &as_released));
    assert_eq!(opened.config, config);
    assert!(matches!(*opened.weights, ModelFiles::Release(_)));
    let told = block_on(opened.tokenizer()).err().expect("there is none");
    assert!(matches!(told, Error::Tokenizer { .. }), "{told}");
}

/// Quantization of the release and of the checkpoint with the same weights gives the same copy.
#[test]
fn its_quantized_copy_is_that_of_the_same_weights() {
    use grok_wgpu::lab::checkpoint::{quantize::Quantize, requantize::Choices, write::Layout};

    let dir = tempfile::tempdir().expect("a folder");
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        let opened = block_on(folder::open(from)).expect("a model");
        let (choices, layout) = (Choices::of(DType::Q4), Layout::Single);
        Quantize { from: folder::folder_of(from), to: &to, choices, layout, importance: None }
            .run(&opened.config, &opened.weights, &mut |_| Ok(()))
            .expect("quantized");
        ["model.safetensors", "config.json"]
            .map(|name| fs::read(to.join(name)).expect("it was written"))
    };
    let wanted = copy(&written().with_file_name("expected"), "a");
    assert!(copy(&written().join("ckpt-0"), "b") == wanted);
    let config = block_on(folder::open_config(&dir.path().join("b"))).expect("a config").0;
    let files = folder::open_folder(&dir.path().join("b")).expect("files");
    block_on(Checkpoint::open(dir.path(), files, &config)).expect("a checkpoint");
}
