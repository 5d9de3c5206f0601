//! Requests on the control socket, through the supervisor's own listener and a real socket: one request, one answer of
//! one line, however the bytes come.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use nursery_shared::control::{MAX_REQUEST, Reply, Request};
use nursery_supervisor::service::clients::{Access, Clients, Outcome};

use crate::{
    mutate::Mutator,
    scratch::Scratch,
    target::{ROOM, Target, Verdict, one_line, pieces, size, way, way_of_text},
};

pub const CONTROL: Target = Target {
    name: "control",
    about: "requests on the control socket",
    mutator: Mutator::Json,
    words: &[
        "request",
        "status",
        "scale",
        "restart",
        "reload",
        "stop",
        "logs",
        "info",
        "workers",
        "fixed",
        "auto",
        "name",
        "follow",
        "capture:crib",
        "infer:0",
        "sink",
        "\n",
    ],
    longest: MAX_REQUEST + 4096,
    memory: |len| 8 * len + ROOM,
    seconds: 1.0,
    short: 5_000,
    seeds,
    check: || {
        let folder = Scratch::new("control");
        let path = folder.path().join("control.sock");
        let mut clients = Clients::bind(&path, Access::default()).expect("a socket in a folder of our own");
        Box::new(move |input| ask(&mut clients, &folder, input))
    },
};

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"request":"status"}"#,
        r#"{"request":"scale","workers":{"fixed":3}}"#,
        r#"{"request":"scale","workers":"auto"}"#,
        r#"{"request":"restart","name":"capture:crib"}"#,
        r#"{"request":"reload"}"#,
        r#"{"request":"stop"}"#,
        r#"{"request":"logs","name":"crib","follow":true}"#,
        r#"{"request":"logs","name":null,"follow":false}"#,
        r#"{"request":"info"}"#,
    ]
    .into_iter()
    .flat_map(|text| [text.into(), format!("{text}\n").into()])
    .collect()
}

fn ask(clients: &mut Clients, folder: &Scratch, input: &[u8]) -> Verdict {
    let path = folder.path().join("control.sock");
    let mut client = UnixStream::connect(path).map_err(|e| format!("cannot connect: {e}"))?;
    client.set_nonblocking(true).map_err(|e| e.to_string())?;
    let id = clients.accept().map_err(|e| e.to_string())?.ok_or("the client was turned away")?;
    let (mut asked, mut closed) = (Vec::new(), false);
    let mut serve = |clients: &mut Clients| -> Result<(), String> {
        match clients.serve(id) {
            Outcome::Waiting => {}
            Outcome::Closed => closed = true,
            Outcome::Asks(request, _) => {
                asked.push(request);
                clients.answer(id, &Reply::Done { message: "done".into() });
            }
        }
        Ok(())
    };
    for piece in pieces(input, 2).into_iter().flat_map(|p| p.chunks(16 << 10)) {
        // The service may have said all it has to say and gone.
        if client.write_all(piece).is_err() {
            break;
        }
        serve(clients)?;
    }
    // A client that only closes its sending side still gets its reply.
    let _ = client.shutdown(std::net::Shutdown::Write);
    serve(clients)?;
    serve(clients)?;
    if clients.client_fd(id).is_some() {
        return Err("the service keeps a client that has said everything".into());
    }
    client.set_nonblocking(false).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    // The rest of a request that nobody read makes the kernel reset the connection after the answer.
    let _ = client.read_to_end(&mut answer);
    judge(input, &asked, &answer)
}

fn judge(input: &[u8], asked: &[Request], answer: &[u8]) -> Verdict {
    let line = input.split(|b| *b == b'\n').next().unwrap_or_default();
    let whole = serde_json::from_slice::<Request>(line).ok();
    if asked.len() > 1 {
        return Err(format!("one client asked {} times", asked.len()));
    }
    if answer.is_empty() {
        // Nothing was asked, or the client was reset before it could read.
        return if asked.is_empty() && (line.is_empty() || input.len() > MAX_REQUEST)
            || input.len() > line.len() + 1
        {
            Ok(way("reset"))
        } else {
            Err("no answer".into())
        };
    }
    if answer.last() != Some(&b'\n') || answer.iter().filter(|b| **b == b'\n').count() != 1 {
        return Err(format!("not one line: {:?}", String::from_utf8_lossy(answer)));
    }
    let reply: Reply = serde_json::from_slice(answer).map_err(|e| format!("the answer is none: {e}"))?;
    match (reply, asked.first()) {
        (Reply::Done { .. }, Some(request)) => {
            if whole.as_ref() != Some(request) && line.len() <= MAX_REQUEST {
                return Err(format!("understood {request:?}, sent was {whole:?}"));
            }
            let text = serde_json::to_string(request).map_err(|e| e.to_string())?;
            let again: Request = serde_json::from_str(&text).map_err(|e| format!("{text}: {e}"))?;
            if again != *request {
                return Err(format!("{request:?} becomes {again:?}"));
            }
            Ok(way((text.len().min(60), std::mem::discriminant(request))))
        }
        (Reply::Error { message }, None) => {
            one_line(&message)?;
            Ok(way((way_of_text(&message), size(line.len()))))
        }
        (reply, asked) => Err(format!("{asked:?} is answered by {reply:?}")),
    }
}
