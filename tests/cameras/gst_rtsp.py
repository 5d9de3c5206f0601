#!/usr/bin/python3
"""A camera for tests: serves one WAV file on a loopback port through GStreamer's RTSP server.

Prints `port N` once it listens, and ends when its standard input does.
"""
import argparse
import sys

import gi

for library in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(library, "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

AAC = "avenc_aac ! aacparse ! rtpmp4gpay pt=97 name={pay}"
VIDEO = (
    "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=5/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay pt=96 name=pay0  "
)
STREAMS = {
    "pcmu-8k": "{audio},rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay0",
    "pcma-8k": "{audio},rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay0",
    "l16-16k": "{audio},format=S16BE,rate=16000,channels=1 ! rtpL16pay pt=97 name=pay0",
    "aac-16k": "{audio},rate=16000,channels=1 ! " + AAC.format(pay="pay0"),
    "aac-48k-stereo": "{audio},rate=48000,channels=2 ! " + AAC.format(pay="pay0"),
    # The access units of an ADTS file as they are.
    "aac-units": 'filesrc location="{file}" ! aacparse ! rtpmp4gpay pt=97 name=pay0',
    "h264-aac": VIDEO + "{audio},rate=16000,channels=1 ! " + AAC.format(pay="pay1"),
    "h264-pcmu": VIDEO + "{audio},rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1",
}
ELEMENTS = ["avenc_aac", "aacparse", "rtpmp4gpay", "x264enc", "rtph264pay", "mulawenc", "alawenc", "wavparse"]


def check():
    missing = [name for name in ELEMENTS if Gst.ElementFactory.find(name) is None]
    if missing:
        sys.exit("without the elements " + ", ".join(missing))


def require_password(server, factory, text):
    user, password = text.split(":", 1)
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for permission in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", permission, True)
    factory.set_permissions(permissions)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="only say whether everything is installed")
    options.add_argument("--stream", choices=STREAMS)
    options.add_argument("--wav")
    options.add_argument("--digest", metavar="USER:PASSWORD")
    arguments = options.parse_args()
    Gst.init(None)
    check()
    if arguments.check:
        return

    audio = f'filesrc location="{arguments.wav}" ! wavparse ! audioconvert ! audioresample ! audio/x-raw'
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch("( " + STREAMS[arguments.stream].format(audio=audio, file=arguments.wav) + " )")
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/live", factory)
    if arguments.digest:
        require_password(server, factory, arguments.digest)
    server.attach(None)

    loop = GLib.MainLoop()
    watched = GLib.IO_IN | GLib.IO_HUP
    GLib.io_add_watch(sys.stdin.fileno(), GLib.PRIORITY_DEFAULT, watched, lambda *_: loop.quit())
    print("port", server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
