//! Encoded media: what a capture process hands over, on its way to viewers and into clips; files of clips, whoever wrote
//! them and wherever they are torn; pictures, as the process that looks at them decodes them.

use std::{fs::File, os::unix::fs::FileExt, time::Instant};

use nursery_shared::{
    frame::FrameBuffer,
    media::{
        AudioCodec, AudioTrack, Data, FromCapture, Kind, MAX_MEDIA, Packet, Tracks, VideoCodec, VideoTrack,
    },
};
use nursery_worker::{
    light::{decode, frame::Frame, jpeg},
    media::clip::{
        encoder::{Encoder, End},
        whole,
    },
    web::live::{
        buffer::{Buffer, Cursor},
        intake::Intake,
        record::HEAD,
    },
};

use super::frames::{mutate_frames, seeds};
use crate::{
    mutate::Mutator,
    scratch::Scratch,
    target::{Check, ROOM, Target, Verdict, one_line, pieces, size, way, way_of_text},
};

const START: i64 = 1_800_000_000_123_456;

pub const MEDIA: Target = Target {
    name: "media",
    about: "encoded media from a capture process, as viewers get it and as clips are made of it",
    mutator: Mutator::Own(mutate_frames),
    words: &["avc1.42001E", "hvc1.1.6.L93.B0"],
    longest: 64 << 10,
    // A frame while it grows, packets with their boxes, and a minute of silence of the fastest sound there is.
    memory: |len| 3 * MAX_MEDIA + 400 * len + 128 * ROOM,
    seconds: 4.0,
    short: 3_000,
    seeds: || films().iter().flat_map(|film| seeds(film, MAX_MEDIA)).collect(),
    check: || {
        let scratch = Scratch::new("media");
        Box::new(move |input| media(&scratch, input))
    },
};

pub const CLIP: Target = Target {
    name: "clip",
    about: "files of clips, as they are found, mended and shown",
    mutator: Mutator::Bytes,
    words: &[
        "RIFF", "WAVE", "fmt ", "data", "ftyp", "moov", "trak", "mdia", "minf", "stbl", "stsd", "mvex",
        "trex", "prft", "moof", "traf", "tfhd", "tfdt", "trun", "mdat", "free", "styp",
    ],
    longest: 32 << 10,
    memory: |len| 40 * len + 4 * ROOM,
    seconds: 2.0,
    short: 10_000,
    seeds: || films().iter().filter_map(|film| clip_of(film).ok()).map(|(bytes, _)| bytes).collect(),
    check: clip,
};

pub const PICTURE: Target = Target {
    name: "picture",
    about: "key frames and JPEG files, as they become pictures",
    mutator: Mutator::Bytes,
    words: &["\u{ff}\u{d8}", "JFIF", "gB"],
    longest: 16 << 10,
    // The largest picture there may be, in the decoder, out of it and in the three colours of another.
    memory: |len| 40 * len + 160 * ROOM,
    seconds: 8.0,
    short: 500,
    seeds: pictures,
    check: || Box::new(picture),
};

fn sound(codec: AudioCodec, rate: u32, channels: u8) -> AudioTrack {
    let config: &[u8] = if codec == AudioCodec::Aac { &[0x14, 0x08] } else { &[] };
    AudioTrack { codec, rate, channels, config: config.into() }
}

/// AVCDecoderConfigurationRecord of 320 by 240 pixels.
const AVC: &[u8] = &[
    1, 66, 0, 30, 0xff, 0xe1, 0, 10, 0x67, 66, 0, 30, 0xab, 0x40, 0x50, 0x1e, 0xd0, 0x80, 1, 0, 4, 0x68,
    0xce, 0x38, 0x80,
];

fn video(codec: VideoCodec) -> VideoTrack {
    let (codecs, config) = match codec {
        VideoCodec::H264 => ("avc1.42001E", AVC),
        VideoCodec::H265 => ("hvc1.1.6.L93.B0", &[][..]),
        VideoCodec::Jpeg => ("", &[][..]),
    };
    VideoTrack { codec, codecs: codecs.into(), width: 320, height: 240, config: Data::from(config) }
}

/// Sound and pictures of every kind, some of which change on the way.
fn films() -> Vec<Vec<FromCapture>> {
    let tracks = |audio, video| FromCapture::Tracks(Tracks { audio, video, no_video: None });
    let packet = |kind, n: i64| {
        let (key, duration_us) =
            (kind == Kind::Audio || n % 8 == 0, if kind == Kind::Audio { 20_000 } else { 0 });
        // As a unit with its length, which sound does not mind.
        let data = [&40u32.to_be_bytes()[..], &[0x65; 40]].concat();
        FromCapture::Packet(Packet { kind, time_us: START + n * 20_000, duration_us, key, data: data.into() })
    };
    let both = |n| [packet(Kind::Audio, n), packet(Kind::Video, n)];
    let mut films = Vec::new();
    for (codec, rate, channels) in [
        (AudioCodec::Aac, 16_000, 1),
        (AudioCodec::Ulaw, 8_000, 1),
        (AudioCodec::Alaw, 8_000, 2),
        (AudioCodec::S16le, 48_000, 2),
    ] {
        let audio = Some(sound(codec, rate, channels));
        let listening =
            std::iter::once(tracks(audio.clone(), None)).chain((0..12).map(|n| packet(Kind::Audio, n)));
        let looking =
            std::iter::once(tracks(audio, Some(video(VideoCodec::H264)))).chain((12..70).flat_map(both));
        films.push(listening.clone().collect());
        films.push(looking.clone().collect());
        films.push(listening.chain(looking).collect());
    }
    for codec in [VideoCodec::H265, VideoCodec::Jpeg] {
        films.push(std::iter::once(tracks(None, Some(video(codec)))).chain((0..9).flat_map(both)).collect());
    }
    films
}

/// The file that this makes, and how it ended; the tracks it begins with are what it is of.
fn clip_of(film: &[FromCapture]) -> Result<(Vec<u8>, Result<(), End>), End> {
    let first =
        film.iter().find_map(|m| if let FromCapture::Tracks(tracks) = m { Some(tracks) } else { None });
    let mut encoder = Encoder::new(first.ok_or_else(|| End("no tracks".into()))?)?;
    let mut bytes = Vec::new();
    let packets =
        film.iter().filter_map(|m| if let FromCapture::Packet(packet) = m { Some(packet) } else { None });
    let outcome =
        packets.map(|packet| encoder.push(packet, &mut bytes)).find(Result::is_err).unwrap_or(Ok(()));
    let end = encoder.finish(&mut bytes);
    Ok((bytes, outcome.and(end)))
}

fn media(scratch: &Scratch, input: &[u8]) -> Verdict {
    let (mut frames, mut film, mut broken) = (FrameBuffer::new(MAX_MEDIA), Vec::<FromCapture>::new(), None);
    'read: for piece in pieces(input, 9) {
        frames.feed(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(message)) => film.push(message),
                Ok(None) => break,
                Err(e) => {
                    one_line(&e.to_string())?;
                    broken = Some(way_of_text(&e.to_string()));
                    break 'read;
                }
            }
        }
    }
    let seen = shown(&film)?;
    let kept = match clip_of(&film) {
        Err(End(why)) => {
            one_line(&why)?;
            way_of_text(&why)
        }
        Ok((bytes, outcome)) => {
            if let Err(End(why)) = &outcome {
                one_line(why)?;
            }
            let file = file_of(scratch, &bytes)?;
            let found = whole::look(&file).map_err(|e| e.to_string())?;
            // What ended well is all there, up to the lengths that are put in at the end.
            if let (Ok(()), Some(found)) = (&outcome, &found)
                && found.bytes != bytes.len() as u64
            {
                return Err(format!("{} bytes were written, {found:?} of them is a clip", bytes.len()));
            }
            way((
                size(bytes.len()),
                outcome.err().map(|End(why)| way_of_text(&why)),
                found.map(|f| f.format.extension()),
            ))
        }
    };
    Ok(way((broken, size(film.len()), seen, kept)))
}

/// What a viewer who sees everything, and one who only listens, get; which records there were.
fn shown(film: &[FromCapture]) -> Result<Vec<u8>, String> {
    const SHARE: usize = 32 << 10;
    let (mut intake, mut buffer, now) = (Intake::default(), Buffer::default(), Instant::now());
    let (mut eager, mut listener, mut late) = (Cursor::new(true), Cursor::new(false), Cursor::new(true));
    let mut kinds = Vec::new();
    for (n, message) in film.iter().enumerate() {
        intake.take(message.clone(), &mut buffer, SHARE, now);
        let mut out = Vec::new();
        buffer.next(&mut eager, usize::MAX, &mut out);
        buffer.next(&mut listener, 1, &mut out);
        if n % 16 == 15 {
            buffer.next(&mut late, 1, &mut out);
        }
        for record in out {
            let length = record.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
            if record.len() < HEAD || length + 4 != record.len() {
                return Err(format!("a record of {} bytes says that it has {length}", record.len()));
            }
            if !kinds.contains(&record[4]) {
                kinds.push(record[4]);
            }
        }
    }
    Ok(kinds)
}

fn file_of(scratch: &Scratch, bytes: &[u8]) -> Result<File, String> {
    let path = scratch.path().join("clip");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.map_err(|e| format!("scratch: {e}"))?;
    file.write_all_at(bytes, 0).map_err(|e| format!("scratch: {e}"))?;
    Ok(file)
}

fn clip() -> Check {
    let scratch = Scratch::new("clip");
    Box::new(move |input| {
        let file = file_of(&scratch, input)?;
        let text = |e: std::io::Error| format!("a file that can be read cannot be looked at: {e}");
        let looked = whole::look(&file).map_err(text)?;
        let mended = whole::mend(&file).map_err(text)?;
        if looked != mended {
            return Err(format!("looked at: {looked:?}, mended: {mended:?}"));
        }
        let length = file.metadata().map_err(text)?.len();
        let Some(found) = mended else {
            return if length == input.len() as u64 {
                Ok(0)
            } else {
                Err("what is no clip was changed".into())
            };
        };
        if found.bytes != length || length > input.len() as u64 || found.duration_us <= 0 {
            return Err(format!("{found:?} in a file of {length} bytes, of {} before", input.len()));
        }
        let again = whole::mend(&file).map_err(text)?;
        if again != Some(found) {
            return Err(format!("mended: {found:?}, mended again: {again:?}"));
        }
        let torn = input.len() as u64 - length;
        Ok(way((
            found.format.extension(),
            found.video,
            found.from_us.is_some(),
            size(torn as usize),
            size(length as usize / 256),
        )))
    })
}

/// Two bytes that say how long the parameters are, of which the highest bit says that it is JPEG; parameters; picture.
fn pictures() -> Vec<Vec<u8>> {
    let unit = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let key = unit(&[&[0x65, 0x88, 0x84, 0x00, 0x33, 0xff][..], &[0x5a; 300]].concat());
    let h264 = |data: &[u8]| [&(AVC.len() as u16).to_be_bytes()[..], AVC, data].concat();
    let frame = Frame { width: 16, height: 8, y: (0..128).collect(), colours: None };
    let jpeg = jpeg::encode(&frame).expect("a small picture is a file");
    vec![
        h264(&key),
        h264(&[unit(&[0x06, 1, 2]), key.clone(), key].concat()),
        [&[0x80, 0][..], &jpeg].concat(),
    ]
}

fn picture(input: &[u8]) -> Verdict {
    let Some((head, rest)) = input.split_first_chunk::<2>() else { return Ok(0) };
    let length = u16::from_be_bytes(*head);
    let codec = if length & 0x8000 == 0 { VideoCodec::H264 } else { VideoCodec::Jpeg };
    let (config, data) = rest.split_at(usize::from(length & 0x7fff).min(rest.len()));
    let track = VideoTrack { config: config.into(), ..video(codec) };
    match decode::picture(&track, data, |seen| Frame::of(seen, 64, false)) {
        Ok(frame) => Ok(way((codec == VideoCodec::Jpeg, frame.width, frame.height))),
        Err(why) => {
            one_line(&why)?;
            Ok(way_of_text(&why))
        }
    }
}
