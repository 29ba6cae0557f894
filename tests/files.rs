//! Atomic replacement of files.

use std::fs;

use grok_wgpu::lab::{
    base::error::Error,
    files::replace::{replace_file, set_aside},
};
use tempfile::tempdir;

#[test]
fn a_file_is_replaced_and_nothing_else_is_left() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("kept.json");
    for text in ["one", "another that is longer", ""] {
        replace_file(&path, text.as_bytes()).expect("room");
        assert_eq!(fs::read_to_string(&path).expect("a file"), text);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_keeps_leading_to_the_file() {
    let folder = tempdir().expect("a folder");
    let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
    fs::write(&file, "before").expect("room");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    replace_file(&link, b"after").expect("room");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "after");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
}

#[test]
fn what_cannot_be_written_is_named_and_stays() {
    let folder = tempdir().expect("a folder");
    let missing = folder.path().join("missing/file");
    for path in [folder.path(), &missing] {
        match replace_file(path, b"text") {
            Err(Error::Io { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_file_is_set_aside_with_its_bytes() {
    let folder = tempdir().expect("a folder");
    let file = folder.path().join("history");
    fs::write(&file, b"\xff").expect("written");
    let aside = set_aside(&file).expect("renamed");
    assert_eq!((fs::read(&aside).expect("there"), file.exists()), (vec![0xff], false));
    assert!(set_aside(&file).is_err(), "it is gone");
}
