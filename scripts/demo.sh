#!/usr/bin/env bash
# The whole main job on this machine, each step with what just happened and what it proves.
# Leaves nothing running; its files are in demo/, which it replaces, or in a new folder that HOLDFAST_DEMO_DIR names.
set -euo pipefail
if [ -n "${HOLDFAST_DEMO_DIR:-}" ]; then HOLDFAST_DEMO_DIR=$(realpath -m "$HOLDFAST_DEMO_DIR"); fi
cd "$(dirname "$0")/.."
bin=${HOLDFAST_BIN:-${CARGO_TARGET_DIR:-target}/debug}
dir=${HOLDFAST_DEMO_DIR:-$PWD/demo}
export HOLDFAST_HOME=$dir/cluster/home HOLDFAST_CONTEXT=dev NO_COLOR=1
hf=$bin/holdfast
secret='correct horse battery staple'

if [ "$(id -u)" != 0 ]; then echo "demo: makes containers, so it needs root: make demo asks for it" >&2; exit 1; fi
if [ -n "${HOLDFAST_DEMO_DIR:-}" ] && [ -e "$dir" ]; then echo "demo: $dir exists already: name a new folder" >&2; exit 1; fi
say() { printf '\n== %s\n' "$*"; }
proves() { printf '   -> %s\n' "$*"; }
end() {
  # Containers outlive their agent on purpose: take the service away first, also when a step failed.
  if [ -n "${deployed:-}" ] && [ -z "${removed:-}" ] && "$hf" service rm shop/web >/dev/null 2>&1; then await 0 || true; fi
  if [ -n "${dev:-}" ]; then kill "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; fi
}
trap end EXIT
# Tasks whose node has not said that they are over; nothing if that cannot be known.
alive() {
  local tasks
  tasks=$("$hf" service ps shop/web --all --json 2>/dev/null) || return 0
  grep '"task_state"' <<<"$tasks" | grep -cvE '"(stopped|failed|refused|done)"' || true
}
pause() { read -rt 0.1 <> <(:) || true; }
# Waits a minute at most for so many of them.
await() {
  for _ in $(seq 600); do
    [ "$(alive)" = "$1" ] && return 0
    pause
  done
  return 1
}

rm -rf "$dir"; mkdir -p "$dir"
say "1. A vault, an orchestrator and two agents start as separate processes"
# In a session of its own: Ctrl-C is for this script, which takes the service away while there still are agents.
setsid "$hf" dev --dir "$dir/cluster" --workers 2 >"$dir/dev.log" 2>&1 &
dev=$!
for _ in $(seq 600); do
  [ "$("$hf" node ls --json 2>/dev/null | grep -c '"connected": true' || true)" -ge 2 ] && break
  kill -0 "$dev" 2>/dev/null || { cat "$dir/dev.log" >&2; exit 1; }
  pause
done
"$hf" status
proves "the operator's keys were made here; the cluster's name is the hash of the charter that they signed"
proves "both nodes proved a single-use token, and checked the vault against the token's anchor before they said a word"

say "2. An image without any registry: busybox in an OCI layout"
mkdir -p "$dir/rootfs/bin"
cp "$(command -v busybox)" "$dir/rootfs/bin/busybox"
tar -C "$dir/rootfs" --owner=0 --group=0 --mtime=@0 -cf "$dir/layer.tar" bin
python3 scripts/oci-layout.py "$dir/layer.tar" "$dir/image"
proves "deploying resolves it to a digest; the node runs that digest or nothing"

say "3. A secret"
printf %s "$secret" | "$hf" secret put shop/db-password
"$hf" secret ls
proves "it was sealed to the vault on this terminal; there is no verb that reads it back"

say "4. A service that needs it"
cat >"$dir/web.toml" <<SPEC
name = "web"
namespace = "shop"
image = "oci-layout:$dir/image"
replicas = 1
command = ["/bin/busybox", "sh", "-c", "echo my secret hashes to \$(/bin/busybox sha256sum < /run/secrets/db-password); trap exit TERM; while :; do /bin/busybox sleep 1 & wait; done"]
secrets = [{ name = "db-password", target = "db-password", mode = 0o400 }]
SPEC
deployed=yes
"$hf" service deploy -f "$dir/web.toml"
"$hf" service ps shop/web
proves "the node checked for itself: the vault granted it, the deployer signed it, a publisher vouched for its image"

say "5. The container has the secret, and the log of its output reaches only the operator"
want=$(printf %s "$secret" | sha256sum | cut -d' ' -f1)
for _ in $(seq 100); do "$hf" service logs shop/web | grep -q "$want" && break; pause; done
"$hf" service logs shop/web | grep "$want"
proves "its output is boxed to the operator's key: the orchestrator relays ciphertext"

say "6. The secret is on no disk"
if grep -rqF "$secret" "$dir/cluster" --exclude-dir='agent-*-run' 2>/dev/null; then echo "FOUND on disk" >&2; exit 1; fi
proves "searched every file of the vault, the orchestrator and both agents; it lives in the tasks' tmpfs alone (agent-*-run)"

say "7. More of it"
"$hf" service scale shop/web=3
"$hf" service ps shop/web
proves "each replica has a grant of its own: one node, one task, minutes to start"

say "8. A refused case: the secret's owner takes the service's right to it away, and the orchestrator asks again"
printf %s "$secret" | "$hf" secret put shop/db-password --reader shop/backup
for _ in $(seq 100); do denied=$("$hf" log tail -n 100 | grep grant.denied || true); [ -n "$denied" ] && break; pause; done
printf '%s\n' "$denied" | head -1
[ -n "$denied" ]
await 0
proves "what ran was taken back, its replacement refused by policy L1-mount; both are leaves in the log"
printf %s "$secret" | "$hf" secret put shop/db-password --reader 'shop/*'
await 3
proves "with the right it is granted again, and started"

say "9. The log is whole"
"$hf" log verify
grant=$("$hf" grant ls --json | sed -n 's/.*"id": "\(.*\)",*/\1/p' | head -1)
"$hf" grant verify "$grant"
proves "the tree was recomputed from every entry, and the grant proven to be in it"

say "10. The root of every certificate is replaced under what runs"
before=$("$hf" service ps shop/web --json | grep '"id"' | sort)
"$hf" root rotate
[ "$before" = "$("$hf" service ps shop/web --json | grep '"id"' | sort)" ]
proves "vault, orchestrator and nodes have new certificates, the old root's key is destroyed, and not one task was touched"

say "11. And gone"
"$hf" service rm shop/web
removed=yes
await 0
if grep '^holdfast-secrets ' /proc/mounts | grep -qF "$dir"; then echo "a task's secrets are still mounted" >&2; exit 1; fi
proves "the vault revoked the grants, the nodes stopped the tasks and unmounted their secrets"
say "done: the files are in $dir"
