# Read by shells that work with this environment: `. /opt/venv/bin/activate`; `deactivate` undoes it.

# Another environment that is active gives back what it took.
! command -v deactivate >/dev/null 2>&1 || deactivate nondestructive

deactivate() {
    if [ "${_IPYBOX_PATH+set}" ]; then
        PATH=$_IPYBOX_PATH
        export PATH
        unset _IPYBOX_PATH
    fi
    if [ "${_IPYBOX_PYTHONHOME+set}" ]; then
        PYTHONHOME=$_IPYBOX_PYTHONHOME
        export PYTHONHOME
        unset _IPYBOX_PYTHONHOME
    fi
    if [ "${_IPYBOX_PS1+set}" ]; then
        PS1=$_IPYBOX_PS1
        unset _IPYBOX_PS1
    fi
    unset VIRTUAL_ENV VIRTUAL_ENV_PROMPT
    [ "${1-}" = nondestructive ] || unset -f deactivate
    hash -r
}

_IPYBOX_PATH=$PATH
VIRTUAL_ENV=/opt/venv
VIRTUAL_ENV_PROMPT=${VIRTUAL_ENV##*/}
PATH=$VIRTUAL_ENV/bin:$PATH
export VIRTUAL_ENV VIRTUAL_ENV_PROMPT PATH
if [ "${PYTHONHOME+set}" ]; then
    _IPYBOX_PYTHONHOME=$PYTHONHOME
    unset PYTHONHOME
fi
if [ -z "${VIRTUAL_ENV_DISABLE_PROMPT-}" ] && [ "${PS1+set}" ]; then
    _IPYBOX_PS1=$PS1
    PS1="($VIRTUAL_ENV_PROMPT) $PS1"
fi
hash -r
