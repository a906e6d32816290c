//! The Watcher on real folders, with real inotify; waits are bounded, nothing sleeps.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::manifests::{MAX_DELAY, QUIET, RESCAN, Watcher};

/// Longer than a settled change, and shorter than the slow look: what arrives within it was heard.
const HEARD: Duration = Duration::from_secs(8);

async fn heard(watcher: &mut Watcher) {
    timeout(HEARD, watcher.changed()).await.expect("a change is heard");
}

/// Runs `steps` on a fresh folder, each of which must be heard.
async fn check(name: &str, prepare: fn(&Path), steps: &[fn(&Path)]) {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    prepare(&folder);
    let mut watcher = Watcher::new(std::slice::from_ref(&folder)).unwrap();
    for (at, step) in steps.iter().enumerate() {
        step(&folder);
        let told = timeout(HEARD, watcher.changed()).await;
        assert!(told.is_ok(), "{name}: step {at} was not heard");
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[tokio::test]
async fn changes_are_heard() {
    check(
        "files",
        |f| write(f, "a.yaml", "1"),
        &[
            |f| write(f, "b.yaml", "1"),
            |f| write(f, "a.yaml", "2"),
            |f| fs::remove_file(f.join("b.yaml")).unwrap(),
        ],
    )
    .await;
    check(
        "rename over",
        |f| write(f, "a.yaml", "1"),
        &[
            |f| {
                write(f.parent().unwrap(), "new", "2");
                fs::rename(f.parent().unwrap().join("new"), f.join("a.yaml")).unwrap();
            },
            |f| fs::rename(f.join("a.yaml"), f.join("b.yaml")).unwrap(),
            |f| write(f, "b.yaml", "3"),
        ],
    )
    .await;
    check(
        "sub-folders",
        |_| (),
        &[
            |f| fs::create_dir_all(f.join("x/y")).unwrap(),
            |f| write(f, "x/y/a.yaml", "1"),
            |f| fs::rename(f.join("x"), f.join("z")).unwrap(),
            |f| write(f, "z/y/a.yaml", "2"),
            |f| fs::remove_dir_all(f.join("z")).unwrap(),
        ],
    )
    .await;
    check("config map", |f| mount(f, "..1"), &[|f| mount(f, "..2"), |f| mount(f, "..3")]).await;
    check(
        "folder made again",
        |f| write(f, "a.yaml", "1"),
        &[
            |f| fs::remove_dir_all(f).unwrap(),
            |f| fs::create_dir(f).unwrap(),
            |f| write(f, "a.yaml", "2"),
            |f| fs::rename(f, f.with_extension("old")).unwrap(),
            |f| fs::create_dir(f).unwrap(),
            |f| write(f, "a.yaml", "3"),
        ],
    )
    .await;
}

/// Puts a new version in place as the kubelet does: new folder, new link, rename.
fn mount(folder: &Path, version: &str) {
    fs::create_dir(folder.join(version)).unwrap();
    write(folder, &format!("{version}/a.yaml"), version);
    symlink(version, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if !folder.join("a.yaml").is_symlink() {
        symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
    }
}

#[tokio::test]
async fn a_folder_may_come_later() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("later");
    let mut watcher = Watcher::new(std::slice::from_ref(&folder)).unwrap();
    fs::create_dir(&folder).unwrap();
    heard(&mut watcher).await;
    write(&folder, "a.yaml", "1");
    heard(&mut watcher).await;
}

/// Whether `changed` stays silent for so long (on a paused clock: no time passes).
async fn silent(future: impl Future<Output = ()>, long: Duration) -> bool {
    timeout(long, future).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_without_a_change() {
    let outer = TempDir::new().unwrap();
    let folder = outer.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    let mut watcher = Watcher::new(std::slice::from_ref(&folder)).unwrap();
    assert!(silent(watcher.changed(), 10 * RESCAN).await);
    // What was moved away is no longer heard of.
    let (inside, outside) = (folder.join("sub"), outer.path().join("sub"));
    fs::create_dir(&inside).unwrap();
    heard(&mut watcher).await;
    fs::rename(&inside, &outside).unwrap();
    heard(&mut watcher).await;
    write(&outside, "a.yaml", "1");
    assert!(silent(watcher.changed(), 10 * RESCAN).await);
    // The parent is watched only for the folder itself.
    write(outer.path(), "neighbour.yaml", "1");
    assert!(silent(watcher.changed(), 10 * RESCAN).await);
}

#[tokio::test(start_paused = true)]
async fn the_slow_look_finds_what_inotify_does_not_tell() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(elsewhere.path(), "a", "1");
    symlink(elsewhere.path().join("a"), folder.path().join("a.yaml")).unwrap();
    let mut watcher = Watcher::new(&[folder.path().to_owned()]).unwrap();
    let start = Instant::now();
    write(elsewhere.path(), "a", "22");
    timeout(2 * RESCAN, watcher.changed()).await.expect("the slow look tells it");
    assert!(start.elapsed() >= RESCAN - MAX_DELAY, "{:?}", start.elapsed());
    assert!(silent(watcher.changed(), 5 * RESCAN).await);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let mut watcher = Watcher::new(&[PathBuf::from(folder.path())]).unwrap();
    write(folder.path(), "a.yaml", "1");
    // Long enough to hear the event, too short for it to settle.
    for _ in 0..3 {
        assert!(timeout(Duration::from_millis(5), watcher.changed()).await.is_err());
    }
    heard(&mut watcher).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_changes_is_told_in_time() {
    let folder = TempDir::new().unwrap();
    let mut watcher = Watcher::new(&[PathBuf::from(folder.path())]).unwrap();
    let start = Instant::now();
    let writes = async {
        // Virtual time: a change every 25 ms, so that it is never quiet.
        let mut ticks = tokio::time::interval(QUIET / 2);
        loop {
            ticks.tick().await;
            write(folder.path(), "a.yaml", "1");
        }
    };
    tokio::select! {
        () = writes => {}
        () = watcher.changed() => {}
    }
    let waited = start.elapsed();
    assert!(waited >= MAX_DELAY && waited < MAX_DELAY + QUIET, "{waited:?}");
}
