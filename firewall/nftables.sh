# A table of its own, so that no other one is touched; each load is one transaction.

tool_check() {
    command -v nft > /dev/null || fail "nft is not installed; nothing was changed" "Install it: apt-get install nftables"
}

# comma-separated
joined() {
    printf '%s' "$*" | sed 's/ /, /g'
}

rule_open() {
    if [ "$LIMITED" = no ]; then
        say "        $2 dport $1 accept comment \"hivematrix: $3\""
    fi
    # shellcheck disable=SC2086 # a list of networks
    if [ -n "$SOURCES4" ]; then
        say "        ip saddr { $(joined $SOURCES4) } $2 dport $1 accept comment \"hivematrix: $3\""
    fi
    # shellcheck disable=SC2086
    if [ -n "$SOURCES6" ]; then
        say "        ip6 saddr { $(joined $SOURCES6) } $2 dport $1 accept comment \"hivematrix: $3\""
    fi
}

tool_rules() {
    say "table inet hivematrix"
    say "delete table inet hivematrix"
    say "table inet hivematrix {"
    say "    chain input {"
    say "        type filter hook input priority filter; policy accept;"
    say "        ct state established,related accept"
    say "        iifname \"lo\" accept"
    say "        meta l4proto { icmp, ipv6-icmp } accept"
    say "        udp sport 67 udp dport 68 accept"
    say "        ip6 saddr fe80::/10 udp dport 546 accept"
    # shellcheck disable=SC2086 # a list of ports
    say "        tcp dport { $(joined $SSH) } accept comment \"hivematrix: SSH\""
    each_open rule_open
    say "        counter drop"
    say "    }"
    say "}"
}

tool_prepare() {
    nft list ruleset > "$1/before"
    nft --check --file "$1/rules" || fail "nft does not take the rules; nothing was changed"
}

tool_load() {
    nft --file "$1/rules"
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
    printf 'table inet hivematrix\ndelete table inet hivematrix\n' | nft --file -
}
