#![allow(clippy::unwrap_used, clippy::expect_used)]
use nursery_shared::media::VideoCodec;

use super::*;

fn aac() -> Sound {
    // AAC-LC, 16 kHz, one channel.
    let config = SoundCodec::Aac { config: Data::from(vec![0x14, 0x08]) };
    Sound { codec: config, rate: 16_000, channels: 1 }
}

#[test]
fn what_is_broken_is_an_error() {
    let good = || VideoTrack {
        codec: VideoCodec::H264,
        codecs: "avc1.42C01E".into(),
        width: 320,
        height: 240,
        config: vec![1, 66, 192, 30, 0xff, 0xe1, 0, 2, 0x67, 66, 1, 0, 1, 0x68].into(),
    };
    let refused = |video: &VideoTrack| Muxer::new(Some(video), None, 0).unwrap_err().to_string();
    assert!(Muxer::new(Some(&good()), None, 0).is_ok());
    for len in 0..14 {
        let cut = VideoTrack { config: good().config[..len].into(), ..good() };
        assert!(refused(&cut).starts_with("MP4: configuration of the pictures: "), "{len}");
    }
    refused(&VideoTrack { config: vec![0xff; 14].into(), ..good() });
    refused(&VideoTrack { config: vec![1; 100_000].into(), ..good() });
    refused(&VideoTrack { width: 0, ..good() });
    refused(&VideoTrack { codec: VideoCodec::Jpeg, ..good() });
    for len in 0..40 {
        refused(&VideoTrack { codec: VideoCodec::H265, config: vec![0xff; len].into(), ..good() });
    }
    for sound in [
        Sound { rate: 0, ..aac() },
        Sound { rate: u32::MAX, ..aac() },
        Sound { channels: 0, ..aac() },
        Sound { channels: 200, ..aac() },
        Sound { codec: SoundCodec::Aac { config: Data::default() }, ..aac() },
        Sound { codec: SoundCodec::Aac { config: vec![0; 4096].into() }, ..aac() },
        Sound { codec: SoundCodec::Flac { block: 0, bits: 16 }, ..aac() },
    ] {
        assert!(Muxer::new(None, Some(&sound), 0).is_err(), "{sound:?}");
    }
    assert!(Muxer::new(None, None, 0).is_err());
    for codecs in ["", "avc1\"; x", &"a".repeat(100)] {
        assert_eq!(mime_of_video(&VideoTrack { codecs: codecs.into(), ..good() }), None);
    }
    assert_eq!(mime_of_video(&good()).unwrap(), "video/mp4; codecs=\"avc1.42C01E\"");
    assert_eq!(mime_of_sound(&aac()), "audio/mp4; codecs=\"mp4a.40.2\"");
    // Of other tracks, or nothing at all.
    let mut muxer = Muxer::new(Some(&good()), None, 0).unwrap();
    let sample = Sample { kind: Kind::Audio, time_us: 0, duration_us: 1, key: true, data: b"x" };
    assert_eq!(muxer.fragment(&[sample], None), Ok(None));
    assert_eq!(muxer.fragment(&[Sample { kind: Kind::Video, data: b"", ..sample }], None), Ok(None));
}
