# Rules with comments. ufw stores each at once, so a unit that runs before ufw's takes unconfirmed ones away at boot.

tool_check() {
    command -v ufw > /dev/null || fail "ufw is not installed; nothing was changed" "Install it: apt-get install ufw"
}

spec_open() {
    if [ "$LIMITED" = no ]; then
        say "allow $1/$2 hivematrix: $3"
    fi
    for source in $SOURCES4 $SOURCES6; do
        say "allow from $source to any port $1 proto $2 hivematrix: $3"
    done
}

# The rules as ufw takes them, each with its comment behind.
tool_rules() {
    for port in $SSH; do
        say "allow $port/tcp hivematrix: SSH"
    done
    each_open spec_open
}

# The rule in a line of `tool_rules`, as ufw's words.
words_of() {
    printf '%s\n' "${1%% hivematrix:*}"
}

# known RULE: whether ufw has one for the same, whatever it does.
known() {
    ufw show added | sed -n "s/ comment '.*'\$//; s/^ufw \(allow\|limit\|deny\|reject\) //p" | grep -qxF "${1#allow }"
}

policy() {
    sed -n 's/^DEFAULT_INPUT_POLICY="\([A-Z]*\)"$/\1/p' /etc/default/ufw | tr '[:upper:]' '[:lower:]' |
        sed 's/accept/allow/; s/drop/deny/'
}

tool_prepare() {
    for port in $SSH; do
        ! ufw show added | grep -q -e "^ufw deny $port\(/tcp\)\?\( comment .*\)\?$" \
            -e "^ufw reject $port\(/tcp\)\?\( comment .*\)\?$" ||
            fail "ufw has a rule that closes port $port, by which SSH is reached; nothing was changed" "See: ufw show added"
    done
    : > "$1/added"
    ufw show added > "$1/before" 2>&1
    for each in pending confirmed; do
        if [ -e "$STATE/$each/state" ]; then
            cp "$STATE/$each/state" "$1/state"
            cp "$STATE/$each/added" "$1/added"
            return
        fi
    done
    if ufw_active; then
        say "active $(policy)" > "$1/state"
    else
        say "inactive $(policy)" > "$1/state"
    fi
}

# SSH is the first of them.
tool_load() {
    while read -r line; do
        # shellcheck disable=SC2046 # the words of the rule
        set -- "$1" $(words_of "$line")
        place=$1
        shift
        # A rule for the same that is there stays as it is: ufw would replace it.
        if ! known "$*"; then
            say "$*" >> "$place/added"
            ufw "$@" comment "hivematrix:${line##* hivematrix:}" || return 1
        fi
        set -- "$place"
    done < "$1/rules"
    [ "$(policy)" != allow ] || ufw default deny incoming || return 1
    ufw_active || ufw --force enable
}

# Takes away what an earlier script added and this one does not have.
tool_confirm() {
    while read -r line; do
        words_of "$line"
    done < "$1/rules" > "$1/wanted"
    grep -vxFf "$1/wanted" "$1/added" > "$1/stale" || true
    delete_rules "$1/stale"
    grep -xFf "$1/wanted" "$1/added" > "$1/kept" || true
    mv "$1/kept" "$1/added"
}

delete_rules() {
    while read -r line; do
        # shellcheck disable=SC2086 # the words of the rule
        ufw --force delete $line || true
    done < "$1"
}

# While ufw is disabled, it changes its files alone: at boot, rules that it could change are not loaded yet.
edit_files() {
    sed -i "s/^ENABLED=.*/ENABLED=$1/" /etc/ufw/ufw.conf
}

loaded() {
    iptables -nL ufw-user-input > /dev/null 2>&1
}

tool_back() {
    edit_files no
    grep -vxFf "$STATE/confirmed/added" "$STATE/pending/added" > "$STATE/pending/stale" || true
    delete_rules "$STATE/pending/stale"
    edit_files yes
    ! loaded || ufw reload
}

# ufw loads them itself.
tool_boot() {
    :
}

tool_remove() {
    read -r was before < "$1/state"
    if [ "$was" = inactive ]; then
        ufw --force disable
    else
        edit_files no
    fi
    delete_rules "$1/added"
    [ "$(policy)" = "$before" ] || ufw default "$before" incoming
    if [ "$was" = active ]; then
        edit_files yes
        ! loaded || ufw reload
    fi
}
