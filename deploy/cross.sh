#!/usr/bin/env bash
# Builds EdgeMesh for aarch64 on an x86_64 Debian 12, and starts what it built: rustup has no compiler
# for the other architecture here, Debian has. Its packages are unpacked under target/cross; nothing is
# installed, nobody needs root.
#
#   cross.sh build           target/cross/edgemesh, by the release profile
#   cross.sh run PROGRAM …   a program for aarch64, under qemu
#   cross.sh try             version, configuration, and an agent that serves one request
set -euo pipefail
. "$(dirname "$0")/packages.sh"

cross=$target/cross
root=$cross/root
program=$cross/edgemesh
# This Rust is newer than rust-version in Cargo.toml; the other way round it would not compile.
PACKAGES=(
  rustc-web libstd-rust-web-1.96 libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64 libllvm22
  gcc-12-aarch64-linux-gnu cpp-12-aarch64-linux-gnu binutils-aarch64-linux-gnu
  libgcc-12-dev-arm64-cross libgcc-s1-arm64-cross libc6-arm64-cross libc6-dev-arm64-cross
  linux-libc-dev-arm64-cross qemu-user-static
)

# wrapper NAME LINE: a program of the unpacked packages, which finds its libraries there.
wrapper() {
  printf '#!/bin/sh\nexport LD_LIBRARY_PATH="%s"\nexec %s "$@"\n' \
    "$root/usr/lib/x86_64-linux-gnu:$root/usr/lib" "$2" >"$cross/bin/$1"
  chmod +x "$cross/bin/$1"
}

prepare() {
  [ ! -x "$cross/bin/gcc" ] || return 0
  [ "$(native)" = amd64 ] || die "this machine is no x86_64" "build without crossing: make image"
  download "$cross/packages" arm64 "${PACKAGES[@]}"
  rm -rf "$root"
  mkdir -p "$cross/bin"
  unpack "$cross/packages" "$root"
  rm -rf "$cross/packages"
  local libraries="$root/usr/aarch64-linux-gnu"
  wrapper rustc "$root/usr/bin/rustc"
  wrapper ar "$root/usr/bin/aarch64-linux-gnu-ar"
  # The compiler was built for /usr: it must be told where everything is.
  wrapper gcc "$root/usr/bin/aarch64-linux-gnu-gcc-12 --sysroot=$root -isystem $libraries/include \
-B$libraries/lib -L$libraries/lib -B$root/usr/bin/aarch64-linux-gnu-"
}

build() {
  need cargo cc
  prepare
  RUSTC="$cross/bin/rustc" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$cross/bin/gcc" \
    CC_aarch64_unknown_linux_gnu="$cross/bin/gcc" AR_aarch64_unknown_linux_gnu="$cross/bin/ar" \
    cargo build --release --locked -p edgemesh-daemon --manifest-path "$root_of_project/Cargo.toml" \
    --target aarch64-unknown-linux-gnu --target-dir "$cross/build"
  cp "$cross/build/aarch64-unknown-linux-gnu/release/edgemesh" "$program"
}

# run PROGRAM ARGUMENT...
run() {
  prepare
  "$root/usr/bin/qemu-aarch64-static" -L "$root/usr/aarch64-linux-gnu" "$@"
}

try() {
  [ -x "$program" ] || die "there is no $program" "run: deploy/cross.sh build"
  need curl python3
  run "$program" --version
  run "$program" check --config "$root_of_project/deploy/agent.yaml" >/dev/null
  echo "check: deploy/agent.yaml is valid"
  serve_one
}

# An agent without capture, a Service on this machine, and one call of it through the agent.
serve_one() {
  local port=18431 children=() answer=
  mkdir -p "$work/data" "$work/services" "$work/www"
  echo served >"$work/www/index.html"
  cat >"$work/agent.yaml" <<CONFIG
node: cross
dataDir: $work/data
services: $work/services
proxy: { intercept: none, port: $port }
dns: { intercept: off }
admin: { listen: 127.0.0.1:$((port + 1)) }
metrics: { listen: 127.0.0.1:$((port + 2)) }
CONFIG
  python3 -m http.server --bind 127.0.0.1 --directory "$work/www" $((port + 3)) 2>/dev/null >&2 &
  children+=($!)
  run "$program" agent --config "$work/agent.yaml" >"$work/log" 2>&1 &
  children+=($!)
  for _ in $(seq 100); do
    kill -0 "${children[1]}" 2>/dev/null || break
    run "$program" expose hello --to "127.0.0.1:$((port + 3))" --admin "http://127.0.0.1:$((port + 1))" >/dev/null 2>&1 || true
    answer=$(curl -s -m 2 -x "http://127.0.0.1:$port" http://hello.default/ || true)
    [ "$answer" != served ] || break
    sleep 0.3
  done
  kill "${children[@]}" 2>/dev/null || true
  wait || true
  [ "$answer" = served ] || { cat "$work/log" >&2; die "the agent for aarch64 did not serve a call"; }
  echo "agent: served one call"
}

case ${1:-} in
  build | try) [ $# = 1 ] || die "$1 takes nothing more" "see the head of deploy/cross.sh" ;;
  run) [ $# -ge 2 ] || die "run takes a program" "deploy/cross.sh run target/cross/edgemesh --version" ;;
  *) die "it takes build, run or try" "see the head of deploy/cross.sh" ;;
esac
"$@"
