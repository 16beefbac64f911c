//! The test harness: run the same command natively and in the sandbox, and compare.
//!
//! ```ignore
//! same_as_native! {
//!     echo_prints_its_arguments => sh("echo hello");
//! }
//! ```
//!
//! makes two tests: one as the caller, one as an ordinary user. Each has a directory of its own, runs the sandbox
//! first (which must leave that directory as it was) and then the host's kernel, and compares standard output,
//! standard error and exit code. What fails prints command, directory and all streams.
//!
//! Variables: `SANDBOX_BIN` names the command to test; `SANDBOX_TESTS_NATIVE=1` runs both sides natively, to
//! check the tests themselves.
//!
//! | module | what |
//! | --- | --- |
//! | `case` | a command with its files, input and options; the comparison |
//! | `names` | a tree of files whose bytes follow from their names |
//! | `processes` | looking at others through /proc |
//! | `run` | processes with a time limit |
//! | `scratch` | directories of their own; what changed in them |
//! | `binaries` | where the things under test are |

pub mod binaries;
pub mod case;
pub mod names;
pub mod processes;
pub mod run;
pub mod scratch;

pub use case::{Case, Who, program, sh};
pub use run::Output;

/// Tests that a command behaves in the sandbox as it does natively, as the caller and as an ordinary user.
/// The expression is a [`Case`].
#[macro_export]
macro_rules! same_as_native {
    ($($(#[$meta:meta])* $name:ident => $case:expr;)*) => {
        $(
            $(#[$meta])*
            mod $name {
                #[expect(unused_imports, reason = "a case needs but some of them")]
                use super::*;

                #[test]
                fn as_caller() {
                    $case.by($crate::Who::Caller).assert_same();
                }

                #[test]
                fn as_ordinary_user() {
                    $case.by($crate::Who::OrdinaryUser).assert_same();
                }
            }
        )*
    };
}
