# Tell whether the servers of this container answer; one that runs something else is healthy.
#
#     sh health.sh [VARIABLE=]PORT...
#
# The supervisor answers who reads its pipe, which costs next to nothing: `ok`, or what is wrong. Who reads at the
# same time as another may get a part of an answer, and reads again. Where there is no pipe, or never a whole answer,
# the servers are asked anew.
read -r command </proc/1/cmdline
case $command in *ipybox.supervisor*) ;; *) exit 0 ;; esac
for pipe in /opt/ipybox/run/health /tmp/.ipybox-health; do
    [ -p $pipe ] || continue
    [ -r $pipe ] || continue
    for _ in 1 2 3; do
        read -r said <$pipe || continue
        case $said in
        ok) exit 0 ;;
        "port "*) echo "$said" && exit 1 ;;
        esac
    done
done
exec /opt/ipybox/server/bin/python -I -m ipybox.health "$@"
