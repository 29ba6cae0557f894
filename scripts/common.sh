# shellcheck shell=bash
# What the scripts share. Source it; it changes to the root of the repository.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Finds a Rust that is new enough, if there is one: rustup puts it where a shell that is already
# running does not look, or where an older one of the system hides it.
use_cargo() {
    local bin="${CARGO_HOME:-$HOME/.cargo}/bin"
    if ! rust_is_new && [ -x "$bin/cargo" ]; then
        export PATH="$bin:$PATH"
    fi
    if ! rust_is_new && have rustup; then
        export RUSTUP_TOOLCHAIN=stable
    fi
}

# Whether `rustc` is at least the `rust-version` of Cargo.toml.
rust_is_new() {
    local want got
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    got=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    have cargo && [ -n "$got" ] && [ "$(printf '%s\n%s\n' "$want" "$got" | sort -V | head -n 1)" = "$want" ]
}

# Whether the Rust in use has its standard library for browsers.
wasm_target_is_there() {
    local lib
    lib=$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) || return 1
    first_file "$lib"/libstd-*.rlib >/dev/null
}

# Whether Debian's Rust can compile one: it has the sources, and a linker.
debian_rustc_is_there() {
    [ -x /usr/bin/rustc ] && have wasm-ld \
        && [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

# The first file that exists, of patterns.
first_file() {
    local file
    for file in "$@"; do
        if [ -f "$file" ]; then
            printf '%s\n' "$file"
            return
        fi
    done
    return 1
}

# Manifests of the two software drivers for Vulkan.
lavapipe_icd() {
    first_file /usr/share/vulkan/icd.d/lvp_icd*.json /usr/local/share/vulkan/icd.d/lvp_icd*.json \
        /etc/vulkan/icd.d/lvp_icd*.json
}
swiftshader_icd() {
    first_file "${SWIFTSHADER_ICD:-}" \
        /usr/lib/chromium/vk_swiftshader_icd.json \
        /usr/lib/chromium-browser/vk_swiftshader_icd.json \
        /usr/lib64/chromium*/vk_swiftshader_icd.json \
        /opt/google/chrome*/vk_swiftshader_icd.json \
        /snap/chromium/current/usr/lib/chromium-browser/vk_swiftshader_icd.json \
        "$HOME"/.cache/ms-playwright/chromium*/chrome-*/vk_swiftshader_icd.json \
        "$HOME"/.cache/puppeteer/*/*/*/vk_swiftshader_icd.json \
        /usr/share/vulkan/icd.d/*swiftshader*.json
}

# The folder of what cargo builds, from the root.
target_folder() {
    local target=${CARGO_TARGET_DIR:-target}
    case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
    printf '%s\n' "$target"
}

# Whether Python can make a folder for packages; Debian's needs another package for that.
python_is_there() {
    have python3 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1
}

# web/'s packages of npm, as its lock file has them.
web_packages() {
    if [ ! web/package-lock.json -nt web/node_modules/.package-lock.json ] \
        && [ -f web/node_modules/.package-lock.json ]; then
        return
    fi
    say "installing packages of npm"
    (cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch web/node_modules/.package-lock.json
}

# Some Vulkan drivers complain where there is no session.
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
fi
