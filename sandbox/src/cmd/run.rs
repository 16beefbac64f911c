//! `sandbox run`: one program, here and now.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::launch::{self, plan};

/// Runs a program in a sandbox of its own.
///
/// The program starts in the current directory with the caller's environment, user, standard streams and terminal.
/// It sees the host's files; its writes stay in memory and vanish. It has no network but loopback.
///
/// Exit code: the program's own; 128+N when signal N killed it; 124 after --timeout; 125 when the sandbox itself
/// failed; 126 when PROGRAM cannot be executed; 127 when it was not found.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  sandbox run /bin/echo hello\n  \
    sandbox run --memory 512M --timeout 60 --write out -- make -j2\n  \
    sandbox run --strace=calls.txt -- python3 script.py")]
pub struct Args {
    /// Most memory the program may use, in bytes or with a suffix K, M, G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Most processes and threads at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Option<u32>,
    /// Kill the program after so many seconds (fractions allowed); the exit code is 124 then
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub timeout: Option<Duration>,
    /// Set a variable, or pass on only the named ones; without it, all of the caller's environment is passed on
    #[arg(long, value_name = "K=V|K", action = clap::ArgAction::Append)]
    pub env: Vec<OsString>,
    /// Directory to start in [default: the current one; / with --rootfs]
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User to run as, inside the sandbox [default: the caller]
    #[arg(long, value_name = "UID[:GID]|NAME")]
    pub user: Option<String>,
    /// Let the program change this host file or directory (repeatable)
    #[arg(long, value_name = "PATH", action = clap::ArgAction::Append)]
    pub write: Vec<PathBuf>,
    /// Show a host file or directory at another place, writable unless :ro (repeatable)
    #[arg(long, value_name = "SRC:DST[:ro]", action = clap::ArgAction::Append)]
    pub mount: Vec<OsString>,
    /// Directory to use as / instead of the host's
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Name the program sees as its host's [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Print every system call of the program, to standard error or to FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "absent, bare and with a file are three things")]
    pub strace: Option<Option<PathBuf>>,
    /// How to run guest code: "seccomp", without layers of it for measuring and finding faults
    #[arg(
        long,
        value_name = "NAME[,no-rewrite][,no-answer][,no-spin]",
        default_value = "seccomp",
        value_parser = parse_platform
    )]
    pub platform: PlatformChoice,
    /// Print how many calls were made and how they came, to standard error, at the end
    #[arg(long)]
    pub stats: bool,
    /// Log what the sandbox does (-v) or everything it does (-vv)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The program, a path or a name in PATH, and its arguments
    #[arg(
        value_names = ["PROGRAM", "ARGS"],
        required = true,
        trailing_var_arg = true
    )]
    pub command: Vec<OsString>,
}

/// What `--platform` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlatformChoice {
    /// Call sites may be rewritten.
    pub rewrite: bool,
    /// Guest processes may answer calls whose answer they know.
    pub answer: bool,
    /// Workers may look at channels instead of sleeping.
    pub spin: bool,
}

fn parse_platform(text: &str) -> Result<PlatformChoice, String> {
    let mut words = text.split(',');
    if words.next() != Some("seccomp") {
        return Err("the one platform so far is \"seccomp\"".to_owned());
    }
    let mut choice = PlatformChoice { rewrite: true, answer: true, spin: true };
    for word in words {
        match word {
            "no-rewrite" => choice.rewrite = false,
            "no-answer" => choice.answer = false,
            "no-spin" => choice.spin = false,
            other => {
                let known = "no-rewrite, no-answer, no-spin";
                return Err(format!("no such layer: {other}; there are {known}"));
            }
        }
    }
    Ok(choice)
}

pub fn run(args: Args) -> Result<u8, Failure> {
    start_logging(args.verbose);
    let plan = plan::Plan::new(args)?;
    launch::launch(plan)
}

/// Sends the sandbox's own diagnostics to standard error. Without -v nothing is even set up.
fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.get(digits.len()..).map(str::to_ascii_uppercase).as_deref() {
        Some("" | "B") => 0,
        Some("K" | "KB" | "KIB") => 10,
        Some("M" | "MB" | "MIB") => 20,
        Some("G" | "GB" | "GIB") => 30,
        _ => return Err("expected a number of bytes, with K, M or G if you like".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number, as in 512M".to_owned())?;
    number.checked_mul(1 << shift).filter(|n| *n > 0).ok_or_else(|| "out of range".into())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.trim_end_matches('s').parse().map_err(|_| "expected seconds")?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "expected more than 0 seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_suffixes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2gib"), Ok(2 << 30));
        for bad in ["", "M", "1X", "-1", "0", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn platform_layers_can_be_left_out() {
        let all = PlatformChoice { rewrite: true, answer: true, spin: true };
        assert_eq!(parse_platform("seccomp"), Ok(all));
        let rewrite = parse_platform("seccomp,no-rewrite");
        assert_eq!(rewrite, Ok(PlatformChoice { rewrite: false, ..all }));
        let spin = parse_platform("seccomp,no-spin");
        assert_eq!(spin, Ok(PlatformChoice { spin: false, ..all }));
        for bad in ["", "kvm", "seccomp,", "seccomp,no-such", "no-spin"] {
            assert!(parse_platform(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_take_fractions() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "x", "0", "-1", "nan", "inf"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
