#!/bin/sh
# Runs a command in the Debian of `cargo xtask emulated-npu`, within a mount namespace: ROOT FOLDER.. -- COMMAND ARGUMENT..
# The folders are the same inside as outside.
set -e
root=$1
shift
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
  shift
done
shift
for folder in proc dev sys; do mount --rbind "/$folder" "$root/$folder"; done
# Debian's links `cc` and `c++` are made when packages are installed, which these are not.
exec chroot "$root" env --chdir="$PWD" --unset=TMPDIR CC=gcc CXX=g++ CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc "$@"
