//! The cage of a worker: what it gives up for good before it touches anything foreign. Whoever takes a worker over
//! through what it reads finds himself inside. Put up in steps, each as soon as what it forbids is done with:
//! privileges first thing, files and ports when the configuration is known, system calls when everything is loaded.

pub mod files;
pub mod policy;
mod privileges;
pub mod roles;
pub mod seccomp;

use nursery_shared::{
    cage::{Cage as Report, Guard},
    message::FromWorker,
};

use policy::Policy;
use roles::Plan;

/// A cage that is being put up.
pub struct Cage {
    report: Report,
}

impl Cage {
    /// Gives all privileges away. To be called first thing, while there is one thread. `supervisor` is the user at the
    /// other end of the socket.
    pub fn enter(supervisor: Option<u32>) -> Self {
        let mut report = Report::default();
        privileges::give_away(&mut report, supervisor);
        Self { report }
    }

    /// Gives up all files and ports but those of the plan. To be called while there is one thread.
    pub fn confine(&mut self, plan: &Plan) {
        files::confine(&plan.reach, &mut self.report);
    }

    /// Gives up all system calls but those of the plan, for all threads. What is to be told to the supervisor then.
    ///
    /// # Errors
    /// One line; a list that cannot be read is a mistake in this program.
    pub fn close(mut self, plan: &Plan) -> Result<FromWorker, String> {
        let policy = Policy::read(&plan.lists)?;
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
