//! /proc/vmstat, zoneinfo and buddyinfo: the rows that tools look for.

use crate::fs::procfs::view::SystemView;

const PAGE: u64 = 4096;

pub fn vmstat(view: &dyn SystemView) -> String {
    let memory = view.memory();
    let rows = [
        ("nr_free_pages", memory.free / PAGE),
        ("nr_inactive_anon", 0),
        ("nr_active_anon", memory.anonymous / PAGE),
        ("nr_inactive_file", memory.cached / 2 / PAGE),
        ("nr_active_file", memory.cached / 2 / PAGE),
        ("nr_anon_pages", memory.anonymous / PAGE),
        ("nr_mapped", memory.cached / 2 / PAGE),
        ("nr_file_pages", memory.cached / PAGE),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("nr_shmem", memory.shared / PAGE),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
        ("oom_kill", 0),
    ];
    rows.iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

pub fn zoneinfo(view: &dyn SystemView) -> String {
    let memory = view.memory();
    let (free, total) = (memory.free / PAGE, memory.total / PAGE);
    format!(
        "Node 0, zone   Normal\n  pages free     {free}\n        min      0\n        low      0\n        \
         high     0\n        spanned  {total}\n        present  {total}\n        managed  {total}\n"
    )
}

pub fn buddyinfo(view: &dyn SystemView) -> String {
    let largest = view.memory().free / (PAGE << 10);
    let mut text = String::from("Node 0, zone   Normal");
    for order in 0..11 {
        text.push_str(&format!(" {:6}", if order == 10 { largest } else { 0 }));
    }
    text.push_str(" \n");
    text
}
