#!/bin/sh
# Any song without its singer, through pipes: no file in between, any length.
#   examples/pipe.sh song.mp3 karaoke.mp3
set -eu
[ $# -eq 2 ] || { echo "usage: pipe.sh SONG KARAOKE" >&2; exit 2; }

ffmpeg -v error -i "$1" -f wav - |
    realtime-sep pipe --format wav |
    ffmpeg -v error -f wav -i - -y "$2"
