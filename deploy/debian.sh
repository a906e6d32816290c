#!/usr/bin/env bash
# Makes the Debian package of a program: target/debian/edgemesh_VERSION_ARCH.deb, with dpkg-deb alone.
#
#   debian.sh build PROGRAM [OUT]
#
# A program for another machine is run once, for its shell completions: by $RUNNER, if that is set.
# COMPRESS=none is for tests.
set -euo pipefail
. "$(dirname "$0")/packages.sh"

here=$root_of_project/deploy

# build PROGRAM [OUT]
build() {
  local program=$1 arch out tree="$work/tree"
  [ -f "$program" ] || die "there is no program $program" "build it: cargo build --release -p edgemesh-daemon"
  need dpkg-deb readelf gzip
  arch=$(machine "$program")
  out=${2:-$target/debian/edgemesh_$(version)_$arch.deb}
  mkdir -p "$tree/DEBIAN" "$tree"/etc/edgemesh/{manifests,services}
  install -D -m 755 "$program" "$tree/usr/bin/edgemesh"
  configuration "$tree"
  units "$tree"
  completions "$program" "$tree"
  documents "$tree"
  control "$program" "$arch" "$tree"
  mkdir -p "$(dirname "$out")"
  SOURCE_DATE_EPOCH=$(epoch) dpkg-deb --root-owner-group -Z"${COMPRESS:-xz}" --build "$tree" "$out" >/dev/null
  printf '%s: %s bytes\n' "$out" "$(stat -c %s "$out")"
  echo "install: apt install $out"
}

# dpkg asks before it replaces what somebody changed.
configuration() {
  local name
  for name in agent cloud; do
    install -m 644 "$here/$name.yaml" "$1/etc/edgemesh/$name.yaml"
    echo "/etc/edgemesh/$name.yaml" >>"$1/DEBIAN/conffiles"
  done
}

# As they are for hands, but for where the program is.
units() {
  local unit
  mkdir -p "$1/usr/lib/systemd/system"
  for unit in "$here"/systemd/*.service; do
    # Their heads tell how to install them by hand.
    sed -e '/^\[Unit\]/,$!d' -e 's#/usr/local/bin/edgemesh#/usr/bin/edgemesh#g' "$unit" \
      >"$1/usr/lib/systemd/system/$(basename "$unit")"
  done
}

completions() {
  local shell file
  while read -r shell file; do
    mkdir -p "$(dirname "$2/usr/share/$file")"
    # shellcheck disable=SC2086 # a runner may have arguments
    ${RUNNER:-} "$1" completions "$shell" >"$2/usr/share/$file" ||
      die "$1 does not start here" "name what runs programs for $(machine "$1"): RUNNER='qemu-aarch64-static …'"
  done <<SHELLS
bash bash-completion/completions/edgemesh
zsh zsh/vendor-completions/_edgemesh
fish fish/vendor_completions.d/edgemesh.fish
SHELLS
}

documents() {
  local folder="$1/usr/share/doc/edgemesh"
  mkdir -p "$folder"
  install -m 644 "$root_of_project"/docs/*.md "$folder/"
  install -m 644 "$root_of_project/LICENSE" "$folder/copyright"
  gzip -9nc "$root_of_project/CHANGELOG.md" >"$folder/changelog.gz"
}

# control PROGRAM ARCH TREE
control() {
  local glibc script
  # The newest symbol of glibc that the program asks for is the oldest glibc that it runs on.
  glibc=$(readelf -V --wide "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
  sed -e "s/@VERSION@/$(version)/" -e "s/@ARCH@/$2/" -e "s/@GLIBC@/${glibc#GLIBC_}/" \
    -e "s/@SIZE@/$(du -k -s --apparent-size "$3" | cut -f1)/" "$here/debian/control" >"$3/DEBIAN/control"
  for script in postinst prerm postrm; do
    install -m 755 "$here/debian/$script" "$3/DEBIAN/$script"
  done
  (cd "$3" && find etc usr -type f | sort | xargs md5sum) >"$3/DEBIAN/md5sums"
}

case ${1:-}-$# in
  build-2 | build-3) "$@" ;;
  *) die "it takes build and a program" "deploy/debian.sh build target/release/edgemesh" ;;
esac
