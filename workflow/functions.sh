# What the commands of the rules use.

# Begin the log of a job with where it runs. If a job dies with an empty log, Snakemake does not show
# Slurm's own either, which says why.
log_to() {
    echo "$(date -Iseconds) on ${SLURMD_NODENAME:-$HOSTNAME}${SLURM_JOB_ID:+, Slurm job $SLURM_JOB_ID}" >> "$1"
    trap : TERM # A program that is asked to end saves what it has. This shell ends after it.
}

# Where there is a fork server (scripts/lib/forks), it starts the trainings and evaluations.
python() {
    case ${SLURM_CLASSIFIERS_FORKS:+$1} in
    scripts/train.py | scripts/evaluate.py)
        set -- "$SLURM_CLASSIFIERS_FORKS/$(basename "$1" .py).socket" "$@"
        command python -IS scripts/lib/forks/client.py "$@"
        ;;
    *) command python "$@" ;;
    esac
}
