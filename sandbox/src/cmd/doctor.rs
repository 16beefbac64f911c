//! `sandbox doctor`: what this host offers, what is missing, and how to get it.

use std::path::Path;

use host::clone::Namespaces;
use platform::capabilities::Need;

use crate::failure::Failure;
use crate::launch::probe;

/// Says what this host offers to sandboxes, what is missing, and how to get it.
///
/// Exit code 0 when programs can be run, 125 when something necessary is missing.
#[derive(clap::Args)]
pub struct Args {}

/// One line of the report.
struct Finding {
    is_there: bool,
    is_required: bool,
    what: &'static str,
    why: &'static str,
    remedy: &'static str,
}

pub fn run(_args: &Args) -> Result<u8, Failure> {
    let findings = examine();
    for finding in &findings {
        let mark = match (finding.is_there, finding.is_required) {
            (true, _) => "ok     ",
            (false, true) => "MISSING",
            (false, false) => "absent ",
        };
        println!("{mark}  {:<28} {}", finding.what, finding.why);
        if !finding.is_there {
            println!("         {:<28} -> {}", "", finding.remedy);
        }
    }
    if findings.iter().any(|f| f.is_required && !f.is_there) {
        return Err(Failure::new("this host cannot run sandboxes yet; see MISSING above"));
    }
    println!("This host can run sandboxes.");
    Ok(0)
}

fn examine() -> Vec<Finding> {
    let needed =
        |is_there, what, why, remedy| Finding { is_there, is_required: true, what, why, remedy };
    let wall =
        |is_there, what, why, remedy| Finding { is_there, is_required: false, what, why, remedy };
    // The platform knows itself what it needs; its walls are looked at more closely below.
    let platform = platform::capabilities::probe();
    let mut findings: Vec<Finding> = platform
        .into_iter()
        .filter(|capability| capability.need != Need::Wall)
        .map(|capability| Finding {
            is_there: capability.is_present,
            is_required: capability.need == Need::Required,
            what: capability.id,
            why: capability.purpose,
            remedy: capability.remedy,
        })
        .collect();
    findings.extend([
        needed(
            probe::platform_starts(),
            "the platform starts",
            "filter, listener, first guest process",
            "run inside of no other sandbox that forbids seccomp, clone or memfd_create",
        ),
        wall(
            probe::can_enter(Namespaces::USER),
            "user namespaces",
            "takes the sandbox's processes out of the host's users",
            "sysctl user.max_user_namespaces=15000 (Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)",
        ),
        wall(
            probe::can_enter(Namespaces::USER | Namespaces::PID | Namespaces::MOUNT),
            "pid and mount namespaces",
            "nothing outlives the sandbox; its kernel sees no file",
            "allow user namespaces, or run as root outside of a restricted container",
        ),
        wall(
            probe::can_enter(
                Namespaces::USER | Namespaces::NET | Namespaces::IPC | Namespaces::UTS,
            ),
            "net, ipc and uts namespaces",
            "the sandbox's kernel reaches no network of the host",
            "allow user namespaces, or run as root outside of a restricted container",
        ),
        wall(
            probe::has_landlock(),
            "Landlock",
            "a second wall around files",
            "boot a kernel built with CONFIG_SECURITY_LANDLOCK and lsm=landlock,...",
        ),
        wall(
            Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            "cgroup v2",
            "host-side limits of memory and processes",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    ]);
    findings
}
