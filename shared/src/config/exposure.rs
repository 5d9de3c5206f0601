//! Secrets that stand in files which everybody on the host may read.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Config, Source};

/// What the configuration has elsewhere than in its file.
fn stands_elsewhere(value: &str) -> bool {
    ["env:", "credential:", "file:"].iter().any(|prefix| value.starts_with(prefix))
}

/// Whether a URL, or one within a command, has a password in front of its host.
fn has_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, _)| {
        let authority = text[at + 3..].split(['/', '?', '#', ' ', '"', '\'']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// The key of the first secret that stands in the file itself.
fn written_out(config: &Config) -> Option<String> {
    for (i, camera) in config.cameras.iter().enumerate() {
        let in_source = match camera.source.parse() {
            Ok(Source::Rtsp(url)) => url.password().is_some(),
            Ok(Source::Exec(command)) => has_password(&command),
            _ => false,
        };
        if in_source {
            return Some(format!("cameras[{i}].source"));
        }
        if camera.password.as_ref().is_some_and(|p| !stands_elsewhere(p.expose())) {
            return Some(format!("cameras[{i}].password"));
        }
    }
    for (i, alert) in config.alerts.iter().enumerate() {
        if alert.secret.as_ref().is_some_and(|s| !stands_elsewhere(s.expose())) {
            return Some(format!("alerts[{i}].secret"));
        }
        let command = alert.command.as_deref().unwrap_or_default();
        let url = alert.url.as_ref().map_or("", |u| u.expose());
        if let Some(key) = [("url", url), ("command", command)]
            .iter()
            .find_map(|(key, text)| has_password(text).then_some(key))
        {
            return Some(format!("alerts[{i}].{key}"));
        }
    }
    let web = config.web.as_ref().map(|w| [("password", &w.password), ("token", &w.token)]);
    for (key, secret) in web.into_iter().flatten() {
        if secret.as_ref().is_some_and(|s| !stands_elsewhere(s.expose())) {
            return Some(format!("web.{key}"));
        }
    }
    config.heartbeat.as_ref().is_some_and(|url| has_password(url.expose())).then(|| "heartbeat".to_owned())
}

/// The files that secrets are read from, each with its key.
fn secret_files(config: &Config) -> impl Iterator<Item = (String, &str)> {
    let cameras = config.cameras.iter().enumerate().filter_map(|(i, c)| {
        Some((format!("cameras[{i}].password"), c.password.as_ref()?.expose().strip_prefix("file:")?))
    });
    let alerts = config.alerts.iter().enumerate().flat_map(move |(i, a)| {
        [("secret", &a.secret), ("url", &a.url)].into_iter().filter_map(move |(key, secret)| {
            Some((format!("alerts[{i}].{key}"), secret.as_ref()?.expose().strip_prefix("file:")?))
        })
    });
    let heartbeat = config
        .heartbeat
        .iter()
        .filter_map(|url| Some(("heartbeat".to_owned(), url.expose().strip_prefix("file:")?)));
    let web = config.web.iter().flat_map(|w| {
        [("password", &w.password), ("token", &w.token)].into_iter().filter_map(|(key, secret)| {
            Some((format!("web.{key}"), secret.as_ref()?.expose().strip_prefix("file:")?))
        })
    });
    let tls = config.web.iter().filter_map(|w| Some(("web.tls.key".to_owned(), &*w.tls.as_ref()?.key)));
    cameras.chain(alerts).chain(heartbeat).chain(web).chain(tls)
}

/// The mode of a regular file that everybody may read, and get at: what lies in root's home is nobody else's.
fn open_to_all(path: &Path) -> Option<u32> {
    let path = path.canonicalize().ok()?;
    let found = std::fs::metadata(&path).ok().filter(|m| m.is_file())?;
    let reached =
        path.ancestors().skip(1).all(|dir| std::fs::metadata(dir).is_ok_and(|m| m.mode() & 0o001 != 0));
    (reached && found.mode() & 0o004 != 0).then_some(found.mode() & 0o777)
}

/// What is wrong with the rights of the configuration's file `path`, or of one that it reads a secret from; `config` is as
/// it is written there.
pub(super) fn find(path: &Path, base: &Path, config: &Config) -> Option<String> {
    if let Some(mode) = open_to_all(path)
        && let Some(key) = written_out(config)
    {
        return Some(format!(
            "holds a secret ({key}) and may be read by everybody (mode {mode:03o}): chmod 600 {}",
            path.display()
        ));
    }
    secret_files(config).find_map(|(key, file)| {
        let candidates = [base.join(file), PathBuf::from(file)];
        let found = candidates.into_iter().find(|p| p.exists())?;
        let mode = open_to_all(&found)?;
        Some(format!("{key}: {file} may be read by everybody (mode {mode:03o}): chmod 600 it"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn written(cameras: &str, rest: &str) -> Option<String> {
        let config: Config = serde_json::from_str(&format!(r#"{{"cameras": [{cameras}]{rest}}}"#)).unwrap();
        written_out(&config)
    }

    #[test]
    fn what_stands_in_the_file_is_found_and_what_stands_elsewhere_is_not() {
        let free = r#"{"name": "a", "source": "rtsp://h/x"}"#;
        for (camera, rest, key) in [
            (free, "", None),
            (r#"{"name": "a", "source": "rtsp://u:p@h/x"}"#, "", Some("cameras[0].source")),
            (r#"{"name": "a", "source": "rtsp://u@h/x"}"#, "", None),
            (r#"{"name": "a", "source": "exec:ffmpeg -i rtsp://u:p@h/x -"}"#, "", Some("cameras[0].source")),
            (r#"{"name": "a", "source": "exec:ffmpeg -i 'http://h:80/x@y:z' -"}"#, "", None),
            (
                r#"{"name": "a", "source": "rtsp://h/x", "username": "u", "password": "p"}"#,
                "",
                Some("cameras[0].password"),
            ),
            (r#"{"name": "a", "source": "rtsp://h/x", "username": "u", "password": "env:P"}"#, "", None),
            (
                free,
                r#", "alerts": [{"type": "webhook", "url": "http://h/", "secret": "s"}]"#,
                Some("alerts[0].secret"),
            ),
            (free, r#", "alerts": [{"type": "webhook", "url": "http://h/", "secret": "file:s"}]"#, None),
            (free, r#", "alerts": [{"type": "webhook", "url": "http://u:p@h/"}]"#, Some("alerts[0].url")),
            (
                free,
                r#", "alerts": [{"type": "exec", "command": "curl https://u:p@h/"}]"#,
                Some("alerts[0].command"),
            ),
            (free, r#", "heartbeat": "https://u:p@h/""#, Some("heartbeat")),
            (free, r#", "web": {"password": "p"}"#, Some("web.password")),
            (free, r#", "web": {"password": "env:P", "token": "t"}"#, Some("web.token")),
            (free, r#", "web": {"password": "file:p"}"#, None),
        ] {
            assert_eq!(written(camera, rest).as_deref(), key, "{camera} {rest}");
        }
    }

    #[test]
    fn only_files_that_everybody_may_read_are_found() {
        let dir = std::env::temp_dir().join(format!("nursery-exposure-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let (path, key) = (dir.join("cameras.json"), dir.join("key"));
        fs::write(&key, "k").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let look = |source: &str| {
            let text = format!(
                r#"{{"cameras": [{{"name": "a", "source": "{source}"}}], "alerts": [{{"type": "webhook", "url": "http://h/", "secret": "file:key"}}]}}"#
            );
            fs::write(&path, &text).unwrap();
            find(&path, &dir, &serde_json::from_str(&text).unwrap())
        };
        set(&key, 0o600);
        assert_eq!(look("rtsp://h/x"), None);
        set(&path, 0o644);
        assert!(look("rtsp://u:p@h/x").unwrap().contains("chmod 600"));
        set(&path, 0o640);
        assert_eq!(look("rtsp://u:p@h/x"), None);
        set(&key, 0o644);
        let found = look("rtsp://h/x").unwrap();
        assert!(found.starts_with("alerts[0].secret: key may be read by everybody (mode 644)"), "{found}");
        set(&dir, 0o700);
        assert_eq!(look("rtsp://u:p@h/x"), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
