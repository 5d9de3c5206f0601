//! Hostile workers on order: a worker binary that is the real one, until it is told that the next process of a role is
//! to be `hostile-worker`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nursery_shared::message::Role;

use crate::{service::binary, wait};

/// Where orders are left, and who takes them.
pub struct Impostors {
    orders: PathBuf,
    worker: PathBuf,
}

impl Impostors {
    /// Makes both in this directory.
    pub fn new(dir: &Path) -> Self {
        let orders = dir.join("orders");
        fs::create_dir(&orders).expect("make a directory");
        // Workers are other users, where this runs as root, and take their orders away.
        fs::set_permissions(&orders, fs::Permissions::from_mode(0o777)).expect("open it to everybody");
        let [worker, _] =
            ["nursery-worker", "nursery-capture"].map(|name| Self::stand_in(dir, name, &orders));
        Self { orders, worker }
    }

    /// Makes what is started in place of a program.
    fn stand_in(dir: &Path, name: &str, orders: &Path) -> PathBuf {
        let path = dir.join(name);
        let script = format!(
            "#!/bin/sh\norder='{}'/$1\nif [ -e \"$order\" ] && mode=$(cat \"$order\") && rm \"$order\"; then\n\
             exec '{}' \"$mode\" \"$1\"\nfi\nexec '{}' \"$@\"\n",
            orders.display(),
            binary("hostile-worker").display(),
            binary(name).display()
        );
        // Another process writes it: a descriptor of ours that is open for writing could be inherited by what another
        // test is just starting, and the script would be busy then.
        let mut writer = Command::new("/bin/sh");
        writer.args(["-c", r#"printf %s "$1" > "$0" && chmod 755 "$0""#]).arg(&path).arg(script);
        assert!(wait::output(&mut writer, Duration::from_secs(30)).status.success());
        path
    }

    /// For `--worker-binary`.
    pub fn worker(&self) -> &Path {
        &self.worker
    }

    /// The next process of this role is a hostile one in this mode.
    pub fn order(&self, role: Role, mode: &str) {
        // Orders for two roles may be left at once.
        let partial = self.orders.join(format!("{}.partial", role.as_str()));
        let whole = self.orders.join(role.as_str());
        fs::write(&partial, mode).expect("write an order");
        fs::rename(partial, whole).expect("leave an order");
    }

    /// A process has taken the order.
    pub fn is_taken(&self, role: Role) -> bool {
        !self.orders.join(role.as_str()).exists()
    }

    /// Nobody is to take it any more.
    pub fn cancel(&self, role: Role) {
        let _ = fs::remove_file(self.orders.join(role.as_str()));
    }
}
