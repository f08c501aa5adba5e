# What the commands of the rules use.

# Begin the log of a job with where it runs. If a job dies with an empty log, Snakemake does not show
# Slurm's own either, which says why.
log_to() {
    echo "$(date -Iseconds) on ${SLURMD_NODENAME:-$HOSTNAME}${SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}" >> "$1"
    trap : TERM # A program that is asked to end saves what it has. This shell ends after it.
}

# The scripts are those of the code that was there when Snakemake started. Where there is a fork server
# (scripts/lib/forks), it starts the trainings and evaluations.
python() {
    case ${1-} in
    scripts/*) set -- "$SLURM_CLASSIFIERS_CODE/$1" "${@:2}" ;;
    esac
    case ${SLURM_CLASSIFIERS_FORKS:+${1-}} in
    */scripts/train.py | */scripts/evaluate.py)
        set -- "$SLURM_CLASSIFIERS_FORKS/$(basename "$1" .py).socket" "$@"
        set -- -IS "$SLURM_CLASSIFIERS_CODE/scripts/lib/forks/client.py" "$@"
        ;;
    esac
    command python "$@"
}
