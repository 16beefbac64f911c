//! Who the program runs as: `--user` and the files that know names.

use std::path::Path;
use std::sync::Arc;

use abi::ids::{Gid, Uid};
use base::cred::Credentials;

use crate::failure::Failure;

/// The caller, with the caller's groups.
pub fn caller() -> Result<Credentials, Failure> {
    let uid = Uid(rustix::process::getuid().as_raw());
    let gid = Gid(rustix::process::getgid().as_raw());
    let groups =
        rustix::process::getgroups().map_err(|e| Failure::host("cannot read groups", e))?;
    let groups: Arc<[Gid]> = groups.into_iter().map(|gid| Gid(gid.as_raw())).collect();
    Ok(Credentials::new(uid, gid, groups))
}

/// `UID`, `UID:GID` or a name that the root filesystem's /etc/passwd knows.
pub fn parse(text: &str, root: &Path) -> Result<Credentials, Failure> {
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let group = std::fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    resolve(text, &passwd, &group).ok_or_else(|| {
        let file = root.join("etc/passwd");
        Failure::new(format!(
            "--user {text}: neither UID[:GID] nor a name in {}; give a number",
            file.display()
        ))
    })
}

fn resolve(text: &str, passwd: &str, group: &str) -> Option<Credentials> {
    let (user, explicit_gid) = match text.split_once(':') {
        Some((user, gid)) => (user, Some(parse_gid(gid, group)?)),
        None => (text, None),
    };
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first() == Some(&user) || user.parse::<u32>().is_ok() && fields.get(2) == Some(&user)
    });
    let (uid, login_gid, name) = match &entry {
        Some(fields) => {
            (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?, fields.first().copied())
        }
        None => {
            let uid: u32 = user.parse().ok().filter(|uid| *uid != u32::MAX)?;
            (uid, 0, None)
        }
    };
    let gid = explicit_gid.unwrap_or(login_gid);
    let mut groups = vec![Gid(gid)];
    if let (Some(name), None) = (name, explicit_gid) {
        groups.extend(supplementary(name, group).filter(|g| *g != gid).map(Gid));
    }
    Some(Credentials::new(Uid(uid), Gid(gid), Arc::from(groups)))
}

fn parse_gid(text: &str, group: &str) -> Option<u32> {
    if let Ok(gid) = text.parse::<u32>() {
        return (gid != u32::MAX).then_some(gid);
    }
    let line = group.lines().find(|line| line.split(':').next() == Some(text))?;
    line.split(':').nth(2)?.parse().ok()
}

fn supplementary<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|member| member == name);
        if is_member { fields.get(2)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1001::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\nwheel:x:10:bob,ann\n";

    #[test]
    fn names_bring_their_groups_and_numbers_need_no_entry() {
        let ann = resolve("ann", PASSWD, GROUP).expect("ann is there");
        assert_eq!((ann.euid, ann.egid), (Uid(1000), Gid(1001)));
        assert_eq!(&*ann.groups, &[Gid(1001), Gid(10)]);
        let other = resolve("4242:7", PASSWD, GROUP).expect("numbers always do");
        assert_eq!((other.euid, other.egid), (Uid(4242), Gid(7)));
        assert!(resolve("nobody-here", PASSWD, GROUP).is_none());
        assert!(resolve("ann:nope", PASSWD, GROUP).is_none());
    }
}
