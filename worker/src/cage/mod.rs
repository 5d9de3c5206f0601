//! The cage of a worker: what it gives up for good before it touches anything foreign. Whoever takes a worker over
//! through what it reads finds himself inside. Put up in steps, each as soon as what it forbids is done with:
//! privileges first thing, files and ports when the configuration is known, system calls when everything is loaded.

pub mod files;
pub mod policy;
pub mod privileges;
pub mod roles;
pub mod seccomp;

use nix::libc;
use nursery_shared::{
    cage::{Cage as Report, Guard, Kernel},
    line::one_line,
    message::FromWorker,
};

use policy::Policy;
use roles::Plan;

/// What this kernel offers.
pub fn kernel() -> Kernel {
    // SAFETY: asks for a number, and touches no memory.
    let seccomp = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } >= 0;
    Kernel { landlock: files::kernel_version(), seccomp }
}

/// A cage that is being put up.
pub struct Cage {
    report: Report,
}

impl Cage {
    /// Gives all privileges away but that of opening the files of the configuration, wherever they are. To be called first
    /// thing, while there is one thread. `supervisor` is the user at the other end of the socket.
    pub fn enter(supervisor: Option<u32>) -> Self {
        Self::enter_with(supervisor, privileges::DESCRIPTORS)
    }

    /// The same of a process that needs more descriptors than others.
    pub fn enter_with(supervisor: Option<u32>, descriptors: u64) -> Self {
        // What a process that gives itself up shows then is found by reading files, which are out of its reach.
        // SAFETY: there is one thread, as the caller promises.
        unsafe { std::env::remove_var("RUST_BACKTRACE") };
        let mut report = Report::default();
        privileges::give_away(&mut report, supervisor, descriptors);
        Self { report }
    }

    /// Looks whether the supervisor has taken the network away, for who has no use for it.
    pub fn expect_no_network(&mut self) {
        self.report.note(Guard::NoNetwork, privileges::has_no_network());
    }

    /// Gives up all files and ports but those of the plan, and the last privilege. To be called while there is one thread,
    /// when the files are open that this user may not open by himself.
    pub fn confine(&mut self, plan: &Plan) {
        files::confine(&plan.reach, &mut self.report);
        privileges::open_no_more(&mut self.report);
    }

    /// Gives up all system calls but those of the plan, for all threads. What is to be told to the supervisor then.
    ///
    /// # Errors
    /// One line; a list that cannot be read is a mistake in this program.
    pub fn close(mut self, plan: &Plan) -> Result<FromWorker, String> {
        let policy = Policy::read(&plan.lists)?;
        // The usual one reads this program's debug information where it is asked to, which is out of reach.
        std::panic::set_hook(Box::new(|panic| eprintln!("ERROR {}", one_line(&panic.to_string()))));
        let outcome = if plan.programs {
            seccomp::refuse(&policy).and_then(|()| {
                Err("it starts programs, which may need any; only the most dangerous are refused".into())
            })
        } else {
            seccomp::allow_only(&policy).inspect(|()| {
                self.report.system_calls = u32::try_from(policy.calls().len()).ok();
            })
        };
        self.report.note(Guard::SystemCalls, outcome);
        Ok(FromWorker::Caged(self.report))
    }
}
