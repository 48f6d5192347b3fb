#!/bin/sh
# Installs gVisor's runsc into DIRECTORY (/usr/local/bin), in about fifteen seconds, as root on Debian and its kin.
#
# Debian 12 has a runsc of 2022, without the platform that is fast and safe. Debian 13 has one of 2024, linked statically,
# so it runs on 12 as well. It is taken from the mirror this machine uses already, in package lists of its own: neither
# the sources nor the lists of this machine change. Signed by Debian's key, and pinned by version and digest.
set -eu
directory=${1:-/usr/local/bin}
release=trixie
version='0.0~20240729.0-4+b7'
keys=/usr/share/keyrings/debian-archive-keyring.gpg

case $(dpkg --print-architecture 2>/dev/null || echo none) in
  amd64) digest=3c25a5130dfac2f71237d5baad56ac86a255de87a0400f11b36a555156dc325a ;;
  arm64) digest=8e13e0625a094f962da3edcaf81ab0ed779726b6335e385a8148919f2c217c8e ;;
  *) echo "runsc: only for Debian on amd64 and arm64; elsewhere install it as gvisor.dev says" >&2; exit 1 ;;
esac
find_mirror() {  # only known of lists that have been fetched
  apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "main" && $1 !~ /security/ {print $1; exit}'
}
mirror=$(find_mirror)
if [ -z "$mirror" ]; then
  apt-get update -qq
  mirror=$(find_mirror)
fi
if [ -z "$mirror" ]; then
  echo "runsc: this machine has no mirror of Debian; install it as gvisor.dev says" >&2; exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/sources"
echo "deb [signed-by=$keys] $mirror $release main" >"$scratch/sources/gvisor.list"
apt() {
  apt-get -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$scratch/sources" -o APT::Sandbox::User=root \
    -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o Acquire::Languages=none \
    -o Acquire::Retries=3 "$@"
}
apt update
(cd "$scratch" && apt download "runsc=$version" >/dev/null)
package=$(echo "$scratch"/runsc_*.deb)
echo "$digest  $package" | sha256sum --check --quiet
dpkg -x "$package" "$scratch/unpacked"
install -m 0755 "$scratch/unpacked/usr/bin/runsc" "$directory/runsc"
"$directory/runsc" --version | head -1
