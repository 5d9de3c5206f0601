//! `nursery listen`: a camera's live audio for an operator, from its capture process, whatever becomes of that.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use nursery_shared::control::{Reply, Request};
use nursery_tests::{
    audio,
    rtsp_camera::{Codec, RtspCamera},
    service::{Service, binary, camera, config, nursery},
    skip, wait,
};

const PATIENCE: Duration = wait::PATIENCE;

fn listen(service: &Service, arguments: &[&str]) -> Command {
    let mut command = nursery(["listen"]);
    command.args(arguments).arg("--control-socket").arg(service.socket());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn to_end(command: &mut Command) -> Output {
    wait::output(command, PATIENCE)
}

/// Reads so many samples of a WAV file that has no end yet.
fn read_wav(child: &mut Child, samples: usize) -> Vec<i16> {
    let out = child.stdout.as_mut().unwrap();
    let mut header = [0; 44];
    out.read_exact(&mut header).unwrap();
    assert_eq!((&header[..4], &header[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    assert_eq!(u32::from_le_bytes(header[24..28].try_into().unwrap()), 16_000);
    let mut bytes = vec![0; samples * 2];
    out.read_exact(&mut bytes).unwrap();
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

fn loudest(samples: &[i16]) -> i32 {
    samples.iter().map(|s| i32::from(*s).abs()).max().unwrap_or(0)
}

#[test]
fn what_the_camera_hears_comes_out_as_wav() {
    let crib = RtspCamera::start(Codec::Pcmu);
    let service = Service::start(&config([camera("crib", crib.url()), camera("toy", "synthetic:cry")], []));
    service.wait_live(&["crib", "toy"]);
    let mut child = listen(&service, &["crib", "-o", "-"]).spawn().unwrap();
    crib.microphone().play(&audio::cry(20.0));
    let heard = read_wav(&mut child, 6 * 16_000);
    assert!(loudest(&heard[4 * 16_000..]) > 1_000, "nothing but {}", loudest(&heard));
    assert_eq!(crib.connected(), 1, "whoever listens takes no connection of the camera");
    // Its reader has had enough: that is no failure.
    drop(child.stdout.take());
    let status = wait::for_exit(&mut child, PATIENCE).expect("an end");
    assert!(status.success(), "{status}");

    let file = service.dir().join("toy.wav");
    let path = file.to_str().unwrap();
    let out = to_end(&mut listen(&service, &["toy", "--output", path, "--seconds", "2"]));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len(), 44 + 2 * 2 * 16_000);
    assert_eq!(u32::from_le_bytes(bytes[40..44].try_into().unwrap()), 64_000);
    assert_eq!(audio::decode(&file).len(), 32_000);
    service.wait_windows("crib", 4);
}

#[test]
fn listening_goes_on_when_the_cameras_process_is_replaced_and_the_service_begins_anew() {
    let mut service = Service::start(&config([camera("toy", "synthetic:cry")], []));
    service.wait_live(&["toy"]);
    let mut child = listen(&service, &["toy", "-o", "-", "--seconds", "9"]).spawn().unwrap();
    let before = read_wav(&mut child, 2 * 16_000);
    let old = service.process_of("capture:toy");
    assert!(old.signal(Signal::SIGKILL));
    let mut more = vec![0; 3 * 32_000];
    child.stdout.as_mut().unwrap().read_exact(&mut more).unwrap();
    service.kill();
    service.start_again();
    let mut rest = Vec::new();
    child.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(before.len() * 2 + more.len() + rest.len(), 9 * 32_000);
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("trying again"), "{}: {said}", out.status);
}

#[test]
fn what_cannot_be_listened_to_is_said() {
    let gone = RtspCamera::start(Codec::L16);
    let mut service =
        Service::start(&config([camera("toy", "synthetic:noise"), camera("gone", gone.url())], []));
    service.wait_live(&["toy"]);
    let failing = |service: &Service, arguments: &[&str]| -> (Option<i32>, String) {
        let out = to_end(&mut listen(service, arguments));
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, said) = failing(&service, &["nobody", "-o", "-"]);
    assert!(code == Some(1) && said.contains("no camera of this name"), "{code:?} {said}");
    let (code, said) = failing(&service, &["toy", "-o", "/nowhere/at/all.wav"]);
    assert!(code == Some(2) && said.contains("/nowhere/at/all.wav"), "{code:?} {said}");
    let (code, said) = failing(&service, &["--wrong"]);
    assert!(code == Some(2) && said.contains("--wrong"), "{code:?} {said}");
    if !nursery_worker::sink::sound::BUILT_IN {
        let (code, said) = failing(&service, &["toy"]);
        assert!(code == Some(2) && said.contains("feature `sound`"), "{code:?} {said}");
    }
    service.stop();
    let (code, said) = failing(&service, &["toy", "-o", "-"]);
    assert!(code == Some(1) && said.contains("no service at"), "{code:?} {said}");
}

#[test]
fn nobody_listens_who_may_only_ask_for_the_status() {
    if !nix::unistd::geteuid().is_root() {
        skip!("only root can be somebody else");
    }
    let mut all = config([camera("toy", "synthetic:noise")], []);
    all["control"] = serde_json::json!({"public_status": true});
    let service = Service::start(&all);
    service.wait_live(&["toy"]);
    assert!(matches!(service.ask(&Request::Listen { camera: "toy".into() }), Ok(Reply::Done { .. })));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(service.dir(), open).unwrap();
    let mut command = Command::new(binary("nursery"));
    command.args(["listen", "toy", "-o", "-", "--control-socket"]).arg(service.socket()).uid(1).gid(1);
    let out = to_end(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("not permitted") || said.contains("no permission"), "{said}");
}
