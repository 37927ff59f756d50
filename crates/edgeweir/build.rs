//! Lists the files of `demo/` for the quickstart to build in.

use std::{env, fmt::Write, fs, path::Path};

fn main() {
    let demo = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../demo");
    println!("cargo::rerun-if-changed={}", demo.display());
    let mut files = Vec::new();
    collect(&demo, "", &mut files);
    files.sort();
    let mut source = String::from("static ASSETS: &[(&str, &[u8])] = &[\n");
    for key in files {
        let path = demo.join(&key).canonicalize().expect("it was just listed");
        writeln!(
            source,
            "    ({key:?}, include_bytes!({:?})),",
            path.display().to_string()
        )
        .expect("strings grow");
    }
    source.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("assets.rs");
    fs::write(out, source).expect("the build folder is writable");
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("demo/ is part of the source") {
        let entry = entry.expect("demo/ is readable");
        let name = entry.file_name().into_string().expect("names are ASCII");
        let key = format!("{prefix}{name}");
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{key}/"), files);
        } else if !matches!(Path::new(&name).extension().and_then(|e| e.to_str()), Some("sh" | "md")) {
            files.push(key);
        }
    }
}
