//! Builds the shim, the blob that runs inside every guest process, with one call of rustc.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the blob is linked; `shim_abi::SHIM_BASE` says the same.
const SHIM_BASE: &str = "0x7e0000010000";

fn main() {
    let here = PathBuf::from(env("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env("OUT_DIR")).join("shim.elf");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", here.join("shim/src").display());
    println!("cargo::rerun-if-changed={}", here.join("shim-abi/src").display());
    println!("cargo::rerun-if-env-changed=RUSTC");
    build(&here.join("shim/src/main.rs"), &out);
    println!("cargo::rustc-env=SHIM_ELF={}", out.display());
}

/// Position-independent code (absolute 32-bit addresses would not reach so high), linked at a fixed address.
fn build(source: &Path, out: &Path) {
    let mut command = Command::new(env("RUSTC"));
    command
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "shim"])
        .args(["--target", &env("TARGET")])
        .args([
            "-C",
            "opt-level=3",
            "-C",
            "panic=abort",
            "-C",
            "debuginfo=0",
            "-C",
            "strip=symbols",
        ])
        .args(["-C", "relocation-model=pic", "-C", "codegen-units=1", "-C", "overflow-checks=off"])
        .args(["-C", "target-feature=+crt-static", "-C", "force-unwind-tables=no"]);
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
        "-Wl,--no-eh-frame-hdr",
    ] {
        command.args(["-C", &format!("link-arg={arg}")]);
    }
    command.args(["-C", &format!("link-arg=-Wl,--image-base={SHIM_BASE}")]);
    command.arg("-o").arg(out).arg(source);
    let status = command.status().expect("rustc can be started");
    assert!(status.success(), "the shim does not build: {command:?}");
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
