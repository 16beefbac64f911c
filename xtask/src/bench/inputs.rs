//! Files that workloads read: written on the host before the first round, removed at the end.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two folders of one run of the bench: inputs, and a scratch folder in memory where the host has one.
pub struct Folders {
    pub inputs: PathBuf,
    pub scratch: PathBuf,
}

impl Folders {
    pub fn create(is_quick: bool) -> io::Result<Self> {
        let name = format!("sandbox-bench-{}", std::process::id());
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folders = Self {
            inputs: std::env::temp_dir().join(&name),
            scratch: memory.join(format!("{name}-scratch")),
        };
        fs::create_dir(&folders.inputs)?;
        fs::create_dir(&folders.scratch)?;
        let (functions, transactions) = if is_quick { (30, 100) } else { (120, 1000) };
        fs::write(folders.inputs.join("middle.c"), middle_sized_source(functions))?;
        fs::write(folders.inputs.join("transactions.sql"), transactions_script(transactions))?;
        make_project(&folders.inputs.join("make"), if is_quick { 4 } else { 20 })?;
        let packages: &[&str] =
            if is_quick { &["json"] } else { &["json", "email", "http", "xml"] };
        copy_library(&folders.inputs.join("library"), packages)?;
        Ok(folders)
    }

    /// Takes away what a program left in the scratch folder.
    pub fn empty_scratch(&self) {
        for entry in fs::read_dir(&self.scratch).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.inputs);
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// One C file that keeps an optimising compiler busy for about a second.
fn middle_sized_source(functions: usize) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n");
    for n in 0..functions {
        let _ = write!(
            text,
            "unsigned work_{n}(const unsigned *v, size_t count, char *out) {{\n\
             \tunsigned sum = {n};\n\
             \tfor (size_t i = 0; i < count; i++) {{\n\
             \t\tswitch (v[i] % 5) {{\n\
             \t\tcase 0: sum += v[i] * {n}; break;\n\
             \t\tcase 1: sum ^= v[i] << {}; break;\n\
             \t\tcase 2: sum -= v[i] / {}; break;\n\
             \t\tdefault: sum = sum * 31 + v[i]; break;\n\
             \t\t}}\n\
             \t}}\n\
             \tsnprintf(out, 32, \"{n}: %u\", sum);\n\
             \treturn sum + (unsigned)strlen(out);\n\
             }}\n\n",
            n % 13 + 1,
            n % 7 + 2,
        );
    }
    text
}

/// Every statement is a transaction of its own.
fn transactions_script(count: usize) -> String {
    let mut text = String::from(
        "pragma synchronous=off;\ncreate table entries (id integer primary key, text text);\n",
    );
    for n in 0..count {
        let _ = writeln!(text, "insert into entries values ({n}, 'the text of entry {n}');");
    }
    text.push_str("select count(*), sum(id), max(length(text)) from entries;\n");
    text
}

/// Small C files, a header they share, and a Makefile that builds them into one program.
fn make_project(folder: &Path, units: usize) -> io::Result<()> {
    fs::create_dir(folder)?;
    let mut header = String::from("#include <stdio.h>\n#include <string.h>\n");
    let mut main = String::from("#include \"all.h\"\nint main(void) {\n\tint sum = 0;\n");
    for n in 0..units {
        let _ = writeln!(header, "int unit_{n}(int);");
        let _ = writeln!(main, "\tsum += unit_{n}({n});");
        let text = format!("#include \"all.h\"\nint unit_{n}(int x) {{ return x * {n} + 1; }}\n");
        fs::write(folder.join(format!("unit_{n}.c")), text)?;
    }
    main.push_str("\tprintf(\"%d\\n\", sum);\n\treturn 0;\n}\n");
    fs::write(folder.join("all.h"), header)?;
    fs::write(folder.join("main.c"), main)?;
    let makefile = "OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\n\
                    program: $(OBJECTS)\n\tgcc -o $@ $^\n\
                    %.o: %.c all.h\n\tgcc -O1 -c -o $@ $<\n";
    fs::write(folder.join("Makefile"), makefile)
}

/// Packages of Python's own library, without what was compiled of them. No Python, no copy.
fn copy_library(folder: &Path, packages: &[&str]) -> io::Result<()> {
    fs::create_dir(folder)?;
    let ask = ["-c", "import os; print(os.path.dirname(os.__file__), end='')"];
    let Ok(answer) = Command::new("/usr/bin/python3").args(ask).output() else { return Ok(()) };
    let library = PathBuf::from(String::from_utf8_lossy(&answer.stdout).into_owned());
    packages.iter().try_for_each(|name| copy_sources(&library.join(name), &folder.join(name)))
}

fn copy_sources(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() && entry.file_name() != "__pycache__" {
            copy_sources(&path, &target)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
