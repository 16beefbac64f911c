//! Several directories listed by one request.

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use abi::Errno;
use abi::stat::FileType;
use gofer_protocol::*;
use support::{Client, TempDir};

/// A directory of an answer: where it is, whether the listing is whole, and its entries, open ones with a star.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    path: String,
    is_last: bool,
    names: Vec<String>,
}

fn ask(client: &Client, path: &str, op: Op<'_>) -> Result<(Vec<Told>, Vec<String>), Errno> {
    let mut all = Vec::new();
    let (texts, _) = ask_more(client, path, op, &mut all)?;
    Ok((all, texts))
}

/// Appends what the reply tells to what came before it; the texts of open files, and whether there may be more.
fn ask_more(
    client: &Client,
    path: &str,
    op: Op<'_>,
    all: &mut Vec<Told>,
) -> Result<(Vec<String>, bool), Errno> {
    let reply = client.ask(path, op)?;
    let sections = Sections::decode(reply.fields(), 2, all.len() as u16).unwrap();
    let has_more = sections.has_more;
    for section in sections {
        let section = section.unwrap();
        let above = match section.dir.checked_sub(1).map(usize::from) {
            None => String::new(),
            Some(_) if section.dir > Section::ABOVE => {
                "../".repeat(usize::from(section.dir - Section::ABOVE))
            }
            Some(at) => format!("{}/", all[at].path),
        };
        let path = above + std::str::from_utf8(section.name).unwrap();
        let is_last = section.listing.is_last;
        let items = section.listing.map(|item| item.unwrap().1);
        let mut names: Vec<String> = items
            .filter(|item| !matches!(item.name, b"." | b".."))
            .map(|item| {
                assert!(!item.is_open || item.kind == Some(FileType::Regular));
                let name = String::from_utf8_lossy(item.name);
                format!("{name}{}", if item.is_open { "*" } else { "" })
            })
            .collect();
        names.sort();
        all.push(Told { path, is_last, names });
    }
    let fds = reply.fd.into_iter().chain(reply.more_fds);
    let texts = fds.map(|fd| std::io::read_to_string(fs::File::from(fd)).unwrap()).collect();
    Ok((texts, has_more))
}

fn tree<'a>(names: &'a str, dirs: u16, open: u16) -> Op<'a> {
    let names = TreePath::new(names.as_bytes()).unwrap();
    Op::ReadTree { names, above: Paths::default(), plus: Plus::Directories, dirs, open }
}

fn told(path: &str, names: &[&str]) -> Told {
    let names = names.iter().map(ToString::to_string).collect();
    Told { path: path.to_owned(), is_last: true, names }
}

#[test]
fn directories_come_depth_first_with_their_files() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("top/a/in/deep")).unwrap();
    fs::create_dir_all(dir.path("top/b")).unwrap();
    fs::create_dir_all(dir.path("top/c")).unwrap();
    fs::write(dir.path("top/a/file"), "A").unwrap();
    fs::write(dir.path("top/b/file"), "B").unwrap();
    fs::write(dir.path("secret"), "secret").unwrap();
    symlink("../../secret", dir.path("top/a/up")).unwrap();
    symlink("../b", dir.path("top/a/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path("top/a/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let a = |file| told("a", &["fifo", file, "in", "link", "up"]);
    let (all, texts) = ask(&client, "top", tree("a/b", 10, 10)).unwrap();
    let rest = [told("a/in", &["deep"]), told("a/in/deep", &[]), told("b", &["file*"])];
    assert_eq!(all, [vec![a("file*")], rest.into()].concat());
    assert_eq!(texts, ["A", "B"]);
    // No more directories than were asked for, and none after the last file.
    let (all, texts) = ask(&client, "top", tree("a/b", 2, 0)).unwrap();
    assert_eq!((all, texts.len()), (vec![a("file"), told("a/in", &["deep"])], 0));
    let (all, _) = ask(&client, "top", tree("a/b", 10, 1)).unwrap();
    assert_eq!(all, [a("file*")]);
    // What is no directory is refused when it comes first, and left out later.
    assert_eq!(ask(&client, "top", tree("none/b", 9, 0)).err(), Some(Errno::ENOENT));
    assert_eq!(ask(&client, "top/a", tree("link", 9, 9)).err(), Some(Errno::ENOTDIR));
    assert_eq!(ask(&client, "top/a", tree("file", 9, 9)).err(), Some(Errno::ENOTDIR));
    let (all, _) = ask(&client, "top", tree("c/none/b", 9, 0)).unwrap();
    assert_eq!(all, [told("c", &[]), told("b", &["file"])]);
    assert_eq!(ask(&client, "top", tree("", 9, 0)).err(), Some(Errno::EINVAL));
    // Of what others change nothing is told ahead.
    let client = Client::to_thread(&[(&dir.0, true)]);
    assert_eq!(ask(&client, "top", tree("a", 9, 0)).err(), Some(Errno::EINVAL));
}

#[test]
fn a_walk_goes_on_in_the_directories_above() {
    let dir = TempDir::new();
    for path in ["top/in/deep/a/x", "top/in/deep/b", "top/in/later", "top/last/y", "top/left"] {
        fs::create_dir_all(dir.path(path)).unwrap();
    }
    let client = Client::to_thread(&[(&dir.0, false)]);
    let names = TreePath::new(b"a/b").unwrap();
    let op = |above, dirs| {
        let above = Paths::new(above).unwrap();
        Op::ReadTree { names, above, plus: Plus::Directories, dirs, open: 0 }
    };
    let deep = [told("a", &["x"]), told("a/x", &[]), told("b", &[])];
    let later = told("../later", &[]);
    let last = [told("../../last", &["y"]), told("../../last/y", &[])];
    let (all, _) = ask(&client, "top/in/deep", op(b"later\0last\0", 9)).unwrap();
    assert_eq!(all, [&deep[..], std::slice::from_ref(&later), &last[..]].concat());
    // There may be nothing more in some of them, and what is not there is left out.
    let (all, _) = ask(&client, "top/in/deep", op(b"\0none/last\0", 9)).unwrap();
    assert_eq!(all, [&deep[..], &last[..]].concat());
    let (all, _) = ask(&client, "top/in/deep", op(b"later\0last\0", 4)).unwrap();
    assert_eq!(all, [&deep[..], &[later][..]].concat());
    // Nothing is above the tree.
    for above in [&b"x\0"[..], b"\0x\0"] {
        assert_eq!(ask(&client, "", op(above, 9)).err(), Some(Errno::EINVAL));
    }
    assert_eq!(ask(&client, "top", op(b"top\0top\0", 9)).err(), Some(Errno::EINVAL));
}

#[test]
fn only_the_first_directory_may_come_in_pieces() {
    let dir = TempDir::new();
    for name in ["large", "other"] {
        fs::create_dir(dir.path(name)).unwrap();
        for number in 0..2000 {
            fs::write(dir.path(&format!("{name}/{number:0100}")), "").unwrap();
        }
    }
    fs::create_dir(dir.path("small")).unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    let (all, texts) = ask(&client, "", tree("large/small", 9, 9)).unwrap();
    assert_eq!((all.len(), all[0].is_last, texts.len()), (1, false, 9));
    assert!(all[0].names.len() > 100);
    let (all, texts) = ask(&client, "", tree("small/large/other", 9, 9)).unwrap();
    assert_eq!((all, texts.len()), (vec![told("small", &[])], 0));
}

#[test]
fn files_of_a_kernel_interface_are_not_opened() {
    // A tree of which a part is another mount: what the test may not make, the host has.
    let proc = std::path::Path::new("/");
    let client = Client::to_thread(&[(proc, false)]);
    let (all, texts) = ask(&client, "", tree("proc", 1, 32)).unwrap();
    assert_eq!((all.len(), texts.len()), (1, 0));
    assert!(all[0].names.iter().all(|name| !name.ends_with('*')), "{all:?}");
    assert!(all[0].names.contains(&"version".to_owned()));
}

fn on(walk: u32, dirs: u16, open: u16) -> Op<'static> {
    Op::ReadOn { walk, plus: Plus::Directories, dirs, open }
}

/// The number of every request of the test's client.
const WALK: u32 = 1;

#[test]
fn a_walk_goes_on_where_it_stopped() {
    let dir = TempDir::new();
    for path in ["top/a/in/deep", "top/a/in/later", "top/b", "top/c"] {
        fs::create_dir_all(dir.path(path)).unwrap();
    }
    fs::write(dir.path("top/b/file"), "B").unwrap();
    fs::write(dir.path("top/c/file"), "C").unwrap();
    let client = Client::to_thread(&[(&dir.0, false)]);
    assert_eq!(ask(&client, "", on(WALK, 9, 9)).err(), Some(Errno::ENOENT), "none began");
    let (whole, _) = ask(&client, "top", tree("a/b/c", 9, 0)).unwrap();
    assert_eq!(whole.len(), 6);
    assert_eq!(ask(&client, "", on(WALK, 9, 9)).err(), Some(Errno::ENOENT), "it has ended");
    for dirs in 1..=6 {
        let mut all = Vec::new();
        let (_, mut has_more) = ask_more(&client, "top", tree("a/b/c", dirs, 0), &mut all).unwrap();
        while has_more {
            let before = all.len();
            (_, has_more) = ask_more(&client, "", on(WALK, dirs, 0), &mut all).unwrap();
            assert!((1..=usize::from(dirs)).contains(&(all.len() - before)));
        }
        assert_eq!(all, whole, "{dirs} at a time");
    }
    // With files, and with other requests in between.
    let mut all = Vec::new();
    let (texts, has_more) = ask_more(&client, "top", tree("b/c", 1, 9), &mut all).unwrap();
    assert_eq!((texts, has_more), (vec!["B".to_owned()], true));
    client.walk("top/a");
    assert_eq!(ask(&client, "", on(WALK + 1, 9, 9)).err(), Some(Errno::ENOENT), "not that one");
    let (texts, has_more) = ask_more(&client, "", on(WALK, 9, 9), &mut all).unwrap();
    assert_eq!((texts, has_more), (vec!["C".to_owned()], false));
}

#[test]
fn a_walk_stops_before_what_does_not_fit() {
    let dir = TempDir::new();
    fs::create_dir_all(dir.path("small")).unwrap();
    fs::create_dir_all(dir.path("large")).unwrap();
    for number in 0..2000 {
        fs::write(dir.path(&format!("large/{number:0100}")), "").unwrap();
    }
    let client = Client::to_thread(&[(&dir.0, false)]);
    let mut all = Vec::new();
    let (_, has_more) = ask_more(&client, "", tree("small/large/small", 9, 0), &mut all).unwrap();
    assert_eq!((all.clone(), has_more), (vec![told("small", &[])], true));
    let (_, has_more) = ask_more(&client, "", on(WALK, 9, 0), &mut all).unwrap();
    assert_eq!((all.len(), has_more), (1, false), "it has to be asked for alone");
}
