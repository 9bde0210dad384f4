# Put into each maintainer script: how root speaks to the user managers of accounts.

# The uids whose user manager runs; none in a chroot or before the machine was booted with systemd.
running_managers() {
    [ -d /run/systemd/system ] && [ -z "${DPKG_ROOT:-}" ] || return 0
    for socket in /run/user/*/systemd/private; do
        [ -S "$socket" ] || continue
        uid=${socket#/run/user/}
        echo "${uid%%/*}"
    done
}

# as_account UID COMMAND...: as that account, with nothing of root's environment. Not machinectl, which needs machined.
as_account() {
    account=$(getent passwd "$1") || return 1
    shift
    uid=$(echo "$account" | cut -d: -f3)
    home=$(echo "$account" | cut -d: -f6)
    runuser -u "$(echo "$account" | cut -d: -f1)" -- env -i \
        HOME="$home" PATH=/usr/bin:/bin LC_ALL=C.UTF-8 XDG_RUNTIME_DIR="/run/user/$uid" "$@"
}

# manager UID SECONDS COMMAND...: systemctl --user for that account. A manager that hangs costs SECONDS, no more.
manager() {
    manager_uid=$1 seconds=$2
    shift 2
    as_account "$manager_uid" timeout "$seconds" systemctl --user "$@"
}

# The uids that may own a suite: whoever has a user manager now or at boot.
possible_owners() {
    {
        running_managers
        for mark in "${DPKG_ROOT:-}"/var/lib/systemd/linger/*; do
            [ ! -f "$mark" ] || getent passwd "${mark##*/}" | cut -d: -f3
        done
    } | sort -nu
}
