//! A child process that cannot outlive us: killed on drop, and by the kernel when this process dies.
//!
//! The kernel sends a child its death signal when the *thread* that made it ends, and each test runs in a thread of its
//! own. So every child is made by one thread that lives as long as the process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread;

/// A command, and where to send the child.
type Request = (Command, SyncSender<io::Result<Child>>);

/// Starts `command` so that it dies with this process.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    // Only the thread's mailbox is shared by the whole process; the reason is at the top of this file.
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let parent = std::process::id();
    // SAFETY: between fork and exec only system calls are made, which is all that is allowed there.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above took hold.
            if libc::getppid() as u32 != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| Mutex::new(start_spawner()));
    let (reply, answer) = sync_channel(1);
    let sent = spawner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).send((command, reply));
    sent.map_err(|_| io::Error::other("the spawner thread is gone"))?;
    answer.recv().map_err(|_| io::Error::other("the spawner thread is gone"))?
}

fn start_spawner() -> Sender<Request> {
    let (requests, inbox) = channel::<Request>();
    thread::Builder::new()
        .name("testkit-spawner".to_owned())
        .spawn(move || {
            for (mut command, reply) in inbox {
                // Whoever asked may have gone; then the child is killed by its own drop guard, never made, or reaped here.
                if let Err(undelivered) = reply.send(command.spawn())
                    && let Ok(mut child) = undelivered.0
                {
                    kill(&mut child);
                }
            }
        })
        .expect("a process that cannot start one thread cannot run a test");
    requests
}

/// Sends a signal to a child that has not been reaped.
pub(crate) fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: kill takes two numbers; the child is not yet reaped, so the number still names it.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// Ends a child now, even a stopped one, and reaps it. One that has ended is left as it is.
pub(crate) fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
