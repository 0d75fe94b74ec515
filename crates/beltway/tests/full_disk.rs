//! A disk that is really full, under leases, numbers, logs and the history of configurations: what runs goes on, who dies
//! comes back, an operator is told, and nothing is half changed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "tree/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod tree;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use supervise::role::Role;
use tree::{Tree, eventually};

/// Bytes of the disk.
const SIZE: usize = 8 << 20;

/// A small file system of its own. Dropping it takes it away.
struct Disk(PathBuf);

impl Disk {
    /// `None`, and says so, where nothing may be mounted.
    fn mount(name: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("beltway-disk-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={SIZE},nr_inodes=1000,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).output();
        let disk = Self(path);
        match mounted {
            Ok(output) if output.status.success() => Some(disk),
            refused => {
                eprintln!("NOT RUN: nothing can be mounted here: {refused:?}");
                None
            }
        }
    }

    /// Takes all that is left of it. Never more than the whole: should this not be what was mounted, no other disk is filled.
    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).unwrap();
        for _ in 0..SIZE / 4096 {
            if file.write_all(&[0; 4096]).is_err() {
                return;
            }
        }
        panic!("{} does not get full", self.0.display());
    }

    fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

/// A tree that has everything it writes on `disk`, but its configuration file.
fn tree_on(disk: &Path) -> Tree {
    let mut tree = Tree::new("full-disk");
    let run = disk.join("run");
    fs::create_dir(&run).unwrap();
    std::os::unix::fs::symlink(&run, tree.home.join("run")).unwrap();
    let logs = ("all.log", "access.log");
    let named = format!("http:\n  access_log: {{file: {}}}\n", disk.join(logs.1).display());
    let text = tree.original().replacen("http:\n", &named, 1);
    tree.configure(&format!("{text}log: {{file: {}}}\n", disk.join(logs.0).display()));
    tree.start_stub();
    tree.await_serving();
    tree
}

fn disk_of(tree: &Tree) -> Value {
    tree.status().map_or(Value::Null, |status| status["disk"].clone())
}

fn history(tree: &Tree) -> usize {
    let output = tree.ask("ctl config history --json");
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().len()
}

fn pids(tree: &Tree) -> [u32; 3] {
    [Role::Cop, Role::Manager, Role::Server].map(|role| tree.pid(role))
}

#[test]
fn a_full_disk_stops_nothing_brings_the_dead_back_and_changes_nothing_by_half() {
    let Some(disk) = Disk::mount("full") else { return };
    let mut tree = tree_on(&disk.0);
    assert_eq!(tree.ask("ctl config set http.via before").status.code(), Some(0));
    eventually("a reserve", || (disk_of(&tree)["is_reserved"] == true).then_some(()));
    let (before, known) = (pids(&tree), history(&tree));
    let text = fs::read_to_string(tree.file()).unwrap();

    disk.fill();
    let full = || (disk_of(&tree)["is_full"] == true).then_some(());
    eventually("status says so", full);
    let said = String::from_utf8(tree.ask("ctl status").stdout).unwrap();
    assert!(said.contains("is FULL") && said.contains("with a reserve"), "{said}");
    // More than the logs can take.
    for _ in 0..100 {
        tree.get().unwrap();
    }
    let refused = tree.ask("ctl config set http.via after --json");
    let verdict: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &verdict["outcome"]), (Some(1), &"failed".into()), "{verdict}");
    assert!(verdict["why"].as_str().unwrap().contains("No space left"), "{verdict}");
    assert!(tree.get().unwrap().contains("before"), "what was in force is");
    assert_eq!((fs::read_to_string(tree.file()).unwrap(), history(&tree)), (text, known));
    assert_eq!(pids(&tree), before, "nobody died of it");

    // Who dies all the same comes back, one after the other and each with what was in force.
    for role in [Role::Server, Role::Manager, Role::Cop, Role::Server] {
        let dead = tree.kill(role);
        tree.await_another(role, dead);
        tree.await_serving();
        assert!(tree.get().unwrap().contains("before"), "{role:?}");
    }
    let said = String::from_utf8(tree.ask("ctl status").stdout).unwrap();
    assert!(said.contains("is FULL") && said.contains("the reserve is used up"), "{said}");

    disk.clear();
    eventually("there is room, and a reserve", || {
        let disk = disk_of(&tree);
        (disk["is_full"] == false && disk["is_reserved"] == true).then_some(())
    });
    assert_eq!(tree.ask("ctl config set http.via after").status.code(), Some(0));
    assert!(tree.get().unwrap().contains("after"));
    assert_eq!(history(&tree), known + 1);
    eventually("the log goes on", || {
        fs::read_to_string(disk.0.join("all.log")).unwrap().contains("has room again").then_some(())
    });
    assert_eq!(tree.terminate(), Some(0));
    tree.assert_nothing_is_left();
}
