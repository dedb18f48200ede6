//! The example `reload`: a file of limits that changes in every way in which files change.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use bolna_rate_limit::{Endpoint, Limiter, Policy};
use tokio::sync::mpsc;
use tokio::time::sleep;

#[path = "../../examples/reload.rs"]
#[expect(dead_code, reason = "the example's `main` is not called")]
mod example;

use example::LimitsFile;

/// A folder that is gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("bolna-rate-limit-reload-{}-{name}", process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a policy of that many calls a minute.
    fn write(&self, name: &str, calls: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text(calls)).unwrap();
    }

    /// Makes a link, or switches it, in one step as `ln -s` and `mv -T` do.
    fn link(&self, target: &str, name: &str) {
        let new = self.path("new-link");
        symlink(target, &new).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(calls: u32) -> String {
    format!("[[endpoint]]\nname = \"call\"\nlimit = {calls}\nper = \"minute\"\n")
}

fn calls(policy: &Policy) -> u32 {
    policy.quota_of(Endpoint::CALL).unwrap().limit()
}

fn open(path: impl AsRef<Path>) -> LimitsFile {
    let (file, policy) = LimitsFile::open(path.as_ref()).unwrap();
    assert_eq!(calls(&policy), 60);
    file
}

/// The limit after a change: it is read at the second look, and not again.
#[track_caller]
fn change(file: &mut LimitsFile) -> Result<u32, String> {
    assert!(file.look().is_none());
    let read = file.look().expect("the file has changed").map_err(|error| error.to_string());
    assert!(file.look().is_none());
    read.map(|policy| calls(&policy))
}

#[test]
fn a_change_of_the_file_is_read_once_and_an_unchanged_file_never() {
    let folder = Folder::new("plain");
    folder.write("limits.toml", 60);
    let mut file = open(folder.path("limits.toml"));
    assert!((0..5).all(|_| file.look().is_none()));
    folder.write("limits.toml", 61);
    assert_eq!(change(&mut file), Ok(61));
    // Replaced, as editors do.
    folder.write("new.toml", 62);
    fs::rename(folder.path("new.toml"), folder.path("limits.toml")).unwrap();
    assert_eq!(change(&mut file), Ok(62));
    // Written again with the same content.
    folder.write("limits.toml", 62);
    assert!((0..5).all(|_| file.look().is_none()));
    // On SIGHUP it is read all the same.
    assert_eq!(file.read().map(|policy| calls(&policy)).unwrap(), 62);
}

#[test]
fn a_file_that_is_being_written_is_not_read() {
    let folder = Folder::new("half");
    folder.write("limits.toml", 60);
    let mut file = open(folder.path("limits.toml"));
    // Each half is a valid file, without the limit of calls.
    for part in ["", "# Limits\n", "# Limits\n\n"] {
        fs::write(folder.path("limits.toml"), part).unwrap();
        assert!(file.look().is_none(), "{part:?}");
    }
    folder.write("limits.toml", 61);
    assert_eq!(change(&mut file), Ok(61));
}

#[test]
fn a_link_into_another_folder_is_followed() {
    let folder = Folder::new("link");
    folder.write("real/limits.toml", 60);
    folder.write("real/other.toml", 63);
    fs::create_dir(folder.path("etc")).unwrap();
    folder.link("../real/limits.toml", "etc/limits.toml");
    let mut file = open(folder.path("etc/limits.toml"));
    // What it leads to is rewritten, then replaced, and then it leads elsewhere.
    folder.write("real/limits.toml", 61);
    assert_eq!(change(&mut file), Ok(61));
    folder.write("real/new.toml", 62);
    fs::rename(folder.path("real/new.toml"), folder.path("real/limits.toml")).unwrap();
    assert_eq!(change(&mut file), Ok(62));
    folder.link("../real/other.toml", "etc/limits.toml");
    assert_eq!(change(&mut file), Ok(63));
    folder.write("real/other.toml", 64);
    assert_eq!(change(&mut file), Ok(64));
}

#[test]
fn a_folder_that_is_a_link_is_followed_when_it_is_switched() {
    let folder = Folder::new("releases");
    folder.write("release-1/etc/limits.toml", 60);
    folder.write("release-2/etc/limits.toml", 61);
    folder.link("release-1", "current");
    let mut file = open(folder.path("current/etc/limits.toml"));
    folder.link("release-2", "current");
    assert_eq!(change(&mut file), Ok(61));
    folder.write("release-2/etc/limits.toml", 62);
    assert_eq!(change(&mut file), Ok(62));
}

#[test]
fn a_mistake_is_told_once_and_a_file_that_is_gone_too() {
    let folder = Folder::new("mistakes");
    folder.write("limits.toml", 60);
    let mut file = open(folder.path("limits.toml"));
    folder.write("limits.toml", 0);
    let error = change(&mut file).unwrap_err();
    assert!(error.contains("limits.toml:3:9") && error.contains("limit is 0"), "{error}");
    fs::remove_file(folder.path("limits.toml")).unwrap();
    let error = change(&mut file).unwrap_err();
    assert!(error.contains("can't be read"), "{error}");
    folder.write("limits.toml", 61);
    assert_eq!(change(&mut file), Ok(61));
}

/// As the kubelet updates a config map: the file is a link through the link `..data`, which is
/// switched to another folder, and the old folder is removed.
#[tokio::test(start_paused = true)]
async fn a_config_map_that_is_updated_changes_the_limits_of_a_running_limiter() {
    let folder = Folder::new("config-map");
    folder.write("..1/limits.toml", 60);
    folder.link("..1", "..data");
    folder.link("..data/limits.toml", "limits.toml");
    let (file, policy) = LimitsFile::open(folder.path("limits.toml")).unwrap();
    let limiter = Limiter::new(policy);
    let (_hangup, hangups) = mpsc::channel(1);
    let reloading = tokio::spawn(example::reload(file, limiter.clone(), hangups));
    for version in 2..5_u32 {
        folder.write(&format!("..{version}/limits.toml"), 60 + version);
        folder.link(&format!("..{version}"), "..data");
        fs::remove_dir_all(folder.path(&format!("..{}", version - 1))).unwrap();
        // The time is tokio's, which stands still while the file is read.
        for _ in 0..100 {
            sleep(Duration::from_secs(1)).await;
            if calls(&limiter.policy()) == 60 + version {
                break;
            }
        }
        assert_eq!(calls(&limiter.policy()), 60 + version);
    }
    reloading.abort();
}
