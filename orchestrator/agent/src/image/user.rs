//! The user that an image names, as numbers (image specification, `config.User`): read from the image, not the host.

use super::{StoreError, io_error, tree::Tree};
use std::io::Read as _;
use std::path::Path;

/// Bound of `/etc/passwd` and `/etc/group`, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// `""`, `uid`, `uid:gid`, `name`, `name:group`, in any mixture. Without a group: the one that passwd says, or 0.
pub(super) fn resolve(tree: &Tree, named: &str) -> Result<Option<(u32, u32)>, StoreError> {
    if named.is_empty() {
        return Ok(None);
    }
    let unknown = || StoreError::User(named.chars().take(80).collect());
    let (user, group) = named.split_once(':').map_or((named, None), |(user, group)| (user, Some(group)));
    let passwd = read(tree, "etc/passwd")?;
    // name:password:uid:gid:…
    let entry = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| match user.parse::<u32>() {
        Ok(uid) => number(f, 2) == Some(uid),
        Err(_) => f.first() == Some(&user),
    });
    let uid = user.parse().ok().or_else(|| number(entry.as_ref()?, 2)).ok_or_else(unknown)?;
    let gid = match group {
        None => entry.as_ref().and_then(|f| number(f, 3)).unwrap_or(0),
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            // name:password:gid:…
            Err(_) => read(tree, "etc/group")?
                .lines()
                .map(|l| l.split(':').collect::<Vec<_>>())
                .find(|f| f.first() == Some(&group))
                .and_then(|f| number(&f, 2))
                .ok_or_else(unknown)?,
        },
    };
    Ok(Some((uid, gid)))
}

fn number(fields: &[&str], i: usize) -> Option<u32> {
    fields.get(i)?.parse().ok()
}

fn read(tree: &Tree, path: &'static str) -> Result<String, StoreError> {
    let file = match tree.read(Path::new(path)) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(io_error("read the image's", Path::new(path))(e)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(io_error("read the image's", Path::new(path)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_user_is_looked_up_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0:r:/:/bin/sh\nweb:x:101:102::/:\n").unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\nwww:x:33:web\n").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let cases = [
            ("", None),
            ("web", Some((101, 102))),
            ("101", Some((101, 102))),
            ("web:www", Some((101, 33))),
            ("web:7", Some((101, 7))),
            ("5000", Some((5000, 0))),
            ("5000:6000", Some((5000, 6000))),
            ("root", Some((0, 0))),
        ];
        for (named, expected) in cases {
            assert_eq!(resolve(&tree, named).unwrap(), expected, "{named:?}");
        }
        for unknown in ["nobody", "web:nobody", "-1"] {
            assert!(matches!(resolve(&tree, unknown), Err(StoreError::User(_))), "{unknown:?}");
        }
    }
}
