//! Requests that may bring another model or certificate with them: reload and restart. Before anything changes somebody
//! looks at it, in a process of its own and for a bounded time; nothing waits for that but whoever asked.

use std::{path::Path, time::Duration};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nursery_shared::{
    config::{self, Config},
    control::Reply,
    message::{ModelShape, Role},
};

use super::{
    PROBE_SLOT, ServiceError,
    clients::Access,
    event_loop::{EventLoop, Token, done},
    probe::{Answer, Probe, Subject, subject},
};

/// Loading a model takes well under a second; a busy machine is granted more.
const LIMIT: Duration = Duration::from_secs(20);

/// A request that waits for a look at its model.
pub struct Tryout {
    pub probe: Probe,
    request: Changing,
    /// Who is to be answered.
    client: Option<u32>,
}

/// What is to be done once the model is known.
enum Changing {
    Reload(Box<Config>),
    Restart(String),
}

impl EventLoop {
    /// Reads the configuration again; `None`: the answer comes later.
    pub(super) fn reload(&mut self, client: Option<u32>) -> Option<Reply> {
        if self.tryout.is_some() {
            return Some(busy());
        }
        self.notifier.reloading();
        let reply = self.begin_reload(client);
        if reply.is_some() {
            // Also where nothing changed: the service is as ready as it was.
            self.notifier.ready();
        }
        reply
    }

    fn begin_reload(&mut self, client: Option<u32>) -> Option<Reply> {
        let config = match self.read_again() {
            Ok(config) => config,
            Err(reply) => {
                complain(&reply);
                return Some(reply);
            }
        };
        let models = config.inference.model.is_some() || self.policy.model_file().is_some();
        if !models && subject(&config).1.is_none() {
            return Some(self.apply(config, None));
        }
        let looked_at = config.clone();
        self.look(subject(&looked_at), Changing::Reload(Box::new(config)), client)
    }

    /// Restarts workers; `None`: the answer comes later.
    pub(super) fn restart(&mut self, client: Option<u32>, name: String) -> Option<Reply> {
        let infer = Role::Infer.as_str();
        let concerns_the_pool = name == "all" || name == infer || name.starts_with("infer:");
        match self.policy.model_file().map(str::to_owned) {
            Some(_) if concerns_the_pool && self.tryout.is_some() => Some(busy()),
            Some(file) if concerns_the_pool => {
                self.look((Some(&file), None), Changing::Restart(name), client)
            }
            _ => Some(self.restart_now(&name)),
        }
    }

    fn restart_now(&mut self, name: &str) -> Reply {
        let (now, wall_us) = Self::now();
        let (result, actions) = self.policy.restart(now, wall_us, name);
        self.perform(actions);
        done(result)
    }

    /// The configuration as it is in its file now.
    fn read_again(&self) -> Result<Config, Reply> {
        let Some(path) = &self.options.config_path else {
            let message = "the service was started without a configuration file".to_owned();
            return Err(Reply::Error { message });
        };
        let place = path.display();
        // A pipe in its place would be waited for.
        if !std::fs::metadata(path).is_ok_and(|m| m.is_file()) {
            return Err(Reply::Refused {
                message: format!("{place}: cannot be read, or is not a regular file"),
            });
        }
        let mut config = config::from_file(path).map_err(|e| Reply::Refused { message: e.to_string() })?;
        if let Some(model) = &self.options.model {
            config.inference.model = Some(model.clone());
        }
        let (new, old) = (&config.supervision, &self.options.config.supervision);
        for (key, differs) in [("uid_base", new.uid_base != old.uid_base), ("users", new.users != old.users)]
        {
            if differs {
                return Err(Reply::Refused {
                    message: format!(
                        "{place}: supervision.{key}: other users are only taken up at a restart of the service, \
                         expected what it was started with"
                    ),
                });
            }
        }
        Ok(config)
    }

    /// Has somebody look at a model, or the page's certificate, before the request is carried out.
    fn look(&mut self, subject: Subject<'_>, request: Changing, client: Option<u32>) -> Option<Reply> {
        let identity = self.quarters.identities.as_ref().map(|ids| ids.of(Role::Infer, PROBE_SLOT));
        let started = Probe::start(self.quarters.programs.worker(), subject, identity.as_ref(), LIMIT)
            .and_then(|probe| {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Probe.encode());
                match self.epoll.add(probe.descriptor(), event) {
                    Ok(()) => Ok(probe),
                    Err(e) => {
                        let message = format!("a look at the model cannot be watched: {e}");
                        self.abandoned.push(probe);
                        Err(ServiceError { message, exit: 1 })
                    }
                }
            });
        match started {
            Ok(probe) => {
                self.tryout = Some(Tryout { probe, request, client });
                if let Some(id) = client {
                    self.clients.put_off(id);
                }
                None
            }
            Err(e) => {
                let reply = Reply::Error { message: e.message };
                complain(&reply);
                Some(reply)
            }
        }
    }

    /// A look at a model is over, or takes too long.
    pub(super) fn end_tryout(&mut self) {
        let Some(outcome) = self.tryout.as_mut().and_then(|t| t.probe.outcome()) else { return };
        let Some(Tryout { mut probe, request, client }) = self.tryout.take() else { return };
        let _ = self.epoll.delete(probe.descriptor());
        if !probe.is_gone() {
            self.abandoned.push(probe);
        }
        let announced = matches!(request, Changing::Reload(_));
        let reply = match (outcome, request) {
            (Ok(Answer { model, .. }), Changing::Reload(config)) => self.apply(*config, Some(model)),
            (Ok(Answer { model, .. }), Changing::Restart(name)) => self.restart_with(&name, model),
            (Err(e), request) => {
                let reply = self.refusal(e, &request);
                complain(&reply);
                reply
            }
        };
        if announced {
            self.notifier.ready();
        }
        if let Some(id) = client {
            self.clients.answer(id, &reply);
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload(None);
        }
    }

    fn refusal(&self, error: ServiceError, request: &Changing) -> Reply {
        match (error.exit, request, &self.options.config_path) {
            (2, Changing::Reload(_), Some(path)) => {
                Reply::Refused { message: format!("{}: {}", path.display(), error.message) }
            }
            (2, ..) => Reply::Refused { message: error.message },
            _ => Reply::Error { message: error.message },
        }
    }

    /// The processes that are asked for, or, where the file holds another model, the whole pool.
    fn restart_with(&mut self, name: &str, model: ModelShape) -> Reply {
        if model.id == self.policy.model().id {
            return self.restart_now(name);
        }
        let (now, wall_us) = Self::now();
        let (result, actions) = self.policy.replace_model(now, wall_us, model);
        self.perform(actions);
        match (result, name) {
            (Err(message), _) => {
                let reply = Reply::Refused { message };
                complain(&reply);
                reply
            }
            // All the others too.
            (Ok(_), "all") => self.restart_now(name),
            (Ok(message), _) => Reply::Done { message },
        }
    }

    fn apply(&mut self, config: Config, model: Option<ModelShape>) -> Reply {
        let (now, wall_us) = Self::now();
        let access = match Access::new(&config.control) {
            Ok(access) => access,
            Err(message) => return self.refuse(&message),
        };
        let (result, actions) = self.policy.reload(now, wall_us, config.clone(), model);
        if result.is_ok() {
            // Before anybody is started for it.
            self.options.config = config;
        }
        self.perform(actions);
        match result {
            Ok(mut changes) => {
                if let Err(e) = self.clients.admit(access) {
                    let text =
                        format!("control socket: {e}; only root and the service's own user may use it");
                    tracing::error!("{text}");
                    changes.notes.push(text);
                }
                Reply::Reloaded { changes: Box::new(changes) }
            }
            Err(message) => self.refuse(&message),
        }
    }

    /// Of a configuration that cannot be used.
    fn refuse(&self, message: &str) -> Reply {
        let path = self.options.config_path.as_deref().unwrap_or(Path::new(""));
        let reply = Reply::Refused { message: format!("{}: {message}", path.display()) };
        complain(&reply);
        reply
    }
}

fn busy() -> Reply {
    Reply::Error { message: "another reload or restart is looking at its model: ask again".to_owned() }
}

/// What is refused is in the log too: a signal has nobody to answer to, and others want to know.
fn complain(reply: &Reply) {
    if let Reply::Refused { message } | Reply::Error { message } = reply {
        tracing::error!("reload: {message}");
    }
}
