//! /proc/cpuinfo: what the host told at boot.

use crate::fs::procfs::view::SystemView;

pub fn show(view: &dyn SystemView) -> String {
    view.cpuinfo()
}
