# Chains of its own, to which INPUT jumps at its end: rules that are there come first. Each load is one transaction for IPv4
# and one for IPv6.

tool_check() {
    command -v iptables-restore > /dev/null || fail "iptables is not installed; nothing was changed" \
        "Install it: apt-get install iptables"
}

rule_open() {
    comment="-m comment --comment \"hivematrix: $3\""
    if [ "$LIMITED" = no ]; then
        say "-A HIVEMATRIX -p $2 --dport $1 $comment -j ACCEPT"
    fi
    for source in $NETWORKS; do
        say "-A HIVEMATRIX -s $source -p $2 --dport $1 $comment -j ACCEPT"
    done
}

# rules_of COMMAND: for its -restore.
rules_of() {
    say "*filter"
    say ":HIVEMATRIX - [0:0]"
    say "-A HIVEMATRIX -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    say "-A HIVEMATRIX -i lo -j ACCEPT"
    if [ "$1" = iptables ]; then
        NETWORKS=$SOURCES4
        say "-A HIVEMATRIX -p icmp -j ACCEPT"
        say "-A HIVEMATRIX -p udp --sport 67 --dport 68 -j ACCEPT"
    else
        NETWORKS=$SOURCES6
        say "-A HIVEMATRIX -p ipv6-icmp -j ACCEPT"
        say "-A HIVEMATRIX -s fe80::/10 -p udp --dport 546 -j ACCEPT"
    fi
    for port in $SSH; do
        say "-A HIVEMATRIX -p tcp --dport $port -m comment --comment \"hivematrix: SSH\" -j ACCEPT"
    done
    each_open rule_open
    say "-A HIVEMATRIX -j DROP"
    say "COMMIT"
}

tool_rules() {
    for command in iptables ip6tables; do
        say "# $command"
        rules_of "$command"
    done
}

tool_prepare() {
    for command in $(families); do
        "$command-save" > "$1/before.$command"
        rules_of "$command" > "$1/rules.$command"
        "$command-restore" --wait 10 --noflush --test < "$1/rules.$command" ||
            fail "$command does not take the rules; nothing was changed"
    done
}

tool_load() {
    for command in $(families); do
        {
            grep -v '^COMMIT$' "$1/rules.$command"
            "$command" --wait 10 -C INPUT -j HIVEMATRIX 2> /dev/null || say "-A INPUT -j HIVEMATRIX"
            say "COMMIT"
        } | "$command-restore" --wait 10 --noflush || return 1
    done
}

tool_confirm() {
    :
}

tool_back() {
    tool_load "$STATE/confirmed"
}

tool_boot() {
    tool_load "$STATE/confirmed"
}

tool_remove() {
    for command in $(families); do
        "$command" --wait 10 -S HIVEMATRIX > /dev/null 2>&1 || continue
        {
            say "*filter"
            ! "$command" --wait 10 -C INPUT -j HIVEMATRIX 2> /dev/null || say "-D INPUT -j HIVEMATRIX"
            say "-F HIVEMATRIX"
            say "-X HIVEMATRIX"
            say "COMMIT"
        } | "$command-restore" --wait 10 --noflush
    done
}
