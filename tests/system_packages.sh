#!/bin/sh
# Install what the tests of real audio servers and of the native code need, where that is possible:
# as root on Debian or Ubuntu.  Never fails: what is missing is named, and its tests skip by name.
set -u

PACKAGES="libportaudio2 portaudio19-dev libasound2-plugins jackd2 pulseaudio pulseaudio-utils
    pipewire wireplumber pipewire-pulse pipewire-jack dbus-daemon cmake ffmpeg chromium
    icecast2 nginx libnginx-mod-rtmp obs-studio xvfb
    ladspa-sdk swh-plugins cmt liblilv-0-0 lv2-dev lv2-examples lilv-utils jalv sordi ecasound"

# Only newer systems have a VST3.
PACKAGES="$PACKAGES $(apt-cache pkgnames dragonfly-reverb-vst3 2>/dev/null)"

missing() {
    for package in $PACKAGES; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            printf '%s ' "$package"
    done
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "system packages: not Debian or Ubuntu; tests that need an audio server may skip"
    exit 0
fi
wanted=$(missing)
[ -n "$wanted" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "system packages: not installed, tests that need them will skip: $wanted"
    echo "system packages: to install them: sudo apt-get install $wanted"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
# jackd2 asks whether to grant real-time priority.
echo 'jackd2 jackd/tweak_rt_limits boolean false' | debconf-set-selections 2>/dev/null
# Passwords of a server that is never started as a service: tests bring a configuration of their own.
echo 'icecast2 icecast2/icecast-setup boolean false' | debconf-set-selections 2>/dev/null
# Servers are for the tests alone: none starts now, nor at the next boot.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && trap 'rm -f "$policy"' EXIT
fi
echo "system packages: installing $wanted"
log=$(mktemp)
install() {
    timeout 600 apt-get install -y --no-install-recommends "$@" >"$log" 2>&1
}
timeout 300 apt-get update >"$log" 2>&1 || tail -n 3 "$log"
# All at once; if one of them cannot be had, each by itself.
# shellcheck disable=SC2086 # a list of words
install $wanted || for package in $wanted; do
    install "$package" || { echo "system packages: $package cannot be installed:"; tail -n 3 "$log"; }
done
rm -f "$log"
for service in icecast2 nginx; do
    case " $wanted " in *" $service "*) systemctl disable "$service" >/dev/null 2>&1 ;; esac
done
wanted=$(missing)
[ -z "$wanted" ] || echo "system packages: tests that need these will skip: $wanted"
exit 0
