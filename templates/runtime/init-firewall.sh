#!/bin/sh
# Restrict what this container can reach, and be reached at.
#
#   init-firewall.sh [ENTRY...] [--executor-port PORT] [--resource-port PORT]
#
# Run as root inside the container. An entry is a domain, an IP address or a network (CIDR). Allowed are:
# loopback, the name servers of /etc/resolv.conf, the addresses that the entries have now, and requests
# to the two ports. The rest is refused at once. Run again, it replaces the list as a whole.
set -eu
# The image puts a folder first that its user may write to.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die() {
    echo "init-firewall: $1" >&2
    exit 1
}

# The user of the container's processes could undo the rules.
while read -r key uid _; do
    [ "$key" != Uid: ] || break
done </proc/1/status
[ "$uid" != 0 ] || die "container runs as root; a firewall needs an image with an unprivileged user"
[ "$(id -u)" = 0 ] || die "must be run as root"

is_number() { # VALUE MAXIMUM
    case $1 in '' | *[!0-9]* | ??????*) return 1 ;; esac
    [ "$1" -le "$2" ]
}

is_ipv4() {
    case $1 in *[!0-9.]* | *.*.*.*.* | .* | *. | *..*) return 1 ;; *.*.*.*) ;; *) return 1 ;; esac
    rest=$1.
    while [ -n "$rest" ]; do
        is_number "${rest%%.*}" 255 || return 1
        rest=${rest#*.}
    done
}

is_ipv6() { # the characters; ip6tables knows the rest
    case $1 in *[!0-9a-fA-F:.]* | *:::*) return 1 ;; *:*:*) ;; *) return 1 ;; esac
}

is_domain() {
    case $1 in *[!a-zA-Z0-9._-]* | -* | .* | *..* | *.-* | *-.*) return 1 ;; esac
    last=${1%.}
    case ${last##*.} in *[a-zA-Z]*) [ ${#1} -le 253 ] ;; *) return 1 ;; esac
}

add() { # ADDRESS-OR-NETWORK
    address=${1%/*}
    bits=${1#"$address"}
    bits=${bits#/}
    case $1 in */) return 1 ;; esac
    if is_ipv4 "$address" && is_number "${bits:-32}" 32; then
        allowed4="$allowed4 $1"
    elif is_ipv6 "$address" && is_number "${bits:-128}" 128; then
        allowed6="$allowed6 $1"
    else
        return 1
    fi
}

allowed4='' allowed6='' domains='' executor_port=8888 resource_port=8900
while [ $# -gt 0 ]; do
    case $1 in
    --executor-port | --resource-port)
        if [ $# -lt 2 ] || ! is_number "$2" 65535 || [ "$2" -eq 0 ]; then
            die "$1 needs a port"
        fi
        case $1 in --executor-port) executor_port=$2 ;; *) resource_port=$2 ;; esac
        shift
        ;;
    -*) die "unknown option: $1" ;;
    *)
        if is_domain "$1"; then
            domains="$domains $1"
        elif ! add "$1"; then
            die "not a domain, IP address or network: $1"
        fi
        ;;
    esac
    shift
done

# The lists hold checked words only, separated by spaces.
for domain in $domains; do
    addresses=$(getent ahosts "$domain" | while read -r address _; do echo "$address"; done | sort -u) || :
    [ -n "$addresses" ] || echo "init-firewall: warning: cannot resolve $domain, skipped" >&2
    for address in $addresses; do
        add "$address" || echo "init-firewall: warning: $domain has the address $address, skipped" >&2
    done
done

name_servers4='' name_servers6=''
while read -r key address _ || [ -n "${key:-}" ]; do
    [ "$key" = nameserver ] || continue
    if is_ipv4 "$address"; then
        name_servers4="$name_servers4 $address"
    elif is_ipv6 "$address"; then
        name_servers6="$name_servers6 $address"
    fi
done </etc/resolv.conf

working() { # the first of two tables programs that can be used here
    for program in "$@"; do
        if command -v "$program" >/dev/null && "$program" -w -S OUTPUT >/dev/null 2>&1; then
            echo "$program"
            return
        fi
    done
    return 1
}

rules() { # NO-ROUTE NAME-SERVERS ALLOWED EXTRA-PROTOCOL
    echo "*filter"
    echo ":IPYBOX-IN - [0:0]"
    echo ":IPYBOX-OUT - [0:0]"
    echo "-A IPYBOX-IN -i lo -j ACCEPT"
    echo "-A IPYBOX-OUT -o lo -j ACCEPT"
    if [ -n "$4" ]; then # without neighbours there is no IPv6
        for type in router-solicitation router-advertisement neighbour-solicitation neighbour-advertisement; do
            echo "-A IPYBOX-IN -p $4 --icmpv6-type $type -j ACCEPT"
            echo "-A IPYBOX-OUT -p $4 --icmpv6-type $type -j ACCEPT"
        done
    fi
    for port in "$executor_port" "$resource_port"; do
        # Answers only: a connection that existed before, but none that begins here.
        echo "-A IPYBOX-IN -p tcp --dport $port -j ACCEPT"
        echo "-A IPYBOX-OUT -p tcp --sport $port ! --syn -j ACCEPT"
    done
    for address in $2; do
        echo "-A IPYBOX-OUT -p udp -d $address --dport 53 -j ACCEPT"
        echo "-A IPYBOX-OUT -p tcp -d $address --dport 53 -j ACCEPT"
    done
    for address in $3; do
        echo "-A IPYBOX-OUT -d $address -j ACCEPT"
    done
    echo "-A IPYBOX-IN -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    echo "-A IPYBOX-IN -j DROP"
    echo "-A IPYBOX-OUT -j REJECT --reject-with $1"
    echo "COMMIT"
}

apply() { # PROGRAM NO-ROUTE NAME-SERVERS ALLOWED EXTRA-PROTOCOL
    program=$1
    shift
    # One transaction: the new rules are in force as a whole or not at all.
    rules "$@" | "$program-restore" -w --noflush || die "$program refuses the rules; nothing has changed"
    for pair in "INPUT IPYBOX-IN" "OUTPUT IPYBOX-OUT"; do
        "$program" -w -C "${pair% *}" -j "${pair#* }" 2>/dev/null ||
            "$program" -w -I "${pair% *}" 1 -j "${pair#* }"
    done
}

has_ipv6() { # an interface other than loopback with an IPv6 address
    [ -r /proc/net/if_inet6 ] || return 1
    while read -r _ _ _ _ _ device; do
        [ "$device" = lo ] || return 0
    done </proc/net/if_inet6
    return 1
}

if ! command -v iptables >/dev/null; then
    die "iptables is not installed in this image"
fi
if ! tables4=$(working iptables iptables-legacy); then
    die "iptables cannot be used; the container needs the capabilities NET_ADMIN and NET_RAW"
fi
if tables6=$(working ip6tables ip6tables-legacy); then
    apply "$tables6" icmp6-no-route "$name_servers6" "$allowed6" ipv6-icmp
elif has_ipv6; then
    die "ip6tables cannot be used, but the container has an IPv6 address"
fi
apply "$tables4" icmp-net-unreachable "$name_servers4" "$allowed4" ''
allowed="$allowed4$allowed6"
echo "init-firewall: reachable:${allowed:- nothing but name servers}"
