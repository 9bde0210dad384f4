# What the scripts for all three tools share. The lines before it set KIND, OPEN, CLOSED, LIMITED, SOURCES4, SOURCES6;
# those after it are the tool's own: tool_check, tool_rules, tool_prepare, tool_load, tool_confirm, tool_back, tool_boot
# and tool_remove. The state directory has a directory "pending" while rules wait for confirmation, and "confirmed".
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077

STATE=/var/lib/hivematrix-firewall
UNIT=hivematrix-firewall-rules.service
UNIT_FILE=/etc/systemd/system/$UNIT
REVERT=hivematrix-firewall-revert
GUARD=hivematrix-firewall-guard

say() {
    printf '%s\n' "$*"
}

# fail WHAT [WHAT TO DO]
fail() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2-}" ] || printf '%s\n' "$2" >&2
    exit 1
}

usage() {
    cat << TEXT
usage: sh $0 --dry-run | [--confirm-within SECONDS] | --confirm | --undo

Closes this machine by $KIND to others, except for SSH and a few ports. Without --confirm within so many seconds
(10 to 3600, default 60), or after a reboot, everything is as before.

  --dry-run   show what would be done, and the rules
  --confirm   keep the rules, also after a reboot
  --undo      remove what was made, also after --confirm
TEXT
}

# The sockets of SSH servers that root runs, by inode. Names of processes say nothing: anybody can choose them.
ssh_sockets() {
    find /proc/[0-9]*/exe -maxdepth 0 \( -lname '/usr/sbin/sshd' -o -lname '/usr/sbin/sshd (deleted)' \
        -o -lname '/usr/lib/openssh/sshd-session*' -o -lname '/usr/sbin/dropbear' -o -lname '/usr/sbin/tinysshd' \) 2> /dev/null |
        while read -r program; do
            process=${program%/exe}
            ! grep -q '^Uid:[[:space:]]0[[:space:]]' "$process/status" 2> /dev/null ||
                find "$process/fd" -lname 'socket:*' -printf '%l\n' 2> /dev/null
        done | tr -dc '0-9\n'
}

# The TCP ports by which somebody may be logged in over SSH, or log in: one a line.
ssh_ports() {
    {
        sshd -T 2> /dev/null | sed -n 's/^port //p; s/^listenaddress .*:\([0-9]*\)$/\1/p' || true
        for socket in ssh.socket sshd.socket; do
            if systemctl --quiet is-active "$socket" 2> /dev/null; then
                systemctl show --property=Listen --value "$socket" | sed -n 's/.*:\([0-9]*\) (Stream)$/\1/p'
            fi
        done
        # Where they listen, and where there are sessions, if anything listens there: sudo(8) removes SSH_CONNECTION.
        ssh_sockets | awk '
            FILENAME == "-" { own[$1]; next }
            { port = $2; sub(/.*:/, "", port) }
            $4 == "0A" { listens[port] }
            $10 in own && ($4 == "0A" || $4 == "01") { found[port] }
            END { for (port in found) if (port in listens) print port }' - /proc/net/tcp* |
            while read -r port; do printf '%d\n' "0x$port"; done
        printf '%s\n' "${SSH_CONNECTION-}" | awk 'NF == 4 { print $4 }'
    } | grep -x '[1-9][0-9]\{0,4\}' | sort -nu
}

# What listens for others now and would be closed: protocol, address, program.
closing() {
    ss -Hltunp | awk -v open="$1" '
        BEGIN { count = split(open, words, " "); for (i = 1; i <= count; i++) keep[words[i]] = 1 }
        {
            local = $5
            port = local; sub(/.*:/, "", port)
            address = local; sub(/:[^:]*$/, "", address)
            if (address ~ /^127\./ || address ~ /^\[::1\]/ || address ~ /^\[::ffff:127\./ || address ~ /%lo$/) next
            if ((port "/" $1) in keep || ($1 == "udp" && (port == 68 || port == 546))) next
            program = "?"
            if (match($0, /\(\("[^"]*"/)) program = substr($0, RSTART + 3, RLENGTH - 4)
            line = "    " $1 " " local "  " program
            if (!(line in shown)) print line
            shown[line] = 1
        }' | tr -cd '[:print:]\n'
}

# One rule of OPEN a call: each_open FUNCTION calls it with port, protocol and service.
each_open() {
    [ -z "$OPEN" ] || printf '%s\n' "$OPEN" | while read -r port protocol service; do
        "$1" "$port" "$protocol" "$service"
    done
}

show_open() {
    if [ "$LIMITED" = yes ]; then
        say "  open to $(printf '%s %s' "$SOURCES4" "$SOURCES6" | xargs): $2 $1 ($3)"
    else
        say "  open to all: $2 $1 ($3)"
    fi
}

show_plan() {
    say "The firewall of $(uname -n) by $KIND:"
    for port in $SSH; do
        say "  open to all: tcp $port (SSH)"
    done
    each_open show_open
    say "  open as well: loopback, connections that exist or that this machine makes, ICMP, DHCP"
    say "  closed: everything else"
    if [ -n "$CLOSED" ]; then
        say "Services of the suite that others cannot reach then:"
        printf '%s\n' "$CLOSED" | while read -r port protocol service; do
            say "    $protocol $port ($service)"
        done
    fi
    kept=$(for port in $SSH; do printf '%s/tcp ' "$port"; done; printf '%s\n' "$OPEN" | awk 'NF { printf "%s/%s ", $1, $2 }')
    gone=$(closing "$kept")
    if [ -n "$gone" ]; then
        say "What listens for others now, and could not be reached then:"
        say "$gone"
    fi
}

# Prints what else closes ports here, if anything does.
other_firewall() {
    if systemctl --quiet is-active firewalld.service 2> /dev/null; then
        say "firewalld is active"
    elif [ "$KIND" != ufw ] && ufw_active; then
        say "ufw is active"
    elif other=$(nft_closes) && [ -n "$other" ]; then
        say "nftables has rules that close ports, in $other"
    elif ! ufw_active && iptables_closes; then
        say "iptables has rules that close ports, in its chain INPUT"
    fi
}

ufw_active() {
    command -v ufw > /dev/null && ufw status 2> /dev/null | grep -qx 'Status: active'
}

# The table of nftables, other than Helm's own and those that iptables has, whose chain for incoming packets closes ports.
nft_closes() {
    command -v nft > /dev/null || return 0
    nft list ruleset 2> /dev/null | awk '
        /^table / { table = $2 " " $3; hook = 0 }
        /^\tchain / { hook = 0; of_iptables = $2 == "INPUT" }
        table == "inet hivematrix" || of_iptables { next }
        /hook input/ { hook = 1; if (/policy drop/) found = table }
        hook && !/hook input/ && /[\t ](drop|reject)/ && !/saddr|invalid/ { found = table }
        END { if (found != "") print found }'
}

iptables_closes() {
    for command in iptables ip6tables; do
        command -v "$command" > /dev/null || continue
        "$command" -S INPUT 2> /dev/null | grep -v -e ' -s ' -e 'INVALID' -e '--match-set' |
            grep -q -e '^-P INPUT DROP' -e '-j DROP' -e '-j REJECT' && return 0
    done
    return 1
}

lock() {
    exec 9> /run/hivematrix-firewall.lock
    flock -w 30 9 || fail "another run of this script does not end; nothing was changed" "See: ps -ef | grep firewall"
}

# arm UNIT SECONDS: has systemd undo what is pending after that time.
arm() {
    systemd-run --quiet --collect --unit="$1" --on-active="$2" --timer-property=AccuracySec=1s \
        /bin/sh "$STATE/pending/script" --revert
}

disarm() {
    systemctl stop "$REVERT.timer" "$GUARD.timer" 2> /dev/null || true
}

# What keeps rules beyond a reboot if they were confirmed, and removes them if not.
install_unit() {
    cat > "$UNIT_FILE.new" << TEXT
[Unit]
Description=Firewall of the HiveMatrix suite
DefaultDependencies=no
After=local-fs.target nftables.service netfilter-persistent.service
Before=network-pre.target ufw.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
# What these load replaces all rules.
PartOf=nftables.service netfilter-persistent.service
RequiresMountsFor=$STATE

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for each in pending confirmed; do if [ -e $STATE/\$\$each/script ]; then exec /bin/sh $STATE/\$\$each/script --boot; fi; done'

[Install]
WantedBy=multi-user.target
TEXT
    mv "$UNIT_FILE.new" "$UNIT_FILE"
    systemctl daemon-reload
    systemctl --quiet enable "$UNIT"
}

remove_unit() {
    if [ -e "$UNIT_FILE" ]; then
        systemctl --quiet disable "$UNIT" || true
        rm -f "$UNIT_FILE"
        systemctl daemon-reload || true
    fi
}

# families: which of iptables and ip6tables can be used here.
families() {
    echo iptables
    [ ! -e /proc/net/if_inet6 ] || echo ip6tables
}

# Has the kernel track connections, with nothing closed yet: of a connection that it does not know, packets from the other
# side would be dropped, so one on which only the other side sends would be cut.
track() {
    if [ "$KIND" = nftables ]; then
        say "table inet hivematrix_track { chain input { type filter hook input priority filter; ct state established accept; }; }" |
            nft --file -
    else
        for command in $(families); do
            "$command" --wait 10 -I INPUT -m conntrack --ctstate ESTABLISHED -m comment --comment hivematrix-track -j ACCEPT
        done
    fi
    sleep 2
}

untrack() {
    if [ "$KIND" = nftables ]; then
        printf 'table inet hivematrix_track\ndelete table inet hivematrix_track\n' | nft --file -
    else
        for command in $(families); do
            while "$command" --wait 10 -D INPUT -m conntrack --ctstate ESTABLISHED -m comment --comment hivematrix-track \
                -j ACCEPT 2> /dev/null; do :; done
        done
    fi
}

# Back to what was confirmed, or to nothing.
go_back() {
    untrack
    if [ -e "$STATE/confirmed" ]; then
        tool_back
    else
        tool_remove "$STATE/pending"
        remove_unit
    fi
    rm -rf "$STATE/pending"
    rmdir "$STATE" 2> /dev/null || true
}

apply() {
    other=$(other_firewall)
    [ -z "$other" ] || fail "$other; nothing was changed" \
        "Two firewalls get in each other's way. Use the script for that one, or disable it first."
    for each in pending confirmed; do
        made_by=$(cat "$STATE/$each/kind" 2> /dev/null) || continue
        [ "$made_by" = "$KIND" ] || fail "Helm's firewall is made by $made_by already; nothing was changed" \
            "Remove that first: sh $STATE/$each/script --undo"
    done
    SSH=$(ssh_ports)
    [ -n "$SSH" ] || SSH=22
    if [ "$1" = dry_run ]; then
        show_plan
        say "The rules:"
        tool_rules
        exit 0
    fi
    grep -q '^# HiveMatrix Helm: firewall' "$0" 2> /dev/null || fail "this script must be run from a file; nothing was changed"
    [ -d /run/systemd/system ] || fail "systemd does not run here, and would have to undo the rules; nothing was changed"
    lock
    show_plan
    disarm
    rm -rf "$STATE/new"
    mkdir -p "$STATE/new"
    cp "$0" "$STATE/new/script"
    say "$KIND" > "$STATE/new/kind"
    tool_rules > "$STATE/new/rules"
    tool_prepare "$STATE/new"
    # Of an earlier run that was not confirmed: what there was before it counts.
    rm -rf "$STATE/pending"
    mv "$STATE/new" "$STATE/pending"
    install_unit
    # In case that this ends halfway. The time to confirm begins when the rules are there.
    arm "$GUARD" $((SECONDS_LEFT + 60))
    track
    if ! tool_load "$STATE/pending"; then
        disarm
        go_back
        fail "the rules could not be loaded; everything is as before"
    fi
    untrack
    arm "$REVERT" "$SECONDS_LEFT"
    systemctl stop "$GUARD.timer"
    say "The rules are active. Unless they are confirmed within $SECONDS_LEFT s, everything will be as before."
    say "Log in again over SSH to see that it works, then run: $CONFIRM"
}

confirm() {
    lock
    [ -e "$STATE/pending" ] || fail "nothing waits to be confirmed: it was undone when its time was over, or confirmed before"
    disarm
    tool_confirm "$STATE/pending"
    rm -rf "$STATE/old"
    [ ! -e "$STATE/confirmed" ] || mv "$STATE/confirmed" "$STATE/old"
    mv "$STATE/pending" "$STATE/confirmed"
    rm -rf "$STATE/old"
    # Once this has ended: what replaces all rules starts it again then.
    systemctl --no-block restart "$UNIT" || true
    say "Confirmed: the rules stay, also after a reboot."
}

revert() {
    lock
    [ -e "$STATE/pending" ] || exit 0
    go_back
    say "The rules were not confirmed in time; everything is as before."
}

boot() {
    lock
    if [ -e "$STATE/pending" ]; then
        go_back
        say "The rules were not confirmed before the reboot; everything is as before."
    else
        tool_boot
    fi
}

undo() {
    lock
    disarm
    if [ -e "$STATE/pending" ]; then
        go_back
    fi
    if [ -e "$STATE/confirmed" ]; then
        tool_remove "$STATE/confirmed"
    fi
    remove_unit
    systemctl --no-block stop "$UNIT" 2> /dev/null || true
    rm -rf "$STATE"
    say "Removed: the firewall is as it was before Helm's rules."
}

main() {
    action=apply
    SECONDS_LEFT=60
    CONFIRM=${HIVEMATRIX_CONFIRM_COMMAND:-"sh $0 --confirm"}
    while [ $# -gt 0 ]; do
        case $1 in
        --dry-run) action=dry_run ;;
        --confirm-within)
            [ $# -gt 1 ] || fail "--confirm-within: how many seconds is missing"
            shift
            SECONDS_LEFT=$1
            ;;
        --confirm | --undo | --revert | --boot) action=${1#--} ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 2
            ;;
        esac
        shift
    done
    case $SECONDS_LEFT in
    [1-9][0-9] | [1-9][0-9][0-9] | [1-3][0-9][0-9][0-9]) [ "$SECONDS_LEFT" -le 3600 ] ;;
    *) false ;;
    esac || fail "--confirm-within: must be 10 to 3600 seconds"
    [ "$(id -u)" = 0 ] || fail "only root can change the firewall; nothing was changed" "Run it by sudo: sudo sh $0"
    # The script that made the rules also removes them: another one may be for another tool.
    case $action in
    confirm) saved=$STATE/pending/script ;;
    undo)
        saved=$STATE/pending/script
        [ -e "$saved" ] || saved=$STATE/confirmed/script
        ;;
    *) saved= ;;
    esac
    if [ -n "$saved" ] && [ "$0" != "$saved" ]; then
        [ -e "$saved" ] || [ "$action" != undo ] || { say "There is nothing to undo."; exit 0; }
        [ ! -e "$saved" ] || exec /bin/sh "$saved" "--$action"
    fi
    tool_check
    case $action in
    apply | dry_run) apply "$action" ;;
    *) "$action" ;;
    esac
}
