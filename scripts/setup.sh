#!/usr/bin/env bash
# Installs what the build, the demo and the tests need and this machine does not have. Run again, it does nothing.
# `setup.sh demo` installs what the build and the demo need, and nothing for the tests; `setup.sh bench` what the
# measurements stand beside.
#
# Debian or Ubuntu with Rust installed. Without the right to install, or elsewhere, it names what is missing and fails.
set -euo pipefail

# What is looked for, and the package that brings it.
commands=(
  "cc gcc"
  "pkg-config pkg-config"
  "python3 python3"
)
for_tests=(
  "runc runc"
  "certtool gnutls-bin"
  "gnutls-cli gnutls-bin"
  "skopeo skopeo"
  "docker-registry docker-registry"
  "openssl openssl"
  "strace strace"
  "faketime faketime"
  "zsh zsh"
  "fish fish"
  "tcpdump tcpdump"
  "ip iproute2"
  "nft nftables"
  "nsenter util-linux"
  "pip3 python3-pip"
  "softhsm2-util softhsm2"
  "certutil libnss3-tools"
)
for_benches=(
  "etcd etcd-server"
  "softhsm2-util softhsm2"
)
readonly pkilint="pkilint==0.13.3" nextest="cargo-nextest@0.9.143" deny="cargo-deny@0.20.2"

# Daemons and administrators' tools are not in everybody's PATH.
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.local/bin:${CARGO_HOME:-$HOME/.cargo}/bin"

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

missing_packages() {
  local entry
  for entry in "${commands[@]}"; do
    command -v "${entry%% *}" >/dev/null || printf '%s\n' "${entry#* }"
  done
  # It is the whole of an image: linked to a library that is not in there, it could not start.
  case "$(LC_ALL=C ldd "$(command -v busybox || echo /none)" 2>&1 || true)" in
    *"not a dynamic executable"* | *"statically linked"*) ;;
    *) printf 'busybox-static\n' ;;
  esac
  # The embedded container runtime loads its filters through this library.
  pkg-config --exists libseccomp 2>/dev/null || printf 'libseccomp-dev\n'
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages | sort -u)
  [ "${#packages[@]}" -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
    say "please install: ${packages[*]}"
    return 1
  fi
  say "installing ${packages[*]}"
  as_root apt-get -qq update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${packages[@]}" >/dev/null
  # Its package starts a registry; the tests start their own and leave none behind.
  if [[ " ${packages[*]} " == *" docker-registry "* && -d /run/systemd/system ]]; then
    as_root systemctl --quiet disable --now docker-registry
  fi
  # The same with the peer that measurements stand beside.
  if [[ " ${packages[*]} " == *" etcd-server "* && -d /run/systemd/system ]]; then
    as_root systemctl --quiet disable --now etcd
  fi
}

install_linter() {
  command -v lint_pkix_cert >/dev/null && return 0
  say "installing pkilint"
  # Debian marks its Python as its own; a user's directory does not touch it.
  pip3 install --quiet --user "$pkilint" 2>/dev/null || pip3 install --quiet --user --break-system-packages "$pkilint"
}

install_nextest() {
  cargo nextest --version >/dev/null 2>&1 && return 0
  say "installing cargo-nextest (built once, some minutes)"
  cargo install --quiet --locked "$nextest"
}

install_deny() {
  cargo deny --version >/dev/null 2>&1 && return 0
  say "installing cargo-deny (built once, a minute or two)"
  # Not optimised: it works for seconds, and is built in a fraction of the time.
  cargo install --quiet --locked --debug "$deny"
}

what=${1:-all}
case $what in
  all) commands+=("${for_tests[@]}") ;;
  demo) ;;
  bench) commands+=("${for_benches[@]}") ;;
  *) say "what is $what? give nothing, or: demo, bench"; exit 2 ;;
esac
if ! command -v cargo >/dev/null; then
  say "please install Rust: https://rustup.rs"
  if [ -n "${SUDO_USER:-}" ]; then
    say "if $SUDO_USER has it: run the demo without sudo, it asks for root where it needs it, and the tests with"
    say "  sudo env \"PATH=\$PATH\" \"HOME=\$HOME\" make test"
  fi
  exit 1
fi
install_packages
[ "$what" = all ] || exit 0
install_linter
install_nextest
install_deny
