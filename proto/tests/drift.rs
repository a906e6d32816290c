//! The checked-in protobuf code is what the `.proto` files say; `UPDATE_GOLDEN=1` rewrites it.
//!
//! The crate must compile for this to run: change the `.proto` file, rewrite, then use what is new.

use std::fs;
use std::path::Path;

use protox::Compiler;

const FILES: &[&str] = &["edgemesh/v1/message.proto", "edgemesh/v1/record.proto"];
const GENERATED: &str = "edgemesh.v1.rs";

/// The code for every file of the package, as one module.
fn generate(root: &Path) -> String {
    let mut compiler = Compiler::new([root.join("proto")]).expect("the proto folder is there");
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES).expect("the .proto files compile");
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    let requests = compiler
        .file_descriptor_set()
        .file
        .into_iter()
        .map(|file| (prost_build::Module::from_protobuf_package_name("edgemesh.v1"), file))
        .collect();
    let mut modules = config.generate(requests).expect("prost can say this in Rust");
    assert_eq!(modules.len(), 1, "one package, one module");
    let (_, code) = modules.drain().next().expect("counted above");
    code
}

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/gen").join(GENERATED);
    let fresh = generate(root);
    if is_set("UPDATE_GOLDEN") {
        fs::write(&checked_in, &fresh).expect("the generated file can be written");
    }
    let current = fs::read_to_string(&checked_in).unwrap_or_default();
    assert!(current == fresh, "src/gen/{GENERATED} is out of date: run `make golden`");
}

/// Whether the variable is set.
#[expect(clippy::disallowed_methods, reason = "the switch that golden-file tests share")]
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok()
}
