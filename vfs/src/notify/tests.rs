use std::sync::Mutex as StdMutex;

use abi::open::OpenFlags;

use super::*;
use crate::test_support::World;

#[derive(Default)]
struct Log(StdMutex<Vec<String>>);

impl Watcher for Log {
    fn event(&self, event: &Event<'_>) {
        let name = event.name.map(String::from_utf8_lossy).unwrap_or_default();
        let cookie = if event.cookie == 0 { "" } else { "+" };
        self.0.lock().unwrap().push(format!("{:?} {name}{cookie}", event.events));
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn a_directory_hears_of_its_entries() {
    let world = World::tmpfs();
    world.mkdir("/d").unwrap();
    let log = Arc::new(Log::default());
    let inode = Arc::clone(world.path("/d").unwrap().inode());
    let all = Events::all() - Events::OPEN - Events::ACCESS;
    let watch = watch(&inode, all, Arc::clone(&log) as _);
    world.write("/d/f", b"x").unwrap();
    let created = ["Events(CREATE) f", "Events(MODIFY) f", "Events(CLOSE_WRITE) f"];
    assert_eq!(log.take(), created);
    world.mkdir("/d/e").unwrap();
    world.rename("/d/f", "/d/g").unwrap();
    world.unlink("/d/g").unwrap();
    assert_eq!(
        log.take(),
        [
            "Events(CREATE | ISDIR) e",
            "Events(MOVED_FROM) f+",
            "Events(MOVED_TO) g+",
            "Events(DELETE) g",
        ]
    );
    world.rmdir("/d/e").unwrap();
    world.rmdir("/d").unwrap();
    assert_eq!(log.take(), ["Events(DELETE | ISDIR) e", "Events(DELETE_SELF | ISDIR) "]);
    drop(watch);
}

#[test]
fn an_object_hears_of_itself() {
    let world = World::tmpfs();
    world.write("/f", b"x").unwrap();
    let log = Arc::new(Log::default());
    let path = world.path("/f").unwrap();
    let watch = watch(path.inode(), Events::all(), Arc::clone(&log) as _);
    drop(world.open("/f", OpenFlags::empty()).unwrap());
    assert_eq!(log.take(), ["Events(OPEN) ", "Events(CLOSE_NOWRITE) "]);
    crate::ops::chmod(&world.cx(), &path, 0o600).unwrap();
    world.unlink("/f").unwrap();
    assert_eq!(log.take(), ["Events(ATTRIB) ", "Events(ATTRIB) ", "Events(DELETE_SELF) "]);
    drop(watch);
    assert!(log.take().is_empty());
}
