//! The namespaces around the demo's world: entering them, and what to say where that is forbidden.

use std::fs;

use anyhow::Context;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getegid;
use nix::unistd::geteuid;

/// Enters fresh network, mount and process namespaces, as root in a fresh user namespace; where
/// root may not make one of those, without it. The *next* child is process 1 in there.
///
/// # Errors
/// When namespaces are forbidden, or give no rights; nothing can be undone then.
pub(crate) fn enter() -> anyhow::Result<()> {
    let inner = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let (user, group) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWUSER | inner) {
        Ok(()) => {
            fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
            fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("uid_map")?;
            fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("gid_map")?;
        }
        Err(_) if user.is_root() => unshare(inner).context("unshare")?,
        Err(error) => return Err(error).context("unshare"),
    }
    // Ubuntu lets one in and gives no rights inside: better to find out here.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("mount /")?;
    mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .context("mount /run")?;
    Ok(())
}

/// Whoever starts a stage takes it along.
pub(crate) fn end_with_parent() -> anyhow::Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with my parent")
}

/// The one line that makes namespaces possible here.
pub(crate) fn remedy() -> &'static str {
    let is =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=10000"
    } else {
        "in a container, start it with --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined; else run this as root"
    }
}
