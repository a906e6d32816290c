# shellcheck shell=bash disable=SC2034 # what is set here is used there
# Sourced by image.sh, debian.sh and cross.sh: what they share, above all how Debian packages are had
# without being installed. Nobody needs root for it, and the system's own apt is only read.

root_of_project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root_of_project/target}")
# Both lists and names must sort the same way everywhere.
export LC_ALL=C
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# die WHAT [FIX]: ends with an error that says what to do.
die() {
  echo "$(basename "$0"): $1${2:+; $2}" >&2
  exit 1
}

# need PROGRAM...: all of them are there, or one line says how to get them.
need() {
  local program
  for program; do
    command -v "$program" >/dev/null || die "$program is not on the PATH" "run: make deps"
  done
}

# The version of the workspace, the one place where it is written.
version() {
  sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root_of_project/Cargo.toml"
}

# Seconds since 1970 that all files are dated with, so that the same source gives the same bytes.
epoch() {
  echo "${SOURCE_DATE_EPOCH:-$(git -C "$root_of_project" log -1 --format=%ct 2>/dev/null || echo 0)}"
}

# triplet ARCH: what Debian calls the folder of libraries of an architecture.
triplet() {
  case $1 in
    amd64) echo x86_64-linux-gnu ;;
    arm64) echo aarch64-linux-gnu ;;
    *) die "no architecture is called '$1'" "there are amd64 and arm64" ;;
  esac
}

# machine FILE: the architecture, in Debian's words, that a program was built for.
machine() {
  case $(readelf -h "$1" 2>/dev/null | sed -n 's/^ *Machine: *//p') in
    *X86-64) echo amd64 ;;
    AArch64) echo arm64 ;;
    *) die "$1 is no program for amd64 or arm64" "build it: cargo build --release -p edgemesh-daemon" ;;
  esac
}

# native: the architecture of this machine, in Debian's words.
native() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) die "there is no image for $(uname -m)" "there are amd64 and arm64" ;;
  esac
}

# download FOLDER ARCH PACKAGE...: the newest of these packages, from where this machine's apt has its
# own. It is all of them or none: the folder appears when they are there.
download() {
  local folder=$1 arch=$2 apt="$work/apt"
  shift 2
  need apt-get
  mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial "$apt/deb"
  : >"$apt/status"
  local options=(
    -q -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
    -o APT::Architecture="$(native)" -o APT::Architectures::="$(native)" -o APT::Architectures::="$arch"
    -o APT::Sandbox::User= -o Acquire::Languages=none
  )
  if ! (apt-get "${options[@]}" update && cd "$apt/deb" && apt-get "${options[@]}" download "$@") \
    >"$apt/log" 2>&1; then
    cat "$apt/log" >&2
    die "these packages cannot be had: $*" "look at the lines of apt above, and at the network"
  fi
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  mv "$apt/deb" "$folder"
  rm -rf "$apt"
}

# unpack FOLDER WHERE: all packages of a folder, into one tree in which /bin, /sbin and /lib are those
# of /usr, as they are on every Debian since 12.
unpack() {
  local name package
  for name in bin sbin lib lib64; do
    mkdir -p "$2/usr/$name"
    ln -sfn "usr/$name" "$2/$name"
  done
  for package in "$1"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$2"
  done
}
