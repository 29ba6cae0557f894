//! Real files: folders, links, pipes, and files that change.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use grok_wgpu::lab::{
    base::{error::Error, tensor::DType},
    checkpoint::{
        Checkpoint, Synthetic,
        folder::{open_config, open_folder, open_model, write_checkpoint},
        write::Layout,
    },
    files::{Source, native::FileSource},
    model::{
        config::{Compat, Config},
        schema,
    },
};
use pollster::block_on;

use crate::memory::read_all;

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

pub(crate) fn tiny() -> (Config, Synthetic) {
    let config = Config::preset("tiny").expect("a preset");
    let weights = Synthetic::new(&config, DType::BF16, 0).expect("a float type");
    (config, weights)
}

#[test]
fn a_folder_is_written_and_read() -> Outcome {
    let (config, weights) = tiny();
    for (layout, files) in [
        (Layout::Single, 1),
        (Layout::Indexed { shards: 3 }, 4),
        (Layout::TensorParallel { slices: 8 }, 15 + 24),
    ] {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("made/here");
        block_on(write_checkpoint(&dir, &config, &weights, layout))?;
        assert_eq!(block_on(open_config(&dir))?, (config.clone(), Vec::new()));
        assert_eq!(block_on(open_config(&dir.join("config.json")))?.0, config);
        let sources = open_folder(&dir)?;
        assert_eq!(sources.len(), files);
        assert_eq!(fs::read_dir(&dir)?.count(), files + 1, "no temporary file is left");
        let checkpoint = block_on(Checkpoint::open(&dir, sources, &config))?;
        for want in schema::tensors(&config) {
            assert_eq!(
                read_all(&checkpoint, &want.name, want.shape[0]),
                read_all(&weights, &want.name, want.shape[0])
            );
        }
    }
    Ok(())
}

#[test]
fn one_file_is_a_checkpoint() -> Outcome {
    let (config, weights) = tiny();
    let folder = tempfile::tempdir()?;
    block_on(write_checkpoint(folder.path(), &config, &weights, Layout::Single))?;
    let path = folder.path().join("model.safetensors");
    assert_eq!(block_on(open_config(&path))?.0, config);
    block_on(Checkpoint::open(&path, open_folder(&path)?, &config))?;

    fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n")?;
    let error = block_on(Checkpoint::open(&path, open_folder(&path)?, &config))
        .expect_err("a pointer is no checkpoint");
    assert!(error.to_string().starts_with(&format!("{}: this is a Git LFS", path.display())));
    Ok(())
}

#[test]
fn folders_without_weights() -> Outcome {
    let folder = tempfile::tempdir()?;
    assert!(matches!(open_folder(&folder.path().join("no")), Err(Error::Io { .. })));
    let error = block_on(open_config(folder.path())).expect_err("nothing to read");
    assert!(error.to_string().contains("no config.json and no GGUF file"), "{error}");
    fs::write(folder.path().join("model.bin"), b"")?;
    fs::write(folder.path().join(".hidden.safetensors"), b"")?;
    let error = open_folder(folder.path()).expect_err("nothing to read");
    assert!(error.to_string().ends_with("the folder holds no *.safetensors file"), "{error}");
    Ok(())
}

/// Models in formats that are not read, by what the files begin with.
#[test]
fn other_models_are_told() -> Outcome {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let (config, weights) = tiny();
    for (name, bytes, told) in [
        ("pytorch_model.bin", &b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl"[..], "a PyTorch file"),
        (
            "consolidated.00.pth",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "an old PyTorch file",
        ),
        ("weights", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00", "a Python pickle"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:", "an ONNX model"),
        ("flax.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ] {
        fs::write(at(name), bytes)?;
        fs::write(at("README.md"), "{}")?;
        for with_config in [false, true] {
            if with_config {
                fs::write(at("config.json"), config.to_json())?;
            }
            for path in [folder.path().to_owned(), at(name)] {
                let error = block_on(open_model(&path, Compat::Reference)).expect_err("not read");
                let text = error.to_string();
                assert_eq!(error.code(), "format", "{text}");
                assert!(text.starts_with(&format!("{}: this is ", at(name).display())), "{text}");
                assert!(text.contains(told), "{text}");
            }
        }
        fs::remove_file(at("config.json"))?;
        fs::remove_file(at(name))?;
    }
    // A page in place of a file is told where the user names it; beside a model nothing is told.
    fs::write(at("page"), "<!DOCTYPE html>")?;
    let error = block_on(open_model(&at("page"), Compat::Reference)).expect_err("a page");
    assert!(error.to_string().contains("an HTML page"), "{error}");
    block_on(write_checkpoint(folder.path(), &config, &weights, Layout::Single))?;
    fs::write(at("pytorch_model.bin"), b"PK\x03\x04archive/data.pkl")?;
    block_on(open_model(folder.path(), Compat::Reference))?;
    Ok(())
}

/// Anything but a regular file is refused at once.
#[cfg(unix)]
#[test]
fn only_regular_files() -> Outcome {
    use std::os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener};

    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    symlink("loop", at("loop"))?;
    symlink("nowhere", at("dangling"))?;
    symlink("/dev/zero", at("zero.safetensors"))?;
    fs::create_dir(at("folder.safetensors"))?;
    let _socket = UnixListener::bind(at("socket"))?;
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status()?;
    assert!(made.success());
    for name in
        ["loop", "dangling", "zero.safetensors", "folder.safetensors", "socket", "pipe", "absent"]
    {
        let error = FileSource::open(at(name)).expect_err(name);
        assert!(matches!(error, Error::Io { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    for name in [&b"nul\0name"[..], b"bytes\xff.safetensors"] {
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        assert!(FileSource::open(path).is_err());
    }
    assert!(open_folder(folder.path()).is_err());
    assert!(block_on(open_config(&at("pipe.json"))).is_err());

    fs::write(at("real"), b"0123456789")?;
    symlink("real", at("link.safetensors"))?;
    let source = FileSource::open(at("link.safetensors"))?;
    assert_eq!((source.name(), source.len()), ("link.safetensors", 10));
    Ok(())
}

/// A file that is shortened, or grows, between opening and reading.
#[test]
fn files_that_change() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.safetensors");
    fs::write(&path, [7; 100])?;
    let source = FileSource::open(&path)?;
    let mut bytes = [0; 10];
    block_on(source.read(90, &mut bytes))?;
    assert_eq!(bytes, [7; 10]);
    for (offset, len) in [(91, 10), (100, 1), (u64::from(u32::MAX), 1)] {
        let error = block_on(source.read(offset, &mut bytes[..len])).expect_err("beyond the end");
        let told = error.to_string();
        let part = format!("reading {len} bytes at offset {offset}: the file ends before that");
        assert!(told.contains(&part) && told.contains("a.safetensors"), "{told}");
    }

    fs::OpenOptions::new().write(true).open(&path)?.set_len(95)?;
    let told = block_on(source.read(90, &mut bytes)).expect_err("shortened").to_string();
    assert!(told.contains("the file ends before that; it had 100 bytes when opened"), "{told}");
    let told = block_on(source.read(0, &mut bytes)).expect_err("shortened").to_string();
    assert!(told.contains("the file's length went from 100 to 95 bytes"), "{told}");
    fs::OpenOptions::new().write(true).open(&path)?.set_len(101)?;
    assert!(block_on(source.read(0, &mut bytes)).is_err());

    // As a download does that first takes the room and then fills it.
    let source = FileSource::open(&path)?;
    block_on(source.read(0, &mut bytes))?;
    let later = source_time(&path)? + Duration::from_secs(1);
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    file.set_modified(later)?;
    let told = block_on(source.read(0, &mut bytes)).expect_err("written to").to_string();
    assert!(told.contains("the file was written to since it was opened"), "{told}");
    Ok(())
}

fn source_time(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// Editors of Windows put a byte order mark before UTF-8.
#[test]
fn byte_order_marks_are_no_part_of_a_file() -> Outcome {
    let (config, weights) = tiny();
    let folder = tempfile::tempdir()?;
    block_on(write_checkpoint(folder.path(), &config, &weights, Layout::Indexed { shards: 2 }))?;
    for name in ["config.json", "model.safetensors.index.json"] {
        let path = folder.path().join(name);
        let marked = [b"\xef\xbb\xbf".to_vec(), fs::read(&path)?].concat();
        fs::write(&path, marked)?;
    }
    assert_eq!(block_on(open_config(folder.path()))?.0, config);
    block_on(Checkpoint::open(folder.path(), open_folder(folder.path())?, &config))?;
    Ok(())
}

/// A `config.json` that is too large is not read.
#[test]
fn a_large_config_is_not_read() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.json");
    fs::File::create(&path)?.set_len(200 << 20)?;
    let told = block_on(open_config(folder.path())).expect_err("too large").to_string();
    assert!(told.contains("209715200 bytes are more than"), "{told}");
    fs::write(&path, b"{\"a\": \"\xff\"}")?;
    let told = block_on(open_config(folder.path())).expect_err("not text").to_string();
    assert!(told.ends_with("not UTF-8 text: the byte at 7 is wrong"), "{told}");
    Ok(())
}
