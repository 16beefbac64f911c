//! Looking along several ways at once.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use abi::stat::FileType;
use gofer_protocol::{Op, Sightings};
use support::{Client, Reply, TempDir};

/// Path and kind of what was seen, "absent" for what is not there, "open" behind files that came opened.
fn told(reply: &Reply) -> Vec<String> {
    let mut paths: Vec<String> = vec![String::new()];
    let mut told = Vec::new();
    for sighting in Sightings::decode(reply.fields()) {
        let sighting = sighting.unwrap();
        let name = String::from_utf8_lossy(sighting.name);
        let path = format!("{}/{name}", paths[usize::from(sighting.dir)]);
        let what = match (sighting.attr.map(|attr| attr.file_type()), sighting.link) {
            (None, _) => "absent".to_owned(),
            (Some(FileType::Symlink), Some(text)) => {
                format!("-> {}", String::from_utf8_lossy(text))
            }
            (Some(kind), _) => format!("{kind:?}"),
        };
        told.push(format!("{path} {what}{}", if sighting.is_open { " open" } else { "" }));
        paths.push(path);
    }
    told
}

fn explore(client: &Client, paths: &str) -> Reply {
    client.ask("", Op::Explore { paths: paths.as_bytes() }).unwrap()
}

#[test]
fn ways_are_told_once_with_links_absent_names_and_open_files() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("usr/bin")).unwrap();
    fs::write(dir.path("usr/bin/tool"), "text").unwrap();
    symlink("usr/bin", dir.path("bin")).unwrap();
    symlink("/bin/tool", dir.path("usr/bin/alias")).unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let reply = explore(&client, "/bin/tool\0/usr/bin/alias\0/usr/lost/x\0/usr\0");
    let expected = [
        "/bin -> usr/bin",
        "/usr Directory",
        "/usr/bin Directory",
        "/usr/bin/tool Regular open",
        "/usr/bin/alias -> /bin/tool",
        "/usr/lost absent",
    ];
    assert_eq!(told(&reply), expected);
    let mut text = String::new();
    fs::File::from(reply.fd.unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), reply.more_fds.len()), ("text", 0));
}

#[test]
fn no_way_leads_out_of_the_tree() {
    let (dir, outside) = (TempDir::new(), TempDir::new());
    fs::write(outside.path("secret"), "no").unwrap();
    symlink(&outside.0, dir.path("out")).unwrap();
    symlink("../../../../../../etc", dir.path("up")).unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let told = told(&explore(&client, "/out/secret\0/up/passwd\0/../../etc/passwd\0"));
    assert!(told.iter().all(|line| !line.contains("open") && !line.contains("secret")), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("/etc absent"));
}

#[test]
fn endless_links_and_many_paths_end() {
    let dir = TempDir::new();
    symlink("loop", dir.path("loop")).unwrap();
    symlink("b/b", dir.path("b")).unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    assert_eq!(told(&explore(&client, "/loop\0/b\0")), ["/loop -> loop", "/b -> b/b"]);
    let many: String = (0..1000).map(|n| format!("/absent{n}\0")).collect();
    let count = told(&explore(&client, &many)).len();
    assert!((1..1000).contains(&count), "{count}");
}

#[test]
fn what_is_no_file_is_not_opened() {
    let dir = TempDir::new();
    fs::create_dir(dir.path("dir")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let reply = explore(&client, "/fifo\0/fifo/x\0/dir/\0");
    assert_eq!(told(&reply), ["/fifo Fifo", "/dir Directory"]);
    assert!(reply.fd.is_none());
}

#[test]
fn of_a_writable_tree_nothing_is_told() {
    let dir = TempDir::new();
    fs::write(dir.path("file"), "").unwrap();
    let client = Client::to_thread(&[(&dir.0, true)]);
    let reply = explore(&client, "/file\0");
    assert!(told(&reply).is_empty() && reply.fd.is_none());
}
