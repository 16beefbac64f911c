//! The sandbox from outside: the same commands natively and in it.
//!
//! | module | what |
//! | --- | --- |
//! | `shell` | shell tools, pipelines, the shell's own machinery |
//! | `system` | what programs learn about the system and themselves |
//! | `layers` | the same with layers of the platform left out |
//! | `languages` | interpreters, compilers, tools that developers use |
//! | `options` | the command's options |
//! | `bad_input` | what cannot be run |
//! | `dying` | killed parts, signals, time limits |
//! | `isolation` | the host stays as it was |
//! | `terminal` | job control and sizes on a real terminal |
//! | `streams` | long streams through pipes |
//! | `torture` | many threads, many processes, faults, vector state |
//! | `conformance` | the guest programs of `tests/conformance` |

mod bad_input;
mod conformance;
mod dying;
mod isolation;
mod languages;
mod layers;
mod lent_reads;
mod options;
mod ready_names;
mod shell;
mod streams;
mod system;
mod terminal;
mod torture;
