# Read by login shells, which set PATH anew: the image's own comes first again, and what else there is behind it.
if [ -r /opt/ipybox/path ]; then
    PATH=$(
        read -r own </opt/ipybox/path
        IFS=:
        set -f
        for folder in $PATH; do
            case ":$own:" in *":$folder:"*) ;; *) own=$own:$folder ;; esac
        done
        printf '%s' "$own"
    )
    VIRTUAL_ENV=/opt/venv
    export PATH VIRTUAL_ENV
fi
