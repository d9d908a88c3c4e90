//! Writes the index of the packs and profiles that become part of the binary.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=patterns");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let mut packs = Vec::new();
    for pack in folders(&root.join("patterns/packs"))? {
        let files = [files(&pack)?, files(&pack.join("tests"))?].concat();
        packs.extend(files.iter().map(|file| format!("({:?}, {}),", name(&pack), entry(&root, file))));
    }
    let profiles = files(&root.join("patterns/profiles"))?;
    let profiles: Vec<String> = profiles.iter().map(|file| format!("({}),", entry(&root, file))).collect();
    let index = format!(
        "const PACKS: &[(&str, &str, &str)] = &[{}];\nconst PROFILES: &[(&str, &str)] = &[{}];\n",
        packs.concat(),
        profiles.concat()
    );
    fs::write(PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("builtin.rs"), index)
}

/// The path as shown and the text of a file, as Rust source.
fn entry(root: &Path, file: &Path) -> String {
    let shown = file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/");
    format!("{shown:?}, include_str!({:?})", file.to_string_lossy())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(path)?.into_iter().filter(|entry| entry.is_dir()).collect())
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(path)?.into_iter().filter(|entry| entry.extension().is_some_and(|e| e == "toml")).collect())
}

/// The entries of a folder by name; none where there is no folder.
fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}
